"""What SimCLR and SimSiam look at: two distorted views of each picture of a batch (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pretrain.methods.method import Step
from pretrain.methods.method_configs import DistortionConfig
from pretrain.views import cropped, distorted, normalised
from run.randomness import permutation


def drawn(items: np.ndarray, batch: int, seed: int, number: int) -> np.ndarray:
    """(batch,) of the items for step `number`: each once in a pass, in a shuffled order; a short rest is left out."""
    per_pass = len(items) // batch
    order = permutation(len(items), seed, "pictures", number // per_pass)
    start = number % per_pass * batch
    return items[order[start : start + batch]]


def two_views(items: np.ndarray, batch: int, seed: int, number: int, group: np.ndarray | None = None) -> Step:
    """A step whose first half are one view of the drawn pictures and whose second half is the other, in the same order.

    Args:
        group: (N,) each item's group, of which the step keeps those drawn, (batch,); None: no groups.
    """
    chosen = drawn(items, batch, seed, number)
    places = {} if group is None else {"group": group[chosen]}
    return Step(number=number, items=np.tile(chosen, 2), view=np.repeat([0, 1], len(chosen)), places=places)


def distorted_view(pixels: Tensor, keys: tuple, size: int, config: DistortionConfig) -> Tensor:
    """(P, S, S, 3) uint8 -> (P, 3, size, size): a random crop, mirrored half of the time, with its colours distorted."""
    pictures = cropped(pixels, size, keys, smallest=config.crop, stretch=4 / 3, flip=True)
    return normalised(distorted(pictures, keys, strength=config.strength, blur=config.blur))
