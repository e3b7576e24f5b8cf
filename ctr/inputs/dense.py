"""Numbers of an impression that are computed from the log: statistics and co-occurrence, standardised.

Legend: I impressions, n some of them, K numbers, L newest history items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ctr.config import CtrConfig
from ctr.inputs.statistics import LogStatistics, log_statistics
from ctr.inputs.vocabulary import Scale, fit_scale
from data.arrays.array_storage import scratch
from data.log.co_occurrence import CoOccurrence, co_occurrence
from data.log.histories import History, jagged
from data.log.shop_folder import Shop

NEWEST = (1, 3, 10)  # history items that a target's co-occurrence is read with
_AT_ONCE = 1 << 17  # impressions
_SAMPLE = 1 << 16  # impressions that standardisation is fitted to


@dataclass(frozen=True, kw_only=True)
class LogFeatures:
    """What is known of a log for its impressions' numbers."""

    statistics: LogStatistics | None
    together: CoOccurrence | None
    since: int  # Unix s: `together` counts clicks before it and is read by sessions from it on
    clicks_only: bool  # impressions without a click were sampled, and are in no statistic

    @property
    def names(self) -> tuple[str, ...]:
        """K names."""
        found = () if self.statistics is None else self.statistics.names
        return found if self.together is None else (*found, *together_names())

    def numbers(self, shop: Shop, clicks: History, rows: np.ndarray) -> np.ndarray:
        """(n, K) float32 of the impressions at `rows`, not standardised."""
        session = shop.session[rows]
        parts = [np.zeros((len(rows), 0), np.float32)]
        if self.statistics is not None:
            parts.append(self.statistics.features(shop.item[rows], shop.session_user[session], shop.session_time[session]))
        if self.together is not None:
            sessions, place = np.unique(session, return_inverse=True)
            values, lengths = jagged(clicks, sessions, length=max(NEWEST))
            scored = shop.session_time[session] >= self.since
            parts.append(together_features(self.together, shop.item[rows], values, lengths, place) * scored[:, None])
        return np.concatenate(parts, axis=1)


def together_names() -> tuple[str, ...]:
    """Names of `together_features`' columns."""
    return (*(f"together: mean of newest {newest}" for newest in NEWEST), f"together: most of newest {max(NEWEST)}")


def together_features(together: CoOccurrence, target: np.ndarray, values: np.ndarray, lengths: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(n, 4) float32: co-occurrence of targets with the newest items of a history, 0 without one; its mean over 1, 3, 10 and its maximum.

    Args:
        target: (n,) item indices.
        values: histories of sessions end to end, oldest first, at most max(NEWEST) items each.
        lengths: (S,) of the histories.
        place: (n,) which of the histories is an impression's.
    """
    end = np.cumsum(lengths)[place]
    length, columns = lengths[place], np.zeros((len(target), max(NEWEST)), np.float32)
    for back in range(max(NEWEST)):
        has = np.flatnonzero(length > back)
        columns[has, back] = together.of(values[end[has] - 1 - back], target[has])
    root = np.sqrt(columns)
    means = [root[:, :newest].sum(1) / np.maximum(np.minimum(length, newest), 1) for newest in NEWEST]
    return np.stack([*means, root.max(1)], axis=1).astype(np.float32)


def log_features(shop: Shop, config: CtrConfig, columns: Sequence[str], since: int, *, clicks_only: bool) -> LogFeatures:
    """Count what a model with these settings reads of a log.

    Args:
        columns: categorical columns of items.
        since: Unix s before which clicks count for co-occurrence: the beginning of the train split that the model was trained on.
        clicks_only: as in `log_statistics`.
    """
    return LogFeatures(
        statistics=log_statistics(shop, columns, lag=config.lag, clicks_only=clicks_only) if config.statistics else None,
        together=co_occurrence(shop.events, since, items=len(shop.items)) if config.co_occurrence else None,
        since=since,
        clicks_only=clicks_only,
    )


def fit_numbers(features: LogFeatures, shop: Shop, clicks: History) -> tuple[Scale, ...]:
    """How the numbers are standardised: by the train split, of which a large one is sampled evenly."""
    train = shop.rows("train")
    rows = train[:: max(1, len(train) // _SAMPLE)]
    raw = features.numbers(shop, clicks, rows)
    return tuple(fit_scale(pl.Series(name, raw[:, k]), np.ones(len(raw), bool)) for k, name in enumerate(features.names))


def encode_numbers(features: LogFeatures, scales: tuple[Scale, ...], shop: Shop, clicks: History) -> np.ndarray:
    """(I, K) float32 standardised numbers of all impressions; on disk where the log is."""
    count = len(shop.item)
    out = scratch(count * len(scales), np.float32, shop.events.folder).reshape(count, len(scales))
    mean = np.array([scale.mean for scale in scales])
    deviation = np.array([scale.deviation for scale in scales])
    by_session = shop.by_session[0]
    for at in range(0, count if scales else 0, _AT_ONCE):
        rows = by_session[at : at + _AT_ONCE]
        out[rows] = standardised(features.numbers(shop, clicks, rows), mean, deviation)
    return out


def standardised(raw: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 in the train split, clipped at 5 deviations."""
    return np.clip((raw - mean) / deviation, -5, 5).astype(np.float32)
