"""Retrieval before attention: the K history items most like the target (SIM, arXiv:2006.05639; by pictures: MUSE, arXiv:2512.07216).

s sessions of a length bucket, b impressions, P most impressions in a session, L history items, K retrieved ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctr.inputs.length_buckets import BucketedHistory, LengthBucket
from ctr.model.places import Cosines, Pairs, Reading, compared

_STEPS = 1 << 20  # cosines are rounded to a millionth, so that sums in another order hardly ever retrieve another item
_BELOW = -2 * _STEPS  # of an item without a picture, and of the target itself where that is masked: below any cosine
_PADDING = -4 * _STEPS


def likeness_of_pictures(pairs: Pairs, cosines: Cosines) -> Tensor:
    """(s, P, L) int32: cosines as whole numbers; items that cannot be compared come after all others, padding last."""
    steps = (pairs.cosine * _STEPS).round().int()
    return steps.where(compared(pairs, cosines), _BELOW)


def likeness_of_groups(target_sP: Tensor, item_sL: Tensor) -> Tensor:
    """(s, P, L) int32: 1 where target and item are of one known group, else 0.

    Args:
        target_sP, item_sL: groups; 0 is unknown.
    """
    return ((target_sP[:, :, None] == item_sL[:, None]) & (item_sL > 0)[:, None]).int()


def most_alike(likeness_bL: Tensor, real_bL: Tensor | None, count: int) -> Tensor:
    """(b, K) int64 ascending places of the `count` most alike items, the newest of equal ones; padding where there are fewer.

    Args:
        count: K, at most L.
    """
    if real_bL is not None:
        likeness_bL = likeness_bL.where(real_bL, _PADDING)
    length = likeness_bL.shape[1]
    key_bL = likeness_bL.long() * length + torch.arange(length, device=likeness_bL.device)
    return key_bL.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def retrieved(reading: Reading, likeness: list[Tensor], target_B: Tensor, count: int) -> Reading:
    """The same history for each target alone, with the items most like it; a bucket that has no more stays as it is.

    Args:
        likeness: (s, P, L) of each length bucket.
        target_B: (B,) which distinct item.
        count: K.
    """
    buckets = []
    for bucket, likeness_sPL in zip(reading.history.buckets, likeness, strict=True):
        item_bL, age_bL = bucket.item[bucket.row], bucket.age[bucket.row]
        real_bL = None if bucket.real is None else bucket.real[bucket.row]
        if item_bL.shape[1] > count:
            place_bK = most_alike(likeness_sPL[bucket.row, reading.slot[bucket.impression]], real_bL, count)
            item_bL, age_bL = item_bL.gather(1, place_bK), age_bL.gather(1, place_bK)
            real_bL = None if real_bL is None else real_bL.gather(1, place_bK)
        own = torch.arange(len(bucket.impression), device=bucket.row.device)
        buckets.append(LengthBucket(item_bL, real_bL, age_bL, session=bucket.impression, impression=bucket.impression, row=own))
    return Reading(BucketedHistory(reading.history.item, tuple(buckets)), target_B[:, None], torch.zeros_like(reading.slot))
