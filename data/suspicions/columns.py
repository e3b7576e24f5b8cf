"""Feature columns that carry no information, or not what they seem to: row numbers, ids, constants, sentinels."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from data.arrays.stored_frame import Frame
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, FeatureColumns, feature_columns
from data.log.shop_folder import Shop
from data.log.tables import IMPRESSIONS, ITEMS, USERS

FEW = 20  # rows below which a row number or an id may be chance
FAR = 1e6  # a number this many times larger than 99 % of the others is an outlier
SENTINELS = (-1, -9, -99, -999, -9999, -99999, -999999)  # as the only negative number of a column
INDEX_NAMES = re.compile(
    r"Unnamed: \d+|__index_level_\d+__|level_\d+|index|row_nr|row_index|rownames|_c0|"
)  # as written by data frame libraries


def warnings(shop: Shop) -> Iterator[str]:
    """The warnings of this module."""
    for file, frame, found in features(shop):
        for name in (*found.categorical, *found.numeric):
            values = frame[name]
            if trouble := row_number(values) or constant(values) or (name in found.categorical and an_id(values)) or sentinel(values):
                yield f"{file}, column '{name}': {trouble}"
    if "own_score" in shop.impressions.columns and (trouble := constant(shop.impressions["own_score"])):
        yield f"{IMPRESSIONS}, column 'own_score': {trouble}"


def features(shop: Shop) -> Iterator[tuple[str, Frame, FeatureColumns]]:
    """Each table with its feature columns."""
    for file, frame, reserved in (
        (ITEMS, shop.items, ITEM_RESERVED), (USERS, shop.users, USER_RESERVED), (IMPRESSIONS, shop.impressions, IMPRESSION_RESERVED)
    ):  # fmt: skip
        yield file, frame, feature_columns(frame, reserved=reserved, file=file)


def row_number(values: pl.Series) -> str | None:
    """A data frame's index, by its name or by its values: n rows that are 0 to n - 1 or 1 to n, in any order."""
    if INDEX_NAMES.fullmatch(values.name):
        return "by its name the index of a data frame, which would become a feature; drop it"
    if not values.dtype.is_numeric() or len(values) < FEW or values.null_count():
        return None
    low, count = values.min(), len(values)
    if low in (0, 1) and values.max() == low + count - 1 and values.n_unique() == count and (values == values.floor()).all():  # type: ignore[operator]
        return f"it numbers the rows from {low:g} to {low + count - 1:g}, as the index of a data frame does; drop it"  # type: ignore[operator]
    return None


def constant(values: pl.Series) -> str | None:
    """One value in every row, or none in any."""
    if len(values) < 2:
        return None
    if values.null_count() == len(values):
        return "it holds only nulls, so nothing can be learned from it; drop it"
    if values.n_unique() == 1:
        return f"it holds {_shown(values[0])} in every row, so nothing can be learned from it; drop it"
    return None


def an_id(values: pl.Series) -> str | None:
    """A category that no two rows share."""
    known = values.drop_nulls()
    if len(known) < max(FEW, len(values) / 2) or known.n_unique() < len(known):
        return None
    fix = "write it as floats if it is a number, else drop it" if known.dtype.is_integer() else "drop it"
    return f"no two of its {len(known):,} rows share a value, as if it were an id, so nothing can be learned from it as a category; {fix}"


def sentinel(values: pl.Series) -> str | None:
    """A number that means "missing", recognised by its distance from the others or by its well-known value."""
    if not values.dtype.is_float():
        return None
    known = values.fill_nan(None).drop_nulls()
    for extreme in {known.max(), known.min()} - {None}:
        assert isinstance(extreme, float)
        others = known.filter(known != extreme)
        usual = others.abs().quantile(0.99) if len(others) else None
        far = usual is not None and usual > 0 and abs(extreme) / FAR > usual
        coded = extreme in SENTINELS and len(others) and others.min() >= 0  # type: ignore[operator]
        if far or coded:
            row, rows = int(values.index_of(extreme) or 0), len(known) - len(others)
            how = f"99 % of the others are below {usual:.4g} in size" if far else "no other is negative"
            return f"row {row}: value {extreme:g} ({rows:,} of {len(values):,} rows), while {how}; if it means missing, write null"
    return None


def _shown(value: object) -> str:
    return np.format_float_positional(value, trim="-") if isinstance(value, float) else repr(value)
