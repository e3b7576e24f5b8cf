"""What the CTR model is given of the pictures, in one of the paper's three forms (Appendix B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.shop_folder import SPLITS, Shop
from run.config import one_of

FORMS = ("vector", "sim_score", "cluster_id")


@dataclass(frozen=True, kw_only=True)
class ImageFeature:
    """One encoder's embeddings as input of the CTR model; `form` "none" is the baseline's."""

    form: str
    present: np.ndarray  # (N,) bool: the item has a picture
    vectors: np.ndarray | None = None  # (N, D) float32 unit rows, zero where absent; for vector and sim_score
    cluster: np.ndarray | None = None  # (N,) int64 in [0, clusters]; `clusters` itself means no picture
    clusters: int = 0  # number of centres


def no_image(items: int) -> ImageFeature:
    """The baseline's input for a catalogue of so many items: nothing."""
    return ImageFeature(form="none", present=np.zeros(items, dtype=bool))


def items_shown_before(shop: Shop, split: str) -> np.ndarray:
    """(M,) items with an impression in a split before this one: what cluster centres may be learned from."""
    return np.unique(shop.item[shop.session_split[shop.session] < SPLITS.index(split)])


def image_feature(form: str, vectors: np.ndarray, *, clusters: int, seed: int, fit_on: np.ndarray | None = None) -> ImageFeature:
    """Embeddings in the wanted form.

    Args:
        form: vector, sim_score or cluster_id.
        vectors: (N, D) unit embeddings, zero rows where an item has no picture.
        clusters: number of cluster centres wanted; fewer where there are fewer pictures.
        seed: of the clustering.
        fit_on: (M,) items the centres are learned from; the others take the nearest centre. None: all.

    Raises:
        SettingError: an unknown form.
    """
    one_of("image_feature", form, FORMS)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    present = np.any(vectors, axis=1)
    if form != "cluster_id":
        return ImageFeature(form=form, present=present, vectors=vectors)
    from features.clustering import cluster_ids

    cluster, found = cluster_ids(vectors, clusters=clusters, seed=seed, fit_on=fit_on)
    return ImageFeature(form=form, present=present, cluster=cluster, clusters=found)
