"""What a comparison needs of a shop beyond its format: printed by `data.validate`, required by `require_ready` before any training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data.log.histories import click_history, jagged
from data.log.shop_folder import SPLITS, Shop
from run.errors import UserError

CHUNK = 10_000  # sessions whose histories are read together
FEWEST = 2  # page views, and items with a picture, that an encoder can be trained on


def require_ready(shop: Shop, *, trains_encoders: bool) -> None:
    """Refuse a shop that a comparison cannot use.

    Args:
        trains_encoders: some of its encoders are trained on this shop, so its pretraining period matters.

    Raises:
        UserError: the first of `problems`.
    """
    for problem in problems(shop, trains_encoders=trains_encoders):
        raise UserError(f"{shop.folder}: {problem}")


def problems(shop: Shop, *, trains_encoders: bool = True) -> Iterator[str]:
    """Why a comparison would stop, each with its fix; nothing if it can proceed."""
    sessions = len(shop.session_time)
    if problem := _one_class_training(shop):
        yield problem
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
            "a comparison needs test impressions of at least two users, since its intervals resample users, and all are of one: "
            f"check that user_id distinguishes people, else {_more(shop, 'test')}"
        )
    if trains_encoders:
        yield from _pretraining(shop)


def scorable_sessions(shop: Shop, split: str) -> int:
    """How many sessions of a split have both a click and a skipped item, and so enter GAUC."""
    rows = shop.rows(split)
    clicks = np.bincount(shop.session[rows], weights=shop.click[rows], minlength=1)
    shown = np.bincount(shop.session[rows], minlength=1)
    return int(((clicks > 0) & (clicks < shown)).sum())


def check_scorable(shop: Shop, split: str) -> None:
    """Refuse a split in which no session has both a click and a skipped item: GAUC is undefined there.

    Raises:
        UserError: names the folder and the split.
    """
    if scorable_sessions(shop, split) == 0:
        raise UserError(
            f"{shop.folder}: no {split} session has both a click and a skipped item, so nothing can be ranked; log longer sessions"
        )


def check_learnable(shop: Shop) -> None:
    """Refuse a train split without a click, or of clicks alone: a CTR model can learn nothing from it.

    Raises:
        UserError: names the folder.
    """
    if problem := _one_class_training(shop):
        raise UserError(f"{shop.folder}: {problem}")


def _one_class_training(shop: Shop) -> str | None:
    click = shop.click[shop.rows("train")]
    if 0 < click.sum() < len(click):
        return None
    missing = "click" if not click.any() else "impression without a click"
    return f"a comparison needs both clicks and skipped items in the train split, and it has no {missing}: {_more(shop, 'train')}"


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
