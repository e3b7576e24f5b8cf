"""A tiny valid shop folder for tests, with pictures; every table can be changed before it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

START = 1_700_000_000  # Unix s of the first session
FRAMES = ("items", "users", "impressions", "events")
CATEGORIES = ("shirt", "shoe", "bag")

Change = pl.DataFrame | Callable[[pl.DataFrame], pl.DataFrame] | None


def write_shop(
    folder: Path,
    *,
    string_ids: bool = False,
    users: int = 30,
    items: int = 40,
    sessions: int = 120,
    seed: int = 0,
    pictures: bool = True,
    **overrides_of_frames: Change,
) -> Path:
    """Write a shop folder that passes every check, unless an override breaks it.

    A session shows 5 items of one category, at least 60 s after the previous session; about 3 in 10 are clicked. The last
    item has no picture and no title.

    Args:
        string_ids: item, user and session ids are text instead of integers.
        pictures: draw the pictures; if False, `images/` is left out, though items still name their files.
        overrides_of_frames: `items_frame`, `users_frame`, `impressions_frame`, `events_frame`: a frame to write
            instead, a function of the default frame, or None to leave the file out.

    Returns:
        `folder`, created if necessary.
    """
    unknown = set(overrides_of_frames) - {f"{name}_frame" for name in FRAMES}
    assert not unknown, f"no such frame: {unknown}"
    folder.mkdir(parents=True, exist_ok=True)
    frames = shop_frames(string_ids=string_ids, users=users, items=items, sessions=sessions, seed=seed)
    for name, frame in frames.items():
        change = overrides_of_frames.get(f"{name}_frame", frame)
        written = change if change is None or isinstance(change, pl.DataFrame) else change(frame)
        if written is not None:
            written.write_parquet(folder / f"{name}.parquet")
    if pictures:
        write_pictures(folder / "images", frames["items"]["image"].drop_nulls().to_list(), seed=seed)
    return folder


def shop_frames(*, string_ids: bool, users: int, items: int, sessions: int, seed: int) -> dict[str, pl.DataFrame]:
    """The default tables of `write_shop`."""
    random = np.random.default_rng(seed)
    item_ids = [f"i{n:04d}" if string_ids else 100 + n for n in range(items)]
    user_ids = [f"u{n:04d}" if string_ids else 7 + 3 * n for n in range(users)]
    category = np.arange(items) % len(CATEGORIES)
    item_table = pl.DataFrame(
        {
            "item_id": item_ids,
            "image": [f"{n:04d}.png" if n < items - 1 else None for n in range(items)],
            "title": [f"{CATEGORIES[category[n]]} number {n}" if n < items - 1 else None for n in range(items)],
            "category": [CATEGORIES[c] for c in category],
            "brand": random.integers(0, 5, items),
            "price": random.uniform(5, 90, items).round(2),
        }
    )
    user_table = pl.DataFrame({"user_id": user_ids, "age_group": random.integers(0, 4, users), "spend": random.random(users)})

    shown = 5
    time = START + np.cumsum(random.integers(60, 3600, sessions))
    searched = random.integers(0, len(CATEGORIES), sessions)
    user = np.concatenate([np.arange(min(users, sessions)), random.integers(0, users, max(0, sessions - users))])
    row = np.repeat(np.arange(sessions), shown)
    item = np.concatenate([random.choice(np.flatnonzero(category == c), shown) for c in searched])
    impression_table = pl.DataFrame(
        {
            "session_id": [f"s{n:05d}" if string_ids else int(n) for n in row],
            "user_id": [user_ids[user[n]] for n in row],
            "item_id": [item_ids[n] for n in item],
            "timestamp": time[row] + np.tile(np.arange(shown), sessions),
            "click": (random.random(len(row)) < 0.3).astype(np.int8),
            "query": [f"a {CATEGORIES[searched[n]]}" for n in row],
            "category": [CATEGORIES[searched[n]] for n in row],
            "position": np.tile(np.arange(shown), sessions),
            "discount": random.random(len(row)).astype(np.float32),
        }
    )
    events = _events(impression_table, random)
    return {"items": item_table, "users": user_table, "impressions": impression_table, "events": events}


def _events(impressions: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Every click, 20 s after the impression; some are followed by a cart event, a purchase and an uncart."""
    clicked = impressions.filter(pl.col("click") == 1).select("user_id", "item_id", "timestamp")
    steps = (("click", 20, 1.0), ("cart", 30, 0.6), ("purchase", 40, 0.3), ("uncart", 4000, 0.3))
    parts = []
    for action, delay, share in steps:
        kept = clicked.filter(pl.Series(random.random(clicked.height) < share))
        parts.append(kept.with_columns(pl.col("timestamp") + delay, pl.lit(action).alias("action")))
    return pl.concat(parts)


def write_pictures(folder: Path, names: list[str], *, seed: int = 0, size: int = 24) -> None:
    """Draw `size` x `size` pictures: a patch of one colour on a background of another."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        ground, patch = random.integers(0, 256, (2, 3), dtype=np.uint8)
        pixels = np.tile(ground, (size, size, 1))
        pixels[size // 4 : -size // 4, size // 3 : -size // 6] = patch
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
