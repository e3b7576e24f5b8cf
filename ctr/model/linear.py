"""Linear layers that keep the image feature's columns separate, and rows taken from a matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def take_rows(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix[index] for a matrix (n, ...) and any index, with the fast and repeatable backward of `embedding`."""
    return F.embedding(index, matrix.flatten(1)).unflatten(-1, matrix.shape[1:])


def put(rows: Tensor, places: list[Tensor], size: int) -> Tensor:
    """(size, W): each row at its place; zeros elsewhere."""
    return rows.new_zeros(size, rows.shape[1]).index_copy(0, torch.cat(places), rows)


class Rows(nn.Module):
    """One row for each bucket of what is added to others, zeros at first: of places in a history, of tiers of cosines."""

    def __init__(self, buckets: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(buckets, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class ImagePart(nn.Module):
    """The columns of a linear layer that read the image feature: z -> z W'. Zeros at first, so every model begins as the baseline."""

    def __init__(self, image_size: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, image_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, image: Tensor) -> Tensor:
        return F.linear(image, self.weight)


class LinearWithImage(nn.Module):
    """A linear layer over [x, image] in two parts: that over x has the same weights whatever the image feature is.

    Args:
        size: of x.
        image_size: of the image feature; 0: none.
        out: of the result.
    """

    def __init__(self, size: int, image_size: int, out: int):
        super().__init__()
        self.base = nn.Linear(size, out)
        self.image = ImagePart(image_size, out) if image_size else None

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        return self.base(x) if self.image is None or image is None else self.base(x) + self.image(image)
