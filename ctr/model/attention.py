"""What a user did before, pooled by attention: a history of items becomes one vector.

U distinct items of a batch, n of one history, B impressions, W width, H heads; a length bucket has s sessions, b impressions, L history
items. A history in which nothing depends on the target is read once per session; what depends only on an item is computed once per item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ctr.inputs.length_buckets import BucketedHistory, LengthBucket
from ctr.model.linear import ImagePart, LinearWithImage, Rows, put, take_rows
from ctr.model.order import order_bucket, order_buckets, positions, window_shares
from ctr.model.places import Reading

if TYPE_CHECKING:
    from ctr.inputs.batches import Batch
    from ctr.model.places import Cosines, Pairs, Tiers
    from ctr.model.similar_attention import SimilarAttention

_AT_ONCE = 1 << 20  # places in histories (impressions x L) that are read for their target at once
_PAIRS_AT_ONCE = 1 << 24  # pairs (s x P x L) whose cosines attention knows at once


class SelfAttention(nn.Module):
    """Multi-head self-attention with residual and layer norm, then the mean over the real items (Appendix A)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def reader(self) -> tuple[Tensor, Tensor]:
        """Weight (3W, W) and bias (3W,) of the linear map whose result `forward` takes in addition to the items themselves."""
        return self.qkv.weight, self.qkv.bias

    def forward(self, x_sLW: Tensor, read_sLR: Tensor, real_sL: Tensor | None, target_sW: Tensor | None = None) -> Tensor:
        """(s, W). Every row needs a real item; the target is not used."""
        y_sLW = F.layer_norm(self.attend(x_sLW, read_sLR, real_sL), (x_sLW.shape[-1],), eps=self.norm.eps)
        return _weighted_sum(_shares(y_sLW, real_sL), y_sLW) * self.norm.weight + self.norm.bias

    def attend(self, x_sLW: Tensor, read_sLR: Tensor, real_sL: Tensor | None) -> Tensor:
        """(s, L, W): items and what attention adds to them, before the layer norm."""
        q, k, v = read_sLR.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if real_sL is None else real_sL[:, None, None])
        return x_sLW + self.out(mixed.transpose(1, 2).flatten(2))

    def with_scores(self, x_sLW: Tensor, read_sLR: Tensor, real_sL: Tensor | None, pair_sPLF: Tensor, weight_WF: Tensor) -> Tensor:
        """(s, P, W): the mean over l of norm(z_l + weight pair_pl) for each of P targets, where z is `attend`'s result.

        The norm of z + w p needs |z|^2, z w and w w alone, and no (P, L, W) array is made: with z and w centred over W,
        |z + w p|^2 = |z|^2 + 2 (z w) p + p (w w) p. In float32, because it is a difference of squares.
        """
        z_sLW = self.attend(x_sLW, read_sLR, real_sL)
        with torch.autocast(z_sLW.device.type, enabled=False):
            z_sLW, w_WF, pairs = z_sLW.float(), weight_WF.float(), pair_sPLF.float().unbind(-1)
            z_sLW, w_WF = z_sLW - z_sLW.mean(-1, keepdim=True), w_WF - w_WF.mean(0)
            by_weight_sLF, by_itself_FF, least = 2 * (z_sLW @ w_WF), w_WF.T @ w_WF, len(w_WF) * self.norm.eps
            square_sPL = z_sLW.square().sum(-1)[:, None] + least
            for column, pair_sPL in enumerate(pairs):  # each alone: products with rows of F numbers are several times slower
                across_sPL = by_weight_sLF[:, None, :, column]
                for other in range(column):
                    across_sPL = torch.addcmul(across_sPL, pairs[other], 2 * by_itself_FF[column, other])
                square_sPL = torch.addcmul(square_sPL, pair_sPL, torch.addcmul(across_sPL, pair_sPL, by_itself_FF[column, column]))
            share_sPL = torch.rsqrt(square_sPL.clamp(min=least)) * (_shares(z_sLW, real_sL) * len(w_WF) ** 0.5)[:, None]
            of_pairs_sPF = torch.stack([(share_sPL * pair_sPL).sum(-1) for pair_sPL in pairs], dim=-1)
            pooled_sPW = share_sPL @ z_sLW + of_pairs_sPF @ w_WF.T
            return pooled_sPW * self.norm.weight + self.norm.bias


