"""Where a history item stands in its history: a bucket of its position from the newest, or of the time since; and the newest few.

Buckets grow with the distance, so that 1000 items need no more than 40 of them, and each is seen often enough to be learned.

Legend: s sessions, L history items, K windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_EXACT = 8  # positions with a bucket of their own
_PER_DOUBLING = 4  # buckets per doubling of the position after those
_GAPS = 32  # doublings of seconds: 2^31 s are 68 years
_UNKNOWN = _GAPS  # the bucket of an unknown time


def order_buckets(order: str, most: int) -> int:
    """How many buckets histories of at most `most` items have."""
    if order == "gap":
        return _GAPS + 1
    return int(position_bucket(torch.tensor([max(0, most - 1)]))) + 1 if order == "position" else 0


def order_bucket(order: str, position_sL: Tensor, age_sL: Tensor) -> Tensor:
    """(s, L) int64: the bucket of each history item.

    Args:
        position_sL: 0 for the newest item, 1 for the one before, ...
        age_sL: log1p seconds since each event; below 0 where not known.
    """
    return position_bucket(position_sL) if order == "position" else gap_bucket(age_sL)


def position_bucket(position: Tensor) -> Tensor:
    """int64: the position itself below 8, then four buckets per doubling.

    >>> position_bucket(torch.tensor([0, 7, 8, 9, 10, 16, 32])).tolist()
    [0, 7, 8, 8, 9, 12, 16]
    """
    later = torch.log2(position.clamp(min=_EXACT) / _EXACT) * _PER_DOUBLING
    return torch.where(position < _EXACT, position, _EXACT + later.long())


def gap_bucket(age: Tensor) -> Tensor:
    """int64: doublings of one second, the last one where the time is not known.

    >>> gap_bucket(torch.log1p(torch.tensor([0.0, 1.0, 3.0, 1e6]))).tolist(), gap_bucket(torch.tensor([-1.0])).tolist()
    ([0, 1, 2, 19], [32])
    """
    bucket = (age / math.log(2) + 1e-4).long().clamp(0, _GAPS - 1)
    return torch.where(age < 0, _UNKNOWN, bucket)


def positions(like_sL: Tensor, real_sL: Tensor | None) -> Tensor:
    """(s, L) int64: how many newer items each has; 0 on padding, which follows the newest."""
    length = like_sL.shape[1]
    column_L = torch.arange(length, device=like_sL.device)
    if real_sL is None:
        return (length - 1 - column_L).expand(like_sL.shape)
    return (real_sL.sum(1, keepdim=True) - 1 - column_L).clamp(min=0)


def window_shares(position_sL: Tensor, real_sL: Tensor | None, windows: Sequence[int]) -> Tensor:
    """(s, K, L) float32: for each window the share of each item in the mean over the newest items."""
    size_K = torch.tensor(windows, device=position_sL.device)
    inside_sKL = position_sL[:, None] < size_K[:, None]
    if real_sL is not None:
        inside_sKL = inside_sKL & real_sL[:, None]
    return inside_sKL / inside_sKL.sum(-1, keepdim=True).clamp(min=1)
