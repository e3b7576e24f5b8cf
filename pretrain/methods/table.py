"""The encoders that can be trained here, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretrain.config import PretrainConfig
from run.errors import UserError

if TYPE_CHECKING:  # commands read the names alone, before torch is loaded
    import numpy as np

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Method
    from pretrain.methods.text import Titles
    from pretrain.page_views import PageViews

    Make = Callable[[Shop, np.ndarray, PretrainConfig, int], Method]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a method is made, and what of the settings it reads."""

    make: Make | None  # of (shop, has_picture, config, seed); None: it is the backbone as it begins
    parts: tuple[str, ...] = ()  # of PretrainConfig, that belong to it: its encoder depends on no other method's settings


def _courier(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.courier import Courier
    from pretrain.page_views import page_views

    own = config.courier
    views = page_views(shop, page_items=own.page_items, history_items=own.history_items, has_picture=has_picture)
    _enough("courier", views, "both a click and earlier clicks with pictures")
    titles = _titled("courier --with-clip", shop, has_picture, config)[1] if own.with_clip else None
    return Courier(views, config, seed, _groups(shop, config), titles)


def _simclr(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.simclr import SimClr

    return SimClr(_items("simclr", shop, has_picture), config, seed, _groups(shop, config))


def _simsiam(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.simsiam import SimSiam

    return SimSiam(_items("simsiam", shop, has_picture), config, seed)


def _clip(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.clip import Clip

    return Clip(*_titled("clip", shop, has_picture, config), config, seed, _groups(shop, config))


def _maskclip(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.maskclip import MaskClip

    return MaskClip(*_titled("maskclip", shop, has_picture, config), config, seed, _groups(shop, config))


def _supervised(shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method:
    from pretrain.methods.supervised import Supervised
    from pretrain.page_views import page_views

    own = config.supervised
    views = page_views(shop, page_items=own.page_items, history_items=own.history_items, has_picture=has_picture, unclicked=True)
    _enough("supervised", views, "earlier clicks with pictures")
    return Supervised(views, config, seed)


def _enough(name: str, views: PageViews, needed: str) -> None:
    from data.readiness import FEWEST

    if len(views) < FEWEST:
        raise UserError(
            f"{name}: {len(views)} page views of the pretraining period have {needed}; it needs a longer log, or a larger pretraining share"
        )


def _titled(name: str, shop: Shop, has_picture: np.ndarray, config: PretrainConfig) -> tuple[np.ndarray, Titles]:
    """The pictures of the pretraining period whose items have a title, and the catalogue's titles."""
    from data.readiness import FEWEST
    from pretrain.methods.text import read_titles
    from pretrain.page_views import pretraining_items

    items = pretraining_items(shop, has_picture)
    titles = read_titles(shop, items, config.clip)
    items = items[titles.of_item[items] > 0]
    if len(items) < FEWEST:
        raise UserError(
            f"{name}: {len(items)} items with a picture and a title were shown in the pretraining period; it needs at least {FEWEST}: "
            "fill the column 'title' of items.parquet"
        )
    _differ(name, titles.of_item[items], _groups(shop, config), items)
    return items, titles


def _differ(name: str, title: np.ndarray, group: np.ndarray | None, items: np.ndarray) -> None:
    """Refuse titles that are all alike wherever they compete: the loss would be 0 from the first step on."""
    import numpy as np

    where = np.zeros(len(items), dtype=np.int64) if group is None else group[items]
    if np.unique(np.stack([where, title]), axis=1).shape[1] == len(np.unique(where)):
        within = "" if group is None else " within each category (--pretrain.negatives batch would contrast across them)"
        raise UserError(f"{name}: all titles are the same{within}, so that there is none to tell a picture's own from; write longer titles")


def _items(name: str, shop: Shop, has_picture: np.ndarray) -> np.ndarray:
    """The pictures of the pretraining period, for a method that needs nothing else of it."""
    from data.readiness import FEWEST
    from pretrain.page_views import pretraining_items

    items = pretraining_items(shop, has_picture)
    if len(items) < FEWEST:
        raise UserError(f"{name}: {len(items)} items with a picture were shown in the pretraining period; it needs at least {FEWEST}")
    return items


def _groups(shop: Shop, config: PretrainConfig) -> np.ndarray | None:
    """(N,) the group of each item, within which pictures compete; items without a category are one group. None: no groups."""
    return shop.item_category if config.negatives == "category" else None


METHODS: dict[str, Entry] = {
    "courier": Entry(make=_courier, parts=("courier",)),
    "simclr": Entry(make=_simclr, parts=("simclr", "distortion")),
    "simsiam": Entry(make=_simsiam, parts=("simsiam", "distortion")),
    "clip": Entry(make=_clip, parts=("clip",)),
    "maskclip": Entry(make=_maskclip, parts=("clip", "maskclip")),
    "supervised": Entry(make=_supervised, parts=("supervised",)),
    "random": Entry(make=None),
}


INITIAL_METHOD = "simclr"  # trained first, on the shop's own pictures: all encoders of a seed begin with its weights


def make_method(name: str, shop: Shop, has_picture: np.ndarray, config: PretrainConfig, seed: int) -> Method | None:
    """The method of this name on a shop's pretraining period; None: the encoder stays as it begins.

    Raises:
        UserError: the period holds too little for it.
    """
    make = METHODS[name].make
    return None if make is None else make(shop, has_picture, config, seed)


def is_trained(name: str) -> bool:
    """False for the encoder that stays as it begins."""
    return METHODS[name].make is not None


def uses_initial_weights(name: str, config: PretrainConfig) -> bool:
    """True for a method that begins with the weights of a SimCLR on the shop's own pictures."""
    return is_trained(name) and config.weights == "pictures"


def check_needs(name: str, shop: Shop, config: PretrainConfig) -> None:
    """Refuse a shop that lacks a column the method learns from, before anything is trained.

    Raises:
        DataError: no titles for a text tower.
    """
    if "clip" in parts_read(name, config):
        from pretrain.methods.text import require_titles

        require_titles(shop)


def parts_read(name: str, config: PretrainConfig) -> tuple[str, ...]:
    """The parts of the settings that an encoder depends on, by name."""
    also = ("clip",) if name == "courier" and config.courier.with_clip else ()
    return METHODS[name].parts + also
