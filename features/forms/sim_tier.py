"""SimTier: how many items of a history are how similar to the target (Sheng et al. 2024, arXiv:2407.19467)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import PAIR_COUNTS, Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np

_GRID = 1000  # quantiles that are kept: the CTR model cuts its tiers from them (--ctr.tiers)


class SimTier(Form):
    """Unit rows, whose cosines with a history the CTR model counts in tiers.

    The paper's tiers are equally wide. Cosines of centred embeddings lie mostly near 0, so such tiers say little; quantiles of cosines that
    training meets divide them better.
    """

    place = PAIR_COUNTS
    reads_pairs = True

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """quantiles (1001,) of the cosines of shown and earlier clicked items, evenly spaced from -1 to 1 where none are known."""
        import numpy as np

        if cosines is None or not len(cosines):
            return {"quantiles": np.linspace(-1, 1, _GRID + 1)}
        return {"quantiles": np.quantile(cosines.astype(np.float64), np.linspace(0, 1, _GRID + 1))}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """The embeddings unchanged."""
        return PlaceValues(unit=vectors, constants={"quantiles": tuple(float(value) for value in constants["quantiles"])})
