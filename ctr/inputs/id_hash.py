"""A keyed 64-bit hash of ids and other values, the same on every machine and in every version of the libraries.

It is run.randomness.hashed (splitmix64) over the value: an integer is one word of 64 bits, a text its length in bytes and then its UTF-8
bytes, 8 to a little-endian word, the last one padded with zeros. polars' own `hash` may change with its version.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from data.log.columns import is_text
from run.randomness import hashed

_SEED = 2306_05001
_CHUNK = 1 << 18  # values hashed at a time


def hash64(values: pl.Series, key: str) -> np.ndarray:
    """(n,) uint64 hashes of integers, true/false or texts.

    Args:
        values: n values, none of them null.
        key: another key gives other hashes of the same value.

    >>> import polars as pl
    >>> [int(n) for n in hash64(pl.Series([0, 1]), "item") % 1000]
    [310, 20]
    """
    if not is_text(values.dtype):
        integers = values.to_numpy().astype(np.uint64 if values.dtype == pl.UInt64 else np.int64)
        return hashed(_SEED, key, integers)
    values = values.cast(pl.String)
    out = np.empty(len(values), dtype=np.uint64)
    for at in range(0, len(values), _CHUNK):
        out[at : at + _CHUNK] = _of_texts(values[at : at + _CHUNK], key)
    return out


def _of_texts(texts: pl.Series, key: str) -> np.ndarray:
    length = texts.str.len_bytes().to_numpy().astype(np.int64)
    content = np.frombuffer((texts.str.join("").item() or "").encode(), dtype=np.uint8)
    start = np.cumsum(length) - length
    out = np.empty(len(length), dtype=np.uint64)
    for words in np.unique((length + 7) // 8):  # texts with the same number of 64-bit words are hashed together
        of = np.flatnonzero((length + 7) // 8 == words)
        padded = np.zeros((len(of), 8 * words), dtype=np.uint8)
        place = np.arange(8 * words)[None] < length[of, None]
        padded[place] = content[(start[of, None] + np.arange(8 * words)[None])[place]]
        out[of] = hashed(_SEED, key, length[of], *padded.view("<i8").T)
    return out
