"""Columns as numbers: table rows for categories and words, standardised numbers; only what the train split knew counts.

Row 0 of every table stands for all values unknown to the train split. Values seen there fewer than
`min_count` times share it, so that it is trained before it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from data.stored_frame import Frame
from data.words import words_of


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A categorical column as rows of its embedding table."""

    rows: np.ndarray  # (n,) int32 in [0, size)
    size: int  # rows of the table, row 0 included


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """n lists of table rows, one behind the other."""

    rows: np.ndarray  # (T,) int32
    start: np.ndarray  # (n + 1,) int64; list i is rows[start[i]:start[i + 1]]

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lists at `index` (m,) as rows (T',) and lengths (m,)."""
        lengths = self.start[index + 1] - self.start[index]
        return self.rows[ranges(self.start[index], lengths)], lengths


def ranges(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (lengths[0] numbers), then start[1], ...

    >>> ranges(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(start - before, lengths)


def code(counts: np.ndarray, codes: np.ndarray, min_count: int) -> Coded:
    """Give the values counted at least `min_count` times a row each, in the order of their codes; the others get row 0.

    Args:
        counts: (V,) how often the train split knew each value.
        codes: (n,) the value of each entry, in [0, V).
    """
    known = counts >= min_count
    row = np.where(known, np.cumsum(known), 0).astype(np.int32)
    return Coded(rows=row[codes], size=int(known.sum()) + 1)


def code_column(column: pl.Series, weight: np.ndarray, min_count: int) -> Coded:
    """Table rows of a categorical column; null is a value like others.

    Args:
        column: n values.
        weight: (n,) how often the train split saw each entry.
    """
    # ranks belong to the sorted values: values from later splits, which get row 0, do not move the others
    codes = column.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return code(np.bincount(codes, weights=weight), codes, min_count)


def code_words(texts: list[pl.Series], weights: list[np.ndarray], most: int, min_count: int) -> tuple[list[Ragged], int]:
    """Words of several text columns as rows of one table.

    Args:
        texts: columns of texts.
        weights: for each column (n,), how often the train split saw each text.

    Returns:
        The words of each column, and the table's size.
    """
    lists = [words_of(text, most) for text in texts]
    lengths = [words.list.len().to_numpy().astype(np.int64) for words in lists]
    each = pl.concat([words.explode().drop_nulls() for words in lists])
    weight = np.concatenate([np.repeat(w, n) for w, n in zip(weights, lengths, strict=True)])
    coded = code_column(each, weight, min_count)
    cuts = np.cumsum([n.sum() for n in lengths])[:-1]
    parts = np.split(coded.rows, cuts)
    starts = [np.concatenate([[0], np.cumsum(n)]) for n in lengths]
    return [Ragged(rows=rows, start=start) for rows, start in zip(parts, starts, strict=True)], coded.size


def standardise(frame: Frame, columns: list[str], known: np.ndarray) -> np.ndarray:
    """Numeric columns with mean 0 and deviation 1 over the known entries, and a flag for each that lacks some of them.

    Args:
        frame: n rows.
        known: (n,) bool, the entries that the train split saw.

    Returns:
        (n, M) float32; a missing number is 0 (the mean). Values over 10 deviations are cut there.
    """
    parts = [np.zeros((len(frame), 0))]
    for name in columns:
        value = frame[name].cast(pl.Float64).to_numpy()
        seen = value[known & ~np.isnan(value)]
        mean, deviation = (seen.mean(), seen.std()) if len(seen) else (0.0, 0.0)
        scaled = (value - mean) / (deviation if deviation > 0 else 1.0)
        parts.append(np.nan_to_num(np.clip(scaled, -10, 10))[:, None])
        if len(seen) < known.sum():
            parts.append(np.isnan(value)[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)
