"""A momentum encoder and its queue: negatives of earlier steps, by a slow copy of the encoder (He et al. 2020, arXiv:1911.05722)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Momentum(nn.Module):
    """A slow copy of what is trained, and the newest embeddings that it gave, with their items.

    Args:
        trained: at its initial weights.
        dim: length of an embedding.
        size: Q, entries of the queue.
        kept: share of itself that the copy keeps per step.
    """

    embedding: Tensor  # (Q, D)
    item: Tensor  # (Q,) int64; -1: empty
    place: Tensor  # () int64: where the next entry goes

    def __init__(self, trained: nn.Module, *, dim: int, size: int, kept: float):
        super().__init__()
        self.kept, self.copy = kept, copy.deepcopy(trained)
        self.requires_grad_(False)
        self.register_buffer("embedding", torch.zeros(size, dim))
        self.register_buffer("item", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Momentum:
        return super().train(False)  # it drops nothing

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """(P, D) of pictures, or of a frozen body's features."""
        return self.copy(pictures)

    @torch.no_grad()
    def push(self, embedding_PD: Tensor, item_P: Tensor) -> None:
        """Put a step's embeddings into the queue, in place of the oldest; of more than fit, the last stay."""
        embedding_PD, item_P = embedding_PD[-len(self.item) :], item_P[-len(self.item) :]
        where = (self.place + torch.arange(len(item_P), device=item_P.device)) % len(self.item)
        self.embedding[where] = embedding_PD.to(self.embedding)
        self.item[where] = item_P
        self.place.copy_((self.place + len(item_P)) % len(self.item))

    @torch.no_grad()
    def follow(self, trained: nn.Module) -> None:
        """weight = kept x weight + (1 - kept) x the trained one's."""
        torch._foreach_lerp_(list(self.copy.parameters()), list(trained.parameters()), 1 - self.kept)
