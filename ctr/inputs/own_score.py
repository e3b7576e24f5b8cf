"""The predictions of the user's own model, as the logits that every row starts from."""

from __future__ import annotations

import numpy as np
import polars as pl

from data.arrays.array_storage import scratch
from data.arrays.stored_frame import Frame, stretches
from data.log.shop_folder import Shop
from run.errors import DataError

COLUMN = "own_score"  # of impressions
LEAST = 1e-6  # probabilities nearer to 0 or 1 than this count as this far: a logit must be finite


def has_own_score(impressions: Frame) -> bool:
    """Whether a log holds the predictions of the user's own model."""
    return COLUMN in impressions.columns


def own_logits(shop: Shop, *, file: str) -> np.ndarray:
    """(I,) float32 logits of the column own_score; on disk where the log is.

    Raises:
        DataError: there is no such column.
    """
    if not has_own_score(shop.impressions):
        fix = "no such column, but the model was trained on top of it; add your own model's predictions"
        raise DataError(file, column=COLUMN, fix=fix)
    out = scratch(len(shop.impressions), np.float32, shop.events.folder)
    for first, rows in stretches(shop.impressions, [COLUMN]):
        out[first : first + len(rows)] = logit(rows[COLUMN])
    return out


def logit(probability: pl.Series) -> np.ndarray:
    """(n,) float32: log(p / (1 - p)).

    >>> logit(pl.Series([0.5, 0.0])).round(3).tolist()
    [0.0, -13.816]
    """
    clipped = np.clip(probability.to_numpy(), LEAST, 1 - LEAST)
    return (np.log(clipped) - np.log1p(-clipped)).astype(np.float32)
