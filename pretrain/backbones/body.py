"""The body of a backbone: pictures -> features, before any head of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, per colour


class Body(nn.Module, ABC):
    """A network without its classifier: (P, 3, H, W) RGB in [0, 1] -> (P, F) features. A subclass gives `features` and `last_map`.

    Batch norm keeps the statistics it was loaded with, in training too, so that a picture's features depend on no other picture; its
    scale and shift are trained.

    Args:
        size: F.
        parts: of F, the numbers that each layer gives; the last layer comes first. Empty: all are of one layer.
        mean, std: of the colours that the network was trained on; it normalises by them itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD, parts: tuple[int, ...] = ()
    ):
        super().__init__()
        self.size, self.parts = size, parts or (size,)
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(self.normalised(pictures))

    def feature_map(self, pictures: Tensor) -> Tensor:
        """(P, 3, H, W) -> (P, C, h, w): the last features that still have places in the picture."""
        return self.last_map(self.normalised(pictures))

    def normalised(self, pictures: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation, per colour."""
        return (pictures - self.mean).div_(self.std)

    @abstractmethod
    def features(self, pictures: Tensor) -> Tensor:
        """(P, F) of normalised pictures."""

    @abstractmethod
    def last_map(self, pictures: Tensor) -> Tensor:
        """(P, C, h, w) of normalised pictures."""

    def recompute_blocks(self) -> None:
        """Recompute activations block by block in the backward pass; a body without blocks keeps them."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm):
                part.training = False
        return self


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation that is independent of other pictures: groups of 16 channels."""
    return nn.GroupNorm(max(1, channels // 16), channels)


class SmallCnn(Body):
    """Four strided convolutions, for CPUs: 1/16 of a side in the last map."""

    def __init__(self, width: int = 16):
        super().__init__(8 * width)
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width, 8 * width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), group_norm(out), nn.ReLU(inplace=True)]
            channels = out
        self.net = nn.Sequential(*layers)

    def features(self, pictures: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.net(pictures), 1).flatten(1)

    def last_map(self, pictures: Tensor) -> Tensor:
        return self.net(pictures)
