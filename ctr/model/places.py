"""The places where an image feature enters the CTR model (features/forms/form.py), as columns of an item or of a pair.

U distinct items, s sessions of a length bucket, P most impressions in a session, L history items, F columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctr.config import CtrConfig
from ctr.inputs.encode import Layout
from ctr.inputs.length_buckets import BucketedHistory, LengthBucket
from ctr.model.linear import take_rows
from features.forms.form import ITEM_NUMBERS, ITEM_TABLE, PAIR


class Cosines(NamedTuple):
    """How cosines are standardised, and whether an item's cosine with itself is left out."""

    mean: float = 0.0
    spread: float = 1.0
    mask_same_item: bool = False


def item_columns(layout: Layout, config: CtrConfig) -> int:
    """F of an item: of targets and of history items."""
    return {ITEM_NUMBERS: layout.vector_size + 1, ITEM_TABLE: config.cluster_size}.get(layout.place, 0)


def history_columns(layout: Layout, config: CtrConfig) -> int:
    """F of what a history reads: of its items, or of the pairs of target and item."""
    return 2 if layout.place == PAIR else item_columns(layout, config)


def item_feature(layout: Layout, vectors: Tensor | None, present: Tensor, from_table: Tensor | None) -> Tensor | None:
    """(U, F) the image feature of items; None for a form that does not enter with items.

    Args:
        vectors: (U, D) zero rows without a picture.
        present: (U,) bool.
        from_table: (U, F) the rows of the image table.
    """
    if layout.place == ITEM_TABLE:
        return from_table
    if layout.place == ITEM_NUMBERS:
        assert vectors is not None
        return torch.cat([vectors, present[:, None].to(vectors.dtype)], dim=1)
    return None


def bucket_pairs(
    vectors_UD: Tensor, present_U: Tensor, history: BucketedHistory, bucket: LengthBucket, grid_SP: Tensor, cosines: Cosines
) -> Tensor:
    """(s, P, L, 2): the pair feature between targets and history items of a bucket's sessions.

    Args:
        vectors_UD: unit rows.
        grid_SP: the targets of each session; all pairs of a session are one matrix product.
    """
    item_sL, target_sP = history.item[bucket.item], grid_SP[bucket.session]
    cosine_sPL = take_rows(vectors_UD, target_sP) @ take_rows(vectors_UD, item_sL).transpose(1, 2)
    seen_sL = present_U[item_sL] if bucket.real is None else present_U[item_sL] & bucket.real
    both_sPL = present_U[target_sP][:, :, None] & seen_sL[:, None]
    return pair_feature(cosine_sPL, both_sPL, target_sP[:, :, None] != item_sL[:, None], cosines)


def candidate_pairs(vectors: Tensor, present: Tensor, candidates_C: Tensor, history_L: Tensor, cosines: Cosines) -> Tensor:
    """(C, L, 2): the pair feature of one user's candidates and history, in which -1 is padding."""
    history = history_L.clamp(min=0)
    both_CL = present[candidates_C][:, None] & (present[history] & (history_L >= 0))[None]
    return pair_feature(vectors[candidates_C] @ vectors[history].T, both_CL, candidates_C[:, None] != history_L[None], cosines)


def pair_feature(cosine: Tensor, both: Tensor, differ: Tensor, cosines: Cosines) -> Tensor:
    """(..., 2): standardised cosines, and 1 where both have a picture; else 0 and 0.

    Where the history item is the target itself, the cosine is 1 whatever the encoder: it would reveal, not how the pictures look, but
    that the user has clicked this very item, which the baseline does not know. Masked, it counts as an average pair.

    Args:
        cosine: (...) of two pictures (paper, Eq. 8).
        both: (...) bool, both have a picture.
        differ: (...) bool, they are of two items.
    """
    shown = both & differ if cosines.mask_same_item else both
    score = (cosine - cosines.mean) / cosines.spread * shown
    return torch.stack([score, both.to(score.dtype)]).movedim(0, -1)  # in memory one after the other: `with_scores` reads each alone
