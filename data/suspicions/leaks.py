"""Columns that give the click away: filled in after it, different for sampled skips, or counted over the full log, test part included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from data.arrays.stored_frame import Frame
from data.log.columns import IMPRESSION_RESERVED, feature_columns
from data.log.events import ACTIONS, CLICK
from data.log.shop_folder import SPLITS, Shop
from data.log.tables import IMPRESSIONS, ITEMS, USERS
from data.suspicions.columns import features
from metrics.auc import auc

SUSPICIOUS = 0.95  # AUC; complete CTR models stay well below
FEW_CLICKS = 10  # clicks, and skipped items, below which such an AUC may be chance
CHANCE = 1e-6  # probability below which a column does not have one value for all clicks, or all skips, by chance
ENTITIES = 20  # items or users with a value, below which a correlation may be chance
EXPLAINED = 0.9  # share of a column's rank variance that counts of the full log explain
SURER = 2.0  # how many times more variance counts without validation and test leave unexplained; by noise alone 1 / 0.8


def warnings(shop: Shop) -> Iterator[str]:
    """The warnings of this module."""
    leaky = leaky_columns(shop)
    for name, value in leaky.items():
        yield (
            f"{IMPRESSIONS}, column '{name}': alone it ranks clicks with AUC {value:.3f}; was it known before the click? "
            "Drop it if not, as with dwell times, orders and ranks given afterwards"
        )
    for name, (side, other, value) in one_sided_columns(shop).items():
        if name not in leaky:
            yield (
                f"{IMPRESSIONS}, column '{name}': it is {value!r} for all {side}, but varies among {other}; were {side} made separately, "
                "as sampled negatives are? Fill it the same way for both, or drop it"
            )
    for leak in full_log_columns(shop):
        yield (
            f"{leak.file}, column '{leak.column}': its rank correlation with the {leak.what} of each {leak.entity} is {leak.full:.3f} over "
            f"the full log, but {leak.early:.3f} before validation begins; was it computed from the full log, test clicks included? "
            "Compute it from what came before, or drop it"
        )


def leaky_columns(shop: Shop) -> dict[str, float]:
    """Context features, `query` and `own_score`, that alone rank clicks with an AUC above SUSPICIOUS: name -> AUC, in the table's order.

    Numbers are ranked by value, upwards or downwards, with missing ones first or last. Categories are ranked by the click rate that
    each value has in half of the sessions, scored on the other half: an id of the row or session, seen once, ranks nothing there.
    """
    found = feature_columns(shop.impressions, reserved=IMPRESSION_RESERVED)
    learned = (np.random.default_rng(0).random(len(shop.session_time)) < 0.5)[shop.session]
    highest = {}
    for name in shop.impressions.columns:
        values = shop.impressions[name]
        if name in found.categorical or name == "query":
            highest[name] = _by_rate(values, shop.click, learned)
        if name == "own_score" or name in found.numeric or (name in found.categorical and values.dtype.is_integer()):  # such as seconds
            highest[name] = max(highest.get(name, 0.0), _by_value(values, shop.click))
    return {name: value for name, value in highest.items() if value > SUSPICIOUS}


def one_sided_columns(shop: Shop) -> dict[str, tuple[str, str, object]]:
    """Context features, and `query`, with one value for all clicks but not for all skips, or the reverse: (side, other side, value).

    With p the share of that value on the other side, n rows share it by chance with probability p^n, which must be below CHANCE.
    """
    found = feature_columns(shop.impressions, reserved=IMPRESSION_RESERVED)
    names = [name for name in shop.impressions.columns if name in (*found.categorical, *found.numeric, "query")]
    sides = {"clicks": shop.click == 1, "skips": shop.click == 0}
    out: dict[str, tuple[str, str, object]] = {}
    for name in names:
        values = shop.impressions[name]
        for side, other in (("clicks", "skips"), ("skips", "clicks")):
            here = values.filter(pl.Series(sides[side]))
            if len(here) < FEW_CLICKS or here.n_unique() > 1:
                continue
            there = values.filter(pl.Series(sides[other]))
            share = float(there.eq_missing(here.head(1)).mean() or 0.0)  # type: ignore[arg-type]
            if len(there) >= FEW_CLICKS and len(here) * np.log(max(share, 1e-300)) < np.log(CHANCE):
                out[name] = (side, other, here[0])
    return out


@dataclass(frozen=True, kw_only=True)
class FullLogColumn:
    """A column that agrees with counts of the full log better than any column known before its end could."""

    file: str
    column: str
    entity: str  # item | user
    what: str  # what it agrees with
    full: float  # rank correlation with that over the full log
    early: float  # and over the log without validation and test


def full_log_columns(shop: Shop) -> Iterator[FullLogColumn]:
    """Columns of items, users, and impressions (those with one value for each item or user) that are counts or rates of the full log.

    A column that is not made from later clicks can agree with the full log only through what both have in common with the earlier log:
    its unexplained rank variance falls with the noise of the counts, by 1 / 0.8 with the default splits. One that is a count of the
    full log contains the noise of its last part, and agrees with the full log alone.
    """
    for entity, file, frame, index in (("item", ITEMS, shop.items, shop.item), ("user", USERS, shop.users, shop.user)):
        counts = list(_counts(shop, entity, index, len(frame)))
        for name, where, values in _numbers(shop, file, frame, index):
            for what, full, early in counts:
                usable = ~np.isnan(values) & ~np.isnan(early)
                if np.count_nonzero(usable) < ENTITIES:
                    continue
                now, before = (_rank_correlation(values[usable], counted[usable]) for counted in (full, early))
                if now**2 >= EXPLAINED and 1 - before**2 > max(SURER * (1 - now**2), 1e-6):
                    yield FullLogColumn(file=where, column=name, entity=entity, what=what, full=now, early=before)
                    break


def _counts(shop: Shop, entity: str, index: np.ndarray, size: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What a column may have been counted from: its name, its values over the full log, and before validation (NaN: unseen there)."""
    late = (shop.session_split >= SPLITS.index("valid"))[shop.session]
    shown, clicks = (np.bincount(index, weights=weight, minlength=size) for weight in (None, shop.click))
    seen, clicked = (np.bincount(index[~late], weights=weight, minlength=size) for weight in (None, shop.click[~late]))
    with np.errstate(invalid="ignore", divide="ignore"):
        yield "click rate", clicks / shown, clicked / seen
    yield "clicks", clicks, np.where(seen > 0, clicked, np.nan)
    begin = shop.session_time[shop.session_split >= SPLITS.index("valid")].min()
    for action, log in zip(ACTIONS, shop.events.logs, strict=True):
        if len(log) and (action != ACTIONS[CLICK] or shop.clicks_from != IMPRESSIONS):
            of = log.item if entity == "item" else np.repeat(np.arange(size), np.diff(log.start))
            full, early = np.bincount(of, minlength=size), np.bincount(of[log.time < begin], minlength=size)
            yield f"{action} events", full.astype(float), np.where(early > 0, early, np.nan)


