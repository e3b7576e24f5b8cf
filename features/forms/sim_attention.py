"""SimAttention: target attention that knows the cosine of the target and each history item (MUSE, arXiv:2512.07216)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import PAIR_ATTENTION, Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np


class SimAttention(Form):
    """Unit rows, whose cosines with a history enter the logits of an attention of its own, or its keys and values by tiers.

    What it gives is added to what the CTR model reads of the history without pictures; see ctr/model/similar_attention.py.
    """

    place = PAIR_ATTENTION
    reads_pairs = True

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """quantiles (1001,) of the cosines of shown and earlier clicked items."""
        from features.learned.cosine_quantiles import cosine_quantiles

        return {"quantiles": cosine_quantiles(cosines)}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """Nothing but constants: the CTR model compares the embeddings themselves."""
        return PlaceValues(constants={"quantiles": tuple(float(value) for value in constants["quantiles"])})
