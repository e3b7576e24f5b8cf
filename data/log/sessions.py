"""Impressions to sessions: their number, time, split and category; user, split and category must agree in all rows of a session.

Tables may be in memory or on disk: whatever is as long as the log is processed stretch by stretch.

Legend: N items, I impressions, S sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl

from data.arrays.stored_frame import Frame, stretches
from data.log import checks
from data.log.columns import is_text
from data.log.split import SPLITS, check_complete, check_order, is_ordered, split_by_time
from data.log.tables import IMPRESSIONS, ITEMS, index_of
from run.errors import DataError


def session_table(impressions: Frame) -> pl.DataFrame:
    """The sessions (id, time, first_row, size) in order of (time, first_row)."""
    found: list[pl.DataFrame] = []
    for first, rows in stretches(impressions, ["session_id", "timestamp"]):
        row = pl.int_range(pl.len(), dtype=pl.Int64) + first
        each = rows.select(pl.col("session_id").alias("id"), pl.col("timestamp").alias("time"), row.alias("first_row"))
        found.append(each.group_by("id").agg(pl.col("time").min(), pl.col("first_row").min(), pl.len().alias("size")))
        if sum(part.height for part in found[1:]) > found[0].height:  # then all merges cost about twice the last one
            found = [_merged(found)]
    return _merged(found).sort("time", "first_row")


def _merged(parts: list[pl.DataFrame]) -> pl.DataFrame:
    if len(parts) == 1:
        return parts[0]
    return pl.concat(parts).group_by("id").agg(pl.col("time").min(), pl.col("first_row").min(), pl.col("size").sum())


def session_numbers(impressions: Frame, sessions: pl.DataFrame) -> Iterator[np.ndarray]:
    """(I,) int32 session of each row, stretch by stretch."""
    for _, rows in stretches(impressions, ["session_id"]):
        yield index_of(rows["session_id"], sessions["id"])


def session_starts(parts: Iterable[np.ndarray], sessions: int) -> np.ndarray:
    """(S + 1,) int64: where each session's rows begin if rows are sorted by session.

    Args:
        parts: the sessions of all rows, in any division.
    """
    size = np.zeros(sessions, dtype=np.int64)
    for part in parts:
        size += np.bincount(part, minlength=sessions)
    return np.concatenate([[0], np.cumsum(size)])


def one_user_each(impressions: Frame, user: np.ndarray, session_user: np.ndarray, session: np.ndarray) -> None:
    """Refuse a session with two users."""
    for first, rows in stretches(impressions, ["user_id"]):
        here = slice(first, first + len(rows))
        _one_per_session(rows["user_id"], user[here], session_user[session[here]], "one session belongs to one user", first)


def split_of_sessions(
    impressions: Frame,
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
    split = np.zeros(len(first_row), dtype=np.int8)
    for first, rows in stretches(impressions, ["split"]):
        of_row = checks.one_of(IMPRESSIONS, rows["split"], SPLITS, first).to_numpy()
        here = session[first : first + len(rows)]
        begun = np.flatnonzero(first_row[here] == np.arange(first, first + len(rows)))
        split[here[begun]] = of_row[begun]
    for first, rows in stretches(impressions, ["split"]):
        of_row = checks.one_of(IMPRESSIONS, rows["split"], SPLITS, first).to_numpy()
        _one_per_session(rows["split"], of_row, split[session[first : first + len(rows)]], "a session lies in one split", first)
    check_complete(split, by_column=True)
    if not allow_unordered:
        check_order(split, time, first_row)
    return split, is_ordered(split, time)


def categories(
    items: pl.DataFrame, impressions: Frame, session: np.ndarray, sessions: int
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Categories of items (N,) and of sessions (S,) as indices into one sorted list of names."""
    of_items, of_sessions = "category" in items.columns, "category" in impressions.columns
    if not (of_items or of_sessions):
        return None, None, []
    if of_items and of_sessions and is_text(items.schema["category"]) != is_text(impressions.schema["category"]):
        fix = f"text here or in {ITEMS}, integers in the other; write both the same way"
        raise DataError(IMPRESSIONS, column="category", fix=fix)
    written = [distinct(frame, "category") for frame, present in ((items, of_items), (impressions, of_sessions)) if present]
    names = pl.concat([checks.categories("", values) for values in written]).drop_nulls().unique().sort()
    item_category = index_of(checks.categories(ITEMS, items["category"]), names) if of_items else None
    session_category = _searched(impressions, session, sessions, names) if of_sessions else None
    return item_category, session_category, names.to_list()


def _searched(impressions: Frame, session: np.ndarray, sessions: int, names: pl.Series) -> np.ndarray:
    """(S,) int32 category of each session: that of its first row with one; -1 where no row has."""
    found = np.full(sessions, -1, dtype=np.int32)
    for first, rows in stretches(impressions, ["category"]):
        here = session[first : first + len(rows)]
        of_row = index_of(checks.categories(IMPRESSIONS, rows["category"]), names)
        known = np.flatnonzero((of_row >= 0) & (found[here] < 0))[::-1]
        found[here[known]] = of_row[known]  # backwards, which keeps the first known category of a session
    for first, rows in stretches(impressions, ["category"]):
        of_row = index_of(checks.categories(IMPRESSIONS, rows["category"]), names)
        expected = np.where(of_row < 0, -1, found[session[first : first + len(rows)]])
        _one_per_session(rows["category"], of_row, expected, "a session is a search in one category", first)
    return found


def distinct(frame: Frame, column: str) -> pl.Series:
    """The values of a column, each once, in any order."""
    found = pl.Series(column, [], dtype=frame.schema[column])
    for _, rows in stretches(frame, [column]):
        found = pl.concat([found, rows[column].unique()]).unique()
    return found


def _one_per_session(column: pl.Series, values: np.ndarray, expected: np.ndarray, rule: str, first: int) -> None:
    """Refuse a row whose value differs from its session's (both given for each impression, from row `first` on)."""
    wrong = values != expected
    if wrong.any():
        row = int(np.argmax(wrong))
        fix = f"an earlier row of its session has another; {rule}: give the other rows their own session_id"
        raise DataError(IMPRESSIONS, row=first + row, column=column.name, value=column[row], fix=fix)
