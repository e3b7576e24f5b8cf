"""SimTier: how many items of a history are how similar to the target (Sheng et al. 2024, arXiv:2407.19467)."""

from __future__ import annotations

from features.forms.form import PAIR_COUNTS
from features.forms.quantile_form import QuantileForm


class SimTier(QuantileForm):
    """Cosines with a history, counted in tiers.

    The paper's tiers are equally wide. Cosines of centred embeddings lie mostly near 0, so such tiers say little; quantiles of cosines that
    training meets divide them better.
    """

    place = PAIR_COUNTS
