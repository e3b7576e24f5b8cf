"""What a user had clicked, bought and put in the cart before a session: windows into one array, never copies.

Legend: S sessions, E events of one action, B sessions of a batch, L longest window in it, V items in all its windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from data.arrays.array_storage import scratch
from data.arrays.ranges import ranges
from data.arrays.time_keys import argsort_by_group_and_time, before
from data.log.events import CART, CLICK, PURCHASE, UNCART, ActionLog, Events, user_ranges
from data.log.shop_folder import Shop
from data.log.tables import IMPRESSIONS, ITEMS
from run.errors import SettingError

SCOPES = ("all", "category")
NEVER = np.iinfo(np.int64).max

_SESSIONS = 1 << 20  # searched for at a time


@dataclass(frozen=True, kw_only=True)
class History:
    """One action's events and, for every session, the window of those that its user did before it."""

    name: str  # clicks | purchases | cart
    item: np.ndarray  # (E,) int32, sorted by (user, time): the log's own; by (user, category, time) in scope "category"
    time: np.ndarray  # (E,) int64 Unix s of each event
    start: np.ndarray  # (S,) int64
    end: np.ndarray  # (S,) int64: session s saw item[start[s]:end[s]], oldest first, all before its time
    gone: np.ndarray | None  # (E,) int64 Unix s when the event stops counting (uncart; NEVER); None: none ever do

    def lengths(self) -> np.ndarray:
        """(S,) int64 events in each session's window, including those since gone."""
        return self.end - self.start


def click_history(shop: Shop, *, max_items: int, scope: str = "all") -> History:
    """Each session's newest `max_items` clicks; with scope "category" only those on items of the category searched.

    Sessions and items without a category are left out of scope "category".

    Raises:
        SettingError: an unknown scope, or scope "category" where items or impressions have no column `category`.
    """
    if scope not in SCOPES:
        raise SettingError("history_scope", scope, f"give one of {', '.join(SCOPES)}")
    if scope == "all":
        return _history("clicks", shop, shop.events.logs[CLICK], max_items=max_items)
    for file, column in ((IMPRESSIONS, shop.session_category), (ITEMS, shop.item_category)):
        if column is None:
            raise SettingError("history_scope", scope, f"{file} has no column 'category': add it, or use scope 'all'")
    _check_window("clicks", max_items)
    return _by_category(shop, max_items=max_items)


def purchase_history(shop: Shop, *, max_items: int) -> History:
    """Each session's newest `max_items` purchases."""
    return _history("purchases", shop, shop.events.logs[PURCHASE], max_items=max_items)


def cart_history(shop: Shop, *, max_items: int) -> History:
    """Each session's newest `max_items` cart events, with the time at which an `uncart` ends each.

    Windows are cut before removed items are dropped, so one may hold fewer items than the cart did.
    """
    return _history("cart", shop, shop.events.logs[CART], max_items=max_items, gone=_gone(shop.events))


