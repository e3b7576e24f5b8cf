"""The tables of a shop folder, each checked on its own, every column in its working type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from data.arrays.stored_frame import Frame
from data.log import checks
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from data.log.sessions import distinct
from data.log.tables import IMPRESSIONS, ITEMS, USERS, read_table, require_columns
from run.errors import DataError


def read_items(folder: Path) -> pl.DataFrame:
    """The table of items, checked."""
    frame = read_table(folder, ITEMS)
    require_columns(ITEMS, frame.columns, ("item_id", "image"))
    frame = frame.with_columns(checks.ids(ITEMS, frame["item_id"]), checks.image_paths(ITEMS, frame["image"]))
    checks.unique(ITEMS, frame["item_id"])
    if "title" in frame.columns:
        frame = frame.with_columns(checks.text(ITEMS, frame["title"]))
    return _checked_features(ITEMS, frame, ITEM_RESERVED)


def read_users(folder: Path, impressions: Frame) -> pl.DataFrame:
    """The table of users, or, where there is none, the users seen in impressions, ascending."""
    if not (folder / USERS).exists():
        return pl.DataFrame({"user_id": distinct(impressions, "user_id").sort()})
    frame = read_table(folder, USERS)
    require_columns(USERS, frame.columns, ("user_id",))
    frame = frame.with_columns(checks.ids(USERS, frame["user_id"]))
    checks.unique(USERS, frame["user_id"])
    checks.same_kind(IMPRESSIONS, empty_like(impressions, "user_id"), USERS, frame["user_id"])
    return _checked_features(USERS, frame, USER_RESERVED)


def read_impressions(folder: Path) -> pl.DataFrame:
    """The table of impressions, checked."""
    frame = read_table(folder, IMPRESSIONS)
    require_impression_columns(frame.schema)
    return checked_impressions(frame)


def empty_like(impressions: Frame, column: str) -> pl.Series:
    """An empty series with a column's name and type."""
    return pl.Series(column, [], dtype=impressions.schema[column])


def require_impression_columns(schema: pl.Schema) -> None:
    """Refuse impressions that lack a column, or hold one that is not supported yet."""
    if isinstance(schema.get("history"), (pl.List, pl.Array)):
        fix = "a list of items in place of events.parquet is not supported yet; write the events as events.parquet"
        raise DataError(IMPRESSIONS, column="history", fix=fix)
    require_columns(IMPRESSIONS, schema.names(), ("session_id", "user_id", "item_id", "timestamp", "click"))


def checked_impressions(frame: pl.DataFrame) -> pl.DataFrame:
    """The complete table of impressions, every column in its working type."""
    for column, check in impression_checks(frame.schema):
        frame = frame.with_columns(check(frame[column], 0))
        if column == "click":
            checks.some_clicked(IMPRESSIONS, column, int(frame[column].sum()), len(frame))
    return frame


def impression_checks(schema: pl.Schema, file: str = IMPRESSIONS) -> Iterator[tuple[str, Callable[[pl.Series, int], pl.Series]]]:
    """Columns, each once, and what checks and converts their values from row `first` on, in the order in which faults are reported."""
    known = [("session_id", checks.ids), ("user_id", checks.ids), ("item_id", checks.ids), ("timestamp", checks.times)]
    known += [("click", checks.clicks), ("query", checks.text), ("category", checks.search_categories), ("split", checks.written)]
    known += [("own_score", checks.probabilities)]
    for column, check in known:
        if column in schema:
            yield column, partial(check, file)
    found = feature_columns(pl.DataFrame(schema=schema), reserved=(*IMPRESSION_RESERVED, "category"), file=file)
    for column in (*found.categorical, *found.numeric):
        yield column, partial(checks.feature, file)


def _checked_features(file: str, frame: pl.DataFrame, reserved: Sequence[str]) -> pl.DataFrame:
    if "category" in frame.columns and file == ITEMS:
        frame = frame.with_columns(checks.search_categories(file, frame["category"]))
    found = feature_columns(frame, reserved=reserved, file=file)
    return frame.with_columns([checks.feature(file, frame[column]) for column in (*found.categorical, *found.numeric)])