def _numbers(shop: Shop, file: str, frame: Frame, index: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Numeric and integer columns as one float for each item or user, NaN where unknown: (column, file, values)."""
    for where, table, found in features(shop):
        for name in (*found.numeric, *(name for name in found.categorical if table.schema[name].is_integer())):
            if where == file:
                yield name, where, table[name].cast(pl.Float64).to_numpy()
            elif where == IMPRESSIONS:
                each = pl.DataFrame({"of": index, "value": table[name].cast(pl.Float64)}).group_by("of")
                each = each.agg(pl.col("value").min().alias("low"), pl.col("value").max().alias("high"), pl.len().alias("rows"))
                if each["rows"].max() > 1 and (each["low"].eq_missing(each["high"])).all():  # type: ignore[operator]
                    values = np.full(len(frame), np.nan)
                    values[each["of"].to_numpy()] = each["low"].to_numpy()
                    yield name, where, values


def _rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's, ties at their mean rank; 0 if either is constant."""
    value = pl.select(pl.corr(pl.Series(one), pl.Series(two), method="spearman")).item()
    return float(value) if value is not None and np.isfinite(value) else 0.0


def _by_value(values: pl.Series, click: np.ndarray) -> float:
    """The higher AUC of the two directions, missing values first or last."""
    numbers = values.cast(pl.Float64).fill_nan(None)
    ends = (-np.inf, np.inf) if numbers.null_count() else (0.0,)
    upwards = [_auc(click, numbers.fill_null(end).to_numpy()) for end in ends]
    return max(*upwards, *(1 - value for value in upwards))


def _by_rate(values: pl.Series, click: np.ndarray, learned: np.ndarray) -> float:
    """AUC in the rows not `learned` of each value's click rate in those that are, shrunk to the mean with the weight of one impression."""
    if learned.all() or not learned.any():
        return 0.5
    frame = pl.DataFrame({"value": values, "click": click.astype(np.int64) * learned, "shown": learned.astype(np.int64)})
    rate = (pl.col("click").sum().over("value") + click[learned].mean()) / (pl.col("shown").sum().over("value") + 1)
    return _auc(click[~learned], frame.select(rate.alias("rate"))["rate"].to_numpy()[~learned])


def _auc(click: np.ndarray, score: np.ndarray) -> float:
    clicks = int(click.sum())
    return auc(click, score) if min(clicks, len(click) - clicks) >= FEW_CLICKS else 0.5