def jagged(
    history: History, sessions: np.ndarray, *, length: int | None = None, session_time: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The histories of some sessions, end to end.

    Args:
        sessions: (B,) session numbers.
        length: keep at most this many items per session, the newest; None: the full window.
        session_time: (S,) `Shop.session_time`; needed if events can be gone (cart): those gone before it are dropped.

    Returns:
        values: (V,) int64 item indices, session after session, oldest first.
        lengths: (B,) int64, sum V.

    Raises:
        ValueError: `session_time` is missing or is not one time for every session of the shop.
    """
    events, lengths = jagged_events(history, sessions, length=length, session_time=session_time)
    return history.item[events].astype(np.int64), lengths


def jagged_events(
    history: History, sessions: np.ndarray, *, length: int | None = None, session_time: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The places (V,) int64 of `jagged`'s items in the history's arrays, and the lengths (B,)."""
    start, end = history.start[sessions], history.end[sessions]
    if history.gone is None:
        if length is not None:
            start = np.maximum(start, end - length)
        return ranges(start, end - start), end - start
    if session_time is None or len(session_time) != len(history.start):
        raise ValueError(f"{history.name} history: give session_time=shop.session_time, one time for every session")
    events, row = ranges(start, end - start), np.repeat(np.arange(len(sessions)), end - start)
    alive = history.gone[events] >= session_time[sessions][row]
    events, row = events[alive], row[alive]
    lengths = np.bincount(row, minlength=len(sessions))
    if length is not None:
        from_end = np.cumsum(lengths)[row] - np.arange(len(row))  # 1 for a session's newest item
        events, lengths = events[from_end <= length], np.minimum(lengths, length)
    return events, lengths


def padded(history: History, sessions: np.ndarray, *, length: int | None = None, session_time: np.ndarray | None = None) -> np.ndarray:
    """(B, L) int64 item indices, oldest first, from column 0 on, then -1; L is `length` or the longest row (1 or more).

    Arguments and errors are those of `jagged`.
    """
    values, lengths = jagged(history, sessions, length=length, session_time=session_time)
    width = length if length is not None else max(1, int(lengths.max(initial=0)))
    items = np.full((len(lengths), width), -1, dtype=np.int64)
    items[np.arange(width) < lengths[:, None]] = values
    return items


def _history(name: str, shop: Shop, log: ActionLog, *, max_items: int, gone: np.ndarray | None = None) -> History:
    """Windows into an action's own array."""
    _check_window(name, max_items)
    first, end = (scratch(len(shop.session_time), np.int64, shop.events.folder) for _ in range(2))
    by_user = np.argsort(shop.session_user, kind="stable")  # reads the log from front to back
    for at in range(0, len(by_user), _SESSIONS):
        sessions = by_user[at : at + _SESSIONS]
        user = shop.session_user[sessions]
        stops = before(log.time, log.start[user], log.start[user + 1], shop.session_time[sessions])
        end[sessions] = stops
        first[sessions] = np.maximum(log.start[user], stops - max_items)
    return History(name=name, item=log.item, time=log.time, start=first, end=end, gone=gone)


def _by_category(shop: Shop, *, max_items: int) -> History:
    """Windows into the clicks on items with a category, sorted by (user, category, time), one range of users after another."""
    assert shop.session_category is not None
    assert shop.item_category is not None
    log, categories = shop.events.logs[CLICK], len(shop.category_names)
    item, times = scratch(len(log), np.int32, shop.events.folder), scratch(len(log), np.int64, shop.events.folder)
    first, end = (scratch(len(shop.session_time), np.int64, shop.events.folder) for _ in range(2))
    by_user, filled = np.argsort(shop.session_user, kind="stable"), 0
    session_user = shop.session_user[by_user]
    for low, high in user_ranges(log.start):
        a, b = log.start[low], log.start[high]
        user, category = np.repeat(np.arange(high - low), np.diff(log.start[low : high + 1])), shop.item_category[log.item[a:b]]
        known = np.flatnonzero(category >= 0)
        group, time = user[known] * categories + category[known], log.time[a:b][known]
        ranking = argsort_by_group_and_time(group, time)
        group, time = group[ranking], time[ranking]
        item[filled : filled + len(ranking)] = log.item[a:b][known[ranking]]
        times[filled : filled + len(ranking)] = time

        sessions = by_user[np.searchsorted(session_user, low) : np.searchsorted(session_user, high)]
        searched = shop.session_category[sessions]
        wanted = np.where(searched < 0, -1, (shop.session_user[sessions].astype(np.int64) - low) * categories + searched)
        begin = np.searchsorted(group, wanted, side="left")
        stops = before(time, begin, np.searchsorted(group, wanted, side="right"), shop.session_time[sessions])
        end[sessions] = filled + stops
        first[sessions] = filled + np.maximum(begin, stops - max_items)
        filled += len(ranking)
    return History(name="clicks", item=item[:filled], time=times[:filled], start=first, end=end, gone=None)


def _gone(events: Events) -> np.ndarray:
    """(E,) int64: the time at or after each cart event when its user next takes the item out; NEVER if that does not happen."""
    carts, outs = events.logs[CART], events.logs[UNCART]
    gone = scratch(len(carts), np.int64, events.folder)
    for low, high in user_ranges(carts.start):
        put_in, taken_out = (_of_users(log, low, high) for log in (carts, outs))
        put_in, taken_out = put_in.with_row_index("event").sort("time"), taken_out.with_columns(gone="time").sort("time")
        matched = put_in.join_asof(taken_out, on="time", by=["user", "item"], strategy="forward", check_sortedness=False)
        gone[carts.start[low] : carts.start[high]] = matched.sort("event")["gone"].fill_null(NEVER).to_numpy()
    return gone


def _of_users(log: ActionLog, low: int, high: int) -> pl.DataFrame:
    """The events of users [low, high): user, item, time."""
    a, b = log.start[low], log.start[high]
    user = np.repeat(np.arange(low, high), np.diff(log.start[low : high + 1]))
    return pl.DataFrame({"user": user, "item": log.item[a:b], "time": log.time[a:b]})


def _check_window(name: str, max_items: int) -> None:
    if max_items < 0:
        raise SettingError(f"max_{name}", max_items, "give a number of items of at least 0")
