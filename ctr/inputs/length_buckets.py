"""One history of a batch in length buckets: sessions with histories of about equal length share a dense array with little padding.

V items in all histories, n distinct ones among them, S sessions, B impressions; a bucket has s sessions, b impressions, longest history L.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.arrays.ranges import ranges

# The cost of a bucket, in units of one pair of history items at width 64, forward and backward, from profiles on a CPU core
_CALL = 40_000  # per bucket: some 60 operations, a millisecond
_ITEM = 80  # per place
_CUTS = 24  # places at which a cut is considered


class LengthBucket(NamedTuple):
    """Sessions read by one dense call. A session without the history is in no bucket."""

    item: Tensor  # (s, L) int64: which of the history's distinct items, oldest first; 0 where `real` is False
    real: Tensor | None  # (s, L) bool; None: all are
    age: Tensor  # (s, L) float32: log1p of the seconds from the event to the session
    session: Tensor  # (s,) int64: which session of the batch
    impression: Tensor  # (b,) int64: the impressions of these sessions
    row: Tensor  # (b,) int64: the row of `item` that is an impression's history


class BucketedHistory(NamedTuple):
    """A history of all sessions of a batch."""

    item: Tensor  # (n,) int64: which distinct items of the batch it holds
    buckets: tuple[LengthBucket, ...]  # at least one, possibly empty: every weight must have a gradient


def length_buckets(
    place: np.ndarray, age: np.ndarray, lengths: np.ndarray, count: np.ndarray, *, each_impression: bool
) -> tuple[LengthBucket, ...]:
    """Cut a batch's histories into buckets.

    Args:
        place: (V,) int64 which of the history's distinct items, session after session.
        age: (V,) seconds from each event to its session.
        lengths: (S,) int64 items of each session.
        count: (S,) int64 impressions of each session; a session's are adjacent, in the order of sessions.
        each_impression: the history is read once per impression, not once per session.
    """
    by_length = np.argsort(lengths, kind="stable")
    by_length = by_length[np.searchsorted(lengths[by_length], 1) :]
    ends = cut(lengths[by_length], count[by_length] if each_impression else np.ones(len(by_length), np.int64)) or [0]
    start, first = np.cumsum(lengths) - lengths, np.cumsum(count) - count
    age = np.log1p(age).astype(np.float32)
    buckets = []
    for begin, end in zip([0, *ends], ends, strict=False):
        sessions = by_length[begin:end]
        column = np.arange(lengths[sessions].max(initial=1))
        real = column < lengths[sessions][:, None]
        where = (start[sessions][:, None] + column) * real
        item = place[where] * real if len(sessions) else where
        impressions = ranges(first[sessions], count[sessions])
        row = np.repeat(np.arange(len(sessions)), count[sessions])
        ages = age[where] * real if len(sessions) else where.astype(np.float32)
        arrays = (torch.from_numpy(array) for array in (item, real, ages, sessions, impressions, row))
        bucket = LengthBucket(*arrays)
        buckets.append(bucket._replace(real=None) if real.all() else bucket)
    return tuple(buckets)


def cut(lengths: np.ndarray, times: np.ndarray) -> list[int]:
    """Where buckets end if their total cost is to be lowest: _CALL each, and L^2 + _ITEM L per reading, with L the longest length.

    Args:
        lengths: (S,) ascending, 1 or more.
        times: (S,) how often each is read.

    Returns:
        Ascending ends of buckets, the last of them S; none where there is no session.

    >>> cut(np.array([1, 2, 900, 1000, 1000]), np.ones(5, int))
    [2, 3, 5]
    """
    if not len(lengths):
        return []
    ends = np.append(np.flatnonzero(np.diff(lengths)) + 1, len(lengths))  # a cut between equal lengths saves nothing
    if len(ends) > _CUTS:
        ends = ends[np.linspace(0, len(ends) - 1, _CUTS).round().astype(int)]
    longest = lengths[ends - 1].astype(np.float64)
    work, readings = longest * (longest + _ITEM), np.append(0, np.cumsum(times)[ends - 1])
    best, came_from = np.zeros(len(ends) + 1), np.zeros(len(ends), dtype=int)
    for end in range(len(ends)):
        cost = best[: end + 1] + _CALL + (readings[end + 1] - readings[: end + 1]) * work[end]
        came_from[end] = np.argmin(cost)
        best[end + 1] = cost[came_from[end]]
    found, at = [], len(ends)
    while at:
        found.append(int(ends[at - 1]))
        at = int(came_from[at - 1])
    return found[::-1]
