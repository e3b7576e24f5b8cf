"""Vector: the embedding itself, standardised, as columns of the item (paper, Appendix B)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import ITEM_NUMBERS, Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-7  # a standard deviation below this is float32's rounding of unit rows that are all equal


class Vector(Form):
    """Embeddings less their mean, divided by one standard deviation for all dimensions."""

    place = ITEM_NUMBERS

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """middle (D,) float32, the mean row; spread (), the standard deviation, 1 if rows do not differ."""
        import numpy as np

        middle = vectors.mean(0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)
        spread = float((vectors - middle).std()) if len(vectors) > 1 else 0.0
        return {"middle": middle, "spread": np.array(spread if spread > ROUNDING else 1.0)}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """Standardised rows; zeros without a picture."""
        present = vectors.any(axis=1, keepdims=True)
        standard = (vectors - constants["middle"]) / float(constants["spread"]) * present
        return PlaceValues(numbers=standard.astype("float32"))
