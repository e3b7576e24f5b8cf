"""Reading IDX files, the format of MNIST and Fashion-MNIST: a magic number, the axes' lengths, then bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from run.errors import DataError


class Readable(Protocol):
    """A binary file, zipped or plain."""

    def read(self, size: int, /) -> bytes: ...


_MOST = 2**30  # bytes of content; a header that claims more is not believed


def read_idx(path: Path, *, axes: int) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not, by its first bytes.

    Args:
        axes: how many axes the array must have: 1 for labels, 3 for pictures.

    Returns:
        uint8 array.

    Raises:
        DataError: missing, not IDX, of another type or number of axes, cut off, longer than its header claims, or damaged.
    """
    fix = "copy or download the file again"
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _read(path, raw, axes)
            with gzip.open(raw) as unzipped:
                return _read(path, unzipped, axes)
    except FileNotFoundError:
        raise DataError(path, fix="no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, fix=f"damaged or cut off ({error}); {fix}") from None
    except OSError as error:
        raise DataError(path, fix=f"not readable: {error.strerror or error}") from None


def _read(path: Path, file: Readable, axes: int) -> np.ndarray:
    fix = "copy or download the file again"
    header = file.read(4 + 4 * axes)
    magic = bytes([0, 0, 8, axes])  # 8: unsigned bytes
    if header[:4] != magic:
        problem = f"not the magic number {magic.hex()} of such an IDX file; {fix}"
        raise DataError(path, value=header[:4].hex(), fix=problem)
    if len(header) < 4 + 4 * axes:
        raise DataError(path, fix=f"cut off within its header; {fix}")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = 1
    for length in shape:  # Python integers: a product of lengths near 2^32 must not wrap around
        size *= length
    if size > _MOST:
        raise DataError(path, value=shape, fix=f"its header claims {size:,} bytes of content; {fix}")
    content = file.read(size)
    if len(content) < size:
        raise DataError(path, fix=f"cut off: {len(content):,} bytes of content, but its header claims {size:,}; {fix}")
    if file.read(1):
        raise DataError(path, fix=f"longer than the {size:,} bytes of content that its header claims; {fix}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
