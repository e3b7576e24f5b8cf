"""Small random logs with many ties in time, missing values and items never shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

ACTIONS = ("click", "purchase", "cart", "uncart")


def random_tables(seed: int, *, sessions: int = 40, items: int = 12, users: int = 6, moments: int = 15) -> dict[str, pl.DataFrame]:
    """items, users, impressions and events of a shop; times are a few moments, so that many of them tie."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "blue", None], size=items)
    size = [None if rng.random() < 0.2 else int(rng.integers(3)) for _ in range(items)]
    price = np.where(rng.random(items) < 0.2, np.nan, rng.random(items))
    time = np.sort(1_000_000 + 90_000 * rng.integers(moments, size=sessions))
    count = rng.integers(1, 5, size=sessions)
    session = np.repeat(np.arange(sessions), count)
    click = rng.integers(2, size=len(session))
    click[:2] = 0, 1
    split = np.repeat(["pretrain", "train", "valid", "test"], np.diff(np.searchsorted(time, [0, *_cuts(time), time[-1] + 1])))
    events = rng.integers(0, 60)
    return {
        "items": pl.DataFrame(
            {
                "item_id": np.arange(items),
                "image": [None] * items,
                "colour": pl.Series(colour.tolist(), dtype=pl.String),
                "size": size,
                "price": price,
            },
            schema_overrides={"image": pl.String, "size": pl.Int64},
        ),
        "users": pl.DataFrame({"user_id": np.arange(users)}),
        "impressions": pl.DataFrame(
            {
                "session_id": session,
                "user_id": rng.integers(users, size=sessions)[session],
                "item_id": rng.integers(items - 1, size=len(session)),  # the last item is never shown
                "timestamp": time[session] + 100 * rng.integers(3, size=len(session)),
                "click": click,
                "split": split[session],
            }
        ),
        "events": pl.DataFrame(
            {
                "user_id": rng.integers(users - 1, size=events),
                "item_id": rng.integers(items, size=events),
                "timestamp": 1_000_000 + 90_000 * rng.integers(moments, size=events),
                "action": rng.choice(ACTIONS, size=events),
            },
            schema_overrides={"action": pl.String},
        ),
    }


def _cuts(time: np.ndarray) -> list[int]:
    """Moments that cut the sessions into four parts, each with a session."""
    distinct = np.unique(time)
    return [int(distinct[len(distinct) * part // 4]) for part in (1, 2, 3)]


def write_tables(folder: Path, tables: dict[str, pl.DataFrame]) -> Path:
    """Write a shop folder; a table without rows is left out."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        if len(table):
            table.write_parquet(folder / f"{name}.parquet")
    return folder
