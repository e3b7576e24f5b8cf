"""Columns of impressions that may have been filled in after the click: those that alone rank clicks almost perfectly."""

from __future__ import annotations

import numpy as np
import polars as pl

from data.log.columns import IMPRESSION_RESERVED, feature_columns
from data.log.shop_folder import Shop
from metrics.auc import auc

SUSPICIOUS = 0.95  # AUC; whole CTR models stay well below
FEWEST = 10  # clicks, and skipped items, below which so high an AUC may be chance


def leaky_columns(shop: Shop) -> dict[str, float]:
    """Context features that alone rank clicks with an AUC above SUSPICIOUS: name -> AUC, in the table's order.

    Numbers are ranked by value, upwards or downwards, with missing ones first or last. Categories are ranked by the click rate that
    each value has in half of the sessions, scored on the other half: an id of the row or session, seen once, ranks nothing there.
    """
    found = feature_columns(shop.impressions, reserved=IMPRESSION_RESERVED)
    learned = (np.random.default_rng(0).random(len(shop.session_time)) < 0.5)[shop.session]
    highest = {}
    for name in shop.impressions.columns:
        values = shop.impressions[name]
        if name in found.categorical:
            highest[name] = _by_rate(values, shop.click, learned)
        if name in found.numeric or (name in found.categorical and values.dtype.is_integer()):  # seconds, say, as whole numbers
            highest[name] = max(highest.get(name, 0.0), _by_order(values, shop.click))
    return {name: value for name, value in highest.items() if value > SUSPICIOUS}


def _by_order(values: pl.Series, click: np.ndarray) -> float:
    """The higher AUC of the two directions, missing values first or last."""
    numbers = values.cast(pl.Float64).fill_nan(None)
    ends = (-np.inf, np.inf) if numbers.null_count() else (0.0,)
    upwards = [_auc(click, numbers.fill_null(end).to_numpy()) for end in ends]
    return max(*upwards, *(1 - value for value in upwards))


def _by_rate(values: pl.Series, click: np.ndarray, learned: np.ndarray) -> float:
    """AUC in the rows not `learned` of each value's click rate in those that are, drawn to the mean by one impression's weight."""
    if learned.all() or not learned.any():
        return 0.5
    frame = pl.DataFrame({"value": values, "click": click.astype(np.int64) * learned, "shown": learned.astype(np.int64)})
    rate = (pl.col("click").sum().over("value") + click[learned].mean()) / (pl.col("shown").sum().over("value") + 1)
    return _auc(click[~learned], frame.select(rate.alias("rate"))["rate"].to_numpy()[~learned])


def _auc(click: np.ndarray, score: np.ndarray) -> float:
    clicks = int(click.sum())
    return auc(click, score) if min(clicks, len(click) - clicks) >= FEWEST else 0.5
