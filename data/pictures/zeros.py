"""Arrays on disk that can be written to without a bus error when the disk is full."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from run.files import allocate


def zeros_on_disk(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """A NumPy file of zeros whose blocks exist, mapped for writing; an array without elements is not mapped.

    Raises:
        OSError: the disk has no room; the file is removed.
    """
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    allocate(path, len(header.getvalue()) + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    with open(path, "r+b") as file:
        file.write(header.getvalue())
    return np.lib.format.open_memmap(path, mode="r+") if 0 not in shape else np.zeros(shape, dtype)
