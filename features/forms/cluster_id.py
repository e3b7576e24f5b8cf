"""Cluster ID: the number of the k-means centre nearest to the picture, as a row of a table (paper, Appendix B)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.forms.form import ITEM_TABLE, Form, PlaceValues
from run.config import positive

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ClusterIdSettings:
    """Settings of Cluster ID."""

    clusters: int = 200  # cluster IDs wanted; fewer if there are fewer distinct pictures

    def __post_init__(self):
        positive("clusters", self.clusters)


class ClusterId(Form):
    """C centres; the table has C + 1 rows, the last one for items without a picture."""

    place = ITEM_TABLE
    settings = ClusterIdSettings

    def learn(
        self, vectors: np.ndarray, settings: ClusterIdSettings, *, seed: int, cosines: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """centres (C, D) float32; if there are fewer than wanted, stderr says why."""
        from features.learned.clustering import fit_centres

        centres, distinct = fit_centres(vectors, clusters=settings.clusters, seed=seed)
        if len(centres) < settings.clusters:
            what = f"the {len(vectors):,} pictures they are learned from have {distinct:,} distinct embeddings"
            print(f"note: cluster_id: {len(centres):,} clusters, not {settings.clusters:,}: {what}", file=sys.stderr)
        return {"centres": centres}

    def values(self, vectors: np.ndarray, constants: dict[str, Any]) -> PlaceValues:
        """The nearest centre's number."""
        from features.learned.clustering import assigned

        centres = constants["centres"]
        return PlaceValues(rows=assigned(vectors, centres)[:, None], table_sizes=(len(centres) + 1,))
