"""The places where image features enter the CTR model (features/forms/form.py), as columns of an item, of a pair, or of an impression.

U distinct items, s sessions of a length bucket, P most impressions in a session, L history items, F columns, T tiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctr.config import CtrConfig
from ctr.inputs.encode import HISTORIES, Layout
from ctr.inputs.length_buckets import BucketedHistory, LengthBucket
from ctr.model.linear import take_rows
from features.forms.form import ITEM_NUMBERS, ITEM_TABLE, PAIR, PAIR_ATTENTION, PAIR_COUNTS

_ROUNDING = 1e-6  # of cosines in float32, at most
_STEPS = 4096  # of cosines from 0 to 1: tiers begin at whole steps, and looking a step up is several times faster than a search
_BESIDE_COUNTS = 2  # columns beside a history's counts


class Cosines(NamedTuple):
    """How cosines are standardised, and whether an item's cosine with itself is left out."""

    mean: float = 0.0
    spread: float = 1.0
    mask_same_item: bool = False


class Reading(NamedTuple):
    """A history as it is read: for the targets of each session, or, where items are retrieved, for one target alone."""

    history: BucketedHistory
    grid: Tensor  # (S, P) int64: the targets of each session
    slot: Tensor  # (B,) int64: the impression's place in its row of `grid`


class Tiers(NamedTuple):
    """Where tiers of cosines begin."""

    count: int  # T
    of_step: Tensor  # (2 x _STEPS + 1,) int32: the tier of the cosines of each step, from -1 to 1


class Pairs(NamedTuple):
    """Targets and history items: s sessions with P targets and L items each."""

    cosine: Tensor  # (s, P, L) of their pictures
    both: Tensor  # (s, P, L) bool: both have a picture, and the history item is no padding
    differ: Tensor  # (s, P, L) bool: they are of two items
    length: Tensor  # (s,) history items

    def sessions(self, at: slice) -> Pairs:
        """Those of some sessions."""
        return Pairs(*(part[at] for part in self))


def item_columns(layout: Layout, config: CtrConfig) -> int:
    """F of an item: of targets and of history items."""
    numbers = {image.place: image.size if config.adapter == "linear" else config.width for image in layout.images}
    sizes = {ITEM_NUMBERS: numbers.get(ITEM_NUMBERS, 0) + 1, ITEM_TABLE: config.cluster_size}
    return sum(sizes.get(image.place, 0) for image in layout.images)


def pair_columns(layout: Layout) -> int:
    """F of a pair of target and history item."""
    return 2 if layout.image(PAIR) is not None else 0


def impression_columns(layout: Layout, config: CtrConfig) -> int:
    """F of an impression, of all histories."""
    sizes = {PAIR_COUNTS: config.tiers + _BESIDE_COUNTS, PAIR_ATTENTION: config.width}
    return len(HISTORIES) * sum(size for place, size in sizes.items() if layout.image(place) is not None)


def cosines_of(layout: Layout, config: CtrConfig) -> Cosines:
    """How the model reads cosines, by what its forms have learned of them."""
    image = layout.image(PAIR)
    if image is None:
        return Cosines(mask_same_item=config.mask_same_item)
    return Cosines(image.constants["mean"][0], image.constants["spread"][0], config.mask_same_item)


def item_feature(
    layout: Layout, vectors: Tensor | None, present: Tensor, found: Mapping[str, Tensor], adapter: nn.Module | None
) -> Tensor | None:
    """(U, F) the image features of items; None where no form enters with items.

    Args:
        vectors: (U, D) zero rows without a picture.
        present: (U,) bool.
        found: (U, F) the rows of each image table.
        adapter: of vectors, or None. An item without a picture has zeros, whatever it makes of them.
    """
    parts = []
    for image in layout.images:
        if image.place == ITEM_TABLE:
            parts.append(torch.stack([found[name] for name in image.tables]).sum(0))
        elif image.place == ITEM_NUMBERS:
            assert vectors is not None
            flag_U1 = present[:, None].to(vectors.dtype)
            parts += [vectors if adapter is None else adapter(vectors) * flag_U1, flag_U1]
    return torch.cat(parts, dim=1) if parts else None


def pairs_of(unit_UD: Tensor, present_U: Tensor, reading: Reading) -> list[Pairs]:
    """The pairs of targets and history items of each length bucket; all pairs of a session are one matrix product.

    Args:
        unit_UD: unit rows.
    """
    return [_bucket_pairs(unit_UD, present_U, reading, bucket) for bucket in reading.history.buckets]


def _bucket_pairs(unit_UD: Tensor, present_U: Tensor, reading: Reading, bucket: LengthBucket) -> Pairs:
    item_sL, target_sP = reading.history.item[bucket.item], reading.grid[bucket.session]
    return compare(unit_UD, present_U, target_sP, item_sL, bucket.real)


