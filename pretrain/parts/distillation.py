"""Masked self-distillation (Dong et al. 2023): a student that sees a few patches predicts the others; a teacher sees them all.

A patch is what one place of the backbone's last feature map covers: 32 pixels a side for Swin-T, as in SimMIM (arXiv 2111.09886), and 16
for the small CNN. A convolution or a shifted window cannot drop patches: masked ones are replaced, and the student computes as much as
on a full picture.

Shapes: P pictures, S places of a feature map, M masked places, C channels, V of the decoder, W width of the codes, K codewords.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.backbones.backbone import Backbone
from pretrain.parts.text import Block
from run.randomness import uniform

_TILE = 4  # pixels a side of the learned tile: that of the patches that Swin-T embeds in its first layer
_HEAD = 32  # channels of each head of the decoder's attention


def masked_places(items: np.ndarray, places: int, share: float, *, seed: int, number: int) -> np.ndarray:
    """(P, S) bool: which places of each picture are masked in step `number`: the same number in each, at least one masked and one left.

    Args:
        items: (P,) item index of each picture; with seed and step it keys the draw.
        places: S, at least 2.
        share: of the places.
    """
    count = min(max(1, round(share * places)), places - 1)
    draw = uniform(seed, "mask", number, items[:, None], np.arange(places)[None, :])
    return draw.argsort(1, kind="stable").argsort(1, kind="stable") < count


def distillation_loss(student_PMK: Tensor, teacher_PMK: Tensor, *, student_temperature: float, teacher_temperature: float) -> Tensor:
    """(P,) cross entropy of the student's soft codes under the teacher's, in nats, mean over a picture's masked places.

    l = -sum_k q_k log p_k,  q = softmax(teacher / t_teacher), p = softmax(student / t_student); no gradient goes through q.

    Args:
        student_PMK: (P, M, K) similarities with the codewords at masked places.
        teacher_PMK: (P, M, K) of the same places.
    """
    code_PMK = (teacher_PMK.detach().float() / teacher_temperature).softmax(-1)
    return -(code_PMK * (student_PMK.float() / student_temperature).log_softmax(-1)).sum(-1).mean(1)


class HiddenPatches(nn.Module):
    """Replaces masked patches by a learned tile of pixels.

    For Swin-T, whose first layer embeds patches of 4 x 4 pixels linearly, the tile is SimMIM's mask token, except that it stays
    among the embeddings of possible pixels. It is initialised with the mean colour.

    Args:
        colour: (1, 3, 1, 1) that mean.
    """

    def __init__(self, colour: Tensor):
        super().__init__()
        self.tile = nn.Parameter(colour[0].expand(3, _TILE, _TILE).clone())

    def forward(self, pictures: Tensor, masked_PS: Tensor, height: int) -> Tensor:
        """(P, 3, H, W) and masked places of a map with `height` rows -> the pictures as the student sees them."""
        rows, columns = pictures.shape[2:]
        cells = masked_PS.unflatten(1, (1, height, -1)).to(pictures.dtype)
        hidden = F.interpolate(cells, size=(rows, columns), mode="nearest") > 0.5
        tiles = self.tile.repeat(1, -(-rows // _TILE), -(-columns // _TILE))[:, :rows, :columns]
        return torch.where(hidden, tiles.to(pictures.dtype), pictures)


class FeatureDecoder(nn.Module):
    """One layer of a transformer with mask tokens at masked places: what the student has seen -> features where it has not.

    It is half as wide as the features, because a decoder may be small (He et al. 2022, arXiv 2111.06377).
    """

    def __init__(self, channels: int, places: int):
        super().__init__()
        width = max(1, channels // 2)
        self.inward, self.outward = nn.Linear(channels, width), nn.Linear(width, channels)
        self.token, self.place = nn.Embedding(1, width), nn.Embedding(places, width)
        self.block, self.norm = Block(width, math.gcd(width, max(1, width // _HEAD))), nn.LayerNorm(width)

    def forward(self, features_PSC: Tensor, masked_PS: Tensor) -> Tensor:
        """(P, S, C) features of the masked pictures -> (P, M, C) at the masked places, in their order; all rows mask equally many."""
        known_PSV = self.inward(features_PSC)
        states_PSV = torch.where(masked_PS[:, :, None], self.token.weight.to(known_PSV.dtype), known_PSV)
        states_PSV = self.block(states_PSV + self.place.weight)
        return self.outward(self.norm(at_masked(states_PSV, masked_PS)))


def at_masked(features_PSC: Tensor, masked_PS: Tensor) -> Tensor:
    """(P, M, C): the masked places of each picture, the same number in each."""
    return features_PSC[masked_PS].unflatten(0, (len(features_PSC), -1))


class Quantiser(nn.Module):
    """Features -> their cosines with K learned codewords, from a projection less its common part."""

    def __init__(self, channels: int, width: int, codewords: int):
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, width))
        self.codewords = nn.Embedding(codewords, width)

    def forward(self, projected: Tensor, centre_W: Tensor) -> Tensor:
        """(..., W) of `projection` -> (..., K)."""
        return F.normalize(projected - centre_W, dim=-1) @ F.normalize(self.codewords.weight, dim=1).T


class Teacher(nn.Module):
    """A moving average of the student, without gradients: backbone and quantiser.

    Args:
        student: a backbone with the student's initial weights.
        quantiser: the student's, which is copied.
        width: W.
    """

    centre: Tensor
    next_centre: Tensor

    def __init__(self, student: Backbone, quantiser: Quantiser, width: int):
        super().__init__()
        self.backbone, self.quantiser = student, copy.deepcopy(quantiser)
        self.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(width))  # what projections have in common
        self.register_buffer("next_centre", torch.zeros(width))  # the centre from the next step on
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)  # it drops nothing

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """(P, S, W) projections of full pictures."""
        return self.quantiser.projection(places_last(self.backbone.feature_map(pictures)))

    @torch.no_grad()
    def observe(self, projected_PW: Tensor, kept: float) -> None:
        """Average the mean of a step's projections into the next centre, which keeps a share `kept` of itself; `follow` applies it."""
        self.next_centre.copy_(kept * self.centre + (1 - kept) * projected_PW.mean(0))

    @torch.no_grad()
    def follow(self, student: nn.Module, quantiser: Quantiser, kept: float) -> None:
        """weight = kept x weight + (1 - kept) x the student's."""
        for own, theirs in ((self.backbone, student), (self.quantiser, quantiser)):
            torch._foreach_lerp_(list(own.parameters()), list(theirs.parameters()), 1 - kept)
        self.centre.copy_(self.next_centre)


def places_last(features_PCHW: Tensor) -> Tensor:
    """(P, C, H, W) -> (P, S, C), row by row."""
    return features_PCHW.flatten(2).transpose(1, 2)
