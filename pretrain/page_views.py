"""The rows that methods on clicks learn from: one page view with the user's clicks before it (COURIER's paper, sections 3.2 and 4.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.log.histories import click_history, padded
from data.log.shop_folder import SPLITS, Shop
from data.log.statistics import popularity
from metrics.conditional_logit import conditional_logit
from run.randomness import permutation


@dataclass(frozen=True, kw_only=True)
class PageViews:
    """R page views of the pretraining period; pages and histories are item indices, -1 is padding."""

    page: np.ndarray  # (R, page_items) clicked items first, then the others in the page's order
    clicked: np.ndarray  # (R, page_items) bool
    history: np.ndarray  # (R, history_items) the newest clicks before the page view, oldest first, left-aligned
    known: np.ndarray | None = None  # (R, page_items) float32: the logit that popularity gives each page item's click; None: not asked for

    def __len__(self) -> int:
        return len(self.page)


def page_views(
    shop: Shop, *, page_items: int, history_items: int, has_picture: np.ndarray, unclicked: bool = False, with_popularity: bool = False
) -> PageViews:
    """Page views of the pretraining split that have a history and, unless `unclicked`, a click.

    Args:
        page_items: l_pv; a longer page keeps its clicked items first.
        history_items: l_click.
        has_picture: (N,) bool; items without a picture are left out.
        unclicked: include page views without a click.
        with_popularity: `known` is asked for.
    """
    rows = shop.rows("pretrain")
    rows = rows[has_picture[shop.item[rows]]]
    ranking = np.lexsort((rows, -shop.click[rows].astype(np.int64), shop.session[rows]))
    rows = rows[ranking]
    sessions, starts, counts = np.unique(shop.session[rows], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(starts, counts)
    line = np.repeat(np.arange(len(sessions)), counts)
    kept = rank < page_items
    page = np.full((len(sessions), page_items), -1, dtype=np.int64)
    clicked, row = np.zeros(page.shape, dtype=bool), np.full(page.shape, -1, dtype=np.int64)
    row[line[kept], rank[kept]] = rows[kept]
    page[line[kept], rank[kept]] = shop.item[rows[kept]]
    clicked[line[kept], rank[kept]] = shop.click[rows[kept]] == 1

    # twice as many as needed are read, because those without a picture are dropped
    clicks = click_history(shop, max_items=2 * history_items)
    seen = padded(clicks, sessions, length=2 * history_items)
    history = newest(seen, (seen >= 0) & has_picture[seen], history_items)
    useful = (clicked.any(1) | unclicked) & (history >= 0).any(1)
    known = popularity_logits(shop, row[useful], clicked[useful]) if with_popularity else None
    return PageViews(page=page[useful], clicked=clicked[useful], history=history[useful], known=known)


def popularity_logits(shop: Shop, row: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """(R, page_items) float32: how probable popularity makes the click of each page item beside the others of its page, as a logit.

    The weights of popularity's numbers are fitted by conditional logit to these page views themselves; padding is 0.

    Args:
        row: (R, page_items) impression rows, -1 is padding.
        clicked: (R, page_items) bool.
    """
    shown, out = row >= 0, np.zeros(row.shape, dtype=np.float32)
    columns = popularity(shop, row[shown])
    out[shown] = columns @ conditional_logit(columns, clicked[shown], np.nonzero(shown)[0])
    return out


def newest(items: np.ndarray, kept: np.ndarray, length: int) -> np.ndarray:
    """(B, length): the last `length` kept entries of each row, in the same order, left-aligned, padded with -1."""
    from_end = np.cumsum(kept[:, ::-1], axis=1)[:, ::-1]
    kept = kept & (from_end <= length)
    place = np.cumsum(kept, axis=1) - 1
    out = np.full((len(items), length), -1, dtype=np.int64)
    row, column = np.nonzero(kept)
    out[row, place[row, column]] = items[row, column]
    return out


def pretraining_items(shop: Shop, has_picture: np.ndarray) -> np.ndarray:
    """(M,) items with a picture that were shown in the pretraining period: what every encoder may learn from."""
    shown = np.unique(shop.item[shop.session_split[shop.session] == SPLITS.index("pretrain")])
    return shown[has_picture[shown]]


def rows_of_step(rows: int, batch: int, seed: int, number: int) -> np.ndarray:
    """(batch,) rows of step `number`: shuffled passes over all rows, each row once per pass; a short remainder is left out."""
    per_pass = rows // batch
    shuffled = permutation(rows, seed, "rows", number // per_pass)
    start = number % per_pass * batch
    return shuffled[start : start + batch]


def distinct(tables: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The items in some tables, each once, and the same tables with positions in that list instead of items; -1 stays -1.

    Returns:
        (P,) item indices in ascending order; the tables.
    """
    items, where = np.unique(np.concatenate([table.ravel() for table in tables.values()]), return_inverse=True)
    if len(items) and items[0] < 0:  # padding is the smallest entry and not a picture
        items, where = items[1:], where - 1
    ends = np.cumsum([table.size for table in tables.values()])[:-1]
    parts = np.split(where, ends)
    return items, {name: part.reshape(table.shape) for (name, table), part in zip(tables.items(), parts, strict=True)}
