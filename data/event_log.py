"""The event log: every click, purchase and cart event once, sorted by (user, time)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data import checks
from data.tables import index_of, read_table
from data.time_keys import order_by_group_and_time

ACTIONS = ("click", "purchase", "cart", "uncart")
CLICK, PURCHASE, CART, UNCART = range(len(ACTIONS))

_FILE, _CLICKS = "events.parquet", "impressions.parquet"


@dataclass(frozen=True, kw_only=True)
class Events:
    """Every behaviour event, sorted by (user, time), ties in file order."""

    user: np.ndarray  # (E,) int32 user index
    item: np.ndarray  # (E,) int32 item index
    time: np.ndarray  # (E,) int64 Unix s
    action: np.ndarray  # (E,) int8 index into ACTIONS

    def __len__(self) -> int:
        return len(self.time)


def load_events(folder: Path, *, item_ids: pl.Series, user_ids: pl.Series, users_file: str | None, clicked: Events) -> tuple[Events, str]:
    """The log of `events.parquet`; where that holds no click (or is absent), the clicks are those of the impressions.

    One click in `events.parquet` replaces all of the impressions'.

    Args:
        users_file: the file that lists the users, or None: then events of users without an impression are left out.
        clicked: the clicked impressions as events, in file order.

    Returns:
        The events, and the name of the file that the clicks among them come from.

    Raises:
        DataError: a null, an unknown id, action or time, naming the row.
    """
    if not (folder / _FILE).exists():
        return _sorted(clicked), _CLICKS
    frame = read_table(folder, _FILE, columns=("user_id", "item_id", "timestamp", "action"))
    users, items = checks.ids(_FILE, frame["user_id"]), checks.ids(_FILE, frame["item_id"])
    checks.same_kind(_FILE, users, users_file or _CLICKS, user_ids)
    checks.same_kind(_FILE, items, "items.parquet", item_ids)
    item, user = index_of(items, item_ids), index_of(users, user_ids)
    checks.known(_FILE, items, item, "items.parquet")
    if users_file is not None:
        checks.known(_FILE, users, user, users_file)
    time = checks.times(_FILE, frame["timestamp"]).to_numpy()
    action = checks.one_of(_FILE, frame["action"], ACTIONS).to_numpy()
    events = _chosen(Events(user=user, item=item, time=time, action=action), user >= 0)
    if np.any(action == CLICK):
        return _sorted(events), _FILE
    return _sorted(_joined(events, clicked)), _CLICKS


def _chosen(events: Events, rows: np.ndarray) -> Events:
    return Events(user=events.user[rows], item=events.item[rows], time=events.time[rows], action=events.action[rows])


def _joined(first: Events, second: Events) -> Events:
    return Events(
        user=np.concatenate([first.user, second.user]),
        item=np.concatenate([first.item, second.item]),
        time=np.concatenate([first.time, second.time]),
        action=np.concatenate([first.action, second.action]),
    )


def _sorted(events: Events) -> Events:
    return _chosen(events, order_by_group_and_time(events.user, events.time))
