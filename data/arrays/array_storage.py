"""Where a shop's arrays stand: in memory, or in NumPy files that are written front to back and then mapped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Keep(Protocol):
    """Makes one array of its parts, which come one after the other."""

    def __call__(self, name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray: ...


def in_memory(name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    """All parts end to end; one part alone is not copied."""
    arrays = [np.asarray(part, dtype=dtype) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, dtype), *arrays])


class OnDisk:
    """Arrays kept as `<name>.npy` under a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
        with NpyWriter(self.folder / f"{name}.npy", dtype) as file:
            for part in parts:
                file.append(part)
        return mapped(self.folder / f"{name}.npy")


class NpyWriter:
    """A one-dimensional NumPy file that grows at its end; nothing of it stays in memory."""

    def __init__(self, path: Path, dtype: type[np.generic]):
        self.dtype, self.count = np.dtype(dtype), 0
        self.file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._header()
        self.begin = self.file.tell()

    def _header(self) -> None:
        """The header leaves room for any count, so that the last one fits over the first."""
        header: dict[str, Any] = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, part: np.ndarray) -> None:
        np.ascontiguousarray(part, dtype=self.dtype).tofile(self.file)
        self.count += len(part)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self.begin
        self.file.close()


def mapped(path: Path) -> np.ndarray:
    """A NumPy file as a read-only array that the system reads in when it is looked at."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(array)  # a plain view: np.memmap looks up its file at every slice


def room(count: int, dtype: type[np.generic], folder: Path | None) -> np.ndarray:
    """An array to be filled; with a folder, in a nameless file there that goes when the array does."""
    if folder is None or count == 0:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.asarray(np.memmap(file, dtype=dtype, mode="w+", shape=(count,)))
