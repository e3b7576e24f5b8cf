"""From an embeddings folder to the image feature of one row. Its code is in the row's key; the rest of a row's code computes no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.log.shop_folder import Shop
from features.embeddings import read_embeddings
from features.forms.table import FormSettings
from features.image_feature import ImageFeature, image_feature, items_shown_before
from run.randomness import permutation


def row_feature(
    shop: Shop, embeddings: Path, form: str, *, shuffled: bool, settings: FormSettings, centre: bool, seed: int
) -> ImageFeature:
    """A row's input to its CTR model; centres, means and spreads are learned from items shown before validation.

    Args:
        embeddings: an embeddings folder.
        shuffled: first assign the embeddings to the wrong items, among those that have a picture.
        settings: of the forms.
        centre: subtract the mean embedding first.
    """
    vectors = read_embeddings(embeddings, shop.items["item_id"])
    if shuffled:
        present = np.flatnonzero(vectors.any(1))
        vectors[present] = vectors[present[permutation(len(present), seed, "shuffled")]]
    known = items_shown_before(shop, "valid")
    return image_feature(form, vectors, settings, seed=seed, fit_on=known, centre=centre)


def clusters_of(feature: ImageFeature) -> tuple[np.ndarray | None, int]:
    """Each item's cluster, (N,) in [0, C) if it has a picture, and the number C of clusters; (None, 0) for a form without clusters."""
    return (feature.rows, feature.table_size - 1) if feature.rows is not None else (None, 0)
