"""A shop folder too large for memory: read stretch by stretch into a folder of memory-mapped arrays that give the shop of `load_shop`.

The folder holds `impressions/` (Arrow), items.arrow, users.arrow, log.json, and .npy files: one per array, three per action.
Arrays as long as the log are never in memory; items, users and one row per session are.

Legend: I impressions, S sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.arrays.array_storage import OnDisk, blank_npy, flush, mapped
from data.arrays.stored_frame import STRETCH, StoredFrame, open_frame, read_arrow, stretches, write_arrow, write_stretches
from data.log import checks
from data.log.checked_tables import impression_checks, read_items, require_impression_columns
from data.log.event_parts import EventParts, equal_ranges, open_events, sort_parts
from data.log.events import CLICK, COLUMNS, EventRows, Events, KnownIds, checked_events, event_checks
from data.log.sessions import session_starts
from data.log.shop_folder import Shop, ShopTables, build_shop
from data.log.split import FRACTIONS, check_fractions
from data.log.tables import EVENTS, IMPRESSIONS, check_folder, scan_table
from run.errors import DataError
from run.files import read_json, replacing_folder, write_json
from run.progress import Progress

Checks = Callable[[], Iterator[tuple[str, Callable[[pl.Series, int], Any]]]]

_ARRAYS = ("item", "user", "session", "click", "time", "session_user", "session_time", "session_split", "session_category", "item_category")
_SMALL = ("session_user", "session_time", "session_split", "session_category", "item_category")  # those that build_shop has in memory
_FACTS = ("category_names", "clicks_from", "split_is_ordered")  # in log.json


def ingest(
    folder: str | Path, target: Path, *, fractions: Sequence[float] = FRACTIONS, allow_unordered_split: bool = False, stretch: int = STRETCH
) -> Shop:
    """Read and check a shop folder with bounded memory; the shop of `load_shop`, mapped from `target`.

    `target` appears once it is complete; a failed ingest leaves nothing behind.

    Args:
        fractions, allow_unordered_split: as `load_shop`.
        stretch: rows read at a time, and a quarter of the events sorted at a time: memory grows with it.

    Raises:
        UserError: as `load_shop`, with the same messages.
    """
    folder = Path(folder)
    check_fractions(fractions)
    check_folder(folder)
    with replacing_folder(target) as partial_folder:
        items, impressions = read_items(folder), _store_impressions(folder, partial_folder / "impressions", stretch)
        shop = build_shop(
            ShopTables(folder=folder, items=items, impressions=impressions),
            fractions=fractions, allow_unordered_split=allow_unordered_split,
            store=OnDisk(partial_folder), read_events=partial(_store_events, target=partial_folder, stretch=4 * stretch),
        )  # fmt: skip
        _store_rest(shop, partial_folder)
    return open_log(target, folder)


def open_log(target: Path, folder: Path) -> Shop:
    """The shop that `ingest` left in `target`, mapped.

    Args:
        folder: the shop folder that it was made from, which holds the pictures.
    """
    facts = read_json(target / "log.json")
    values: dict[str, Any] = {name: facts[name] for name in _FACTS}
    for name in _ARRAYS:
        path = target / f"{name}.npy"
        values[name] = mapped(path) if path.exists() else None  # no column `category`, so no arrays of it
    return Shop(
        folder=folder,
        items=read_arrow(target / "items.arrow"),
        users=read_arrow(target / "users.arrow"),
        impressions=open_frame(target / "impressions"),
        events=open_events(target),
        stored_order=(mapped(target / "by_session.npy"), mapped(target / "session_start.npy")),
        **values,
    )


def log_rows(folder: Path) -> int:
    """Impressions and events in a shop folder, by its tables' headers; 0 if it cannot be read, which `load_shop` explains."""
    rows = 0
    for name in (IMPRESSIONS, EVENTS):
        if (folder / name).is_file():
            try:
                rows += scan_table(folder, name).height
            except DataError:
                return 0
    return rows


