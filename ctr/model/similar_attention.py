"""Target attention that knows how like the target each history item looks: SA-TA of MUSE, and DMF's buckets.

s sessions of a length bucket, P most impressions in a session, L history items, W width, H heads, T tiers of cosines.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctr.model.linear import Rows
from ctr.model.places import Cosines, Pairs, Tiers, compared, tiers_of

_SHARPNESS = 10.0  # of the cosine in a logit at first: a temperature of 0.1, as in MUSE's code


class SimilarAttention(nn.Module):
    """Softmax attention of each target over a history, padding left out.

    "logits" (SA-TA of MUSE, arXiv:2512.07216): for each head a = q k / sqrt(W / H) and logit = g1 a + g2 r + g3 a r, with the cosine r of
    the two pictures and learned g, at first 1, 10 and 1. All maps are linear, as in its text; its code has a SiLU after each.

    "buckets" (DMF: Fan et al. 2025, arXiv:2510.11066): logit = q (k + S_k[t]) / sqrt(W / H) and value = v + S_v[t], with rows S of the tier
    t of the cosine; q S_k needs T products for a target, not L.

    A cosine is 0 where an item has no picture or, masked, is the target itself; the tier of an item without a picture is one of its own.

    Args:
        place: "logits" or "buckets".
        tiers: T.
    """

    def __init__(self, width: int, heads: int, *, place: str, tiers: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mix = Mix(heads) if place == "logits" else None
        self.of_keys = Rows(tiers + 1, width) if place == "buckets" else None
        self.of_values = Rows(tiers + 1, width) if place == "buckets" else None

    def forward(self, x_sLW: Tensor, real_sL: Tensor | None, target_sPW: Tensor, pairs: Pairs, tiers: Tiers, cosines: Cosines) -> Tensor:
        """(s, P, W) of targets; every row needs a real item."""
        q_sHPW, k_sHLW, v_sHLW = (self._split(part) for part in (self.query(target_sPW), self.key(x_sLW), self.value(x_sLW)))
        q_sHPW = q_sHPW * q_sHPW.shape[-1] ** -0.5
        logit_sHPL = q_sHPW @ k_sHLW.transpose(2, 3)
        cosine_sPL = pairs.cosine * compared(pairs, cosines)
        tier_s1PL = None
        if self.mix is not None:
            logit_sHPL = self.mix(logit_sHPL, cosine_sPL[:, None])
        else:
            assert self.of_keys is not None
            assert self.of_values is not None
            tier_sPL = tiers_of(cosine_sPL, tiers).where(pairs.both, tiers.count)
            tier_s1PL = tier_sPL[:, None].expand(-1, self.heads, -1, -1)
            logit_sHPL = logit_sHPL + (q_sHPW @ self._split(self.of_keys.weight[None]).transpose(2, 3)).gather(3, tier_s1PL)
        share_sHPL = (logit_sHPL if real_sL is None else logit_sHPL.masked_fill(~real_sL[:, None, None], -torch.inf)).softmax(-1)
        out_sHPW = share_sHPL @ v_sHLW
        if tier_s1PL is not None and self.of_values is not None:
            of_tier_sHPT = share_sHPL.new_zeros(*share_sHPL.shape[:3], tiers.count + 1).scatter_add(3, tier_s1PL, share_sHPL)
            out_sHPW = out_sHPW + of_tier_sHPT @ self._split(self.of_values.weight[None])
        return out_sHPW.transpose(1, 2).flatten(2)

    def _split(self, x_sLW: Tensor) -> Tensor:
        """(s, H, L, W / H)."""
        return x_sLW.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mix(nn.Module):
    """g1 a + g2 r + g3 a r of each head."""

    def __init__(self, heads: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, 3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.tensor([1.0, _SHARPNESS, 1.0]))

    def forward(self, product_sHPL: Tensor, cosine_s1PL: Tensor) -> Tensor:
        of_product, of_cosine, of_both = (self.weight[:, number, None, None] for number in range(3))
        return of_product * product_sHPL + of_cosine * cosine_s1PL + of_both * product_sHPL * cosine_s1PL
