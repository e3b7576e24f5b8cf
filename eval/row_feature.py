"""From an embeddings folder to the image feature of one row. Its code is in the row's key; the rest of a row's code computes no numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data.log.shop_folder import Shop
from features.embeddings import read_embeddings
from features.forms.table import FormSettings
from features.image_feature import ImageFeature, feature_of_shop
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
    return feature_of_shop(shop, vectors, form, settings, seed=seed, centre=centre)


def clusters_of(feature: ImageFeature) -> tuple[np.ndarray | None, int]:
    """Each item's cluster, (N,) in [0, C) if it has a picture, and the number C of clusters; (None, 0) for a form without clusters."""
    for form, others in (("cluster_id", 1), ("semantic_id", 2)):  # rows of a table that are no cluster: no picture, an unseen prefix
        part = feature.parts.get(form)
        if part is not None and part.rows is not None:
            return part.rows[:, 0], part.table_sizes[0] - others
    return None, 0


def code_quality_of(feature: ImageFeature) -> dict[str, Any] | None:
    """How good the codes of the items' pictures are, where a form gives them any (features/learned/residual_codes.py)."""
    from features.learned.residual_codes import levels_in, quality

    for constants in {} if feature.rule is None else feature.rule.constants.values():
        if (levels := levels_in(constants)) and feature.unit is not None and feature.present.any():
            return asdict(quality(feature.unit[feature.present], levels))
    return None
