"""What a comparison needs of a shop beyond its format, and what looks wrong in one: sentences for `data.validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.leaks import leaky_columns
from data.log.histories import click_history, jagged
from data.log.shop_folder import SPLITS, Shop
from data.log.split import scorable_sessions
from data.log.tables import TABLES

DAY = 86_400  # seconds; a page of results is looked at for minutes
CHUNK = 10_000  # sessions whose histories are looked at together
FEWEST = 2  # page views, and items with a picture, that an encoder can be trained on


def problems(shop: Shop) -> Iterator[str]:
    """Why a comparison would stop, each with its fix; nothing where it can go on."""
    sessions = len(shop.session_time)
    if len(shop.session) == sessions:
        yield (
            "a comparison needs sessions in which items compete, but each session has one impression: "
            "give all impressions of one page of results the same session_id"
        )
    else:
        for split in ("valid", "test"):
            if scorable_sessions(shop, split) == 0:
                yield f"a comparison needs a {split} session with both a click and a skipped item, and there is none: {_more(shop, split)}"
    if len(np.unique(shop.user[shop.rows("test")])) < 2:
        yield (
            "a comparison needs test impressions of at least two users, between whom its intervals are drawn, and all are of one: "
            f"check that user_id tells people apart, else {_more(shop, 'test')}"
        )
    yield from _pretraining(shop)


def warnings(shop: Shop) -> Iterator[str]:
    """What a comparison would take, but is hardly meant so."""
    for name, value in leaky_columns(shop).items():
        yield (
            f"impressions.parquet, column '{name}': alone it ranks clicks with AUC {value:.3f}; was it known before the click? "
            "Drop it if not, as with dwell times, orders and ranks given afterwards"
        )
    last = np.zeros(len(shop.session_time), dtype=np.int64)
    np.maximum.at(last, shop.session, shop.impressions["timestamp"].to_numpy())
    long = np.count_nonzero(last - shop.session_time > DAY)
    if 2 * long > len(last):
        yield (
            f"impressions.parquet, column 'session_id': {long:,} of {len(last):,} sessions last longer than a day; is it the user's? "
            "A session is one page of results, and what happens after its first impression is unseen in all of it"
        )
    for path in sorted(shop.folder.iterdir()):
        if any(path.stem == Path(table).stem and not (shop.folder / table).exists() for table in TABLES):
            yield f"{path.name} is not read: write it as {path.stem}.parquet, or move it away"


def _pretraining(shop: Shop) -> Iterator[str]:
    """What the encoders lack: pictures shown before the CTR model's period, and clicks that follow clicks on pictures."""
    has_picture = shop.items["image"].is_not_null().to_numpy()
    rows = shop.rows("pretrain")
    rows = rows[has_picture[shop.item[rows]]]
    pictures = len(np.unique(shop.item[rows]))
    if pictures < FEWEST:
        yield (
            f"a comparison needs at least {FEWEST} items with a picture shown in the pretraining period, and there are {pictures}: "
            f"{_more(shop, 'pretrain')}, or give more items an image"
        )
        return
    clicks = click_history(shop, max_items=max(1, len(shop.events)))
    clicked = np.unique(shop.session[rows[shop.click[rows] == 1]])
    useful = sum(
        np.count_nonzero(np.logical_or.reduceat(np.append(has_picture[items], False), np.cumsum(lengths) - lengths) & (lengths > 0))
        for items, lengths in (jagged(clicks, clicked[at : at + CHUNK]) for at in range(0, len(clicked), CHUNK))
    )
    if useful < FEWEST:
        yield (
            f"a comparison needs at least {FEWEST} sessions of the pretraining period that have a click and earlier clicks of their user, "
            f"on items with a picture, and there are {useful}: {_more(shop, 'pretrain')}, or give earlier clicks in events.parquet"
        )


def _more(shop: Shop, split: str) -> str:
    """How a split gets more sessions."""
    assert split in SPLITS
    if "split" in shop.impressions.columns:
        return f"give more sessions the split '{split}'"
    return f"log more, or give {split} a larger part by --split-fractions"
