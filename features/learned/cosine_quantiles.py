"""Quantiles of the cosines that training meets, from which the CTR model cuts tiers."""

from __future__ import annotations

import numpy as np

_STEPS = 1000


def cosine_quantiles(cosines: np.ndarray | None) -> np.ndarray:
    """(1001,) quantiles, from the least of (n,) cosines to the largest; evenly spaced from -1 to 1 where none are known."""
    if cosines is None or not len(cosines):
        return np.linspace(-1, 1, _STEPS + 1)
    return np.quantile(cosines.astype(np.float64), np.linspace(0, 1, _STEPS + 1))
