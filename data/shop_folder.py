"""A shop folder in memory: the format of docs/shop-folder.md, checked whole, ids turned into row numbers.

Legend: N items, U users, I impressions, S sessions, E events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data import checks
from data.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns, is_text
from data.event_log import ACTIONS, CLICK, Events, load_events
from data.split import FRACTIONS, SPLITS, check_complete, check_fractions, check_order, is_ordered, split_by_time
from data.tables import check_folder, index_of, read_table, require_columns
from run.errors import DataError

__all__ = ["ACTIONS", "FRACTIONS", "SPLITS", "Events", "Shop", "load_shop"]

ITEMS, USERS, IMPRESSIONS = "items.parquet", "users.parquet", "impressions.parquet"


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A checked shop folder. Frames hold the columns on disk: ids Int64 or String, timestamp Int64 s, click Int8."""

    folder: Path
    items: pl.DataFrame  # N rows; the row number is the item's index everywhere
    users: pl.DataFrame  # U rows; only `user_id`, ascending, where users.parquet is absent
    impressions: pl.DataFrame  # I rows in file order
    item: np.ndarray  # (I,) int32 index into items
    user: np.ndarray  # (I,) int32 index into users
    session: np.ndarray  # (I,) int32; sessions are numbered by time, ties by their first row
    click: np.ndarray  # (I,) int8, 0 or 1
    session_user: np.ndarray  # (S,) int32
    session_time: np.ndarray  # (S,) int64 Unix s of the earliest impression
    session_split: np.ndarray  # (S,) int8 index into SPLITS
    session_category: np.ndarray | None  # (S,) int32 index into category_names: what was searched; -1 unknown
    item_category: np.ndarray | None  # (N,) int32 index into category_names; -1 unknown; None: no such column
    category_names: list[str]
    events: Events
    clicks_from: str = IMPRESSIONS  # the file that the click events come from
    split_is_ordered: bool  # False: a `split` column goes back in time and that was allowed

    def rows(self, split: str) -> np.ndarray:
        """Impression rows of a split, int64, ordered by (session, row)."""
        found = np.flatnonzero(self.session_split[self.session] == SPLITS.index(split))
        return found[np.argsort(self.session[found], kind="stable")]


def load_shop(folder: str | Path, *, fractions: Sequence[float] = FRACTIONS, allow_unordered_split: bool = False) -> Shop:
    """Read and check a shop folder.

    Args:
        fractions: of the impressions in time order, for pretrain, train, valid, test; a `split` column wins over them.
        allow_unordered_split: accept a `split` column that goes back in time; `Shop.split_is_ordered` then says so.

    Raises:
        UserError: anything in the folder that cannot be right, naming file, row, column, value and the mend.
    """
    folder = Path(folder)
    check_fractions(fractions)
    check_folder(folder)
    items = _items(folder)
    impressions = _impressions(folder)
    checks.same_kind(IMPRESSIONS, impressions["item_id"], ITEMS, items["item_id"])
    users = _users(folder, impressions["user_id"])
    users_file = USERS if (folder / USERS).exists() else None

    item = index_of(impressions["item_id"], items["item_id"])
    checks.known(IMPRESSIONS, impressions["item_id"], item, ITEMS)
    user = index_of(impressions["user_id"], users["user_id"])
    checks.known(IMPRESSIONS, impressions["user_id"], user, USERS)
    session, sessions = _sessions(impressions)
    first_row = sessions["first_row"].to_numpy()
    session_user, session_time = user[first_row], sessions["time"].to_numpy()
    _one_a_session(impressions["user_id"], user, session_user[session], "one session belongs to one user")
    session_split, ordered = _split(impressions, session, sessions, fractions, allow_unordered_split)
    item_category, session_category, category_names = _categories(items, impressions, session, len(first_row))

    click = impressions["click"].to_numpy()
    shown = np.flatnonzero(click)
    clicked_at = impressions["timestamp"].to_numpy()[shown]
    action = np.full(len(shown), CLICK, dtype=np.int8)
    clicked = Events(user=user[shown], item=item[shown], time=clicked_at, action=action)
    events, clicks_from = load_events(folder, item_ids=items["item_id"], user_ids=users["user_id"], users_file=users_file, clicked=clicked)
    return Shop(
        folder=folder,
        items=items,
        users=users,
        impressions=impressions,
        item=item,
        user=user,
        session=session,
        click=click,
        session_user=session_user,
        session_time=session_time,
        session_split=session_split,
        session_category=session_category,
        item_category=item_category,
        category_names=category_names,
        events=events,
        clicks_from=clicks_from,
        split_is_ordered=ordered,
    )


def _items(folder: Path) -> pl.DataFrame:
    frame = read_table(folder, ITEMS)
    require_columns(ITEMS, frame.columns, ("item_id", "image"))
    frame = frame.with_columns(checks.ids(ITEMS, frame["item_id"]), checks.image_paths(ITEMS, frame["image"]))
    checks.unique(ITEMS, frame["item_id"])
    if "title" in frame.columns:
        frame = frame.with_columns(checks.text(ITEMS, frame["title"]))
    return _checked_features(ITEMS, frame, ITEM_RESERVED)


