"""Do predicted probabilities say how often clicks happen? Log loss and calibration."""

from __future__ import annotations

import numpy as np

BINS = 20  # of the expected calibration error


def log_loss(click: np.ndarray, probability: np.ndarray, *, least: float = 1e-7) -> float:
    """Mean negative log likelihood in nats; probabilities are kept `least` away from 0 and 1."""
    p = np.clip(probability, least, 1 - least)
    return float(-np.mean(np.where(click == 1, np.log(p), np.log1p(-p))))


def pcoc(click: np.ndarray, probability: np.ndarray) -> float:
    """Predicted clicks over clicks: 1 where they agree, above 1 where too many are predicted; NaN without a click."""
    clicks = click.sum()
    return float(probability.sum() / clicks) if clicks else float("nan")


def ece(click: np.ndarray, probability: np.ndarray, *, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Nguyen and O'Connor 2015, arXiv:1508.05154).

    The mean distance, weighted by size, of the mean prediction from the click rate, in bins of neighbouring predictions; equal predictions
    share a bin.
    """
    if not len(click):
        return float("nan")
    ranking = np.argsort(probability, kind="stable")
    sorted_p = probability[ranking]
    cut = np.minimum(np.arange(1, bins) * len(click) // bins, len(click) - 1)
    ends = np.unique(np.append(np.searchsorted(sorted_p, sorted_p[cut], side="left"), len(click)))
    begin = np.concatenate([[0], ends[:-1]])
    sizes = ends - begin
    begin, sizes = begin[sizes > 0], sizes[sizes > 0]
    off = np.add.reduceat(sorted_p - click[ranking], begin)
    return float(np.abs(off).sum() / len(click))
