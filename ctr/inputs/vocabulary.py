"""Columns as numbers, fitted once and then applied: table rows for categories and words, standardised numbers.

Row 0 of every table stands for all values unknown to the train split. Values seen there fewer than
`min_count` times share it, which trains it before it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ctr.inputs.id_hash import hash64
from data.arrays.ranges import ranges
from data.arrays.words import words_of
from data.log.columns import is_text
from run.errors import DataError

_CHUNK = 1 << 20  # texts whose words are in memory together


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """n lists of table rows, end to end."""

    rows: np.ndarray  # (T,) int32
    start: np.ndarray  # (n + 1,) int64; list i is rows[start[i]:start[i + 1]]

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lists at `index` (m,) as rows (T',) and lengths (m,)."""
        lengths = self.start[index + 1] - self.start[index]
        return self.rows[ranges(self.start[index], lengths)], lengths


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The values that have a row of their own: value i has row i + 1 (0 is for unknown values)."""

    values: pl.Series  # (V,) distinct; null is a value like any other

    @property
    def size(self) -> int:
        """Rows of the table, row 0 included."""
        return len(self.values) + 1

    def rows(self, column: pl.Series, file: str = "the table") -> np.ndarray:
        """(n,) int32 table rows of a column's values.

        Raises:
            DataError: the column's kind of values is not the vocabulary's, such as text for numbers.
        """
        wanted = self.values.dtype
        if not isinstance(column.dtype, pl.Null) and kind_of(column.dtype) != kind_of(wanted):
            fix = f"type {column.dtype}, but the model was trained on {kind_of(wanted)}; write it as that"
            raise DataError(file, column=column.name, fix=fix)
        cast = column.cast(wanted, strict=False)
        table = pl.DataFrame({"value": self.values, "row": np.arange(1, self.size, dtype=np.int32)})
        found = pl.DataFrame({"value": cast}).join(table, on="value", how="left", nulls_equal=True, maintain_order="left")
        rows = found["row"].fill_null(0).to_numpy()
        beyond = (cast.is_null() & column.is_not_null()).to_numpy()  # an integer that the vocabulary's type cannot hold is no null
        return np.where(beyond, np.int32(0), rows) if beyond.any() else rows


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """No vocabulary: an id's row is a keyed hash of it. New ids have one too, and some ids share a row by chance."""

    key: str  # of the hash
    size: int  # rows of the table; there is no row for the unknown

    def rows(self, column: pl.Series, file: str = "the table") -> np.ndarray:
        """(n,) int32 table rows of ids."""
        return (hash64(column, self.key) % np.uint64(self.size)).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a numeric column is standardised."""

    column: str
    mean: float
    deviation: float  # 1 where the known values do not differ
    flag: bool  # a column of its own marks the missing values

    def numbers(self, column: pl.Series) -> list[np.ndarray]:
        """One or two columns (n,): 0 (the mean) where a number is missing; values beyond 10 deviations are clipped."""
        value = column.cast(pl.Float64).to_numpy()
        with np.errstate(over="ignore"):  # what overflows is clipped like any other outlier
            scaled = np.nan_to_num(np.clip((value - self.mean) / self.deviation, -10, 10))
        return [scaled, np.isnan(value)] if self.flag else [scaled]


def kind_of(dtype: pl.DataType | type[pl.DataType]) -> str:
    """text, true/false, integers, or another type by its name."""
    if is_text(dtype):  # type: ignore[arg-type]
        return "text"
    return "true/false" if dtype == pl.Boolean else "integers" if dtype.is_integer() else str(dtype)


def fit_ids(ids: pl.Series, seen: np.ndarray, min_count: int) -> Vocabulary:
    """The ids seen at least `min_count` times, in the table's order.

    Args:
        ids: (n,) distinct.
        seen: (n,) how often the train split knew each.
    """
    return Vocabulary(values=ids.filter(pl.Series(seen >= min_count)))


def fit_values(column: pl.Series, weight: np.ndarray, min_count: int) -> Vocabulary:
    """The values counted at least `min_count` times, sorted: values from later splits do not move the others.

    Args:
        column: n values.
        weight: (n,) how often the train split saw each entry.
    """
    return _often(_counts(column, weight), min_count)


def fit_words(texts: list[pl.Series], weights: list[np.ndarray], most: int, min_count: int) -> Vocabulary:
    """The words of several text columns, sorted.

    Args:
        texts: columns of texts.
        weights: for each column (n,), how often the train split saw each text.
        most: first words of a text that are read.
    """
    parts = []
    for text, weight in zip(texts, weights, strict=True):
        for at in range(0, len(text), _CHUNK):
            words = words_of(text[at : at + _CHUNK], most)
            each = np.repeat(weight[at : at + _CHUNK], words.list.len().to_numpy())
            parts.append(_counts(words.explode(empty_as_null=False), each))
    return _often(pl.concat(parts).group_by("value").agg(pl.col("count").sum()), min_count)


def word_rows(vocabulary: Vocabulary, texts: pl.Series, most: int) -> Ragged:
    """The table rows of the first `most` words of each text."""
    rows, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for at in range(0, len(texts), _CHUNK):
        words = words_of(texts[at : at + _CHUNK], most)
        lengths.append(words.list.len().to_numpy().astype(np.int64))
        rows.append(vocabulary.rows(words.explode(empty_as_null=False)))
    return Ragged(rows=np.concatenate(rows), start=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))


def fit_scale(column: pl.Series, known: np.ndarray) -> Scale:
    """Mean 0 and deviation 1 over the known entries, and a flag where some of them are missing.

    Any finite values have finite moments: where squares would overflow or vanish, values are divided by the largest first.

    Args:
        known: (n,) bool, the entries that the train split saw.
    """
    value = column.cast(pl.Float64).to_numpy()
    seen = value[known & ~np.isnan(value)]
    flag = len(seen) < int(known.sum())
    if not len(seen) or seen.min() == seen.max():
        return Scale(column=column.name, mean=float(seen[0]) if len(seen) else 0.0, deviation=1.0, flag=flag)
    largest = float(np.abs(seen).max())
    unit = 1.0 if 1e-100 < largest < 1e100 else largest
    scaled = seen if unit == 1.0 else seen / unit
    mean, deviation = float(scaled.mean()) * unit, float(scaled.std()) * unit
    return Scale(column=column.name, mean=mean, deviation=deviation if deviation > 0 else 1.0, flag=flag)


def _counts(column: pl.Series, weight: np.ndarray) -> pl.DataFrame:
    """Distinct values and the sum of their weights."""
    return pl.DataFrame({"value": column, "count": weight.astype(np.int64)}).group_by("value").agg(pl.col("count").sum())


def _often(counts: pl.DataFrame, min_count: int) -> Vocabulary:
    values = counts.filter(pl.col("count") >= min_count).sort("value")["value"]
    return Vocabulary(values=values.cast(pl.String) if is_text(values.dtype) else values)
