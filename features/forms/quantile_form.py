"""A form whose place in the CTR model divides cosines into tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np


class QuantileForm(Form):
    """Quantiles of the cosines of items shown in training and items clicked before; the CTR model compares the embeddings themselves."""

    reads_pairs = True

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """quantiles (1001,)."""
        from features.learned.cosine_quantiles import cosine_quantiles

        return {"quantiles": cosine_quantiles(cosines)}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """Nothing but the quantiles."""
        return PlaceValues(constants={"quantiles": tuple(float(value) for value in constants["quantiles"])})
