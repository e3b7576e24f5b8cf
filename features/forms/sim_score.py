"""SimScore: the cosine of the target's picture and each history item's (paper, Eq. 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from features.forms.form import PAIR, Form, PlaceValues

if TYPE_CHECKING:
    import numpy as np


class SimScore(Form):
    """Unit rows, whose cosines the CTR model computes and standardises."""

    place = PAIR

    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """cosine_mean () and cosine_spread () of two pictures."""
        import numpy as np

        mean, spread = cosine_moments(vectors)
        return {"cosine_mean": np.array(mean), "cosine_spread": np.array(spread)}

    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """Nothing but constants: the CTR model compares the embeddings themselves."""
        mean, spread = float(constants["cosine_mean"]), float(constants["cosine_spread"])
        return PlaceValues(constants={"mean": (mean,), "spread": (spread,)})


def cosine_moments(unit: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the cosine of two rows drawn from (M, D) unit rows, in closed form.

    E[x.y] = |mean|^2, and E[(x.y)^2] = |second moment matrix|^2 (Frobenius) for independent x and y. The deviation is 1 if all rows are
    equal up to rounding; (0, 1) for fewer than two rows.
    """
    import numpy as np

    if len(unit) < 2:
        return 0.0, 1.0
    unit = unit.astype(np.float64)
    mean = float(np.square(unit.mean(0)).sum())
    variance = float(np.square(unit.T @ unit / len(unit)).sum()) - mean**2
    return mean, float(np.sqrt(variance)) if variance > 1e-12 else 1.0
