"""A shop folder in memory: the format of docs/shop-folder.md, fully checked, ids turned into row numbers.

Legend: N items, U users, I impressions, S sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from data.arrays.array_storage import Store, in_memory
from data.arrays.ranges import ranges
from data.arrays.stored_frame import Frame, stretches
from data.log import checks
from data.log.checked_tables import empty_like, read_impressions, read_items, read_users
from data.log.events import ACTIONS, CLICK, EventRows, Events, KnownIds, load_events
from data.log.sessions import categories, one_user_each, session_numbers, session_starts, session_table, split_of_sessions
from data.log.split import FRACTIONS, SPLITS, check_fractions
from data.log.tables import IMPRESSIONS, ITEMS, USERS, check_folder, index_of

__all__ = ["ACTIONS", "FRACTIONS", "SPLITS", "Events", "Shop", "load_shop"]


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A checked shop folder.

    Frames hold the columns on disk in working types: ids Int64 or String, timestamp Int64 s, click Int8, text String, features Int64,
    String, Boolean or Float64.
    """

    folder: Path
    items: pl.DataFrame  # N rows; the row number is the item's index everywhere
    users: pl.DataFrame  # U rows; only `user_id`, ascending, where users.parquet is absent
    impressions: Frame  # I rows in file order
    item: np.ndarray  # (I,) int32 index into items
    user: np.ndarray  # (I,) int32 index into users
    session: np.ndarray  # (I,) int32; sessions are numbered by time, ties by their first row
    click: np.ndarray  # (I,) int8, 0 or 1
    time: np.ndarray  # (I,) int64 Unix s of each impression
    session_user: np.ndarray  # (S,) int32
    session_time: np.ndarray  # (S,) int64 Unix s of the earliest impression
    session_split: np.ndarray  # (S,) int8 index into SPLITS
    session_category: np.ndarray | None  # (S,) int32 index into category_names of the category searched; -1 unknown
    item_category: np.ndarray | None  # (N,) int32 index into category_names; -1 unknown; None: no such column
    category_names: list[str]
    events: Events
    clicks_from: str = IMPRESSIONS  # the file that the click events come from
    split_is_ordered: bool  # False: a `split` column goes back in time, and that was allowed
    stored_order: tuple[np.ndarray, np.ndarray] | None = None  # `by_session`, if it is on disk

    @cached_property
    def by_session(self) -> tuple[np.ndarray, np.ndarray]:
        """(I,) int64 impression rows ordered by (session, row), and (S + 1,) int64 where each session's begin among them."""
        if self.stored_order is not None:
            return self.stored_order
        return np.argsort(self.session, kind="stable"), session_starts([self.session], len(self.session_time))

    def rows(self, split: str) -> np.ndarray:
        """Impression rows of a split, int64, ordered by (session, row). Read only: it may be part of a larger array."""
        rows, start = self.by_session
        sessions = np.flatnonzero(self.session_split == SPLITS.index(split))
        if len(sessions) == 0:
            return rows[:0]
        first, last = sessions[0], sessions[-1]
        if last - first + 1 == len(sessions):  # splits in time order: a slice is enough
            return rows[start[first] : start[last + 1]]
        return rows[ranges(start[sessions], start[sessions + 1] - start[sessions])]


def load_shop(folder: str | Path, *, fractions: Sequence[float] = FRACTIONS, allow_unordered_split: bool = False) -> Shop:
    """Read and check a shop folder.

    Args:
        fractions: of the impressions in time order, for pretrain, train, valid, test; a `split` column overrides them.
        allow_unordered_split: accept a `split` column that goes back in time; `Shop.split_is_ordered` is then False.

    Raises:
        UserError: anything invalid in the folder, naming file, row, column, value and the fix.
    """
    folder = Path(folder)
    check_fractions(fractions)
    check_folder(folder)
    tables = ShopTables(folder=folder, items=read_items(folder), impressions=read_impressions(folder))
    return build_shop(tables, fractions=fractions, allow_unordered_split=allow_unordered_split, store=in_memory, read_events=load_events)


@dataclass(frozen=True, kw_only=True)
class ShopTables:
    """Two tables of a folder, each checked on its own."""

    folder: Path
    items: pl.DataFrame
    impressions: Frame


ReadEvents = Callable[[Path, KnownIds, Iterable[EventRows]], tuple[Events, str]]  # as `load_events`


def build_shop(
    tables: ShopTables, *, fractions: Sequence[float], allow_unordered_split: bool, store: Store, read_events: ReadEvents
) -> Shop:
    """Turn ids into row numbers and impressions into sessions, checking the tables against each other.

    Args:
        store: where arrays as long as the log are put.
    """
    folder, items, impressions = tables.folder, tables.items, tables.impressions
    checks.same_kind(IMPRESSIONS, empty_like(impressions, "item_id"), ITEMS, items["item_id"])
    users = read_users(folder, impressions)
    users_file = USERS if (folder / USERS).exists() else None

    item = store("item", _indices(impressions, "item_id", items["item_id"], ITEMS), np.int32)
    user = store("user", _indices(impressions, "user_id", users["user_id"], USERS), np.int32)
    sessions = session_table(impressions)
    session = store("session", session_numbers(impressions, sessions), np.int32)
    first_row = sessions["first_row"].to_numpy()
    session_user = user[first_row]
    one_user_each(impressions, user, session_user, session)
    session_split, ordered = split_of_sessions(impressions, session, sessions, fractions, allow_unordered_split)
    item_category, session_category, category_names = categories(items, impressions, session, len(first_row))
    click = store("click", (rows["click"].to_numpy() for _, rows in stretches(impressions, ["click"])), np.int8)
    time = store("time", (rows["timestamp"].to_numpy() for _, rows in stretches(impressions, ["timestamp"])), np.int64)

    known = KnownIds(item_ids=items["item_id"], user_ids=users["user_id"], users_file=users_file)
    events, clicks_from = read_events(folder, known, _clicked(impressions, user, item))
    return Shop(
        folder=folder,
        items=items,
        users=users,
        impressions=impressions,
        item=item,
        user=user,
        session=session,
        click=click,
        time=time,
        session_user=session_user,
        session_time=sessions["time"].to_numpy(),
        session_split=session_split,
        session_category=session_category,
        item_category=item_category,
        category_names=category_names,
        events=events,
        clicks_from=clicks_from,
        split_is_ordered=ordered,
    )


def _indices(impressions: Frame, column: str, listed: pl.Series, file: str) -> Iterator[np.ndarray]:
    """The positions of a column's ids among those listed, stretch by stretch."""
    for first, rows in stretches(impressions, [column]):
        index = index_of(rows[column], listed)
        checks.known(IMPRESSIONS, rows[column], index, file, first, listed=listed)
        yield index


def _clicked(impressions: Frame, user: np.ndarray, item: np.ndarray) -> Iterator[EventRows]:
    """The clicked impressions as events, in file order, stretch by stretch."""
    for first, rows in stretches(impressions, ["timestamp", "click"]):
        shown = np.flatnonzero(rows["click"].to_numpy())
        action = np.full(len(shown), CLICK, dtype=np.int8)
        yield EventRows(user[first + shown], item[first + shown], rows["timestamp"].to_numpy()[shown], action)
