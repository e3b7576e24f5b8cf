"""What SimCLR and SimSiam compare: two distorted views of each picture of a batch (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretrain.methods.method import Step, drawn
from pretrain.settings import MethodSettings, share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DistortionConfig(MethodSettings):
    """The distorted views that SimCLR and SimSiam compare (Chen et al. 2020, appendix A)."""

    part = "distortion"
    presets: ClassVar = {"paper": {"strength": 1.0, "crop": 0.08, "blur": True}}

    strength: float = 0.5  # of the colour distortion (Chen et al. use 1 at 224 pixels and 0.5 on small pictures)
    crop: float = 0.2  # smallest share of the picture that a random crop keeps
    blur: bool = False  # Gaussian blur half of the time (Chen et al. leave it out on small pictures)

    def __post_init__(self):
        share("distortion.crop", self.crop)


def two_views(items: np.ndarray, batch: int, seed: int, number: int, group: np.ndarray | None = None) -> Step:
    """A step whose first half are one view of the drawn pictures and whose second half is the other, row by row.

    Args:
        group: (N,) each item's group; the step keeps those of the drawn items (batch,). None: no groups.
    """
    chosen = drawn(items, batch, seed, number)
    places = {} if group is None else {"group": group[chosen]}
    return Step(number=number, items=np.tile(chosen, 2), view=np.repeat([0, 1], len(chosen)), places=places)


def distorted_view(pixels: Tensor, keys: tuple, size: int, config: DistortionConfig) -> Tensor:
    """(P, S, S, 3) uint8 -> (P, 3, size, size) in [0, 1]: a random crop, mirrored half of the time, with its colours distorted."""
    from pretrain.views import cropped, distorted

    pictures = cropped(pixels, size, keys, smallest=config.crop, stretch=4 / 3, flip=True)
    return distorted(pictures, keys, strength=config.strength, blur=config.blur)