def compare(unit_UD: Tensor, present_U: Tensor, target_sP: Tensor, item_sL: Tensor, real_sL: Tensor | None) -> Pairs:
    """Targets and history items of each session, as numbers of distinct items; in float32 always: rounding would move pairs between tiers.

    Args:
        real_sL: bool, False is padding; None: there is none.
    """
    with torch.autocast(unit_UD.device.type, enabled=False):
        cosine_sPL = take_rows(unit_UD, target_sP).float() @ take_rows(unit_UD, item_sL).float().transpose(1, 2)
    seen_sL = present_U[item_sL] if real_sL is None else present_U[item_sL] & real_sL
    both_sPL = present_U[target_sP][:, :, None] & seen_sL[:, None]
    length_s = item_sL.new_full(item_sL.shape[:1], item_sL.shape[1]) if real_sL is None else real_sL.sum(1)
    return Pairs(cosine_sPL, both_sPL, target_sP[:, :, None] != item_sL[:, None], length_s)


def pair_feature(pairs: Pairs, cosines: Cosines) -> Tensor:
    """(s, P, L, 2): standardised cosines, and 1 where both have a picture; else 0 and 0.

    Where the history item is the target itself, the cosine is 1 whatever the encoder: it would reveal, not how the pictures look, but
    that the user has clicked this very item, which the baseline does not know. Masked, it counts as an average pair.
    """
    shown = compared(pairs, cosines)
    score = (pairs.cosine - cosines.mean) / cosines.spread * shown
    return torch.stack([score, pairs.both.to(score.dtype)]).movedim(0, -1)  # one after the other in memory: `with_scores` reads each alone


def tier_edges(layout: Layout, config: CtrConfig) -> Tensor:
    """(T - 1,) float32 ascending cosines between tiers.

    At quantiles, tier k of T begins where a share 1 - (1 - k / T)^2 of the cosines that training meets lie below: the top one holds one
    in T^2 of them, for the most similar items tell most. Edges are whole steps. Quantiles often are cosines of pictures that training meets
    again and again, so edges lie a millionth below them at least: sums in another order must not move a pair to another tier.
    """
    image = layout.image(PAIR_COUNTS) or layout.image(PAIR_ATTENTION)
    steps = torch.arange(1, config.tiers, dtype=torch.float64) / config.tiers
    if image is None or config.tier_edges == "equal":
        wanted = 2 * steps - 1
    else:
        quantiles = torch.tensor(image.constants["quantiles"], dtype=torch.float64)
        at = (1 - (1 - steps).square()) * (len(quantiles) - 1)
        below = at.floor().long()
        wanted = torch.lerp(quantiles[below], quantiles[(below + 1).clamp(max=len(quantiles) - 1)], at - below)
    return ((wanted - _ROUNDING) * _STEPS).floor().div(_STEPS).float()


def tiers_between(edges: Tensor) -> Tiers:
    """Tiers with these edges, each of which holds its lower one.

    Args:
        edges: (T - 1,) float32 ascending, whole steps.
    """
    steps = torch.arange(-_STEPS, _STEPS + 1, dtype=torch.float32, device=edges.device) / _STEPS
    return Tiers(len(edges) + 1, torch.bucketize(steps, edges, right=True).int())


def tiers_of(cosine: Tensor, tiers: Tiers) -> Tensor:
    """The tier of each cosine, int64 from 0 to T - 1."""
    step = (cosine.float() * _STEPS).floor().add(_STEPS).clamp(0, 2 * _STEPS).int()
    return tiers.of_step.index_select(0, step.flatten()).view(step.shape).long()


@torch.no_grad()
def tier_counts(pairs: Pairs, tiers: Tiers, cosines: Cosines) -> Tensor:
    """(s, P, T + 2): log1p of the number of history items in each tier of cosines with the target; the share that is in any; log1p of L.

    Padding, items without a picture and, masked, the target itself are in no tier (SimTier's published code counts padding among those of
    cosine 0).
    """
    counted_sPL = compared(pairs, cosines).float()
    tier_sPL = tiers_of(pairs.cosine, tiers)
    count_sPT = counted_sPL.new_zeros(*tier_sPL.shape[:2], tiers.count).scatter_add_(2, tier_sPL, counted_sPL)
    length_s11 = pairs.length[:, None, None].float()
    share_sP1 = counted_sPL.sum(2, keepdim=True) / length_s11.clamp(min=1)
    return torch.cat([count_sPT.log1p(), share_sP1, length_s11.log1p().expand_as(share_sP1)], dim=2)


def compared(pairs: Pairs, cosines: Cosines) -> Tensor:
    """(s, P, L) bool: pairs whose cosine counts."""
    return pairs.both & pairs.differ if cosines.mask_same_item else pairs.both
