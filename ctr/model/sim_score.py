"""SimScore (Eq. 8): how alike the pictures of a target and of each history item are.

U distinct items, s sessions of a run, P most impressions in a session, L history items.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctr.inputs.length_buckets import BucketedHistory, LengthBucket
from ctr.model.linear import take_rows


class Cosines(NamedTuple):
    """How cosines are standardised, and whether an item's cosine with itself is left out."""

    mean: float = 0.0
    spread: float = 1.0
    mask_same_item: bool = False


def similarity(
    vectors_UD: Tensor, present_U: Tensor, history: BucketedHistory, run: LengthBucket, grid_SP: Tensor, cosines: Cosines
) -> Tensor:
    """(s, P, L, 2): standardised cosine of the target's and each history picture, and 1 where both have one; else 0 and 0.

    Where the history item is the target itself, the cosine is 1 whatever the encoder: it would tell not how the pictures look but
    that the user has clicked this very item, which the baseline is not told. Masked, it counts as an average pair.

    Args:
        vectors_UD: unit rows.
        grid_SP: the sessions' targets side by side: all pairs of a session are one matrix product.
    """
    item_sL, target_sP = history.item[run.item], grid_SP[run.session]
    cosine_sPL = take_rows(vectors_UD, target_sP) @ take_rows(vectors_UD, item_sL).transpose(1, 2)
    seen_sL = present_U[item_sL] if run.real is None else present_U[item_sL] & run.real
    both_sPL = present_U[target_sP][:, :, None] & seen_sL[:, None]
    return pair_feature(cosine_sPL, both_sPL, target_sP[:, :, None] != item_sL[:, None], cosines)


def pair_feature(cosine: Tensor, both: Tensor, differ: Tensor, cosines: Cosines) -> Tensor:
    """(..., 2): standardised cosines, 0 where not told, and whether both have a picture.

    Args:
        cosine: (...) of two pictures.
        both: (...) bool, both are there.
        differ: (...) bool, they are of two items.
    """
    told = both & differ if cosines.mask_same_item else both
    score = (cosine - cosines.mean) / cosines.spread * told
    return torch.stack([score, both.to(score.dtype)], dim=-1)
