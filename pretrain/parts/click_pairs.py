"""What was clicked in succession, and what was clicked after a query: the pairs that contrasts of pairs learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.arrays.time_keys import argsort_by_group_and_time
from data.log.shop_folder import Shop
from run.randomness import hashed


def successive_clicks(shop: Shop, has_picture: np.ndarray, *, apart: int) -> np.ndarray:
    """(R, 2) items that one user clicked in the pretraining period, at most `apart` clicks from each other, the earlier one first.

    Clicks on items without a picture are left out first; an item is no pair with itself. Clicks of one moment keep the log's order.

    Args:
        has_picture: (N,) bool.
        apart: 1: each click with the next one.
    """
    rows = shop.rows("pretrain")
    rows = rows[(shop.click[rows] == 1) & has_picture[shop.item[rows]]]
    session = shop.session[rows]
    order = argsort_by_group_and_time(shop.session_user[session], shop.session_time[session])
    user, item = shop.session_user[session][order], shop.item[rows][order]
    found = []
    for later in range(1, apart + 1):
        both = np.stack([item[:-later], item[later:]], axis=1)
        found.append(both[(user[:-later] == user[later:]) & (both[:, 0] != both[:, 1])])
    return np.concatenate(found).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class ClickQueries:
    """The queries of the pretraining period after which each item was clicked."""

    queries: list[str]  # distinct; the first is "", no query
    start: np.ndarray  # (N + 1,) where each item's begin
    query: np.ndarray  # () which query; as often as it led to a click

    def drawn(self, items: np.ndarray, seed: int, number: int) -> np.ndarray:
        """(P,) a query for each of (P,) items, drawn by how often it led to a click; 0 for an item without one."""
        count = self.start[items + 1] - self.start[items]
        place = hashed(seed, "query of a click", number, items) % np.maximum(count, 1).astype(np.uint64)
        found = np.zeros(len(items), dtype=np.int64)
        asked = count > 0
        found[asked] = self.query[self.start[items[asked]] + place[asked].astype(np.int64)]
        return found


def click_queries(shop: Shop, has_picture: np.ndarray) -> ClickQueries | None:
    """The queries that led to clicks on pictures in the pretraining period; None where the log has no queries, or none led to one."""
    if "query" not in shop.impressions.columns:
        return None
    rows = shop.rows("pretrain")
    rows = rows[(shop.click[rows] == 1) & has_picture[shop.item[rows]]]
    text = shop.impressions["query"].gather(rows).fill_null("").to_list()
    queries = ["", *sorted(set(text) - {""})]
    if len(queries) == 1:
        return None
    code = {query: number for number, query in enumerate(queries)}
    number = np.array([code[query] for query in text], dtype=np.int64)
    item = shop.item[rows][number > 0]
    order = np.argsort(item, kind="stable")
    start = np.searchsorted(item[order], np.arange(len(has_picture) + 1))
    return ClickQueries(queries=queries, start=start, query=number[number > 0][order])
