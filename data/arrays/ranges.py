"""Ranges of consecutive numbers, end to end."""

from __future__ import annotations

import numpy as np


def ranges(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(sum of lengths,) int64: start[0], start[0] + 1, ... (lengths[0] numbers), then start[1], ...

    >>> ranges(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(start - before, lengths)
