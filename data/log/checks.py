"""Checks of one column each: every function returns the column in its one working type, or names the first bad row.

Row numbers in errors count from 0 in the file; `first` is the row of the file that values[0] stands in, where they are a stretch of it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from data.log.columns import is_text
from run.errors import DataError

LATEST_SECOND = 10**11  # the year 5138; today's time in milliseconds is 17 times that
CLICK_FIX = "clicks are 0 or 1"
IMAGE_FIX = "an image is a relative path under images/, without that name, with / between folders and no '..'; null means no picture"
TIME_FIX = "give Unix seconds as integers, or a datetime column"
DATE_FIX = f"a date has no time of day, by which a history ends before its session; {TIME_FIX} (cast it if days are all that is known)"


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
    if is_text(dtype):
        return values.cast(pl.String)
    whole = values.cast(pl.Int64, strict=False)
    _refuse(file, values, whole.is_null(), "integer ids must fit 64 bits with sign; write them as text", first)
    return whole


def same_kind(file: str, values: pl.Series, other_file: str, other: pl.Series) -> None:
    """Refuse ids that are integers in one file and text in the other."""
    if values.dtype != other.dtype:
        fix = f"{_kind(values)} here but {_kind(other)} in {other_file}; write both files with one kind of id"
        raise DataError(file, column=values.name, fix=fix)


def unique(file: str, values: pl.Series) -> None:
    """Refuse a second row with the same id."""
    if values.n_unique() < len(values):
        _refuse(file, values, ~values.is_first_distinct(), "is there already in an earlier row; keep one row an id")


def known(file: str, values: pl.Series, index: np.ndarray, where: str, first: int = 0) -> None:
    """Refuse an id whose `index` is -1: it does not stand in the file `where`."""
    _refuse(file, values, pl.Series(index) < 0, f"unknown to {where}; add it there, or drop the row", first)


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
    _refuse(file, values, seconds > LATEST_SECOND, f"is too late, milliseconds perhaps: {TIME_FIX}", first)
    return seconds.cast(pl.Int64)


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


def some_clicked(file: str, column: str, clicked: int, rows: int) -> None:
    """Refuse a log in which nothing, or everything, was clicked."""
    if clicked == 0:
        raise DataError(file, column=column, fix="no row is a click; nothing can be learned from such a log")
    if clicked == rows:
        raise DataError(file, column=column, fix="every row is a click; add the impressions without one")


def text(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """An optional text column as String; null = missing."""
    del first  # its type is all that can be wrong
    if not (is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; write it as text, null where missing")
    return values.cast(pl.String)


def categories(file: str, values: pl.Series) -> pl.Series:
    """A category column as String (integers are written out); null = unknown."""
    if not (values.dtype.is_integer() or is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; categories are text or integers")
    return values.cast(pl.String)


def categories_or_nulls(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A category column as it is, of a type that can be one; nothing but nulls become text."""
    del first  # its type is all that can be wrong
    written = categories(file, values)
    return written if isinstance(values.dtype, pl.Null) else values


def image_paths(file: str, values: pl.Series) -> pl.Series:
    """Paths under images/, by their spelling only: whether a file is there and readable shows when it is read."""
    paths = text(file, values)
    absolute = paths.str.contains(r"^([/\\]|[A-Za-z]:)")
    climbing = paths.str.contains(r"(^|[/\\])\.\.([/\\]|$)")
    empty = paths.str.contains(r"^[\s./\\]*$") | paths.str.contains("\x00", literal=True)
    _refuse(file, paths, absolute | climbing | empty, IMAGE_FIX)
    return paths


def finite(file: str, values: pl.Series, first: int = 0) -> pl.Series:
    """A numeric feature as it is, without infinities; NaN and null mean missing."""
    if values.dtype.is_float():
        _refuse(file, values, values.is_infinite(), "give a finite number, or null where it is missing", first)
    return values


def one_of(file: str, values: pl.Series, names: tuple[str, ...], first: int = 0) -> pl.Series:
    """(rows,) Int8: each value's place in `names`; anything else, null too, is refused."""
    allowed = f"give one of {', '.join(names)} in every row"
    if not (is_text(values.dtype) or isinstance(values.dtype, pl.Null)):
        raise DataError(file, column=values.name, fix=f"type {values.dtype}; {allowed}")
    written = values.cast(pl.String)
    place = written.replace_strict(list(names), list(range(len(names))), default=None, return_dtype=pl.Int8)
    _refuse(file, values, place.is_null(), allowed, first)
    return place


def _refuse(file: str, values: pl.Series, bad: pl.Series, fix: str, first: int = 0) -> None:
    """Raise for the first row where `bad` is true (null counts as false)."""
    if bad.any():
        row = int(bad.fill_null(False).arg_true()[0])
        raise DataError(file, row=first + row, column=values.name, value=values[row], fix=fix)


def _kind(values: pl.Series) -> str:
    return "text" if is_text(values.dtype) else "integers"
