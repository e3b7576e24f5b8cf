"""Heads of a backbone: (P, F) features -> (P, D) embeddings. Each begins as its linear part alone, which pictures may set.

So a head that starts from the principal components of a frozen body's features starts as the frozen encoder, whatever its shape.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from run.randomness import normal

_SCALE = 0.5  # initial deviation of an embedding dimension
_LEAST = 0.01  # of the features' average deviation
FIRST_START = "all"  # of `starts`: what `from_components` does without weights
_AT_ONCE = 512  # pictures whose features go through a head at once


class StandardisedLinear(nn.Linear):
    """A linear layer of features less their mean and divided by their deviation, which are fixed; 0 and 1 unless pictures set them.

    Adam's steps are equally long in every weight, so features of unequal deviation learn at unequal speeds.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, dim: int):
        super().__init__(features, dim)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward((features - self.mean) / self.deviation)


class MlpHead(nn.Module):
    """Linear part, plus an MLP of the standardised features whose last layer begins at zero."""

    def __init__(self, features: int, dim: int):
        super().__init__()
        self.linear = StandardisedLinear(features, dim)
        self.beside = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        nn.init.zeros_(self.beside[-1].weight)
        nn.init.zeros_(self.beside[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features) + self.beside(features)


class ResidualHead(nn.Module):
    """Linear part z, plus an MLP of z through a gate for each dimension, which begins closed."""

    def __init__(self, features: int, dim: int):
        super().__init__()
        self.linear = StandardisedLinear(features, dim)
        self.beside = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Tensor) -> Tensor:
        z = self.linear(features)
        return z + self.gate * self.beside(z)


def new_head(shape: str, features: int, dim: int) -> nn.Module:
    """A head with random weights.

    Args:
        shape: one of HEAD_SHAPES.
    """
    return {"linear": StandardisedLinear, "mlp": MlpHead, "residual": ResidualHead}[shape](features, dim)


def linear_part(head: nn.Module) -> StandardisedLinear:
    """The part that a head begins as."""
    found = head if isinstance(head, StandardisedLinear) else head.get_submodule("linear")
    assert isinstance(found, StandardisedLinear)
    return found


def starts(features_PF: Tensor, parts: tuple[int, ...]) -> dict[str, Tensor]:
    """Name -> (F,) what the features are multiplied by before their components are taken: the frozen encoders to choose from.

    "all": every layer as it is; "last": the last layer alone; "alike": all columns standardised, and all layers of equal weight, however
    many numbers they have. A body of one layer has only "all".

    Args:
        parts: as `Body.parts`.
    """
    as_it_is = torch.ones_like(features_PF[0])
    if len(parts) == 1:
        return {FIRST_START: as_it_is}
    size = torch.tensor(parts, device=as_it_is.device)
    first = torch.arange(len(as_it_is), device=as_it_is.device) < parts[0]
    alike = 1 / (_deviation(features_PF) * size.repeat_interleave(size).sqrt())
    return {FIRST_START: as_it_is, "last": as_it_is * first, "alike": alike}


def _deviation(features_PF: Tensor) -> Tensor:
    """(F,): at least a share of the average one, since a feature that hardly differs between these pictures may do so in others."""
    deviation_F = features_PF.std(0)
    return deviation_F.clamp(min=_LEAST * deviation_F.mean())


@torch.no_grad()
def from_components(head: nn.Module, features_PF: Tensor, *, whiten: bool, weight_F: Tensor | None = None) -> None:
    """Set the linear part from pictures: the principal components of their features, whose number is the embedding's length.

    Standardised features change nothing of what it begins as, only how it learns.

    From random weights, all embeddings are nearly one direction plus noise; these are the directions in which pictures differ most (a
    data-dependent start: Kraehenbuehl et al. 2016, arXiv:1511.06856). A head with more outputs than features gives zeros in the rest.

    Args:
        features_PF: of more pictures than the head has outputs.
        whiten: scale each component to the same deviation; otherwise all by one factor, which leaves cosines as those of the features,
            less their mean and the components left out.
        weight_F: what the features are multiplied by first; None: 1.
    """
    linear = linear_part(head)
    weight_F = torch.ones_like(features_PF[0]) if weight_F is None else weight_F
    variance, directions = _eigh(torch.cov((features_PF * weight_F).T))
    kept = min(linear.out_features, linear.in_features)
    weight = torch.zeros_like(linear.weight)
    deviation = variance[-kept:].clamp(min=1e-6 * variance[-1]).sqrt() if whiten else variance[-kept:].clamp(min=0).mean().sqrt()
    weight[:kept] = (directions[:, -kept:] / deviation).T * _SCALE
    linear.mean.copy_(features_PF.mean(0))
    linear.deviation.copy_(_deviation(features_PF))
    linear.weight.copy_(weight * weight_F * linear.deviation)
    linear.bias.zero_()


def _eigh(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors; in float64 where float32 does not converge, as with more features than pictures."""
    try:
        return torch.linalg.eigh(covariance)
    except torch.linalg.LinAlgError:
        values, vectors = torch.linalg.eigh(covariance.double())
        return values.to(covariance.dtype), vectors.to(covariance.dtype)


@torch.no_grad()
def add_common(head: nn.Module, features_PF: Tensor, *, common: float, seed: int) -> None:
    """Make the head give embeddings of a known size, centred on one common vector.

    If the loss of random embeddings is above chance level, contrastive training at a low temperature first removes the differences
    between pictures. Adam has then seen large gradients and hardly moves: the encoder stays collapsed. The common vector keeps cosines so
    close that the loss begins near the log of the number of candidates, where every gradient is signal.

    Args:
        features_PF: of some pictures.
        common: length of the common vector, as a multiple of the embeddings' average distance from it.
        seed: of its direction.
    """
    linear = linear_part(head)
    embeddings_PD = torch.cat([linear(part) for part in features_PF.split(_AT_ONCE)])
    mean_D = embeddings_PD.mean(0)
    length = _SCALE * linear.out_features**0.5
    scale = length / (embeddings_PD - mean_D).norm(dim=1).mean()
    direction = torch.from_numpy(normal(seed, "common", np.arange(linear.out_features))).to(linear.weight)
    linear.weight.mul_(scale)
    linear.bias.sub_(mean_D).mul_(scale).add_(direction / direction.norm() * common * length)
