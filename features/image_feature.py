"""What the CTR model is given of the pictures, in one of the paper's three forms (Appendix B)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from data.shop_folder import SPLITS, Shop
from pretrain.similarity import centred, common_part
from run.config import one_of

FORMS = ("vector", "sim_score", "cluster_id")


@dataclass(frozen=True, kw_only=True)
class ImageFeature:
    """One encoder's embeddings as input of the CTR model; `form` "none" is the baseline's."""

    form: str
    present: np.ndarray  # (N,) bool: the item has a picture
    vectors: np.ndarray | None = None  # (N, D) float32, zero rows where absent; unit rows for sim_score, standardised for vector
    cosine_mean: float = 0.0  # sim_score: mean cosine of two pictures of the catalogue, and its standard deviation;
    cosine_spread: float = 1.0  # the CTR model standardises scores by them
    cluster: np.ndarray | None = None  # (N,) int64 in [0, clusters]; `clusters` itself means no picture
    clusters: int = 0  # number of centres
    # for exports alone: what gives a new picture the same feature
    common: np.ndarray | None = None  # (D,) what was taken out of the embeddings first; zeros: nothing
    centres: np.ndarray | None = None  # (clusters, D) float32


def no_image(items: int) -> ImageFeature:
    """The baseline's input for a catalogue of so many items: nothing."""
    return ImageFeature(form="none", present=np.zeros(items, dtype=bool))


def items_shown_before(shop: Shop, split: str) -> np.ndarray:
    """(M,) items with an impression in a split before this one: what cluster centres may be learned from."""
    return np.unique(shop.item[shop.session_split[shop.session] < SPLITS.index(split)])


def image_feature(
    form: str, vectors: np.ndarray, *, clusters: int, seed: int, fit_on: np.ndarray | None = None, centre: bool = False
) -> ImageFeature:
    """Embeddings in the wanted form.

    Args:
        form: vector, sim_score or cluster_id.
        vectors: (N, D) unit embeddings, zero rows where an item has no picture.
        clusters: number of cluster centres wanted; fewer where there are fewer pictures.
        seed: of the clustering.
        fit_on: (M,) items that centres, means and spreads are learned from; other items' pictures are only read. None: all.
        centre: take the mean over `fit_on` out of the embeddings first.

    Scores and vectors are standardised, like every numeric input of the model: after training at a low temperature, embeddings
    share a large common part, and cosines that all lie near 0.75 would tell a network next to nothing (normalising inputs
    matters a lot: Appendix B).

    Raises:
        SettingError: an unknown form.
    """
    one_of("image_feature", form, FORMS)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    common = np.zeros(vectors.shape[1], np.float32)
    if centre:
        learned = np.arange(len(vectors)) if fit_on is None else fit_on
        common, vectors = common_part(vectors, learned), centred(vectors, learned)
    present = np.any(vectors, axis=1)
    known = present if fit_on is None else present & np.isin(np.arange(len(present)), fit_on)
    if form == "sim_score":
        mean, spread = cosine_moments(vectors[known])
        return ImageFeature(form=form, present=present, vectors=vectors, cosine_mean=mean, cosine_spread=spread)
    if form == "vector":
        middle = vectors[known].mean(0) if known.any() else np.zeros(vectors.shape[1], np.float32)
        spread = float((vectors[known] - middle).std()) if known.sum() > 1 else 0.0
        standard = (vectors - middle) / (spread or 1.0) * present[:, None]
        return ImageFeature(form=form, present=present, vectors=standard.astype(np.float32))
    from features.clustering import cluster_ids

    cluster, centres = cluster_ids(vectors, clusters=clusters, seed=seed, fit_on=fit_on)
    return ImageFeature(form=form, present=present, cluster=cluster, clusters=len(centres), common=common, centres=centres)


def cosine_moments(unit: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the cosine of two rows drawn from (M, D) unit rows, in closed form; (0, 1) where all are alike.

    E[x.y] = |mean|^2, and E[(x.y)^2] = |second moment matrix|^2 (Frobenius) for independent x and y.
    """
    if len(unit) < 2:
        return 0.0, 1.0
    unit = unit.astype(np.float64)
    mean = float(np.square(unit.mean(0)).sum())
    variance = float(np.square(unit.T @ unit / len(unit)).sum()) - mean**2
    return mean, float(np.sqrt(variance)) if variance > 1e-12 else 1.0


def digest(feature: ImageFeature) -> str:
    """A hash of the feature's values, so that a run does not go on with another's."""
    content = hashlib.sha256(feature.form.encode())
    for values in (feature.present, feature.vectors, feature.cluster):
        content.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return content.hexdigest()[:16]
