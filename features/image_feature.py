"""What the CTR model is given of the pictures, in one of the paper's three forms (Appendix B)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from data.log.shop_folder import SPLITS, Shop
from pretrain.similarity import common_part, without_common
from run.config import one_of

FORMS = ("vector", "sim_score", "cluster_id")


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """How an embedding becomes the feature: learned once from the items shown before validation, then the same for every picture."""

    form: str
    common: np.ndarray  # (D,) float32, taken out of the unit embeddings first; zeros: nothing
    middle: np.ndarray  # (D,) float32, of vector: their mean
    spread: float = 1.0  # of vector: their standard deviation, over all dimensions
    centres: np.ndarray | None = None  # (C, D) float32, of cluster_id
    cosine_mean: float = 0.0  # of sim_score
    cosine_spread: float = 1.0

    def feature(self, vectors: np.ndarray) -> ImageFeature:
        """The feature of pictures whose (P, D) unit embeddings these are; zero rows where there is no picture."""
        vectors = without_common(np.ascontiguousarray(vectors, dtype=np.float32), self.common)
        present = np.any(vectors, axis=1)
        if self.form == "vector":
            standard = (vectors - self.middle) / self.spread * present[:, None]
            return ImageFeature(form=self.form, present=present, vectors=standard.astype(np.float32), rule=self)
        if self.form == "sim_score":
            mean, spread = self.cosine_mean, self.cosine_spread
            return ImageFeature(form=self.form, present=present, vectors=vectors, cosine_mean=mean, cosine_spread=spread, rule=self)
        from features.clustering import assigned

        assert self.centres is not None
        cluster = assigned(vectors, self.centres)
        return ImageFeature(form=self.form, present=present, cluster=cluster, clusters=len(self.centres), rule=self)


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
    rule: ImageRule | None = None  # what gives a new picture the same feature; None for the baseline

    @property
    def common(self) -> np.ndarray | None:
        """(D,) what was taken out of the embeddings first; zeros: nothing."""
        return None if self.rule is None else self.rule.common

    @property
    def centres(self) -> np.ndarray | None:
        """(clusters, D) float32 of cluster_id."""
        return None if self.rule is None else self.rule.centres


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
    rule = learned_rule(form, vectors, clusters=clusters, seed=seed, fit_on=fit_on, centre=centre)
    return rule.feature(vectors)


def learned_rule(
    form: str, vectors: np.ndarray, *, clusters: int, seed: int, fit_on: np.ndarray | None = None, centre: bool = False
) -> ImageRule:
    """What `image_feature` learns from embeddings; the arguments are its own."""
    one_of("image_feature", form, FORMS)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    common = np.zeros(vectors.shape[1], np.float32)
    if centre:
        common = common_part(vectors, np.arange(len(vectors)) if fit_on is None else fit_on)
        vectors = without_common(vectors, common)
    rule = ImageRule(form=form, common=common, middle=np.zeros(vectors.shape[1], np.float32))
    if form == "cluster_id":
        from features.clustering import learned_centres

        return replace(rule, centres=learned_centres(vectors, clusters=clusters, seed=seed, fit_on=fit_on))
    present = np.any(vectors, axis=1)
    known = present if fit_on is None else present & np.isin(np.arange(len(present)), fit_on)
    if form == "sim_score":
        mean, spread = cosine_moments(vectors[known])
        return replace(rule, cosine_mean=mean, cosine_spread=spread)
    middle = vectors[known].mean(0) if known.any() else rule.middle
    spread = float((vectors[known] - middle).std()) if known.sum() > 1 else 0.0
    return replace(rule, middle=middle, spread=spread or 1.0)


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
