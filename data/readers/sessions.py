"""Interactions in a log without page views -> sessions: what a user took together.

Legend: P interactions, S sessions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SESSIONS = ("count", "gap", "day")
DAY = 86_400


class Sessions(NamedTuple):
    """Interactions by session; sessions are numbered by (time, user)."""

    ranking: np.ndarray  # (P,) int64: interactions ordered by (session, time)
    session: np.ndarray  # (P,) int32 of each of them, ascending
    time: np.ndarray  # (S,) int64 Unix s of the first interaction


def sessions_of(user: np.ndarray, time: np.ndarray, *, by: str, size: int, gap: int) -> Sessions:
    """Cut each user's interactions into sessions.

    Args:
        user, time: (P,) integers; time in Unix s.
        by: "count": up to `size` successive ones; "gap": until `gap` seconds pass without one; "day": those of one day (UTC).
    """
    by_user = np.lexsort((time, user))
    user, time = user[by_user], time[by_user]
    first = np.ones(len(user), dtype=bool)
    first[1:] = user[1:] != user[:-1]
    if by == "count":
        begin = np.flatnonzero(first)
        new = (np.arange(len(user)) - np.repeat(begin, np.diff(np.append(begin, len(user))))) % size == 0
    elif by == "gap":
        new = first | (np.diff(time, prepend=0) > gap)
    else:
        new = first | (np.diff(time // DAY, prepend=-1) != 0)
    begin = np.flatnonzero(new)
    ranking = np.lexsort((user[begin], time[begin]))
    number = np.empty(len(begin), dtype=np.int32)
    number[ranking] = np.arange(len(begin), dtype=np.int32)
    session = number[np.cumsum(new) - 1]
    in_sessions = np.argsort(session, kind="stable")
    return Sessions(by_user[in_sessions], session[in_sessions], time[begin][ranking])
