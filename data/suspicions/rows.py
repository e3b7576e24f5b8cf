"""Rows of impressions that should not be there: repeats, clicks that are also logged as skips, sessions that are really users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from data.log.events import ACTIONS, CLICK
from data.log.shop_folder import Shop
from data.log.tables import IMPRESSIONS

DAY, HOUR = 86_400, 3_600  # seconds; a page of results is viewed for minutes
TWINS = 0.01  # share of the clicks above which twins are reported even if other columns differ
FAN_OUT = 0.05  # share of the rows above which repeats are reported even if other columns differ
SHOWN = ("session_id", "item_id", "timestamp")  # these identify an item shown


def warnings(shop: Shop) -> Iterator[str]:
    """The warnings of this module."""
    frame = shop.impressions if isinstance(shop.impressions, pl.DataFrame) else shop.impressions.select(*shop.impressions.columns)
    # a row's own id, written into the file after the rows were repeated, would hide the repetition
    compared = [name for name, dtype in frame.schema.items() if name in SHOWN or dtype.is_float() or frame[name].n_unique() < frame.height]
    yield from _repeats(frame, compared)
    yield from _twins(frame, compared)
    yield from _sessions(shop)
    yield from _events(shop)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Rows that agree with an earlier one."""

    rows: int
    row: int  # the first of them
    earlier: int  # the row that it repeats


def repeats(frame: pl.DataFrame, columns: Sequence[str]) -> Repeats | None:
    """Rows that repeat an earlier one in all of some columns.

    >>> repeats(pl.DataFrame({"a": [1, 2, 1, 1]}), ["a"])
    Repeats(rows=2, row=2, earlier=0)
    """
    keys = _keys(frame, columns)
    again = ~keys.is_first_distinct()
    if not again.any():
        return None
    row = int(again.arg_max() or 0)
    earlier = int((keys.head(row) == keys[row : row + 1]).arg_max() or 0)
    return Repeats(rows=int(again.sum()), row=row, earlier=earlier)


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Clicks that are in the log as skips too."""

    clicks: int
    click: int  # the row of the first
    skip: int  # the row of its twin


def twins(frame: pl.DataFrame, columns: Sequence[str]) -> Twins | None:
    """Clicks for which another row agrees in all of some columns and has no click."""
    keyed = pl.DataFrame({"key": _keys(frame, columns), "click": frame["click"] == 1}).with_row_index("row")
    first = [pl.col("row").filter(of).min().alias(name) for name, of in (("at", pl.col("click")), ("skip", ~pl.col("click")))]
    found = keyed.group_by("key").agg(pl.col("click").sum().alias("clicks"), *first).drop_nulls(["at", "skip"]).sort("at")
    if found.is_empty():
        return None
    return Twins(clicks=int(found["clicks"].sum()), click=int(found["at"][0]), skip=int(found["skip"][0]))


def _keys(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Some columns as one, whatever their names."""
    return pl.DataFrame([frame[name].alias(f"column_{n}") for n, name in enumerate(columns)]).to_struct("key")


def _repeats(frame: pl.DataFrame, compared: list[str]) -> Iterator[str]:
    found = repeats(frame, compared)
    if found is not None:
        yield (
            f"{IMPRESSIONS}: {found.rows:,} of {frame.height:,} rows repeat an earlier one in every column (row {found.row} is row "
            f"{found.earlier} again); were they loaded twice? Drop them, or they count twice"
        )
        return
    found = repeats(frame, [*SHOWN, "click"])
    if found is not None and found.rows >= FAN_OUT * frame.height:
        yield (
            f"{IMPRESSIONS}: {found.rows:,} of {frame.height:,} rows repeat an earlier one in {', '.join(SHOWN)} and click (row "
            f"{found.row} is row {found.earlier} again), though not in other columns; did a join match several rows? "
            "Keep one row for each item shown"
        )


def _twins(frame: pl.DataFrame, compared: list[str]) -> Iterator[str]:
    found, how = twins(frame, SHOWN), f"{', '.join(SHOWN)}"
    if found is not None and found.clicks < TWINS * frame["click"].sum():
        found, how = twins(frame, [name for name in compared if name != "click"]), "all columns but click"
    if found is not None:
        yield (
            f"{IMPRESSIONS}, column 'click': {found.clicks:,} clicks are in the log as skips too: rows {found.click} and {found.skip} "
            f"agree in {how}; were impressions joined with clicks, with the unclicked rows left in? Keep one row for each item shown"
        )


def _events(shop: Shop) -> Iterator[str]:
    """Events of events.parquet that repeat others."""
    for number, (action, log) in enumerate(zip(ACTIONS, shop.events.logs, strict=True)):
        if number == CLICK and shop.clicks_from == IMPRESSIONS:
            continue
        user = np.repeat(np.arange(len(log.start) - 1), np.diff(log.start))
        again = int((~pl.DataFrame({"user": user, "item": log.item, "time": log.time}).to_struct().is_first_distinct()).sum())
        if again and again >= FAN_OUT * len(log):
            yield (
                f"events.parquet: {again:,} of {len(log):,} {action} events repeat another in user_id, item_id and timestamp; "
                "were they loaded twice? Keep one row for each event"
            )


def _sessions(shop: Shop) -> Iterator[str]:
    """Sessions that seem to be users, or have no order in time."""
    last = np.zeros(len(shop.session_time), dtype=np.int64)
    np.maximum.at(last, shop.session, shop.impressions["timestamp"].to_numpy())
    sessions, seconds = len(last), last - shop.session_time
    long, hours = np.count_nonzero(seconds > DAY), np.count_nonzero(seconds > HOUR)
    reason = None
    if 2 * long > sessions:
        reason = f"{long:,} of {sessions:,} sessions last longer than a day"
    elif 1 < len(np.unique(shop.session_user)) == sessions and 2 * hours > sessions:
        reason = f"each user has one session, and {hours:,} of {sessions:,} last longer than an hour"
    elif len(shop.users) > 1 and shop.impressions["session_id"].equals(shop.impressions["user_id"]):
        reason = "it is the user_id in every row"
    if reason is not None:
        yield (
            f"{IMPRESSIONS}, column 'session_id': {reason}; is it the user's? "
            "A session is one page of results, and histories hold nothing that happened after its first impression"
        )
    if sessions > 1 and len(np.unique(shop.session_time)) == 1:
        yield (
            f"{IMPRESSIONS}, column 'timestamp': all sessions begin at the same second, so they are split by row and have no histories; "
            "give the time of each impression"
        )
