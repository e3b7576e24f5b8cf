"""What a reader finds in a public data set: items, users, and who took what and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from run.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """N items, U users, P interactions (likes or purchases) sorted by (time, user, item)."""

    items: pl.DataFrame  # N rows: item_id and features, without `image`
    users: pl.DataFrame  # U rows: user_id and features
    user: np.ndarray  # (P,) int32 index into users
    item: np.ndarray  # (P,) int32 index into items
    time: np.ndarray  # (P,) int64 Unix s
    days_only: bool  # times are days
    picture_names: Callable[[object], Sequence[str]]  # of an item's id: where its picture may be, relative to the folder of pictures
    rows: dict[str, int]  # rows read of each file
    refused: dict[str, int]  # of them, left out as bad


def in_order(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct interactions of one user, item and time, sorted by (time, user, item)."""
    ranking = np.lexsort((item, user, time))
    user, item, time = user[ranking], item[ranking], time[ranking]
    new = np.ones(len(user), dtype=bool)
    new[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1]) | (time[1:] != time[:-1])
    return user[new].astype(np.int32), item[new].astype(np.int32), time[new].astype(np.int64)


def numbered(blocks: Iterable[pl.Series]) -> tuple[pl.Series, np.ndarray]:
    """Distinct values, ascending, and the number (P,) int32 of each value among them; texts are held once each.

    Raises:
        UserError: two values have the same 64-bit hash.
    """
    hashes, distinct = [np.zeros(0, np.uint64)], []
    for values in blocks:
        hashes.append(values.hash().to_numpy())
        distinct.append(pl.DataFrame({"hash": hashes[-1], "value": values}).unique("hash"))
    known = pl.concat(distinct).unique().sort("value")
    if known["hash"].n_unique() < len(known):
        raise UserError("two ids have the same 64-bit hash; rename one of them")
    order = np.argsort(known["hash"].to_numpy())
    number = order[np.searchsorted(known["hash"].to_numpy()[order], np.concatenate(hashes))]
    return known["value"], number.astype(np.int32)


def without_repeats(found: Interactions) -> Interactions:
    """Each user's first interaction with each item; all items and users stay."""
    pair = found.user.astype(np.int64) * len(found.items) + found.item
    first = np.sort(np.unique(pair, return_index=True)[1])  # of equal pairs the earliest, because interactions are sorted by time
    return replace(found, user=found.user[first], item=found.item[first], time=found.time[first])


def selected(found: Interactions, chosen: np.ndarray) -> Interactions:
    """The interactions where `chosen` (P,) is true, with the items and users that they have left."""
    user, item = found.user[chosen], found.item[chosen]
    users, user = np.unique(user, return_inverse=True)
    items, item = np.unique(item, return_inverse=True)
    return Interactions(
        items=found.items[items], users=found.users[users], user=user.astype(np.int32), item=item.astype(np.int32), time=found.time[chosen],
        days_only=found.days_only, picture_names=found.picture_names, rows=found.rows, refused=found.refused,
    )  # fmt: skip
