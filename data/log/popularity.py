"""How popular an item is before an impression: what any model knows of it without its picture."""

from __future__ import annotations

import numpy as np

from data.log.shop_folder import Shop
from data.log.statistics import Clock, counts_of
from data.origin import is_sampled

PRIOR = 20.0  # impressions with the log's own click rate that are added to every item's
NUMBERS = ("clicks", "click rate")


def popularity(shop: Shop, rows: np.ndarray) -> np.ndarray:
    """(n, 2) float32 of impression rows (n,): log1p of the item's clicks strictly before the impression's session, and the logarithm of its
    click rate until then, smoothed by PRIOR impressions, relative to the log's.

    Of a log whose impressions without a click were sampled, only clicks are counted (data/log/statistics.py).
    """
    item, moment = shop.item[rows], shop.session_time[shop.session[rows]]
    every, options = np.arange(len(shop.items), dtype=np.int32), {"clock": Clock.of(shop.time), "clicks_only": is_sampled(shop.folder)}
    shown, clicked = counts_of(every, shop.item, shop, groups=len(every), **options).before(item, moment)
    all_shown, all_clicked = counts_of(np.zeros_like(every), shop.item, shop, groups=1, **options).before(np.zeros_like(item), moment)
    rate = (all_clicked + 1) / (all_shown + 2)
    relative = (clicked + PRIOR * rate) / (shown + PRIOR) / rate
    return np.stack([np.log1p(clicked), np.log(relative)], axis=1).astype(np.float32)
