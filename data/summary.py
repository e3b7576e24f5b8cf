"""What a shop holds, as lines of text for `data.validate`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import polars as pl

from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from data.log.events import ACTIONS, CLICK
from data.log.histories import History, cart_history, click_history, purchase_history
from data.log.shop_folder import SPLITS, Shop
from data.log.tables import IMPRESSIONS
from data.origin import negatives_of, origin_of
from metrics.auc import auc


def summary(shop: Shop) -> Iterator[tuple[str, str]]:
    """What a shop holds, as lines of (what, value)."""
    items, impressions, sessions = shop.items.height, shop.impressions.height, len(shop.session_time)
    yield "items", number(items)
    yield "items without picture", part(shop.items["image"].null_count(), items)
    if "title" in shop.items.columns:
        yield "titles missing", part(shop.items["title"].null_count(), items)
    else:
        yield "titles missing", "no column 'title'"
    yield "categories", number(len(shop.category_names))
    yield "users", number(shop.users.height)
    yield "impressions", f"{number(impressions)} since {_day(shop.impressions['timestamp'].min())}"
    yield "last impression", _day(shop.impressions["timestamp"].max())
    yield "click rate", f"{shop.click.mean():.4f}"
    if "own_score" in shop.impressions.columns:
        score = shop.impressions["own_score"].cast(pl.Float64).to_numpy()
        yield "own score", f"AUC {auc(shop.click, score):.4f}, mean {score.mean():.4f}"
    if (origin := origin_of(shop.folder)) is not None:
        refused = sum(origin["rows_refused"].values())
        yield "converted from", f"{origin['source']}; {negatives_of(origin)}; {number(refused)} bad rows left out"
    yield "sessions", f"{number(sessions)}, {impressions / sessions:.1f} impressions each"
    yield "one-class sessions", f"{part(one_class_sessions(shop), sessions)}: they cannot count in GAUC"
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(shop.session_split == code)
        if len(members):
            first, last = shop.session_time[members].min(), shop.session_time[members].max()
            yield f"split {name}", f"{part(len(shop.rows(name)), impressions)}, {_day(first)} to {_day(last)}"
        else:
            yield f"split {name}", "none"
    if not shop.split_is_ordered:
        yield "splits in time order", "no: allowed by --allow-unordered-split"
    for name, log in zip(ACTIONS, shop.events.logs, strict=True):
        yield f"{name} events", number(len(log))
    yield "click history from", _click_source(shop)
    longest = max(1, len(shop.events))
    yield "clicks before a session", _lengths(click_history(shop, max_items=longest))
    if shop.item_category is not None and shop.session_category is not None:
        yield "clicks in its category", _lengths(click_history(shop, max_items=longest, scope="category"))
    yield "purchases before", _lengths(purchase_history(shop, max_items=longest))
    yield "cart events before", _lengths(cart_history(shop, max_items=longest))
    for name, frame, reserved in (
        ("item", shop.items, ITEM_RESERVED),
        ("user", shop.users, USER_RESERVED),
        ("context", shop.impressions, IMPRESSION_RESERVED),
    ):
        found = feature_columns(frame, reserved=reserved)
        yield f"{name} features", f"categorical {_list(found.categorical)}; numeric {_list(found.numeric)}"


def _click_source(shop: Shop) -> str:
    if shop.clicks_from == IMPRESSIONS:
        present = (shop.folder / "events.parquet").exists()
        return f"{IMPRESSIONS}: {'events.parquet holds no click' if present else 'there is no events.parquet'}"
    clicks, clicked = len(shop.events.logs[CLICK]), int(shop.click.sum())
    return f"{shop.clicks_from}: {number(clicks)} in place of the {number(clicked)} of {IMPRESSIONS}"


def one_class_sessions(shop: Shop) -> int:
    """Sessions in which nothing or everything was clicked."""
    shown = np.bincount(shop.session, minlength=len(shop.session_time))
    clicked = np.bincount(shop.session, weights=shop.click, minlength=len(shop.session_time))
    return int(((clicked == 0) | (clicked == shown)).sum())


def _lengths(history: History) -> str:
    lengths: np.ndarray = history.lengths()
    none = part(int((lengths == 0).sum()), len(lengths))
    return f"median {np.median(lengths):,.0f}, p90 {np.quantile(lengths, 0.9):,.0f}, none {none}"


def number(count: int) -> str:
    return f"{count:,}"


def part(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / max(total, 1):.1f} %)"


def _day(seconds: object) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M")  # type: ignore[call-overload]


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
