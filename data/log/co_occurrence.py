"""How often two items were clicked by the same user shortly after each other, in the time before a moment; sparse counts.

Legend: N items, P pairs of items that occur, n queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.log.events import CLICK, ActionLog, Events, user_ranges

DISTANCE = 10  # two clicks at most this many clicks apart count as together
MOST = 20_000_000  # pairs of clicks that are counted, about, of the newest clicks: memory is bounded by them
_SAMPLE = 1 << 20  # clicks that tell since when so many were made
SHRINK = 10.0  # a pair seen once or twice says little


@dataclass(frozen=True, kw_only=True)
class CoOccurrence:
    """Similarity of pairs of items by who clicked both."""

    key: np.ndarray  # (P,) int64 ascending: first item * items + second item; each pair in both orders
    score: np.ndarray  # (P,) float32: clicks together / (sqrt(clicks of first * clicks of second) + SHRINK)
    items: int  # N

    def of(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(n,) float32 score of each pair of item indices; 0 for pairs that never occur."""
        if not len(self.key):
            return np.zeros(len(first), np.float32)
        wanted = first.astype(np.int64) * self.items + second
        ranking = np.argsort(wanted)
        place = np.empty(len(wanted), dtype=np.int64)
        place[ranking] = np.minimum(np.searchsorted(self.key, wanted[ranking]), len(self.key) - 1)
        return np.where(self.key[place] == wanted, self.score[place], np.float32(0))


def co_occurrence(events: Events, moment: int, *, items: int) -> CoOccurrence:
    """Count the clicks before `moment` (Unix s); of a log with very many, the newest."""
    log, keys = events.logs[CLICK], [np.zeros(0, np.int64)]
    clicks = np.zeros(items, dtype=np.int64)
    early, since = _counted(log, moment)
    distance = max(1, min(DISTANCE, MOST // max(1, early)))
    for low, high in user_ranges(log.start):
        a, b = log.start[low], log.start[high]
        user = np.repeat(np.arange(low, high), np.diff(log.start[low : high + 1]))
        counts = (log.time[a:b] < moment) & (log.time[a:b] >= since)
        user, item = user[counts], log.item[a:b][counts].astype(np.int64)
        clicks += np.bincount(item, minlength=items)
        for apart in range(1, distance + 1):
            together = (user[apart:] == user[:-apart]) & (item[apart:] != item[:-apart])
            one, other = item[:-apart][together], item[apart:][together]
            keys += [one * items + other, other * items + one]
    key, count = np.unique(np.concatenate(keys), return_counts=True)
    root = np.sqrt(clicks.astype(np.float64))
    score = count / (root[key // max(1, items)] * root[key % max(1, items)] + SHRINK)
    return CoOccurrence(key=key, score=score.astype(np.float32), items=items)


def _counted(log: ActionLog, moment: int) -> tuple[int, int]:
    """How many clicks before `moment` count, and the Unix s from which on they do; read stretch by stretch."""
    early = sum(int((log.time[log.start[low] : log.start[high]] < moment).sum()) for low, high in user_ranges(log.start))
    if early <= MOST:
        return early, -1
    sample = np.asarray(log.time[:: max(1, len(log) // _SAMPLE)])
    return MOST, int(np.quantile(sample[sample < moment], 1 - MOST / early))
