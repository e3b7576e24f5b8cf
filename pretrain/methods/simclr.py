"""SimCLR: two distorted views of a picture attract, all other pictures repel (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pretrain.methods.method import Method, Step
from pretrain.methods.two_views import DistortionConfig, distorted_view, two_views
from pretrain.settings import CommonConfig, MethodSettings
from run.config import positive

if TYPE_CHECKING:
    from torch import Tensor

    from pretrain.methods.method import Outputs


@dataclass(frozen=True, kw_only=True)
class SimClrConfig(MethodSettings):
    """SimCLR's own settings."""

    part = "simclr"

    temperature: float = 0.2  # simclr: divides the cosine; > 0

    def __post_init__(self):
        positive("simclr.temperature", self.temperature)


def nt_xent(first_view: Tensor, second_view: Tensor, *, temperature: float, group: Tensor | None = None) -> Tensor:
    """Mean contrastive loss in nats: Chen et al. 2020, Eq. 1.

    l(i,j) = -log( exp(cos(z_i,z_j)/t) / sum_{k!=i} exp(cos(z_i,z_k)/t) )

    Args:
        first_view: (B, D) projections of any length; row i is picture i.
        second_view: (B, D) the same pictures, row by row.
        temperature: t > 0; divides the cosine.
        group: (B,) a picture's negatives are those of its own group; None: all of the batch.

    Raises:
        ValueError: the views differ in shape.
    """
    import torch
    import torch.nn.functional as F

    if first_view.shape != second_view.shape:
        raise ValueError(f"views differ in shape: {tuple(first_view.shape)} and {tuple(second_view.shape)}")
    views = F.normalize(torch.cat([first_view, second_view]), dim=1)
    similarity = views @ views.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    if group is not None:
        both = group.repeat(2)
        similarity = similarity.masked_fill(both[:, None] != both[None, :], -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first_view))
    return F.cross_entropy(similarity, partner)


class SimClr(Method):
    """SimCLR over the pictures shown in the pretraining period; `Method` describes its arguments."""

    settings = SimClrConfig
    also_reads = (DistortionConfig,)
    contrasts = True
    by_default = True
    frozen_views = "distorted"

    def __init__(self, items: np.ndarray, config: CommonConfig, seed: int, group: np.ndarray | None = None):
        from torch import nn

        from run.randomness import keyed_init

        super().__init__(items, config, seed, group)
        # embeddings are taken before this projection, which is dropped after training
        self.heads = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(inplace=True), nn.Linear(config.dim, config.dim))
        keyed_init(self.heads, seed)

    def step(self, number: int) -> Step:
        return two_views(self.items, self.batch_size, self.seed, number, self.group)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return distorted_view(pixels, keys, size, self.config.part(DistortionConfig))

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        embeddings = outputs["embedding"]
        first, second = self.heads(embeddings).chunk(2)
        return nt_xent(first, second, temperature=self.own.temperature, group=step.group(embeddings.device)), {}
