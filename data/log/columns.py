"""Which columns are features: text and integers are categorical, floats numeric; other types are refused, never skipped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from data.arrays.stored_frame import Frame
from run.errors import DataError

ITEM_RESERVED = ("item_id", "image", "title")
USER_RESERVED = ("user_id",)
IMPRESSION_RESERVED = ("session_id", "user_id", "item_id", "timestamp", "click", "query", "split", "own_score")


@dataclass(frozen=True, kw_only=True)
class FeatureColumns:
    """Names of the feature columns of one table, each list in the table's order."""

    categorical: list[str]  # text, integers, true/false (String, Int64, Boolean once loaded); null = missing
    numeric: list[str]  # floats and decimals (Float64 once loaded); null and NaN = missing


def feature_columns(frame: Frame, *, reserved: Collection[str], file: str = "the table") -> FeatureColumns:
    """Sort a table's columns into categorical and numeric features by their type.

    Args:
        frame: a table as read; only its schema matters.
        reserved: columns with a meaning of their own, which are not features.
        file: the file's name for the error message.

    Raises:
        DataError: a column's type cannot be a feature: a list, a date, bytes, only nulls, ...; or its name is a pattern to polars.
    """
    categorical, numeric = [], []
    for name, dtype in frame.schema.items():
        if name in reserved:
            continue
        if name.startswith("^") and name.endswith("$"):  # in many polars functions, even those for a single column
            raise DataError(file, column=name, fix="polars reads a name from ^ to $ as a pattern of names; rename the column")
        if dtype.is_integer() or is_text(dtype) or dtype == pl.Boolean:
            categorical.append(name)
        elif dtype.is_float() or dtype.is_decimal():
            numeric.append(name)
        else:
            raise DataError(file, column=name, fix=f"type {dtype} cannot be a feature; {_fix(dtype)}")
    return FeatureColumns(categorical=categorical, numeric=numeric)


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column of this type holds text."""
    return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum))


def _fix(dtype: pl.DataType) -> str:
    if dtype.is_temporal():
        return "give it as a number (days or seconds), or drop the column"
    if isinstance(dtype, pl.Binary):
        return "write it as text, or drop the column"
    if isinstance(dtype, pl.Null):
        return "it holds only nulls: give it a type, or drop the column"
    return "write one column for each value, or drop the column"
