"""Checks of single columns: each function returns the column in its working type, or names the first bad row.

Whatever types a file has, later code sees Int64, String, Float64 or Boolean (clicks: Int8), so types cannot change a number.
Row numbers in errors count from 0 in the file; `first` is the file's row of values[0], where `values` is a stretch of the column.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from data.log.columns import is_text
from run.errors import DataError

LATEST_SECOND = 10**11  # the year 5138; today's time in milliseconds is 17 times that
CLICK_FIX = "clicks are 0 or 1"
OWN_FIX = "give your model's predicted probability of a click, from 0 to 1"
IMAGE_FIX = "an image is a relative path under images/, without that name, with / between folders and no '..'; null means no picture"
TIME_FIX = "give Unix seconds as integers, or a datetime column"
DATE_FIX = f"a date has no time of day, which a history needs to end before its session; {TIME_FIX} (cast it if only days are known)"


def ids(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """Ids as Int64 or String, without nulls.

    Raises:
        DataError: a null, an integer beyond int64, or a type that is neither integers nor text.
    """
    column, dtype = values.name, values.dtype
    if isinstance(dtype, pl.Null):
        raise DataError(file, row=first, column=column, value=None, fix="every row needs an id")
    if not (dtype.is_integer() or is_text(dtype)):
        raise DataError(file, column=column, fix=f"type {dtype}; ids are integers or text: cast the column")
    _refuse(file, values, values.is_null(), "every row needs an id", first)
    return values.cast(pl.String) if is_text(dtype) else _int64(file, values, "ids", first)


def same_kind(file: str, values: pl.Series, other_file: str, other: pl.Series) -> None:
    """Refuse ids that are integers in one file and text in the other."""
    if values.dtype != other.dtype:
        fix = f"{_kind(values)} here but {_kind(other)} in {other_file}; write both files with one kind of id"
        raise DataError(file, column=values.name, fix=fix)


def unique(file: str, values: pl.Series) -> None:
    """Refuse a second row with the same id."""
    if values.n_unique() < len(values):
        _refuse(file, values, ~values.is_first_distinct(), "is in an earlier row too; keep one row for each id")


def known(file: str, values: pl.Series, index: np.ndarray, where: str, first: int = 0, *, listed: pl.Series | None = None) -> None:
    """Refuse an id whose `index` is -1: it is not in the file `where`, whose ids are `listed` (for a hint about what was meant)."""
    unknown = pl.Series(index) < 0
    if unknown.any():
        near = None if listed is None else lookalike(values.filter(unknown)[0], listed)
        fix = "add it there, or drop the row" if near is None else f"it has {near!r}, and ids must agree in every character"
        _refuse(file, values, unknown, f"unknown to {where}; {fix}", first)


def times(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """Times as Int64 Unix seconds (fractions of a second are cut off; a datetime without zone is UTC).

    Raises:
        DataError: nulls, floats, text, dates without time of day, times before 1970, or times that look like milliseconds.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Date):
        raise DataError(file, column=values.name, fix=f"type {dtype}; {DATE_FIX}")
    if not (dtype.is_integer() or isinstance(dtype, (pl.Datetime, pl.Null))):
        raise DataError(file, column=values.name, fix=f"type {dtype}; {TIME_FIX}")
    _refuse(file, values, values.is_null(), f"every row needs a time: {TIME_FIX}", first)
    seconds = values.dt.epoch("s") if isinstance(dtype, pl.Datetime) else values
    _refuse(file, values, seconds < 0, f"is before 1970: {TIME_FIX}", first)
    seconds = seconds.cast(pl.Int64, strict=False)  # narrow integers cannot be compared with the limit; beyond 64 bits: null
    _refuse(file, values, ~(seconds <= LATEST_SECOND).fill_null(False), f"is too late, milliseconds perhaps: {TIME_FIX}", first)
    return seconds


