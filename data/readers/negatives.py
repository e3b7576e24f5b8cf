"""Negatives for logs without impressions: items that were taken at about that time, or any items, but none that the user ever took.

By popularity, a negative is the item of a random interaction at most `window` seconds away, before or after: an item is then shown as often
as it is taken at that time. Were only earlier interactions drawn from, every new item would be a click for certain, and every
rising one more likely; that would be learned in place of taste.

Legend: P interactions, N items, n positives of a call, K negatives for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from run.randomness import uniform

BY = ("popularity", "uniform")
ATTEMPTS = 30  # draws of a negative before it is given up: its user took nearly everything there is


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """A sampler of negatives, the same on every machine.

    Args:
        time, item: (P,) all interactions, by time.
        taken: (P',) int64 ascending, user * items + item of every interaction.
        items: N.
    """

    time: np.ndarray
    item: np.ndarray
    taken: np.ndarray
    items: int
    by: str
    window: int  # seconds
    seed: int

    def draw(self, user: np.ndarray, session: np.ndarray, moment: np.ndarray, number: np.ndarray, each: int) -> np.ndarray:
        """(n, K) int64 items; -1 where none was found. No item twice in a session.

        Args:
            user, session: (n,) integers; positives of one session are neighbours.
            moment: (n,) Unix s of the session.
            number: (n,) of each positive in the log, the key of its random numbers.
            each: K.
        """
        slot = np.tile(np.arange(each), len(user))
        of = np.repeat(np.arange(len(user)), each)
        low, high = self._range(moment)
        found = np.full(len(of), -1, dtype=np.int64)
        todo = np.arange(len(of))
        for attempt in range(ATTEMPTS):
            if not len(todo):
                break
            share = uniform(self.seed, "negative", number[of[todo]], slot[todo], attempt)
            place = low[of[todo]] + (share * (high - low)[of[todo]]).astype(np.int64)
            found[todo] = self.item[place] if self.by == "popularity" else place
            bad = self._took(user[of[todo]], found[todo])
            found[todo[bad]] = -1
            drawn_in = np.flatnonzero(np.isin(session[of], session[of[todo]]))  # only there can an item have come twice
            todo = np.union1d(todo[bad], drawn_in[self._repeated(session[of[drawn_in]], found[drawn_in])])
            found[todo] = -1
        return found.reshape(-1, each)

    def _range(self, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each positive, the interactions (or items) that are drawn from."""
        if self.by == "uniform":
            return np.zeros(len(moment), np.int64), np.full(len(moment), self.items)
        low, high = np.searchsorted(self.time, moment - self.window), np.searchsorted(self.time, moment + self.window, side="right")
        return low, high

    def _took(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) bool: the user took the item, ever."""
        wanted = user.astype(np.int64) * self.items + item
        place = np.minimum(np.searchsorted(self.taken, wanted), len(self.taken) - 1)
        return self.taken[place] == wanted

    @staticmethod
    def _repeated(session: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Places whose item stands in their session already."""
        known = np.flatnonzero(item >= 0)
        ranking = known[np.lexsort((known, item[known], session[known]))]
        same = (session[ranking[1:]] == session[ranking[:-1]]) & (item[ranking[1:]] == item[ranking[:-1]])
        return ranking[1:][same]
