"""SimAttention: target attention that knows the cosine of the target and each history item (MUSE, arXiv:2512.07216)."""

from __future__ import annotations

from features.forms.form import PAIR_ATTENTION
from features.forms.quantile_form import QuantileForm


class SimAttention(QuantileForm):
    """Cosines with a history, which enter the logits of an attention of its own, or its keys and values by tiers.

    What it gives is added to what the CTR model reads of the history without pictures; see ctr/model/similar_attention.py.
    """

    place = PAIR_ATTENTION
