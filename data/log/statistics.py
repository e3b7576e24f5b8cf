"""How often items, their columns' values and users were shown and clicked before a moment: prefix sums over the sorted log.

Every count is of impressions strictly before the moment asked for, by their own timestamps. Of a log whose impressions without a click
were sampled, only clicks are counted: nobody saw the others, and where they are drawn by popularity, before and after, how often an item
was drawn so far tells how often it will be clicked.

Legend: I impressions, N items, G groups, n queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.arrays.array_storage import scratch
from data.log.events import user_ranges
from data.log.shop_folder import Shop
from data.origin import is_sampled

PRIOR = 20.0  # impressions with the log's own click rate that are added to every group's
_TIME_BITS = 32  # of a key: 136 years
_AT_ONCE = 1 << 24  # impressions sorted at a time


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Times as 32-bit numbers in their order. What lies more than 136 years before the last impression counts as simultaneous."""

    first: int  # Unix s that becomes 0

    @staticmethod
    def of(time: np.ndarray) -> Clock:
        """For a log's times."""
        latest = int(time.max(initial=0))
        return Clock(first=max(int(time.min(initial=latest)), latest - (1 << _TIME_BITS) + 2))

    def ticks(self, time: np.ndarray) -> np.ndarray:
        """uint64 in the order of `time`; times after the log's last keep a tick after its."""
        return np.clip(time - self.first, 0, (1 << _TIME_BITS) - 1).astype(np.uint64)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Impressions of groups (an item's, those of one value, a user's), sorted by (group, time)."""

    key: np.ndarray  # (I,) uint64 ascending: group, tick, click, from the highest bit to the lowest
    clicked: np.ndarray  # (I + 1,) int64: clicks among the first i
    start: np.ndarray  # (G + 1,) int64: where each group's impressions begin
    clock: Clock

    def before(self, group: np.ndarray, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Impressions and clicks (n,) int64 of each group before each moment; 0 for group -1.

        Args:
            group: (n,) integers.
            moment: (n,) int64 Unix s.
        """
        known = np.maximum(group, 0).astype(np.int64)
        wanted = _keys(known, self.clock.ticks(moment))
        ranking = np.argsort(wanted)  # neighbouring searches touch the same memory
        place = np.empty(len(wanted), dtype=np.int64)
        place[ranking] = np.searchsorted(self.key, wanted[ranking])
        begin = self.start[known]
        place = np.where(group < 0, begin, place)
        return place - begin, self.clicked[place] - self.clicked[begin]


def counts_of(group: np.ndarray, of_impression: np.ndarray, shop: Shop, *, groups: int, clock: Clock, clicks_only: bool = False) -> Counts:
    """The impressions of a log by group.

    Args:
        group: (M,) the group of each item or user; -1: none.
        of_impression: (I,) indices into `group`.
        groups: G.
        clicks_only: leave out impressions without a click.
    """

    def group_of(rows: slice) -> np.ndarray:
        found = group[of_impression[rows]]
        return np.where(shop.click[rows] == 1, found, -1) if clicks_only else found

    folder = shop.events.folder
    size = np.zeros(groups + 1, dtype=np.int64)
    for rows in _stretches(len(of_impression)):
        size += np.bincount(group_of(rows) + 1, minlength=groups + 1)
    start = np.concatenate([[0], np.cumsum(size[1:])])
    key, clicked = scratch(int(start[-1]), np.uint64, folder), scratch(int(start[-1]) + 1, np.int64, folder)
    clicked[0] = 0
    for low, high in user_ranges(start, _AT_ONCE):
        parts = []
        for rows in _stretches(len(of_impression)):
            found = group_of(rows)
            own = np.flatnonzero((found >= low) & (found < high))
            parts.append(_keys(found[own].astype(np.int64), clock.ticks(shop.time[rows][own])) | shop.click[rows][own].astype(np.uint64))
        keys = np.sort(np.concatenate(parts))
        a, b = start[low], start[high]
        key[a:b] = keys
        clicked[a + 1 : b + 1] = clicked[a] + np.cumsum(keys & np.uint64(1), dtype=np.int64)
    return Counts(key=key, clicked=clicked, start=start, clock=clock)


def first_shown(shop: Shop, *, clicks_only: bool = False) -> np.ndarray:
    """(N,) int64 Unix s of each item's first impression, or first click; the largest number where there is none."""
    first = np.full(len(shop.items), np.iinfo(np.int64).max)
    for rows in _stretches(len(shop.item)):
        item, time = shop.item[rows], shop.time[rows]
        counted = shop.click[rows] == 1 if clicks_only else slice(None)
        np.minimum.at(first, item[counted], time[counted])
    return first


def popularity(shop: Shop, rows: np.ndarray) -> np.ndarray:
    """(n, 2) float32 of impression rows (n,): log1p of the item's clicks strictly before the impression's session, and the logarithm of its
    click rate until then, smoothed by PRIOR impressions, relative to the log's.

    Of a log whose impressions without a click were sampled, only clicks are counted.
    """
    item, moment = shop.item[rows], shop.session_time[shop.session[rows]]
    every, options = np.arange(len(shop.items), dtype=np.int32), {"clock": Clock.of(shop.time), "clicks_only": is_sampled(shop.folder)}
    shown, clicked = counts_of(every, shop.item, shop, groups=len(every), **options).before(item, moment)
    all_shown, all_clicked = counts_of(np.zeros_like(every), shop.item, shop, groups=1, **options).before(np.zeros_like(item), moment)
    rate = click_rate(all_shown, all_clicked)
    return np.stack([np.log1p(clicked), np.log(smoothed(shown, clicked, rate) / rate)], axis=1).astype(np.float32)


def click_rate(shown: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """(n,) the click rate of all impressions so far, 1/2 before the first."""
    return (clicked + 1) / (shown + 2)


def smoothed(shown: np.ndarray, clicked: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """(n,) click rates of groups, as if each had been shown PRIOR times more, at `rate`."""
    return (clicked + PRIOR * rate) / (shown + PRIOR)


def _keys(group: np.ndarray, tick: np.ndarray) -> np.ndarray:
    return (group.astype(np.uint64) << np.uint64(_TIME_BITS + 1)) | (tick << np.uint64(1))


def _stretches(count: int) -> Iterator[slice]:
    return (slice(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE))