def _users(folder: Path, seen: pl.Series) -> pl.DataFrame:
    """The table of users, or, where there is none, the users seen in impressions, ascending."""
    if not (folder / USERS).exists():
        return pl.DataFrame({"user_id": seen.unique().sort()})
    frame = read_table(folder, USERS)
    require_columns(USERS, frame.columns, ("user_id",))
    frame = frame.with_columns(checks.ids(USERS, frame["user_id"]))
    checks.unique(USERS, frame["user_id"])
    checks.same_kind(IMPRESSIONS, seen, USERS, frame["user_id"])
    return _checked_features(USERS, frame, USER_RESERVED)


def _impressions(folder: Path) -> pl.DataFrame:
    frame = read_table(folder, IMPRESSIONS)
    if isinstance(frame.schema.get("history"), (pl.List, pl.Array)):
        mend = "a list of items in place of events.parquet is not read yet; write the events as events.parquet"
        raise DataError(IMPRESSIONS, column="history", mend=mend)
    require_columns(IMPRESSIONS, frame.columns, ("session_id", "user_id", "item_id", "timestamp", "click"))
    checked = [checks.ids(IMPRESSIONS, frame[name]) for name in ("session_id", "user_id", "item_id")]
    checked += [checks.times(IMPRESSIONS, frame["timestamp"]), checks.clicks(IMPRESSIONS, frame["click"])]
    if "query" in frame.columns:
        checked.append(checks.text(IMPRESSIONS, frame["query"]))
    return _checked_features(IMPRESSIONS, frame.with_columns(checked), IMPRESSION_RESERVED)


def _checked_features(file: str, frame: pl.DataFrame, reserved: Sequence[str]) -> pl.DataFrame:
    if "category" in frame.columns and file != USERS:
        checks.categories(file, frame["category"])
        if isinstance(frame.schema["category"], pl.Null):
            frame = frame.with_columns(pl.col("category").cast(pl.String))
    checks.finite(file, frame, feature_columns(frame, reserved=reserved, file=file).numeric)
    return frame


def _sessions(impressions: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """(I,) int32 session of each row, and the sessions (id, time, first_row, size) in order of (time, first_row)."""
    sessions = (
        impressions.select(pl.col("session_id").alias("id"), pl.col("timestamp").alias("time"))
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("first_row"))
        .group_by("id")
        .agg(pl.col("time").min(), pl.col("first_row").min(), pl.len().alias("size"))
        .sort("time", "first_row")
    )
    return index_of(impressions["session_id"], sessions["id"]), sessions


def _split(
    impressions: pl.DataFrame,
    session: np.ndarray,
    sessions: pl.DataFrame,
    fractions: Sequence[float],
    allow_unordered: bool,
) -> tuple[np.ndarray, bool]:
    """(S,) int8 index into SPLITS, and whether it is ordered in time."""
    if "split" not in impressions.columns:
        split = split_by_time(sessions["size"].to_numpy(), fractions)
        check_complete(split, by_column=False)
        return split, True
    first_row, time = sessions["first_row"].to_numpy(), sessions["time"].to_numpy()
    row_split = checks.one_of(IMPRESSIONS, impressions["split"], SPLITS).to_numpy()
    split = row_split[first_row]
    _one_a_session(impressions["split"], row_split, split[session], "a session lies in one split")
    check_complete(split, by_column=True)
    if not allow_unordered:
        check_order(split, time, first_row)
    return split, is_ordered(split, time)


def _categories(
    items: pl.DataFrame, impressions: pl.DataFrame, session: np.ndarray, sessions: int
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Categories of items (N,) and of sessions (S,) as indices into one sorted list of names."""
    written = {
        file: checks.categories(file, frame["category"])
        for file, frame in ((ITEMS, items), (IMPRESSIONS, impressions))
        if "category" in frame.columns
    }
    if not written:
        return None, None, []
    if len(written) == 2 and is_text(items.schema["category"]) != is_text(impressions.schema["category"]):
        mend = f"text here or in {ITEMS}, integers in the other; write both alike"
        raise DataError(IMPRESSIONS, column="category", mend=mend)
    names = pl.concat([values.drop_nulls().unique() for values in written.values()]).unique().sort()
    item_category = index_of(written[ITEMS], names) if ITEMS in written else None
    session_category = None
    if IMPRESSIONS in written:
        of_row = index_of(written[IMPRESSIONS], names)
        known = np.flatnonzero(of_row >= 0)[::-1]
        session_category = np.full(sessions, -1, dtype=np.int32)
        session_category[session[known]] = of_row[known]  # backwards: the first known category of a session stays
        expected = np.where(of_row < 0, -1, session_category[session])
        _one_a_session(impressions["category"], of_row, expected, "a session is a search in one category")
    return item_category, session_category, names.to_list()


def _one_a_session(column: pl.Series, values: np.ndarray, expected: np.ndarray, rule: str) -> None:
    """Refuse a row whose value differs from its session's (both already spread over the impressions)."""
    wrong = values != expected
    if wrong.any():
        row = int(np.argmax(wrong))
        mend = f"an earlier row of its session has another; {rule}: give the rest a session_id of its own"
        raise DataError(IMPRESSIONS, row=row, column=column.name, value=column[row], mend=mend)
