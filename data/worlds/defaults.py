"""The built-in worlds' names, and their sizes where none are given."""

from __future__ import annotations

from typing import Literal, get_args

WorldName = Literal["shop", "fashion"]
WORLD_NAMES: tuple[str, ...] = get_args(WorldName)

USERS, ITEMS, SESSIONS, SEED = 1_000, 3_000, 60_000, 0  # about 10 impressions per session, 90 clicks per user (the paper's log: 98)
