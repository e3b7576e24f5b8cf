"""Encoders without a CTR model: how well the mean cosine of a picture and a user's newest clicks (paper, Eq. 8) ranks by itself, and what
it adds to an item's popularity, which any CTR model knows.

It takes seconds, and shows what an encoder knows of taste before any model reads it. It selects nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.log.shop_folder import Shop
from data.log.statistics import popularity
from features.embeddings import read_embeddings
from pretrain.embedding import Validation, similarity_scores
from pretrain.settings import CommonConfig


def similarity_alone(shop: Shop, embeddings: Path, config: CommonConfig) -> np.ndarray:
    """(2, I) scores of the test impressions, float64: the similarity as validation scores an encoder, 0 without a picture or a history; and
    popularity and similarity together, weighed by the validation sessions.

    Args:
        embeddings: an embeddings folder.
        config: whether embeddings are centred, and how many clicks count.
    """
    vectors = read_embeddings(embeddings, shop.items["item_id"])
    valid, test = (similarity_scores(shop, vectors, shop.rows(split), config) for split in ("valid", "test"))
    return np.stack([test, _weighed(shop, [valid], [test])])


def popularity_alone(shop: Shop) -> np.ndarray:
    """(I,) scores of the test impressions by their items' popularity, weighed by the validation sessions."""
    return _weighed(shop, [], [])


def _weighed(shop: Shop, valid: list[np.ndarray], test: list[np.ndarray]) -> np.ndarray:
    """Popularity and the same scores of both splits' impressions, weighed on the one and applied to the other."""
    return np.column_stack([popularity(shop, shop.rows("test")), *test]) @ Validation.of(shop).weights(*valid)
