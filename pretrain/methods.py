"""The encoders that can be trained here, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.shop_folder import Shop
from pretrain.config import PretrainConfig
from pretrain.method import Method
from run.errors import UserError


def _courier(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.courier import Courier
    from pretrain.page_views import page_views

    views = page_views(shop, page_items=config.page_items, history_items=config.history_items, has_picture=has_picture)
    if len(views) < 2:
        raise UserError(
            f"courier: {len(views)} page views of the pretraining period have both a click and earlier clicks with pictures; "
            "it needs a longer log, or a larger pretraining share"
        )
    return Courier(views, config, seed, _groups(shop, config))


def _simclr(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.page_views import pretraining_items
    from pretrain.simclr import SimClr

    items = pretraining_items(shop, has_picture)
    if len(items) < 2:
        raise UserError(f"simclr: {len(items)} items with a picture were shown in the pretraining period; it needs at least 2")
    return SimClr(items, config, seed, _groups(shop, config))


def _groups(shop: Shop, config: PretrainConfig) -> np.ndarray | None:
    """(N,) the group of each item, within which pictures compete; items without a category are one group. None: no groups."""
    return shop.item_category if config.negatives == "category" else None


# name -> what makes the method of (shop, has_picture, config, seed); "random" is the backbone as it begins
METHODS: dict[str, Callable[[Shop, np.ndarray, PretrainConfig, int], Method] | None] = {
    "courier": _courier,
    "simclr": _simclr,
    "random": None,
}
