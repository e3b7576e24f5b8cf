"""What a user had clicked, bought and put in the cart before a session: windows into one array, never copies.

Legend: S sessions, E events of one action, B sessions of a batch, L longest window in it, V items in all its windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from data.event_log import CART, CLICK, PURCHASE, UNCART
from data.shop_folder import Shop
from data.time_keys import order_by_group_and_time, windows
from run.errors import SettingError

SCOPES = ("all", "category")
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class History:
    """One action's events and, for every session, the window of those its user had done before it."""

    name: str  # clicks | purchases | cart
    item: np.ndarray  # (E,) int32, sorted by (user[, category], time)
    start: np.ndarray  # (S,) int64
    end: np.ndarray  # (S,) int64: session s saw item[start[s]:end[s]], oldest first, all before its time
    gone: np.ndarray | None  # (E,) int64 Unix s when the event stops counting (uncart; NEVER); None: none do

    def lengths(self) -> np.ndarray:
        """(S,) int64 events in each session's window, those since gone included."""
        return self.end - self.start


def click_history(shop: Shop, *, max_items: int, scope: str = "all") -> History:
    """Each session's newest `max_items` clicks; with scope "category" only those of items in the category searched.

    A session or item without a category has no part in scope "category".

    Raises:
        SettingError: an unknown scope, or scope "category" where items or impressions have no column `category`.
    """
    if scope not in SCOPES:
        raise SettingError("history_scope", scope, f"give one of {', '.join(SCOPES)}")
    rows = np.flatnonzero(shop.events.action == CLICK)
    if scope == "all":
        return _history("clicks", shop, rows, max_items=max_items)
    for file, column in (("impressions.parquet", shop.session_category), ("items.parquet", shop.item_category)):
        if column is None:
            raise SettingError("history_scope", scope, f"{file} has no column 'category': add it, or take scope 'all'")
    assert shop.session_category is not None
    assert shop.item_category is not None
    categories = len(shop.category_names)
    category = shop.item_category[shop.events.item[rows]]
    rows, category = rows[category >= 0], category[category >= 0]
    group = shop.events.user[rows].astype(np.int64) * categories + category
    order = order_by_group_and_time(group, shop.events.time[rows])
    at_group = shop.session_user.astype(np.int64) * categories + shop.session_category
    at_group = np.where(shop.session_category < 0, -1, at_group)
    return _history("clicks", shop, rows[order], max_items=max_items, group=group[order], at_group=at_group)


def purchase_history(shop: Shop, *, max_items: int) -> History:
    """Each session's newest `max_items` purchases."""
    return _history("purchases", shop, np.flatnonzero(shop.events.action == PURCHASE), max_items=max_items)


def cart_history(shop: Shop, *, max_items: int) -> History:
    """Each session's newest `max_items` cart events, with the time at which an `uncart` ends each.

    The window is cut before items taken out again are dropped, so it may hold fewer items than the cart did.
    """
    rows = np.flatnonzero(shop.events.action == CART)
    return _history("cart", shop, rows, max_items=max_items, gone=_gone(shop, rows))


def jagged(
    history: History, sessions: np.ndarray, *, length: int | None = None, session_time: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The histories of some sessions, end to end.

    Args:
        sessions: (B,) session numbers.
        length: at most so many items a session, the newest; None: the whole window.
        session_time: (S,) `Shop.session_time`; needed where events can be gone (cart): those gone earlier are dropped.

    Returns:
        values: (V,) int64 item indices, session after session, oldest first.
        lengths: (B,) int64, sum V.

    Raises:
        ValueError: `session_time` is missing or is not one time for every session of the shop.
    """
    start, end = history.start[sessions], history.end[sessions]
    if history.gone is None:
        if length is not None:
            start = np.maximum(start, end - length)
        return history.item[_places(start, end)].astype(np.int64), end - start
    if session_time is None or len(session_time) != len(history.start):
        raise ValueError(f"{history.name} history: give session_time=shop.session_time, one time for every session")
    places, row = _places(start, end), np.repeat(np.arange(len(sessions)), end - start)
    alive = history.gone[places] >= session_time[sessions][row]
    places, row = places[alive], row[alive]
    lengths = np.bincount(row, minlength=len(sessions))
    if length is not None:
        from_end = np.cumsum(lengths)[row] - np.arange(len(row))  # 1 for a session's newest item
        places, lengths = places[from_end <= length], np.minimum(lengths, length)
    return history.item[places].astype(np.int64), lengths


def padded(history: History, sessions: np.ndarray, *, length: int | None = None, session_time: np.ndarray | None = None) -> np.ndarray:
    """(B, L) int64 item indices, oldest first, from column 0 on, then -1; L is `length` or the longest row (1 or more).

    Arguments and errors are those of `jagged`.
    """
    values, lengths = jagged(history, sessions, length=length, session_time=session_time)
    width = length if length is not None else max(1, int(lengths.max(initial=0)))
    items = np.full((len(lengths), width), -1, dtype=np.int64)
    items[np.arange(width) < lengths[:, None]] = values
    return items


def _history(
    name: str,
    shop: Shop,
    rows: np.ndarray,
    *,
    max_items: int,
    group: np.ndarray | None = None,
    at_group: np.ndarray | None = None,
    gone: np.ndarray | None = None,
) -> History:
    """Windows over the events `rows`, which are sorted by (group, time); the group is the user unless given."""
    if max_items < 0:
        raise SettingError(f"max_{name}", max_items, "give a number of items of at least 0")
    group = shop.events.user[rows] if group is None else group
    at_group = shop.session_user if at_group is None else at_group
    first, end = windows(group, shop.events.time[rows], at_group, shop.session_time)
    return History(name=name, item=shop.events.item[rows], start=np.maximum(first, end - max_items), end=end, gone=gone)


def _gone(shop: Shop, carts: np.ndarray) -> np.ndarray:
    """(len(carts),) int64: when, at or after each cart event, its user next takes its item out again; or NEVER."""

    def of(rows: np.ndarray) -> pl.DataFrame:
        events = shop.events
        return pl.DataFrame({"user": events.user[rows], "item": events.item[rows], "time": events.time[rows]})

    taken_out = of(np.flatnonzero(shop.events.action == UNCART)).with_columns(pl.col("time").alias("gone")).sort("time")
    put_in = of(carts).with_row_index("place").sort("time")
    matched = put_in.join_asof(taken_out, on="time", by=["user", "item"], strategy="forward", check_sortedness=False)
    return matched.sort("place")["gone"].fill_null(NEVER).to_numpy()


def _places(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(V,) int64: start[0] .. end[0] - 1, start[1] .. end[1] - 1, ..."""
    lengths = end - start
    shift = start - (np.cumsum(lengths) - lengths)
    return np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
