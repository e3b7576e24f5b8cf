"""The number of a value, from two sorted arrays on disk: nothing is loaded, and a lookup is a binary search.

Values are compared by their 64-bit hashes. Those of known values differ, which is checked when the arrays are made; an unknown value
is mistaken for a known one with a probability of V / 2^64.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ctr.inputs.id_hash import hash64
from data.arrays import array_storage
from run.errors import UserError
from run.files import replacing

_KEY = "lookup"


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """V values."""

    hashes: np.ndarray  # (V,) uint64, ascending
    numbers: np.ndarray  # (V,) int32: the number of each
    null: int  # the number of null; -1 if it has none

    def __call__(self, values: pl.Series) -> np.ndarray:
        """(n,) int64 numbers; -1 for unknown values."""
        out = np.full(len(values), self.null if len(values) else 0, dtype=np.int64)
        given = values.is_not_null().to_numpy()
        if given.any():
            out[given] = self._found(hash64(values.drop_nulls(), _KEY))
        return out

    def _found(self, hashes: np.ndarray) -> np.ndarray:
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, self.numbers[place], -1)


def write_lookup(path: Path, values: pl.Series, *, first: int) -> None:
    """Write the lookup of distinct values, numbered from `first` on, as the arrays path.hashes.npy and path.numbers.npy.

    Raises:
        UserError: two values have the same hash.
    """
    numbers = np.arange(first, first + len(values), dtype=np.int32)
    given = values.is_not_null().to_numpy()
    null = int(numbers[~given][0]) if not given.all() else -1
    hashes = hash64(values.drop_nulls(), _KEY)
    ranking = np.argsort(hashes, kind="stable")
    if (np.diff(hashes[ranking]) == 0).any():
        raise UserError(f"{path.name}: two values have the same 64-bit hash; rename one of them")
    save_array(path.with_name(f"{path.name}.hashes.npy"), hashes[ranking])
    save_array(path.with_name(f"{path.name}.numbers.npy"), np.concatenate([numbers[given][ranking], [np.int32(null)]]))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array, complete or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def open_lookup(path: Path) -> Lookup:
    """Map what `write_lookup` wrote."""
    hashes, numbers = (mapped(path.with_name(f"{path.name}.{name}.npy")) for name in ("hashes", "numbers"))
    return Lookup(hashes=hashes, numbers=numbers[:-1], null=int(numbers[-1]))


def mapped(path: Path) -> np.ndarray:
    """An array on disk, read where it is used.

    Raises:
        UserError: the file is missing or not an array.
    """
    try:
        return array_storage.mapped(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as an array ({error}); export the model again") from None
