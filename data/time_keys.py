"""(group, time) as one int64, so that one sort orders an event log and one binary search finds every window into it."""

from __future__ import annotations

import numpy as np

_LIMIT = np.iinfo(np.int64).max


def order_by_group_and_time(group: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(E,) int64: rows ordered by (group, time), ties in the order given."""
    none = np.zeros(0, dtype=np.int64)
    keys, _, _ = _combine(group, time, none, none)
    return np.argsort(keys, kind="stable")


def windows(group: np.ndarray, time: np.ndarray, at_group: np.ndarray, at_time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each query, the stretch [first, end) of events of its group that lie strictly before its time.

    Args:
        group: (E,) integers >= 0, events sorted by (group, time).
        time: (E,) int64 Unix s.
        at_group: (Q,) a group nobody has (-1, say) gets an empty stretch.
        at_time: (Q,) int64 Unix s.

    Returns:
        first, end: (Q,) int64 each.
    """
    keys, low, high = _combine(group, time, at_group, at_time)
    return np.searchsorted(keys, low, side="left"), np.searchsorted(keys, high, side="left")


def _combine(group: np.ndarray, time: np.ndarray, at_group: np.ndarray, at_time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys of events, of each query's group start, and of each query: group * span + time above the earliest.

    Where that would leave int64, times become ranks among the events' times; where it still would, groups do
    too. With E events the key then stays within E^2, which fits up to 3 * 10^9 events.
    """
    if len(group) == 0:
        return np.zeros(0, np.int64), np.zeros(len(at_group), np.int64), np.zeros(len(at_group), np.int64)
    group, at_group = group.astype(np.int64), at_group.astype(np.int64)
    earliest = time.min()
    offset, at_offset = time - earliest, at_time - earliest
    if not _fits(group, offset):
        times = np.unique(time)
        offset, at_offset = np.searchsorted(times, time), np.searchsorted(times, at_time)
    if not _fits(group, offset):
        groups = np.unique(group)
        place = np.minimum(np.searchsorted(groups, at_group), len(groups) - 1)
        at_group = np.where(groups[place] == at_group, place, -1)
        group = np.searchsorted(groups, group)
    span = offset.max() + 1  # offsets lie below it; a query later than every event is cut to it, the next group's start
    unknown = (at_group < 0) | (at_group > group.max())
    low = np.where(unknown, 0, at_group) * span
    high = np.where(unknown, low, low + np.clip(at_offset, 0, span))
    return group * span + offset, low, high


def _fits(group: np.ndarray, offset: np.ndarray) -> bool:
    return (int(group.max()) + 1) * (int(offset.max()) + 1) <= _LIMIT