class TargetAttention(nn.Module):
    """DIN's pooling by the target item (Zhou et al. 2018, arXiv:1706.06978): sum_k w(h_k, t) h_k.

    The weights are not normalised; w is an MLP over [h, t, h - t, h * t].
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Linear(4 * width, width)
        self.last = nn.Linear(width, 1)

    def reader(self) -> tuple[Tensor, Tensor]:
        """Weight (W, W) and bias (W,) of the linear map whose result `forward` takes in addition to the items themselves."""
        on_h, _, on_difference, _ = self.first.weight.chunk(4, dim=1)
        return on_h + on_difference, self.first.bias

    def forward(self, x_bLW: Tensor, read_bLR: Tensor, real_bL: Tensor | None, target_bW: Tensor | None) -> Tensor:
        """(b, W)."""
        assert target_bW is not None
        _, on_t, on_difference, on_product = self.first.weight.chunk(4, dim=1)
        from_product = torch.bmm(x_bLW, (target_bW[:, None] * on_product).transpose(1, 2))
        from_target = F.linear(target_bW, on_t - on_difference)
        weight_bL = self.last(torch.relu(read_bLR + from_product + from_target[:, None]))[..., 0]
        return _weighted_sum(weight_bL if real_bL is None else weight_bL * real_bL, x_bLW)


class HistoryNetwork(nn.Module):
    """One history (clicks, purchases or cart): items -> projection -> attention and pooling -> projection.

    Args:
        item_size: numbers in an item without its image feature.
        image_size: columns of the image features of an item; 0: none.
        pair_size: columns of the image feature of a pair of target and item; 0: none.
        pooling: "self" or "target".
        score_place: where a pair feature enters: "before" the attention, in the item, or "after" it, before the layer norm.
        similar: the attention of a form that has one of its own.
    """

    def __init__(
        self, item_size: int, image_size: int, pair_size: int = 0, *, width: int, heads: int, pooling: str, score_place: str = "before",
        order: str = "none", windows: Sequence[int] = (), most: int = 0, similar: SimilarAttention | None = None,
    ):  # fmt: skip
        super().__init__()
        self.project = LinearWithImage(item_size, image_size, width)
        self.image = ImagePart(pair_size, width) if pair_size else None
        self.image_attention = similar
        self.pool = SelfAttention(width, heads) if pooling == "self" else TargetAttention(width)
        self.out = nn.Linear(width, width)
        self.score_place, self.history_order, self.windows = score_place, order, tuple(windows)
        self.order = Rows(order_buckets(order, most), width) if order != "none" else None

    @property
    def size(self) -> int:
        """Numbers in what `forward` gives for an impression."""
        return self.out.out_features * (1 + len(self.windows))

    def forward(
        self, item_UD: Tensor, image_UF: Tensor | None, pairs: Sequence[Tensor] | None, history: BucketedHistory, batch: Batch,
        read: Reading | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, size): the pooled history, then each window; zeros for an empty history.

        Args:
            image_UF: the image features of items, or None.
            pairs: for each length bucket of what is read the image feature (s, P, L, F) of (target, history item), or None.
            read: what attention reads of the history for each target; None: all of it. Windows are of all of it.
        """
        shared = pairs is None and read is None and isinstance(self.pool, SelfAttention)
        read = read or Reading(history, batch.grid, batch.slot)
        projected_nW = self._project(item_UD, image_UF, history.item)
        read_nR = F.linear(projected_nW, *self.pool.reader())
        target_BW = self._project(item_UD, image_UF, batch.target) if isinstance(self.pool, TargetAttention) else None
        pooled = []
        for number, bucket in enumerate(read.history.buckets):
            x_sLW, read_sLR = take_rows(projected_nW, bucket.item), take_rows(read_nR, bucket.item)
            if self.order is not None:
                x_sLW, read_sLR = self._ordered(x_sLW, read_sLR, positions(bucket.item, bucket.real), bucket.age)
            if shared:
                pooled.append(self.pool(x_sLW, read_sLR, bucket.real))
            else:
                pooled.append(self._for_targets(x_sLW, read_sLR, bucket, None if pairs is None else pairs[number], target_BW, read.slot))
        out = self.out(torch.cat(pooled))
        if shared:
            out = take_rows(put(out, [bucket.session for bucket in history.buckets], len(batch.grid)), batch.session)
        else:
            out = put(out, [bucket.impression for bucket in read.history.buckets], len(batch.target))
        return torch.cat([out, self._windows(projected_nW, history, batch)], dim=1) if self.windows else out

    def _windows(self, projected_nW: Tensor, history: BucketedHistory, batch: Batch) -> Tensor:
        """(B, W times windows): the mean of each window's items."""
        means = []
        for bucket in history.buckets:
            share_sVL = window_shares(positions(bucket.item, bucket.real), bucket.real, self.windows)
            means.append((share_sVL.to(projected_nW.dtype) @ take_rows(projected_nW, bucket.item)).flatten(1))
        return take_rows(put(torch.cat(means), [bucket.session for bucket in history.buckets], len(batch.grid)), batch.session)

    def similar(
        self, item_UD: Tensor, image_UF: Tensor | None, pairs: Sequence[Pairs], read: Reading, tiers: Tiers, cosines: Cosines
    ) -> Tensor:
        """(B, W): what the attention that knows cosines gives; zeros for an empty history. It reads items without their order.

        Args:
            pairs: targets and items of each length bucket of what is read.
            tiers, cosines: as `SimilarAttention`'s.
        """
        assert self.image_attention is not None
        projected_nW, grid_SPW = (self._project(item_UD, image_UF, index) for index in (read.history.item, read.grid))
        found = []
        for bucket, of_bucket in zip(read.history.buckets, pairs, strict=True):
            x_sLW, target_sPW = take_rows(projected_nW, bucket.item), take_rows(grid_SPW, bucket.session)
            out_sPW = _in_parts(self.image_attention, x_sLW, bucket.real, target_sPW, of_bucket, tiers, cosines)
            found.append(out_sPW[bucket.row, read.slot[bucket.impression]])
        return put(torch.cat(found), [bucket.impression for bucket in read.history.buckets], len(read.slot))

    def _ordered(self, x_sLW: Tensor, read_sLR: Tensor, position_sL: Tensor, age_sL: Tensor) -> tuple[Tensor, Tensor]:
        """Items and what attention reads of them, with what their places add to both."""
        assert self.order is not None
        bucket_sL = order_bucket(self.history_order, position_sL, age_sL)
        return x_sLW + take_rows(self.order.weight, bucket_sL), read_sLR + take_rows(self.order.weight @ self.pool.reader()[0].T, bucket_sL)

    def _project(self, item_UD: Tensor, image_UF: Tensor | None, index: Tensor) -> Tensor:
        return self.project(take_rows(item_UD, index), None if image_UF is None else take_rows(image_UF, index))

    def _for_targets(
        self, x_sLW: Tensor, read_sLR: Tensor, bucket: LengthBucket, pair_sPLF: Tensor | None, target_BW: Tensor | None, slot_B: Tensor
    ) -> Tensor:
        """(b, W): the bucket's histories read for each of their impressions."""
        slot_b = slot_B[bucket.impression]
        if pair_sPLF is not None and self.score_place == "after":
            assert isinstance(self.pool, SelfAttention)
            assert self.image is not None
            pooled_sPW = self.pool.with_scores(x_sLW, read_sLR, bucket.real, pair_sPLF, self.image.weight)
            return take_rows(pooled_sPW.flatten(0, 1), bucket.row * pooled_sPW.shape[1] + slot_b)

        def read(row: Tensor, slot: Tensor, target: Tensor | None) -> Tensor:
            x, mapped = take_rows(x_sLW, row), take_rows(read_sLR, row)
            if pair_sPLF is not None:
                assert self.image is not None
                pair, weight = pair_sPLF[row, slot], self.image.weight
                x, mapped = x + F.linear(pair, weight), mapped + F.linear(pair, self.pool.reader()[0] @ weight)
            return self.pool(x, mapped, None if bucket.real is None else bucket.real[row], target)

        step = max(1, _AT_ONCE // x_sLW.shape[1])
        target_bW = None if target_BW is None else take_rows(target_BW, bucket.impression)
        parts = []
        for at in range(0, max(1, len(slot_b)), step):
            row, slot = bucket.row[at : at + step], slot_b[at : at + step]
            target = None if target_bW is None else target_bW[at : at + step]
            parts.append(
                read(row, slot, target)
                if len(slot_b) <= step
                else checkpoint(read, row, slot, target, use_reentrant=False, preserve_rng_state=False)
            )
        return torch.cat(parts)


def _in_parts(
    attention: SimilarAttention, x_sLW: Tensor, real_sL: Tensor | None, target_sPW: Tensor, pairs: Pairs, tiers: Tiers, cosines: Cosines
) -> Tensor:
    """(s, P, W): the attention of some sessions after others where all together would need much memory."""

    def attend(at: slice) -> Tensor:
        return attention(x_sLW[at], None if real_sL is None else real_sL[at], target_sPW[at], pairs.sessions(at), tiers, cosines)

    step = max(1, _PAIRS_AT_ONCE // max(1, pairs.cosine.shape[1:].numel()))
    if len(x_sLW) <= step:
        return attend(slice(None))
    parts = [slice(at, at + step) for at in range(0, len(x_sLW), step)]
    return torch.cat([checkpoint(attend, at, use_reentrant=False, preserve_rng_state=False) for at in parts])


def _shares(like_sLX: Tensor, real_sL: Tensor | None) -> Tensor:
    """(s, L): one over the number of a row's real items; 0 where there is none."""
    rows, length, _ = like_sLX.shape
    if real_sL is None:
        return like_sLX.new_full((), 1 / length).expand(rows, length)
    return (real_sL / real_sL.sum(1, keepdim=True)).to(like_sLX.dtype)


def _weighted_sum(weight_sL: Tensor, x_sLW: Tensor) -> Tensor:
    return torch.bmm(weight_sL[:, None], x_sLW)[:, 0]