def _store_impressions(folder: Path, target: Path, stretch: int) -> StoredFrame:
    """Check the impressions stretch by stretch and write them in their working types."""
    table = scan_table(folder, IMPRESSIONS, stretch=stretch)
    require_impression_columns(table.schema)
    clicked = 0

    def checked() -> Iterator[pl.DataFrame]:
        nonlocal clicked
        for first, rows in _shown(table, table.columns, "reading impressions"):
            found = rows.with_columns([check(rows[column], first) for column, check in impression_checks(table.schema)])
            clicked += int(found["click"].sum())
            yield found

    with _FirstFault(table, lambda: impression_checks(table.schema)):
        write_stretches(target, checked())
        checks.some_clicked(IMPRESSIONS, "click", clicked, table.height)
    return open_frame(target, stretch)


def _store_events(folder: Path, known: KnownIds, clicked: Iterable[EventRows], *, target: Path, stretch: int) -> tuple[Events, str]:
    """What `load_events` gives, mapped from arrays in `target`."""
    table = scan_table(folder, EVENTS, columns=COLUMNS, stretch=stretch) if (folder / EVENTS).exists() else None
    users, total, clicks = len(known.user_ids), 0, 0
    parts = EventParts(target / "parts", equal_ranges(users, table.height if table is not None else 0, stretch), stretch)
    if table is not None:
        with _FirstFault(table, lambda: event_checks(known)):
            for first, rows in _shown(table, COLUMNS, "reading events"):
                found = checked_events(rows, known, first)
                clicks += int((found.action == CLICK).sum())
                listed = found.take(np.flatnonzero(found.user >= 0))
                parts.append(listed)
                total += len(listed.user)
    if not clicks:
        for found in clicked:
            parts.append(found)
            total += len(found.user)
    events = sort_parts(parts, target, users=users, total=total)
    return events, EVENTS if clicks else IMPRESSIONS


def _store_rest(shop: Shop, target: Path) -> None:
    """Write what build_shop made in memory, and the rows ordered by session."""
    store = OnDisk(target)
    for name in _SMALL:
        if (array := getattr(shop, name)) is not None:
            store(name, [array], array.dtype.type)
    write_arrow(target / "items.arrow", shop.items)
    write_arrow(target / "users.arrow", shop.users)
    start = session_starts(_in_pieces(shop.session), len(shop.session_time))
    store("session_start", [start], np.int64)
    _store_rows_by_session(shop.session, start, target / "by_session.npy")
    write_json(target / "log.json", {name: getattr(shop, name) for name in _FACTS})


def _store_rows_by_session(session: np.ndarray, start: np.ndarray, path: Path) -> None:
    """Write (I,) int64 rows sorted by (session, row): each stretch's rows follow those that their sessions already have."""
    by_session, free, first = blank_npy(path, session.shape, np.int64), start[:-1].copy(), 0
    for sessions in _in_pieces(session):
        rows = np.argsort(sessions, kind="stable")
        which, begin, count = np.unique(sessions[rows], return_index=True, return_counts=True)
        by_session[np.repeat(free[which] - begin, count) + np.arange(len(rows))] = first + rows
        free[which] += count
        first += len(rows)
    flush(by_session)


def _in_pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[first : first + STRETCH] for first in range(0, len(array), STRETCH))


def _shown(table: StoredFrame, columns: Sequence[str], title: str) -> Iterator[tuple[int, pl.DataFrame]]:
    """`stretches`, with a progress bar."""
    with Progress(title, total=table.height, unit="rows") as bar:
        for first, frame in stretches(table, columns):
            yield first, frame
            bar.advance(frame.height)


class _FirstFault:
    """Raise, of all faults in a table, the one that `load_shop` reports: the first row of the first check that fails.

    A stretch is checked in all columns before the next is read, so its fault may hide one in a later stretch that must be reported
    first. On a fault, the table is therefore read again, column by column.
    """

    def __init__(self, table: StoredFrame, of: Checks):
        self.table, self.of = table, of

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, DataError):
            return
        for column, check in self.of():
            clicked = 0
            for first, rows in stretches(self.table, [column]):
                found = check(rows[column], first)
                clicked += int(found.sum()) if column == "click" else 0
            if column == "click":
                checks.some_clicked(IMPRESSIONS, column, clicked, self.table.height)
