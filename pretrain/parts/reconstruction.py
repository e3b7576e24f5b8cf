"""A user's intention, reconstructed from earlier clicks (COURIER, arXiv 2306.05001, section 3.2), and its ablations.

Shapes: R rows, J targets of a row, K history items, D embedding length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reconstruct(target_RJD: Tensor, history_RKD: Tensor, present_RK: Tensor, *, scale: bool = True) -> Tensor:
    """Each target as a weighted sum of the history: R = softmax(E_pv E_click^T / sqrt(D)) E_click (Eq. 1-3).

    Embeddings are not normalised.

    Args:
        target_RJD: (R, J, D) embeddings of page items.
        history_RKD: (R, K, D) embeddings of earlier clicks.
        present_RK: (R, K) bool, False where the history is padded; a row without history gives zeros.
        scale: divide by sqrt(D).

    Returns:
        (R, J, D), inside the simplex that the row's history spans.
    """
    weights_RJK = attention(target_RJD, history_RKD, present_RK, scale=scale)
    return weights_RJK @ history_RKD


def attention(target_RJD: Tensor, history_RKD: Tensor, present_RK: Tensor, *, scale: bool = True) -> Tensor:
    """(R, J, K) weights of the history for each target, summing to 1 over K; zeros where there is no history (Eq. 3)."""
    scores_RJK = target_RJD @ history_RKD.transpose(1, 2)
    if scale:
        scores_RJK = scores_RJK / target_RJD.shape[-1] ** 0.5
    absent_R1K = ~present_RK[:, None, :]
    weights_RJK = scores_RJK.masked_fill(absent_R1K, -torch.inf).softmax(-1)
    return weights_RJK.masked_fill(absent_R1K, 0.0)


def summary(history_RKD: Tensor, present_RK: Tensor, *, scale: bool = True) -> Tensor:
    """(R, D): the history after self-attention, averaged over its items: "w/o reconstruction" of Table 6, independent of the target."""
    mixed_RKD = reconstruct(history_RKD, history_RKD, present_RK, scale=scale) * present_RK[:, :, None]
    return mixed_RKD.sum(1) / present_RK.sum(1, keepdim=True).clamp(min=1)


class MultiheadReconstruction(nn.Module):
    """Attention with learned projections and several heads, as in the authors' code instead of Eq. 3; padding is masked here.

    Args:
        dim: D.
        heads: a divisor of `dim`.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, target_RJD: Tensor, history_RKD: Tensor, present_RK: Tensor) -> Tensor:
        """(R, J, D) reconstructions; for a row without history, `out` of zeros."""

        def split(part: Tensor) -> Tensor:
            return part.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(target_RJD)), split(self.key(history_RKD)), split(self.value(history_RKD))
        empty_R1 = ~present_RK.any(1, keepdim=True)
        mask = (present_RK | empty_R1)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(-2) * ~empty_R1[:, :, None])
