"""SimCLR: two distorted views of a picture attract, all other pictures repel (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.two_views import distorted_view, two_views
from run.randomness import keyed_init


def nt_xent(first_view: Tensor, second_view: Tensor, *, temperature: float, group: Tensor | None = None) -> Tensor:
    """Mean contrastive loss in nats: Chen et al. 2020, Eq. 1.

    l(i,j) = -log( exp(cos(z_i,z_j)/t) / sum_{k!=i} exp(cos(z_i,z_k)/t) )

    Args:
        first_view: (B, D) projections of any length; row i is picture i.
        second_view: (B, D) the same pictures, in the same order.
        temperature: t > 0; divides the cosine.
        group: (B,) a picture's negatives are those of its own group; None: the whole batch.

    Raises:
        ValueError: the views differ in shape.
    """
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
    """The method over the pictures shown in the pretraining period.

    Args:
        items: (M,) item indices of these pictures.
        config: batch size (pictures), temperature, distortion.
        seed: of the order and of the head's first weights.
        group: (N,) each item's group, within which pictures compete; None: the whole batch does.
    """

    def __init__(self, items: np.ndarray, config: PretrainConfig, seed: int, group: np.ndarray | None = None):
        self.items, self.config, self.seed, self.group = items, config, seed, group
        self.batch_size = min(config.batch_pictures, len(items))
        # embeddings are taken before this projection, which is dropped after training
        self.heads = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(inplace=True), nn.Linear(config.dim, config.dim))
        keyed_init(self.heads, seed)

    def step(self, number: int) -> Step:
        return two_views(self.items, self.batch_size, self.seed, number, self.group)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return distorted_view(pixels, keys, size, self.config.distortion)

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        embeddings = outputs["embedding"]
        first, second = self.heads(embeddings).chunk(2)
        return nt_xent(first, second, temperature=self.config.simclr.temperature, group=step.group(embeddings.device)), {}
