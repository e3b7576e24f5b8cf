"""What the log says of an impression's item and user so far: counts, click rates and their trend, strictly from before its session.

Legend: N items, U users, n impressions, K numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from data.arrays.time_keys import before
from data.log.columns import ITEM_RESERVED, feature_columns
from data.log.events import CART, CLICK, PURCHASE, Events
from data.log.shop_folder import Shop
from data.log.statistics import Clock, Counts, counts_of, first_shown
from data.log.tables import index_of

RECENT = 7 * 86_400  # seconds of the recent past, for trends
PRIOR = 20.0  # impressions with the log's own click rate that are added to every group's
OF_GROUP = ("impressions", "clicks", "click rate", "recent impressions", "recent clicks", "trend")
ACTIVITY = {"click events": CLICK, "purchase events": PURCHASE, "cart events": CART}


@dataclass(frozen=True, kw_only=True)
class Group:
    """A grouping of impressions: by item, by the value of an item's column, or by user."""

    name: str
    of: np.ndarray  # (N,) or (U,) int32: the group of each item or user; -1: none (the value is missing)
    by_user: bool
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class LogStatistics:
    """A log's counts."""

    groups: tuple[Group, ...]
    overall: Counts  # one group, all impressions
    first: np.ndarray  # (N,) int64 Unix s of each item's first impression
    events: Events
    lag: int  # seconds: the newest counts are this old

    @property
    def names(self) -> tuple[str, ...]:
        """K names, in the order of `features`' columns."""
        return statistic_names([group.name for group in self.groups])

    def features(self, item: np.ndarray, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """(n, K) float32.

        Args:
            item: (n,) item indices.
            user: (n,) user indices; those that the log does not know (U and above) have no counts.
            time: (n,) int64 Unix s of each impression's session.
        """
        moment = time - self.lag
        every = np.zeros(len(item), dtype=np.int64)
        rate = click_rate(*self.overall.before(every, moment))
        columns: list[np.ndarray] = []
        for group in self.groups:
            index = user if group.by_user else item
            which = np.where(index < len(group.of), group.of[np.minimum(index, len(group.of) - 1)], -1)
            now = group.counts.before(which, moment)
            earlier = group.counts.before(which, moment - RECENT)
            columns += group_features(*now, now[0] - earlier[0], now[1] - earlier[1], rate)
        age = moment - self.first[item]
        columns.append(np.log1p(np.maximum(age, 0)))
        columns += self._activity(user, moment)
        return np.stack(columns, axis=1).astype(np.float32)

    def _activity(self, user: np.ndarray, moment: np.ndarray) -> list[np.ndarray]:
        """The user's events so far by action, and how long ago the last click was (log1p s; 0 without one)."""
        columns, last = [], np.zeros(len(user))
        for action in ACTIVITY.values():
            log = self.events.logs[action]
            known = np.minimum(user, len(log.start) - 2)
            begin = log.start[known]
            end = np.where(user < len(log.start) - 1, log.start[known + 1], begin)
            stop = before(log.time, begin, end, moment)
            columns.append(np.log1p(stop - begin))
            if action == CLICK and len(log):
                newest = log.time[np.maximum(stop - 1, 0)]
                last = np.where(stop > begin, np.log1p(np.where(stop > begin, moment - newest, 0)), 0.0)
        return [*columns, last]


def statistic_names(groups: list[str]) -> tuple[str, ...]:
    """Names of the statistics of these groups."""
    of_groups = [f"{group}: {name}" for group in groups for name in OF_GROUP]
    return (*of_groups, "item: age", *(f"user: {name}" for name in ACTIVITY), "user: last click")


def click_rate(impressions: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """The log's click rate so far, 1/2 before its first impression."""
    return (clicks + 1) / (impressions + 2)


def group_features(
    impressions: np.ndarray, clicks: np.ndarray, recent_impressions: np.ndarray, recent_clicks: np.ndarray, rate: np.ndarray
) -> list[np.ndarray]:
    """The numbers OF_GROUP of one group, (n,) each.

    Counts as log1p. The click rate is smoothed by PRIOR impressions at the log's rate and given as the logarithm of its ratio to that
    rate; the trend is the same of the recent click rate, smoothed towards the group's own.

    Args:
        impressions, clicks: (n,) so far.
        recent_impressions, recent_clicks: (n,) those of the last RECENT seconds.
        rate: (n,) the log's click rate so far.
    """
    smoothed = (clicks + PRIOR * rate) / (impressions + PRIOR)
    recent = (recent_clicks + PRIOR * smoothed) / (recent_impressions + PRIOR)
    logs = (np.log1p(count) for count in (impressions, clicks))
    lately = (np.log1p(count) for count in (recent_impressions, recent_clicks))
    return [*logs, np.log(smoothed / rate), *lately, np.log(recent / smoothed)]


def log_statistics(shop: Shop, *, lag: int) -> LogStatistics:
    """Count a shop's log.

    Args:
        lag: seconds by which the counts are older than the session.
    """
    clock, items, users = Clock.of(shop.time), len(shop.items), len(shop.users)
    groupings = [("item", np.arange(items, dtype=np.int32), items)]
    for name in feature_columns(shop.items, reserved=ITEM_RESERVED).categorical:
        codes, values = value_codes(shop.items[name])
        groupings.append((f"item:{name}", codes, values))
    groups = [
        Group(name=name, of=of, by_user=False, counts=counts_of(of, shop.item, shop, groups=size, clock=clock))
        for name, of, size in groupings
    ]
    own = np.arange(users, dtype=np.int32)
    groups.append(Group(name="user", of=own, by_user=True, counts=counts_of(own, shop.user, shop, groups=users, clock=clock)))
    overall = counts_of(np.zeros(items, np.int32), shop.item, shop, groups=1, clock=clock)
    return LogStatistics(groups=tuple(groups), overall=overall, first=first_shown(shop), events=shop.events, lag=lag)


def value_codes(column: pl.Series) -> tuple[np.ndarray, int]:
    """(N,) int32 number of each value, -1 for null; and how many values there are."""
    values = column.drop_nulls().unique().sort()
    return index_of(column, values), len(values)
