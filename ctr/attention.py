"""What a user did before, read by attention: a history of items becomes one vector.

U distinct items, S sessions, B impressions, L history items, W width, H heads. Where nothing in a history depends on
the target item, it is read once a session and shared by the session's impressions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def take_rows(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix[index] for a matrix (n, ...) and any index, with the fast and repeatable backward of `embedding`."""
    return F.embedding(index, matrix.flatten(1)).unflatten(-1, matrix.shape[1:])


class Piece(NamedTuple):
    """Impressions begin to end of a batch, whose histories hold at most `length` items."""

    begin: int
    end: int
    length: int


class ImagePart(nn.Module):
    """The columns of a linear layer that read the image feature: z -> z W'."""

    def __init__(self, image_size: int, other_size: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, image_size))
        self.bound = 1 / math.sqrt(image_size + other_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -self.bound, self.bound)

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
        self.image = ImagePart(image_size, size, out) if image_size else None

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        return self.base(x) if self.image is None or image is None else self.base(x) + self.image(image)


class SelfAttention(nn.Module):
    """Multi-head self-attention with residual and layer norm, then the mean over the real items (Appendix A)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BLW: Tensor, real_BL: Tensor) -> Tensor:
        """(B, W): zeros where a row has no real item."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x_BLW).chunk(3, dim=-1))
        # a row without real items may look everywhere: its result is dropped, and a softmax over nothing would be NaN
        seen_BL = real_BL | ~real_BL.any(1, keepdim=True)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_BL[:, None, None, :])
        y_BLW = self.norm(x_BLW + self.out(mixed.transpose(1, 2).flatten(2)))
        weight_BL = real_BL / real_BL.sum(1, keepdim=True).clamp(min=1)
        return torch.bmm(weight_BL[:, None].to(y_BLW.dtype), y_BLW)[:, 0]


class TargetAttention(nn.Module):
    """DIN's pooling by the target item (Zhou et al. 2018, arXiv:1706.06978): sum_k w(h_k, t) h_k.

    The weights are not normalised; w is an MLP over [h, t, h - t, h * t].
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Linear(4 * width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, x_BLW: Tensor, real_BL: Tensor, target_BW: Tensor) -> Tensor:
        """(B, W): zeros where a row has no real item."""
        on_h, on_t, on_difference, on_product = self.first.weight.chunk(4, dim=1)
        from_target = F.linear(target_BW, on_t - on_difference, self.first.bias)
        from_items = F.linear(x_BLW, on_h + on_difference) + F.linear(x_BLW * target_BW[:, None], on_product)
        weight_BL = self.last(torch.relu(from_items + from_target[:, None]))[..., 0] * real_BL
        return torch.bmm(weight_BL[:, None], x_BLW)[:, 0]


class HistoryNetwork(nn.Module):
    """One history (clicks, purchases or cart): items -> projection -> attention and pooling -> projection.

    Args:
        item_size: numbers in an item without its image feature.
        image_size: numbers in an item's image feature, or 2 for the pair feature of sim_score; 0: none.
        pooling: "self" or "target".
    """

    def __init__(self, item_size: int, image_size: int, *, width: int, heads: int, pooling: str):
        super().__init__()
        self.project = LinearWithImage(item_size, image_size, width)
        self.pool = SelfAttention(width, heads) if pooling == "self" else TargetAttention(width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        item_UD: Tensor,
        image_UF: Tensor | None,
        pair_BLF: Tensor | None,
        history_SL: Tensor,
        pieces: Sequence[Piece],
        session_B: Tensor,
        target_B: Tensor,
    ) -> Tensor:
        """(B, W): zeros for an empty history.

        Args:
            image_UF: the image feature of items, or None.
            pair_BLF: the image feature of (target, history item), or None.
            pieces: runs of impressions whose histories are about as long; only work on padding depends on them.
        """
        projected_UW = self.project(item_UD, image_UF)
        x_SLW = take_rows(projected_UW, history_SL.clamp(min=0))
        real_SL = history_SL >= 0
        if pair_BLF is None and isinstance(self.pool, SelfAttention):
            return take_rows(self._out(self.pool(x_SLW, real_SL), real_SL), session_B)
        out = []
        for begin, end, length in pieces:
            session = session_B[begin:end]
            x, real = take_rows(x_SLW[:, :length], session), real_SL[session, :length]
            if pair_BLF is not None:
                assert self.project.image is not None
                x = x + self.project.image(pair_BLF[begin:end, :length])
            if isinstance(self.pool, SelfAttention):
                pooled = self.pool(x, real)
            else:
                pooled = self.pool(x, real, take_rows(projected_UW, target_B[begin:end]))
            out.append(self._out(pooled, real))
        return torch.cat(out)

    def _out(self, pooled: Tensor, real: Tensor) -> Tensor:
        return self.out(pooled) * real.any(1, keepdim=True)


class Cosines(NamedTuple):
    """How cosines are standardised, and whether an item's cosine with itself is left out."""

    mean: float = 0.0
    spread: float = 1.0
    mask_same_item: bool = False


def similarity(
    vectors_UD: Tensor,
    present_U: Tensor,
    history_SL: Tensor,
    grid_SP: Tensor,
    session_B: Tensor,
    slot_B: Tensor,
    cosines: Cosines,
) -> Tensor:
    """(B, L, 2): standardised cosine of the target's and each history picture (Eq. 8), and 1 where both have one; else 0 and 0.

    Where the history item is the target itself, the cosine is 1 whatever the encoder: it would tell not how the pictures look but
    that the user has clicked this very item, which the baseline is not told. Masked, it counts as an average pair.

    Args:
        vectors_UD: unit rows.
        grid_SP: the sessions' targets side by side: all pairs of a session are one matrix product.
    """
    history = history_SL.clamp(min=0)
    cosine_SPL = take_rows(vectors_UD, grid_SP) @ take_rows(vectors_UD, history).transpose(1, 2)
    both_SPL = present_U[grid_SP][:, :, None] & (present_U[history] & (history_SL >= 0))[:, None]
    told_SPL = both_SPL & (grid_SP[:, :, None] != history_SL[:, None]) if cosines.mask_same_item else both_SPL
    score_SPL = (cosine_SPL - cosines.mean) / cosines.spread * told_SPL
    pair = torch.stack([score_SPL, both_SPL.to(score_SPL.dtype)], dim=-1)
    return pair[session_B, slot_B]
