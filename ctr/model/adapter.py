"""What a picture's numbers pass through on their way into an item: the same for targets and history items."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MlpAdapter(nn.Module):
    """(U, D) -> (U, W) through one hidden layer of 2 W."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.inward, self.outward = nn.Linear(size, 2 * width), nn.Linear(2 * width, width)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.outward(nn.functional.gelu(self.inward(vectors)))


class GatedAdapter(nn.Module):
    """(U, D) -> (U, W): a linear map, each output times a gate of the same picture (a gated linear unit: arXiv:1612.08083)."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.value, self.gate = nn.Linear(size, width), nn.Linear(size, width)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.value(vectors) * torch.sigmoid(self.gate(vectors))


def new_adapter(kind: str, size: int, width: int) -> nn.Module | None:
    """None for "linear": the layer that the numbers enter is linear itself.

    Args:
        kind: one of ADAPTERS (ctr/config.py).
        size: D.
        width: W.
    """
    return None if kind == "linear" else {"mlp": MlpAdapter, "gated": GatedAdapter}[kind](size, width)