def clicks(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """Clicks as Int8, 0 or 1.

    Raises:
        DataError: another value, or a null.
    """
    if not (values.dtype.is_numeric() or isinstance(values.dtype, (pl.Boolean, pl.Null))):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; {CLICK_FIX}, as integers")
    _refuse(file, values, values.is_null(), CLICK_FIX, first)
    if values.dtype != pl.Boolean:
        _refuse(file, values, (values != 0) & (values != 1), CLICK_FIX, first)
    return values.cast(pl.Int8)


def probabilities(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """Predicted probabilities as Float64.

    Raises:
        DataError: a type other than floats and decimals, a null or NaN, or a number outside [0, 1].
    """
    if not (values.dtype.is_float() or values.dtype.is_decimal()):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; {OWN_FIX}, as floats")
    found = values.cast(pl.Float64)
    _refuse(file, values, found.is_null() | found.is_nan(), f"every row needs one: {OWN_FIX}; or drop the column", first)
    _refuse(file, values, (found < 0) | (found > 1), OWN_FIX, first)
    return found


def some_clicked(file: str, column: str, clicked: int, rows: int) -> None:
    """Refuse a log in which nothing or everything was clicked."""
    if clicked == 0:
        raise DataError(file, column=column, fix="no row is a click, so there is nothing to learn; check how clicks were logged")
    if clicked == rows:
        raise DataError(file, column=column, fix="every row is a click; add the impressions without one")


def text(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """An optional text column as String; null = missing."""
    del first  # only its type can be wrong
    if not (is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; write it as text, null where missing")
    return values.cast(pl.String)


def written(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A column whose values are checked later: text as String, any other type as it is."""
    del file, first
    return values.cast(pl.String) if is_text(values.dtype) else values


def categories(file: str, values: pl.Series) -> pl.Series:
    """A category column as String (integers are written out); null = unknown."""
    if not (values.dtype.is_integer() or is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; categories are text or integers")
    return values.cast(pl.String)


def search_categories(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A category column as String or Int64; a column of nulls alone becomes text."""
    written = categories(file, values)
    return _int64(file, values, "categories", first) if values.dtype.is_integer() else written


def image_paths(file: str, values: pl.Series) -> pl.Series:
    """Paths under images/, checked by their spelling; whether the file exists and is readable is only known when it is read."""
    paths = text(file, values)
    absolute = paths.str.contains(r"^([/\\]|[A-Za-z]:)")
    climbing = paths.str.contains(r"(^|[/\\])\.\.([/\\]|$)")
    empty = paths.str.contains(r"^[\s./\\]*$") | paths.str.contains("\x00", literal=True)
    _refuse(file, paths, absolute | climbing | empty, IMAGE_FIX)
    return paths


def feature(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A feature: integers as Int64, text as String, Boolean as it is, any other number as Float64, where NaN and null mean missing.

    Raises:
        DataError: an infinite number, or an integer beyond 64 bits. (Other types: `feature_columns`.)
    """
    dtype = values.dtype
    if dtype == pl.Boolean:
        return values
    if is_text(dtype):
        return values.cast(pl.String)
    return _int64(file, values, "integer features", first) if dtype.is_integer() else finite(file, values, first).cast(pl.Float64)


def finite(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A numeric feature as it is, without infinities; NaN and null mean missing."""
    if values.dtype.is_float():
        _refuse(file, values, values.is_infinite(), "give a finite number, or null where it is missing", first)
    return values


def one_of(file: str, values: pl.Series, names: tuple[str, ...], first: int = 0) -> pl.Series:
    """(rows,) Int8: each value's position in `names`; anything else, null included, is refused."""
    allowed = f"give one of {', '.join(names)} in every row"
    if not (is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; {allowed}")
    written = values.cast(pl.String)
    position = written.replace_strict(list(names), list(range(len(names))), default=None, return_dtype=pl.Int8)
    _refuse(file, values, position.is_null(), allowed, first)
    return position


def lookalike(value: object, listed: pl.Series) -> str | None:
    """A text among those listed that differs from `value` only by case, surrounding spaces or Unicode normalisation.

    >>> lookalike(" Cafe\u0301", pl.Series(["tea", "café"]))
    'café'
    """
    if not isinstance(value, str) or not is_text(listed.dtype):
        return None
    return next(iter(listed.filter(folded(listed) == folded(pl.Series([value]))[0])), None)


def folded(texts: pl.Series) -> pl.Series:
    """Texts without differences that are easily overlooked: case, surrounding spaces, the Unicode normal form."""
    return texts.cast(pl.String).str.normalize("NFKC").str.strip_chars().str.to_lowercase()


def _int64(file: str, values: pl.Series, what: str, first: int) -> pl.Series:
    """Integers of any width as Int64; one beyond its range is refused."""
    found = values.cast(pl.Int64, strict=False)
    _refuse(file, values, found.is_null() & values.is_not_null(), f"{what} must fit 64 bits with sign; write them as text", first)
    return found


def _refuse(file: str, values: pl.Series, bad: pl.Series, fix: str, first: int = 0) -> None:
    """Raise for the first row where `bad` is true (null counts as false)."""
    if bad.any():
        row = int(bad.fill_null(False).arg_true()[0])
        raise DataError(file, row=first + row, column=values.name, value=values[row], fix=fix)


def _kind(values: pl.Series) -> str:
    return "text" if is_text(values.dtype) else "integers"
