"""Encoders without a CTR model: how well the mean cosine of a picture and a user's newest clicks (paper, Eq. 8) ranks by itself.

It takes seconds, and shows what an encoder knows of taste before any model reads it. It selects nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.log.shop_folder import Shop
from features.embeddings import read_embeddings
from pretrain.page_views import pretraining_items
from pretrain.settings import CommonConfig
from pretrain.similarity import centred, sim_scores


def similarity_alone(shop: Shop, embeddings: Path, config: CommonConfig) -> np.ndarray:
    """(I,) a score for each test impression, as validation scores an encoder: float64, 0 without a picture or a history.

    Args:
        embeddings: an embeddings folder.
        config: whether embeddings are centred, and how many clicks count.
    """
    vectors = read_embeddings(embeddings, shop.items["item_id"])
    if config.centre:
        vectors = centred(vectors, pretraining_items(shop, np.any(vectors, axis=1)))
    rows = shop.rows("test")
    return sim_scores(shop, vectors, rows, history_items=config.valid_history, mask_same_item=config.mask_same_item)
