"""Sessions to predict, read part by part from a shop folder or from a file of other impressions of the same shop.

What stays in memory is the shop (items, users, events) and one number per session; impressions are read one part at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from data.log import checks
from data.log.checked_tables import impression_checks
from data.log.shop_folder import SPLITS, Shop
from data.log.tables import index_of, read_table, require_columns
from run.errors import DataError

ONLY_SPLIT = "test"  # all sessions of a part are of this split
_NEEDED = ("session_id", "user_id", "item_id", "timestamp")
_NOT_READ = ("click", "split")  # of sessions to predict


@dataclass(frozen=True, kw_only=True)
class Log:
    """Impressions and the shop that they belong to."""

    path: Path  # a parquet file
    shop: Shop
    fingerprint: str  # of the file's content


@dataclass(frozen=True, kw_only=True)
class ImpressionPart:
    """Sessions whose first rows are adjacent in the file."""

    sessions: pl.Series  # their ids
    begin: int  # all their rows lie in rows begin to end of the file
    end: int
    rows: int  # impressions


def log_of(path: str, shop: Shop) -> Log:
    """The log of a parquet file, or of the shop itself where `path` is empty.

    Raises:
        DataError: the file is missing, is no parquet, or lacks a column.
    """
    from data.identity import shop_fingerprint

    file = Path(path) if path else shop.folder / "impressions.parquet"
    read_table(file.parent, file.name, columns=_NEEDED[:1])
    require_columns(file.name, pl.scan_parquet(file, glob=False).collect_schema().names(), _NEEDED)
    with open(file, "rb") as content:
        own = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    return Log(path=file, shop=shop, fingerprint=f"{own} {shop_fingerprint(shop.folder)}")


def cuts(log: Log, part_rows: int) -> list[ImpressionPart]:
    """The log's sessions in the order of their first rows, cut into parts of about `part_rows` impressions."""
    scan = pl.scan_parquet(log.path, glob=False, hive_partitioning=False).select("session_id").with_row_index("row")
    rows = [pl.col("row").min().alias("first"), pl.col("row").max().alias("last"), pl.len().alias("size")]
    sessions = scan.group_by("session_id").agg(rows).sort("first").collect(engine="streaming")
    before = sessions["size"].cum_sum() - sessions["size"]
    parts = []
    for _, part in sessions.with_columns(part=before // part_rows).group_by("part", maintain_order=True):
        begin, end = int(part["first"].min()), int(part["last"].max()) + 1  # type: ignore[arg-type]
        parts.append(ImpressionPart(sessions=part["session_id"], begin=begin, end=end, rows=int(part["size"].sum())))
    return parts


def read_part(log: Log, part: ImpressionPart) -> tuple[Shop, np.ndarray, pl.DataFrame, np.ndarray]:
    """A part's impressions as a shop.

    Returns:
        The shop, whose users are numbered as in `log.shop`, new ones after them; the row of each impression in the file (n,) int64; the
        part's own users, as a table; and for each session the number of its user in that table (S,) int32.

    Raises:
        DataError: an id, time or category is invalid, an item is unknown, or a session has two users.
    """
    shop, name = log.shop, log.path.name
    file = f"{name}, rows counted from {part.begin}" if part.begin else name  # what error messages call it
    # no row index is added as a column: the columns are the user's and may have any name
    frame = pl.scan_parquet(log.path, glob=False, hive_partitioning=False).slice(part.begin, part.end - part.begin).collect()
    read = {*_NEEDED, *shop.impressions.columns} - {*_NOT_READ}  # the file may have any other columns besides
    frame = frame.drop([column for column in frame.columns if column not in read])
    frame = frame.with_columns(check(frame[column], part.begin) for column, check in impression_checks(frame.schema, name))
    checks.same_kind(file, frame["item_id"], "items.parquet", shop.items["item_id"])
    checks.same_kind(file, frame["user_id"], "users.parquet", shop.users["user_id"])
    checks.known(file, frame["item_id"], index_of(frame["item_id"], shop.items["item_id"]), "the items of the shop")
    own = frame["session_id"].is_in(checks.ids(name, part.sessions).implode())
    rows, frame = part.begin + np.flatnonzero(own.to_numpy()), frame.filter(own)
    item = index_of(frame["item_id"], shop.items["item_id"])
    users = frame["user_id"].unique(maintain_order=True)
    number = index_of(users, shop.users["user_id"]).astype(np.int64)
    new = number < 0
    number[new] = len(shop.users) + np.arange(new.sum())
    of_row = index_of(frame["user_id"], users)
    session, first = _sessions(frame)
    _one_user(name, rows, frame, of_row, of_row[first][session])
    time = frame["timestamp"].to_numpy()
    session_time = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(session_time, session, time)
    here = replace(
        shop,
        impressions=frame,
        item=item,
        user=number[of_row].astype(np.int32),
        session=session,
        time=time,
        click=np.zeros(len(frame), dtype=np.int8),
        session_user=number[of_row[first]].astype(np.int32),
        session_time=session_time,
        session_split=np.full(len(first), SPLITS.index(ONLY_SPLIT), dtype=np.int8),
        session_category=_session_category(file, frame, shop, session, len(first)),
        events=shop.events.with_users(len(shop.users) + int(new.sum())),
        stored_order=None,
    )
    known = shop.users[number[~new]]
    table = pl.concat([known, pl.DataFrame({"user_id": users.filter(pl.Series(new))})], how="diagonal")
    place = np.empty(len(users), dtype=np.int32)
    place[np.concatenate([np.flatnonzero(~new), np.flatnonzero(new)])] = np.arange(len(users))
    return here, rows, table, place[of_row[first]]


def _sessions(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Each impression's session (n,) int32, numbered in the order of their first rows, and those rows (S,)."""
    ids = frame["session_id"].unique(maintain_order=True)
    session = index_of(frame["session_id"], ids)
    return session, np.unique(session, return_index=True)[1]


def _one_user(file: str, rows: np.ndarray, frame: pl.DataFrame, user: np.ndarray, expected: np.ndarray) -> None:
    wrong = np.flatnonzero(user != expected)
    if len(wrong):
        row = int(wrong[0])
        fix = "an earlier row of its session has another; one session belongs to one user: give the rest a session_id of its own"
        raise DataError(file, row=int(rows[row]), column="user_id", value=frame["user_id"][row], fix=fix)


def _session_category(file: str, frame: pl.DataFrame, shop: Shop, session: np.ndarray, sessions: int) -> np.ndarray | None:
    """(S,) index into the shop's category names of what was searched; -1 unknown; None: neither table has categories."""
    if "category" not in frame.columns or not shop.category_names:
        return None if shop.session_category is None else np.full(sessions, -1, dtype=np.int32)
    category = checks.categories(file, frame["category"])
    of_row = index_of(category, pl.Series(shop.category_names, dtype=pl.String))
    known = np.flatnonzero(of_row >= 0)[::-1]
    out = np.full(sessions, -1, dtype=np.int32)
    out[session[known]] = of_row[known]  # backwards, which keeps the first known category of a session
    return out
