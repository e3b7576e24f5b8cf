"""What a method needs of a shop, checked before anything is trained: enough data, and pictures that differ where they compete.

A contrast in which nothing competes has a loss of 0 from the first step on, so it trains nothing. Errors and sentences here name no
encoder; pretrain/methods/table.py puts its name before them.
"""

from __future__ import annotations

from math import lgamma

import numpy as np

from data.log.shop_folder import Shop
from data.readiness import FEWEST
from pretrain.page_views import PageViews, pretraining_items
from pretrain.settings import CommonConfig
from run.errors import SettingError, UserError

_MANY = 0.5  # share without a competitor from which it is reported
_ACROSS = "--pretrain.negatives batch would let pictures of different categories compete"


def enough_items(shop: Shop, has_picture: np.ndarray) -> np.ndarray:
    """(M,) the items with a picture that were shown in the pretraining period.

    Raises:
        UserError: they are too few.
    """
    items = pretraining_items(shop, has_picture)
    if len(items) < FEWEST:
        raise UserError(f"{len(items)} items with a picture were shown in the pretraining period; it needs at least {FEWEST}")
    return items


def enough_views(views: PageViews, needed: str) -> PageViews:
    """The page views, if there are enough of them.

    Args:
        needed: what each of them must have.

    Raises:
        UserError: they are too few.
    """
    if len(views) < FEWEST:
        raise UserError(
            f"{len(views)} page views of the pretraining period have {needed}; it needs a longer log, or a larger pretraining share"
        )
    return views


def two_pictures_a_batch(config: CommonConfig, why: str) -> None:
    """Refuse batches of one picture.

    Raises:
        SettingError: names `batch_pictures`.
    """
    if config.batch_pictures < 2:
        raise SettingError("batch_pictures", config.batch_pictures, f"{why}: give at least 2")


def groups_of(shop: Shop, config: CommonConfig) -> np.ndarray | None:
    """(N,) the group of each item, within which pictures compete; items without a category are one group. None: no groups."""
    return shop.item_category if config.negatives == "category" else None


def lonely_pictures(items: np.ndarray, batch: int, group: np.ndarray | None) -> list[str]:
    """A sentence if most pictures of an average step have no competitor; nothing if few lack one.

    Args:
        items: (M,) items that steps are drawn from.
        batch: pictures of a step.
        group: (N,) each item's group; None: all compete.

    Raises:
        UserError: no picture can ever have a competitor.
    """
    if batch < 2:
        raise SettingError("batch_pictures", batch, "pictures of a batch compete with each other: give at least 2")
    if group is None:
        return []
    own = group[items]
    size = np.bincount(np.unique(own, return_inverse=True)[1])
    if size.max() < 2:
        raise UserError(f"no picture has a competitor: each category holds one item, so there is nothing to learn; {_ACROSS}")
    alone = [none_of(int(members) - 1, min(batch, len(items)) - 1, len(items) - 1) for members in size]
    return _few_compete(float(size @ alone) / len(items), "pictures of an average step")


def none_of(marked: int, drawn: int, total: int) -> float:
    """The chance that none of some `marked` things is among those `drawn` from `total` without replacement.

    >>> round(none_of(1, 3, 4), 12)
    0.25
    """
    if drawn > total - marked:
        return 0.0
    logs = (lgamma(total - marked + 1), -lgamma(total - marked - drawn + 1), -lgamma(total + 1), lgamma(total - drawn + 1))
    return float(np.exp(sum(logs)))


def lonely_clicks(target: np.ndarray, candidates: np.ndarray, group: np.ndarray | None) -> list[str]:
    """A sentence if most clicked items have no competitor in any page view; nothing if few lack one.

    Args:
        target: (C,) item of each click that is learned from.
        candidates: items that compete, repeats allowed; each target is one.
        group: (N,) each item's group; None: all compete.

    Raises:
        UserError: none has a competitor.
    """
    distinct = np.unique(candidates)
    own = np.zeros(len(distinct), dtype=np.int64) if group is None else group[distinct]
    groups, size = np.unique(own, return_counts=True)
    of_target = np.zeros(len(target), dtype=np.int64) if group is None else group[target]
    alone = float((size[np.searchsorted(groups, of_target)] < 2).mean())
    if alone == 1:
        if group is None:
            raise UserError("no clicked picture has a competitor: all page views show one item, so there is nothing to learn")
        raise UserError(f"no clicked picture has a competitor: its category holds no other item on any page; {_ACROSS}")
    return _few_compete(alone, "clicks")


def lonely_pages(views: PageViews, *, mask_same_item: bool) -> list[str]:
    """A sentence if most page views keep no unclicked item for the clicked ones to compete with; nothing if few lack one.

    Args:
        mask_same_item: an item does not compete with itself.

    Raises:
        UserError: none keeps one.
    """
    unclicked = (views.page >= 0) & ~views.clicked
    pairs = views.clicked[:, :, None] & unclicked[:, None, :]  # (R, page_items, page_items)
    if mask_same_item:
        pairs &= views.page[:, :, None] != views.page[:, None, :]
    alone = float((~pairs.any((1, 2))).mean())
    fix = "give a larger --pretrain.page-items, or --pretrain.pv-weight 1, which lets items of different pages compete"
    if alone == 1:
        raise UserError(f"no page view keeps an unclicked item that a clicked one could compete with, so there is nothing to learn; {fix}")
    return [f"{100 * alone:.0f} % of page views keep no unclicked item, and nothing is learned from them; {fix}"] if alone >= _MANY else []


def lonely_titles(title: np.ndarray, group: np.ndarray | None) -> list[str]:
    """A sentence if most titled pictures have no other title to compete with; nothing if few lack one.

    Args:
        title: (M,) number of each picture's title; equal titles do not compete.
        group: (M,) each picture's group; None: all compete.

    Raises:
        UserError: all titles are the same wherever they compete.
    """
    own = np.zeros(len(title), dtype=np.int64) if group is None else group
    pairs = np.unique(np.stack([own, title]), axis=1)
    groups, titles = np.unique(pairs[0], return_counts=True)
    if titles.max() < 2:
        if group is not None and np.unique(group, return_counts=True)[1].max() < 2:
            raise UserError(f"no picture has a competitor: each category holds one titled item; {_ACROSS}")
        within = "" if group is None else " within each category (--pretrain.negatives batch would contrast across them)"
        raise UserError(f"all titles are the same{within}, so no title identifies its picture; write longer titles")
    return _few_compete(float((titles[np.searchsorted(groups, own)] < 2).mean()), "titled pictures")


def _few_compete(alone: float, what: str) -> list[str]:
    if alone < _MANY:
        return []
    return [f"{100 * alone:.0f} % of {what} have no competitor in their category, and nothing is learned from them; {_ACROSS}"]
