"""The predictions of the user's own model, as the logits that every row starts from."""

from __future__ import annotations

import numpy as np
import polars as pl

from data.arrays.array_storage import scratch
from data.arrays.stored_frame import Frame, stretches
from data.log.shop_folder import Shop
from run.errors import DataError

COLUMN = "own_score"  # of impressions
_ROUNDS = 30  # of Newton's method
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

    >>> [round(float(value), 3) for value in logit(pl.Series([0.5, 0.0]))]
    [0.0, -13.816]
    """
    clipped = np.clip(probability.to_numpy(), LEAST, 1 - LEAST)
    return (np.log(clipped) - np.log1p(-clipped)).astype(np.float32)


def calibration(logits: np.ndarray, click: np.ndarray) -> tuple[float, float]:
    """Scale and bias that best turn own logits (n,) into those of clicks: logistic regression by Newton's method.

    A weak prior of one observation holds them near 1 and 0, so that scores which separate the classes give finite ones.

    >>> rng = np.random.default_rng(0)
    >>> scale, bias = calibration(rng.normal(size=10_000), rng.integers(2, size=10_000))  # noise
    >>> abs(scale) < 0.05 and abs(bias) < 0.05
    True
    """
    inputs = np.stack([logits, np.ones(len(logits))], axis=1).astype(np.float64)
    start = np.array([1.0, 0.0])
    line = start.copy()
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(inputs @ line, -30, 30)))
        slope = inputs.T @ (p - click) + (line - start)
        curve = (inputs * (p * (1 - p))[:, None]).T @ inputs + np.eye(2)
        line = line - np.clip(np.linalg.solve(curve, slope), -1, 1)
    return float(line[0]), float(line[1])
