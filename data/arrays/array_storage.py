"""Where a shop's arrays are kept: in memory, or in NumPy files that are written front to back and then mapped.

A file's blocks are allocated before it is mapped for writing: a full disk then ends in an error that names the file, not in a bus error.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from run.files import allocate, naming


class Store(Protocol):
    """Joins the parts of one array, which arrive one after the other."""

    def __call__(self, name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray: ...


def in_memory(name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    """All parts end to end; a single part is not copied."""
    arrays = [np.asarray(part, dtype=dtype) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, dtype), *arrays])


class OnDisk:
    """Arrays stored as `<name>.npy` in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, parts: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
        with NpyWriter(self.folder / f"{name}.npy", dtype) as file:
            for part in parts:
                file.append(part)
        return mapped(self.folder / f"{name}.npy")


class NpyWriter:
    """A one-dimensional NumPy file that grows at its end; nothing of it stays in memory.

    Raises:
        OSError: with the file's name; a file whose block failed is removed.
    """

    def __init__(self, path: Path, dtype: type[np.generic]):
        self.path, self.dtype, self.count = path, np.dtype(dtype), 0
        self.file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self.begin = self._write_header()

    def _write_header(self) -> int:
        """Returns where the data begin; numpy leaves room for any count, so the last header fits over the first."""
        with naming(self.path):
            self.file.write(_header(self.dtype, (self.count,)))
            return self.file.tell()

    def append(self, part: np.ndarray) -> None:
        append_to(self.file, self.path, np.asarray(part, dtype=self.dtype))
        self.count += len(part)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with naming(self.path), self.file:
                if kind is None:
                    self.file.seek(0)
                    assert self._write_header() == self.begin
        except OSError:  # the last buffered bytes may be those that do not fit
            kind = OSError
            raise
        finally:
            if kind is not None:
                self.path.unlink(missing_ok=True)


def append_to(file: Any, path: Path, array: np.ndarray) -> None:
    """Write an array's bytes to an open file; unlike `ndarray.tofile`, an error has its number, and here the file's name too."""
    with naming(path):
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def mapped(path: Path) -> np.ndarray:
    """A NumPy file as a read-only array, read from disk where it is accessed."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(array)  # a plain view: np.memmap looks up its file at every slice


def blank_npy(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """A new NumPy file of zeros whose blocks exist, mapped for writing; call `flush` when done. Without elements it is not mapped.

    Raises:
        OSError: the disk has no room for it.
    """
    header = _header(np.dtype(dtype), shape)
    allocate(path, len(header) + math.prod(shape) * np.dtype(dtype).itemsize)
    with naming(path), open(path, "r+b") as file:
        file.write(header)
    return np.load(path, mmap_mode="r+", allow_pickle=False) if math.prod(shape) else np.zeros(shape, dtype)


def flush(array: np.ndarray) -> None:
    """Bring what was written to a mapped array to the disk; of any other array there is nothing to bring."""
    if isinstance(array, np.memmap):
        array.flush()


def scratch(count: int, dtype: type[np.generic], folder: Path | None) -> np.ndarray:
    """An array to be filled; with a folder, in a nameless file there that is deleted with the array.

    Raises:
        OSError: the disk has no room for it; names the folder.
    """
    if folder is None or count == 0:
        return np.empty(count, dtype)
    with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, count * np.dtype(dtype).itemsize)
        return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=(count,)))


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    fields: dict[str, Any] = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()
