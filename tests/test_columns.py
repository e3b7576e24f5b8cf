"""Which columns are features."""

from __future__ import annotations

import polars as pl
import pytest

from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, FeatureColumns, feature_columns
from data.log.shop_folder import load_shop
from run.errors import DataError


def test_text_and_integers_are_categorical_and_floats_numeric():
    one = pl.lit(1)
    frame = pl.select(
        text=pl.lit("a"),
        int=one,
        small=one.cast(pl.UInt8),
        flag=pl.lit(True),
        float=pl.lit(0.5),
        single=pl.lit(0.5, dtype=pl.Float32),
        kind=pl.lit("a").cast(pl.Categorical),
        price=one.cast(pl.Decimal(10, 2)),
    )
    found = feature_columns(frame, reserved=())
    assert found.categorical == ["text", "int", "small", "flag", "kind"]
    assert found.numeric == ["float", "single", "price"]


def test_reserved_columns_are_not_features_whatever_their_type():
    frame = pl.DataFrame({"item_id": ["a"], "image": [None], "title": [["words"]], "brand": ["b"]})
    assert feature_columns(frame, reserved=ITEM_RESERVED) == FeatureColumns(categorical=["brand"], numeric=[])


def test_each_table_of_a_shop_keeps_its_own_columns(shop_folder):
    shop = load_shop(shop_folder)
    assert feature_columns(shop.items, reserved=ITEM_RESERVED).categorical == ["category", "brand"]
    assert feature_columns(shop.items, reserved=ITEM_RESERVED).numeric == ["price"]
    assert feature_columns(shop.users, reserved=USER_RESERVED).categorical == ["age_group"]
    assert feature_columns(shop.users, reserved=USER_RESERVED).numeric == ["spend"]
    assert feature_columns(shop.impressions, reserved=IMPRESSION_RESERVED).categorical == ["category", "position"]
    assert feature_columns(shop.impressions, reserved=IMPRESSION_RESERVED).numeric == ["discount"]


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        (pl.Series([[1, 2]]), "one column for each value"),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), "one column for each value"),
        (pl.Series([{"a": 1}]), "one column for each value"),
        (pl.Series([b"a"]), "write it as text"),
        (pl.Series([None]), "give it a type"),
        (pl.Series([0]).cast(pl.Date), "as a number"),
        (pl.Series([0]).cast(pl.Duration), "as a number"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name_and_never_skipped(values, fix):
    with pytest.raises(DataError) as error:
        feature_columns(pl.DataFrame({"good": [1], "odd": values}), reserved=(), file="items.parquet")
    assert "items.parquet: column 'odd'" in str(error.value)
    assert fix in str(error.value)
