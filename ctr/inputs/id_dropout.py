"""ID dropout: in training, some IDs of a batch are taken for unknown ones.

The embedding of an ID learns the clicks of its own impressions by heart, and a model that relies on it ranks worse from the second epoch
on. With most IDs hidden, the model has to explain clicks by what it will also know of others; and row 0 learns what to make of new IDs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from run.randomness import uniform

UNKNOWN = 0  # the table row of IDs that the train split does not hold; with --ctr.hash-ids an ordinary row
_TABLES = ("item", "user")


@dataclass(frozen=True, kw_only=True)
class IdDropout:
    """Which IDs are hidden in one step: the same ones in any order of sessions, on any rank and after a resume."""

    share: float  # of IDs
    seed: int
    step: int

    def of(self, table: str, rows: np.ndarray) -> np.ndarray:
        """The rows (n,) of a table, those of hidden IDs as UNKNOWN; other tables' as they are.

        >>> hidden = IdDropout(share=0.5, seed=0, step=3)
        >>> hidden.of("item", np.arange(1, 9)).tolist(), hidden.of("item:brand", np.arange(1, 9)).tolist()
        ([1, 2, 3, 4, 0, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8])
        """
        if not self.share or table not in _TABLES:
            return rows
        return np.where(uniform(self.seed, "id dropout", table, self.step, rows) < self.share, UNKNOWN, rows)
