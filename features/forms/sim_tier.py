"""SimTier: how many items of a history are how similar to the target (Sheng et al. 2024, arXiv:2407.19467)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import PAIR_COUNTS, Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np


class SimTier(Form):
    """Unit rows, whose cosines with a history the CTR model counts in tiers.

    The paper's tiers are equally wide. Cosines of centred embeddings lie mostly near 0, so such tiers say little; quantiles of cosines that
    training meets divide them better.
    """

    place = PAIR_COUNTS
    reads_pairs = True

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """quantiles (1001,) of the cosines of shown and earlier clicked items."""
        from features.learned.cosine_quantiles import cosine_quantiles

        return {"quantiles": cosine_quantiles(cosines)}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """Nothing but constants: the CTR model compares the embeddings themselves."""
        return PlaceValues(constants={"quantiles": tuple(float(value) for value in constants["quantiles"])})
