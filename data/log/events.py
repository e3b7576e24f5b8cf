"""The event log: every click, purchase and cart event once, by action, each user's in time order.

Legend: E events (of an action), U users, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from data.arrays.time_keys import argsort_by_group_and_time
from data.log import checks
from data.log.tables import EVENTS, IMPRESSIONS, ITEMS, index_of, read_table

ACTIONS = ("click", "purchase", "cart", "uncart")
CLICK, PURCHASE, CART, UNCART = range(len(ACTIONS))

COLUMNS = ("user_id", "item_id", "timestamp", "action")


class EventRows(NamedTuple):
    """Some events as parallel arrays."""

    user: np.ndarray  # (E,) int32 user index
    item: np.ndarray  # (E,) int32 item index
    time: np.ndarray  # (E,) int64 Unix s
    action: np.ndarray  # (E,) int8 index into ACTIONS

    def take(self, rows: np.ndarray) -> EventRows:
        return EventRows(*(column[rows] for column in self))


@dataclass(frozen=True, kw_only=True)
class ActionLog:
    """All events of one action, sorted by (user, time), ties in file order."""

    item: np.ndarray  # (E,) int32 item index
    time: np.ndarray  # (E,) int64 Unix s
    start: np.ndarray  # (U + 1,) int64: user u's events are those from start[u] to start[u + 1] - 1

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, kw_only=True)
class Events:
    """Every behaviour event."""

    logs: tuple[ActionLog, ...]  # in the order of ACTIONS
    folder: Path | None = None  # where the arrays are mapped from and scratch arrays may go; None: they are in memory

    def __len__(self) -> int:
        return sum(len(log) for log in self.logs)

    def with_users(self, users: int) -> Events:
        """The same events for a larger number of users; the added ones have none."""
        logs = [replace(log, start=np.pad(log.start, (0, users + 1 - len(log.start)), mode="edge")) for log in self.logs]
        return replace(self, logs=tuple(logs))

    def rows(self) -> EventRows:
        """A copy of all events, sorted by (user, time, action), ties in file order; takes four times the memory of the log."""
        users = [np.repeat(np.arange(len(log.start) - 1, dtype=np.int32), np.diff(log.start)) for log in self.logs]
        action = np.repeat(np.arange(len(self.logs), dtype=np.int8), [len(log) for log in self.logs])
        item, time = (np.concatenate([getattr(log, name) for log in self.logs]) for name in ("item", "time"))
        rows = EventRows(np.concatenate(users), item, time, action)
        return rows.take(argsort_by_group_and_time(rows.user, rows.time))

    def counts_before(self, moment: int, *, items: int) -> tuple[np.ndarray, np.ndarray]:
        """How many events before a moment each item (N,) and each user (U,) has, int64; read stretch by stretch."""
        of_item = np.zeros(items, dtype=np.int64)
        of_user = np.zeros(len(self.logs[0].start) - 1, dtype=np.int64)
        for log in self.logs:
            for low, high in user_ranges(log.start):
                a, b = log.start[low], log.start[high]
                early = log.time[a:b] < moment
                of_item += np.bincount(log.item[a:b][early], minlength=items)
                passed = np.concatenate([[0], np.cumsum(early)])
                of_user[low:high] += np.diff(passed[log.start[low : high + 1] - a])
        return of_item, of_user


def user_ranges(start: np.ndarray, most: int = 1 << 22) -> Iterator[tuple[int, int]]:
    """Ranges [low, high) of users in turn, each with at most `most` events in all, or one user alone.

    >>> list(user_ranges(np.array([0, 2, 3, 3, 9, 10]), most=4))
    [(0, 3), (3, 4), (4, 5)]
    """
    low, users = 0, len(start) - 1
    while low < users:
        high = int(np.searchsorted(start, start[low] + most, side="right")) - 1
        high = min(max(high, low + 1), users)
        yield low, high
        low = high


def by_action(rows: EventRows, *, users: int) -> Events:
    """Sort events in memory into the log of `users` users."""
    logs = []
    for action in range(len(ACTIONS)):
        of_action = np.flatnonzero(rows.action == action)
        user, time = rows.user[of_action], rows.time[of_action]
        ranking = argsort_by_group_and_time(user, time)
        start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))])
        logs.append(ActionLog(item=rows.item[of_action[ranking]], time=time[ranking], start=start))
    return Events(logs=tuple(logs))


@dataclass(frozen=True, kw_only=True)
class KnownIds:
    """The ids that events may name."""

    item_ids: pl.Series  # of items.parquet
    user_ids: pl.Series
    users_file: str | None  # the file that lists the users; None: events of users without an impression are left out


def load_events(folder: Path, known: KnownIds, clicked: Iterable[EventRows]) -> tuple[Events, str]:
    """The log of `events.parquet`; where that holds no click (or is absent), the clicks are those of the impressions.

    A single click in `events.parquet` replaces all clicks of the impressions.

    Args:
        clicked: the clicked impressions as events, in file order.

    Returns:
        The events, and the name of the file their clicks come from.

    Raises:
        DataError: a null, an unknown id, action or time, naming the row.
    """
    users = len(known.user_ids)
    if not (folder / EVENTS).exists():
        return by_action(_joined(clicked), users=users), IMPRESSIONS
    rows = checked_events(read_table(folder, EVENTS, columns=COLUMNS), known)
    listed = rows.take(rows.user >= 0)
    if np.any(rows.action == CLICK):
        return by_action(listed, users=users), EVENTS
    return by_action(_joined([listed, *clicked]), users=users), IMPRESSIONS


def checked_events(frame: pl.DataFrame, known: KnownIds, first: int = 0) -> EventRows:
    """Rows of `events.parquet` from row `first` on, with indices for ids; user -1 where the user is not listed."""
    found = {}
    for column, check in event_checks(known):
        found[column] = check(frame[column], first)
    return EventRows(found["user_id"], found["item_id"], found["timestamp"], found["action"])


def event_checks(known: KnownIds) -> Iterator[tuple[str, Callable[[pl.Series, int], Any]]]:
    """Columns and the checks of their values from row `first` on, in the order in which a file's first fault is reported.

    The last check of each column returns the values to use.
    """
    users, items = (known.users_file or IMPRESSIONS, known.user_ids), (ITEMS, known.item_ids)
    yield "user_id", lambda values, first: checks.ids(EVENTS, values, first)
    yield "item_id", lambda values, first: checks.ids(EVENTS, values, first)
    yield "user_id", lambda values, first: checks.same_kind(EVENTS, checks.ids(EVENTS, values, first), *users)
    yield "item_id", lambda values, first: checks.same_kind(EVENTS, checks.ids(EVENTS, values, first), *items)
    yield "item_id", partial(_index, ITEMS, known.item_ids)
    yield "user_id", partial(_index, known.users_file, known.user_ids)
    yield "timestamp", lambda values, first: checks.times(EVENTS, values, first).to_numpy()
    yield "action", lambda values, first: checks.one_of(EVENTS, values, ACTIONS, first).to_numpy()


def _index(file: str | None, listed: pl.Series, values: pl.Series, first: int) -> np.ndarray:
    """(E,) int32 positions of ids among those listed, in `file`, which must hold them all; without a file, -1 marks a missing id."""
    ids = checks.ids(EVENTS, values, first)
    index = index_of(ids, listed)
    if file is not None:
        checks.known(EVENTS, ids, index, file, first, listed=listed)
    return index


def _joined(parts: Iterable[EventRows]) -> EventRows:
    return EventRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
