"""Encoders without a CTR model: how well the mean cosine of a picture and a user's newest clicks (paper, Eq. 8) ranks by itself.

It takes seconds, and shows what an encoder knows of taste before any model reads it. It selects nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.log.shop_folder import Shop
from features.embeddings import read_embeddings
from pretrain.embedding import similarity_scores
from pretrain.settings import CommonConfig


def similarity_alone(shop: Shop, embeddings: Path, config: CommonConfig) -> np.ndarray:
    """(I,) a score for each test impression, as validation scores an encoder: float64, 0 without a picture or a history.

    Args:
        embeddings: an embeddings folder.
        config: whether embeddings are centred, and how many clicks count.
    """
    vectors = read_embeddings(embeddings, shop.items["item_id"])
    return similarity_scores(shop, vectors, shop.rows("test"), config)
