"""Columns of impressions that give the click away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import load_shop
from data.suspicions.leaks import leaky_columns
from data.validate import main
from tests.shops import write_shop

CLICK = pl.col("click")
ROW = pl.int_range(pl.len(), dtype=pl.Int64)
NOISE = pl.Series("noise", np.random.default_rng(5).random(600))


def _leaks(folder, values: pl.Expr, **changes) -> dict[str, float]:
    return leaky_columns(load_shop(write_shop(folder, pictures=False, impressions_frame=lambda f: f.with_columns(new=values), **changes)))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(CLICK, id="the click again"),
        pytest.param(CLICK == 1, id="as a boolean"),
        pytest.param(pl.when(CLICK == 1).then(pl.lit("bought")), id="as text, null without click"),
        pytest.param(1.0 - CLICK, id="as a number, reversed"),
        pytest.param(pl.when(CLICK == 1).then(NOISE), id="a number only where clicked"),
        pytest.param(pl.when(CLICK == 1).then(NOISE).otherwise(float("nan")), id="NaN where not clicked"),
        pytest.param(pl.when(CLICK == 0).then(NOISE), id="a number only where not clicked"),
        pytest.param(CLICK * 100_000 + ROW, id="integers that never repeat"),
        pytest.param(ROW % 40 * 2 + CLICK, id="categories of one class each"),
        pytest.param(CLICK * 0.8 + NOISE, id="not quite the click"),
    ],
)
def test_a_column_that_gives_the_click_away_is_found(tmp_path, values):
    assert list(_leaks(tmp_path, values)) == ["new"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(ROW, id="row numbers"),
        pytest.param(ROW.cast(pl.String), id="ids of rows as text"),
        pytest.param(ROW // 5, id="ids of sessions"),
        pytest.param(pl.col("user_id"), id="users"),
        pytest.param(CLICK * 0.4 + NOISE, id="a good feature"),
        pytest.param(pl.when(ROW > 3).then(NOISE), id="a number that is rarely missing"),
    ],
)
def test_an_id_or_a_good_feature_is_no_leak(tmp_path, values):
    assert _leaks(tmp_path, values) == {}


@pytest.mark.parametrize(("clicks", "found"), [(9, []), (10, ["new"])])
def test_so_few_clicks_prove_nothing(tmp_path, clicks, found):
    def rare(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(click=(ROW % 7 == 0) & ROW.lt(7 * clicks)).with_columns(new=CLICK.cast(pl.Float64))

    assert list(leaky_columns(load_shop(write_shop(tmp_path, pictures=False, impressions_frame=rare)))) == found


def test_a_built_in_world_leaks_nothing(world):
    assert leaky_columns(load_shop(world)) == {}


def test_validate_warns_of_it_and_accepts_the_folder(tmp_path, capsys):
    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=lambda f: f.with_columns(purchased="click"))
    assert main([str(folder), "--no-images"]) == 0
    printed = capsys.readouterr().out
    warning = "warning: impressions.parquet, column 'purchased': alone it ranks clicks with AUC 1.000; was it known before the click?"
    assert warning in printed
    assert printed.count("warning") == 1
