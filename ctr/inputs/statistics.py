"""What the log says of an impression's item and user so far: counts, click rates and their trend, strictly from before its session.

Legend: N items, U users, n impressions, K numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from data.arrays.time_keys import before
from data.log.events import CART, CLICK, PURCHASE, Events
from data.log.shop_folder import Shop
from data.log.statistics import Clock, Counts, click_rate, counts_of, first_shown, smoothed
from data.log.tables import index_of

RECENT = 7 * 86_400  # seconds of the recent past, for trends
OF_GROUP = ("impressions", "clicks", "click rate", "recent impressions", "recent clicks", "trend")
ACTIVITY = {"click events": CLICK, "purchase events": PURCHASE, "cart events": CART}


class GroupCounts(NamedTuple):
    """Impressions and clicks (n,) of n groups before n moments: in all, and in the last RECENT seconds."""

    impressions: np.ndarray
    clicks: np.ndarray
    recent_impressions: np.ndarray
    recent_clicks: np.ndarray


class Activity(NamedTuple):
    """What n users did before n moments."""

    events: np.ndarray  # (n, 3) int64: how many events of each of ACTIVITY
    since: np.ndarray  # (n,) int64 s since the last click; -1 without one


@dataclass(frozen=True, kw_only=True)
class Group:
    """A grouping of impressions: by item, by the value of an item's column, or by user."""

    name: str
    of: np.ndarray  # (N,) or (U,) int32: the group of each item or user; -1: none (the value is missing)
    counts: Counts

    def before(self, index: np.ndarray, moment: np.ndarray) -> GroupCounts:
        """The counts of the groups of items or users (n,) before moments (n,); zeros for those beyond the log's."""
        which = np.where(index < len(self.of), self.of[np.minimum(index, len(self.of) - 1)], -1)
        return recent_counts(self.counts, which, moment)


@dataclass(frozen=True, kw_only=True)
class LogStatistics:
    """A log's counts."""

    item_groups: tuple[Group, ...]  # by item, then by each categorical column
    user_group: Group
    overall: Counts  # one group, all impressions
    first: np.ndarray  # (N,) int64 Unix s of each item's first impression
    events: Events
    lag: int  # seconds: the newest counts are this old

    @property
    def names(self) -> tuple[str, ...]:
        """K names, in the order of `features`' columns."""
        return statistic_names([group.name for group in self.item_groups])

    def features(self, item: np.ndarray, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """(n, K) float32.

        Args:
            item: (n,) item indices.
            user: (n,) user indices; those that the log does not know (U and above) have no counts.
            time: (n,) int64 Unix s of each impression's session.
        """
        moment = time - self.lag
        rate = self.rate(moment)
        groups = [*(group.before(item, moment) for group in self.item_groups), self.user_group.before(user, moment)]
        return statistic_values(groups, rate, moment - self.first[item], self.activity(user, moment))

    def rate(self, moment: np.ndarray) -> np.ndarray:
        """(n,) the log's click rate before each moment, 1/2 before its first impression."""
        return click_rate(*self.overall.before(np.zeros(len(moment), np.int64), moment))

    def activity(self, user: np.ndarray, moment: np.ndarray) -> Activity:
        """What users (n,) did before moments (n,)."""
        counts, since = [], np.full(len(user), -1)
        for action in ACTIVITY.values():
            log = self.events.logs[action]
            known = np.minimum(user, len(log.start) - 2)
            begin = log.start[known]
            end = np.where(user < len(log.start) - 1, log.start[known + 1], begin)
            stop = before(log.time, begin, end, moment)
            counts.append(stop - begin)
            if action == CLICK and len(log):
                since = np.where(stop > begin, moment - log.time[np.maximum(stop - 1, 0)], -1)
        return Activity(np.stack(counts, axis=1), since)


def recent_counts(counts: Counts, group: np.ndarray, moment: np.ndarray) -> GroupCounts:
    """The counts of groups (n,) before moments (n,) Unix s."""
    now, earlier = counts.before(group, moment), counts.before(group, moment - RECENT)
    return GroupCounts(*now, now[0] - earlier[0], now[1] - earlier[1])


def statistic_names(item_groups: Sequence[str]) -> tuple[str, ...]:
    """Names of `statistic_values`' columns, given those of the items' groups."""
    of_groups = [f"{group}: {name}" for group in (*item_groups, "user") for name in OF_GROUP]
    return (*of_groups, "item: age", *(f"user: {name}" for name in ACTIVITY), "user: last click")


def statistic_values(groups: Sequence[GroupCounts], rate: np.ndarray, age: np.ndarray, activity: Activity) -> np.ndarray:
    """(n, K) float32: OF_GROUP of each group, the item's age, the user's events by action and how long ago the last click was.

    Counts and seconds are given as log1p; the age of an item not shown yet is 0, as is the time since a click that never was.

    Args:
        groups: counts of items' groups, then of users.
        rate: (n,) the log's click rate so far.
        age: (n,) s since the item was first shown; negative if it has not been.
        activity: of the users.
    """
    columns = [column for group in groups for column in group_values(group, rate)]
    columns += [np.log1p(np.maximum(age, 0)), *np.log1p(activity.events.T), np.log1p(np.maximum(activity.since, 0))]
    return np.stack(columns, axis=1).astype(np.float32)


def group_values(counts: GroupCounts, rate: np.ndarray) -> list[np.ndarray]:
    """The numbers OF_GROUP of one grouping, (n,) each.

    The click rate is smoothed by PRIOR impressions at the log's rate and given as the logarithm of its ratio to that rate; the trend is
    the same of the recent click rate, smoothed towards the group's own.

    Args:
        rate: (n,) the log's click rate so far.
    """
    own = smoothed(counts.impressions, counts.clicks, rate)
    recent = smoothed(counts.recent_impressions, counts.recent_clicks, own)
    shown, clicked, lately_shown, lately_clicked = (np.log1p(count) for count in counts)
    return [shown, clicked, np.log(own / rate), lately_shown, lately_clicked, np.log(recent / own)]


def log_statistics(shop: Shop, columns: Sequence[str], *, lag: int, clicks_only: bool = False) -> LogStatistics:
    """Count a shop's log.

    Args:
        columns: categorical columns of items.
        lag: seconds by which the counts are older than the session.
        clicks_only: impressions without a click were sampled, and are not counted.
    """

    def counts(group: np.ndarray, of_impression: np.ndarray, groups: int) -> Counts:
        return counts_of(group, of_impression, shop, groups=groups, clock=clock, clicks_only=clicks_only)

    clock, items, users = Clock.of(shop.time), len(shop.items), len(shop.users)
    groupings = [("item", np.arange(items, dtype=np.int32), items)]
    for name in columns:
        codes, values = value_codes(shop.items[name])
        groupings.append((f"item:{name}", codes, values))
    groups = [Group(name=name, of=of, counts=counts(of, shop.item, size)) for name, of, size in groupings]
    own = np.arange(users, dtype=np.int32)
    by_user = Group(name="user", of=own, counts=counts(own, shop.user, users))
    overall = counts(np.zeros(items, np.int32), shop.item, 1)
    first = first_shown(shop, clicks_only=clicks_only)
    return LogStatistics(item_groups=tuple(groups), user_group=by_user, overall=overall, first=first, events=shop.events, lag=lag)


def value_codes(column: pl.Series) -> tuple[np.ndarray, int]:
    """(N,) int32 number of each value, -1 for null; and how many values there are."""
    values = column.drop_nulls().unique().sort()
    return index_of(column, values), len(values)
