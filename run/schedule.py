"""How a learning rate moves over a training: the one curve that encoders and CTR models share."""

from __future__ import annotations

import math


def rise_and_cosine(done: float, *, rise: float, begins: float = 0.0) -> float:
    """Share of the highest rate when a share `done` of the training is behind: 0 until `begins`, a linear rise, a half cosine to 0.

    Args:
        done: in [0, 1].
        rise: share of the training in which the rate rises, from 5 % of its height.
        begins: share of the training that passes before; begins + rise < 1.
    """
    if done < begins:
        return 0.0
    if done < begins + rise:
        return max((done - begins) / rise, 0.05)
    risen = begins + rise
    return 0.5 * (1 + math.cos(math.pi * (done - risen) / (1 - risen)))
