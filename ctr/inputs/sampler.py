"""The order in which sessions are read (oldest first, or shuffled with bounded memory), and each rank's share of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.arrays.ranges import ranges
from data.log.shop_folder import Shop
from data.log.split import SPLITS
from run.randomness import permutation

POOL = 1 << 20  # sessions shuffled among each other; a part with no more is permuted as one
BLOCK = 1 << 10  # sessions that are next to each other on disk and read together


@dataclass(frozen=True, kw_only=True)
class SplitSessions:
    """The sessions of a split and where their impressions are."""

    rows: np.ndarray  # (I',) int64 rows of impressions.parquet, by session
    sessions: np.ndarray  # (S',) session numbers
    start: np.ndarray  # (S',) int64
    count: np.ndarray  # (S',) int64; session s has rows[start[s]:start[s] + count[s]]


def split_sessions(shop: Shop, split: str) -> SplitSessions:
    """The sessions of one split, oldest first. Its rows are not to be written to: they may be part of a larger array, or mapped."""
    sessions = np.flatnonzero(shop.session_split == SPLITS.index(split)).astype(shop.session.dtype)
    begin = shop.by_session[1]
    count = begin[sessions + 1] - begin[sessions]
    return SplitSessions(rows=shop.rows(split), sessions=sessions, start=np.cumsum(count) - count, count=count)


class Epoch(Sequence[np.ndarray]):
    """The batches of one epoch, as places in a part; each is computed on access.

    Up to `pool` places are permuted as one. Of more, blocks of neighbours are permuted and grouped into pools, and then the places
    within each pool are permuted: neighbours on disk are read within one pool, and only one pool's permutation is in memory.

    Args:
        places: how many there are; each is in one batch of the epoch.
        batch: places per batch; the last batch may have fewer.
    """

    def __init__(self, places: int, batch: int, *, seed: int, epoch: int, pool: int = POOL, block: int = BLOCK):
        self.places, self.batch, self.seed, self.epoch, self.block = places, batch, seed, epoch, block
        self.single = places <= pool
        self.blocks = np.zeros(0, np.int64) if self.single else permutation(-(-places // block), seed, "ctr order", epoch, "blocks")
        self.blocks_a_pool = max(1, pool // block)
        size = np.minimum(self.blocks * block + block, places) - self.blocks * block
        self.ends = np.array([places]) if self.single else np.cumsum(np.add.reduceat(size, np.arange(0, len(size), self.blocks_a_pool)))
        self.latest: tuple[int, np.ndarray] = (-1, self.blocks)  # the pool used last, permuted

    def __len__(self) -> int:
        return math.ceil(self.places / self.batch)

    def __getitem__(self, number: int) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride] - single batches only
        """(B,) int64 places of batch `number`."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        first, last = number * self.batch, min((number + 1) * self.batch, self.places)
        parts = []
        for pool in range(int(np.searchsorted(self.ends, first, side="right")), len(self.ends)):
            begin = int(self.ends[pool - 1]) if pool else 0
            if begin >= last:
                break
            parts.append(self._pool(pool)[max(first - begin, 0) : last - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _pool(self, pool: int) -> np.ndarray:
        """The permuted places of one pool."""
        if self.latest[0] != pool:
            self.latest = pool, self._ordered(pool)
        return self.latest[1]

    def _ordered(self, pool: int) -> np.ndarray:
        if self.single:
            return permutation(self.places, self.seed, "ctr order", self.epoch)
        begin = self.blocks[pool * self.blocks_a_pool : (pool + 1) * self.blocks_a_pool] * self.block
        members = ranges(begin, np.minimum(begin + self.block, self.places) - begin)
        return members[permutation(len(members), self.seed, "ctr order", self.epoch, "pool", pool)]


def shuffled(part: SplitSessions, batch_sessions: int, *, seed: int, epoch: int, pool: int = POOL) -> Epoch:
    """An epoch's batches as places in `part`, in an order determined by (seed, epoch)."""
    return Epoch(len(part.sessions), batch_sessions, seed=seed, epoch=epoch, pool=pool)


def in_order(part: SplitSessions, batch_sessions: int) -> Iterator[np.ndarray]:
    """All of a part's batches as places in it, oldest first."""
    for at in range(0, len(part.sessions), batch_sessions):
        yield np.arange(at, min(at + batch_sessions, len(part.sessions)))


def share(places: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    """A rank's places of a batch: ranks' shares follow one another, and their sizes differ by one place at most.

    Where a batch has fewer places than there are ranks, as an epoch's last one may, some shares are empty. Such a rank still has to
    join every collective operation: it looks up any session, with weight 0 in the loss.

    >>> [share(np.arange(7), rank, 3).tolist() for rank in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    return places[len(places) * rank // ranks : len(places) * (rank + 1) // ranks]
