"""The learning rate over a training: one curve for encoders and CTR models."""

from __future__ import annotations

import math


def linear_rise(done: float, until: float) -> float:
    """Share of the peak rate: a linear rise from 5 % of it until a share `until` is done, then 1.

    >>> [linear_rise(done, 0.1) for done in (0.0, 0.05, 0.1, 2.0)]
    [0.05, 0.5, 1.0, 1.0]
    """
    return 1.0 if done >= until else max(done / until, 0.05)


def rise_and_cosine(done: float, *, rise: float, begins: float = 0.0) -> float:
    """Share of the peak rate after a share `done` of the training: 0 until `begins`, a linear rise, a half cosine to 0.

    Args:
        done: in [0, 1].
        rise: share of the training in which the rate rises, from 5 % of its peak.
        begins: share of the training before the rise; begins + rise < 1.
    """
    if done < begins:
        return 0.0
    if done < begins + rise:
        return max((done - begins) / rise, 0.05)
    risen = begins + rise
    return 0.5 * (1 + math.cos(math.pi * (done - risen) / (1 - risen)))
