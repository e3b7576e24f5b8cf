"""What a log says of items and users at one moment, as arrays on disk: what `ctr.inputs.statistics` counts, read by a scorer.

Legend: N items, U users, V values of a column, C matched columns (the item itself first), n items of a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ctr.inputs.dense import LogFeatures
from ctr.inputs.encode import EncodedCatalogue
from ctr.inputs.statistics import Activity, Group, GroupCounts, recent_counts, statistic_values
from ctr.serving.lookup import Lookup, mapped, open_lookup, save_array, write_lookup
from data.log.co_occurrence import CoOccurrence
from run.files import read_json, write_json

FOLDER = "log"
_FACTS = "log.json"


@dataclass(frozen=True, kw_only=True)
class LogSnapshot:
    """A log at one moment, mapped from the disk."""

    codes: np.ndarray  # (N, C) int32: which value of each matched column an item has, from 1 on; 0: missing
    values: list[Lookup]  # of each column after the first: a value's code
    counts: list[np.ndarray]  # for each column (V, 4) int64, a GroupCounts per value; empty without statistics
    first: np.ndarray  # (N,) int64 Unix s of each item's first impression
    user_counts: np.ndarray  # (U, 4) int64
    user_events: np.ndarray  # (U, 3) int64 events by action
    user_clicked: np.ndarray  # (U,) int64 Unix s of the last click; -1 without one
    together: CoOccurrence | None
    rate: float  # the log's click rate
    moment: int  # Unix s of the snapshot
    lag: int  # s by which the counts are older
    since: int  # Unix s from which on sessions read co-occurrence

    def item_codes(self, numbers: np.ndarray, described: np.ndarray, columns: Sequence[pl.Series]) -> np.ndarray:
        """(n, C) int32 codes of a request's items; equal codes mean equal values, and those beyond the snapshot's are new ones.

        Args:
            numbers: (n,) of known items; -1 for others.
            described: (n,) bool, the request gives the item's columns.
            columns: for each column after the first the values of the described items, in their order.
        """
        known = np.maximum(numbers, 0)
        codes = np.where((numbers >= 0)[:, None], self.codes[known], 0).astype(np.int32)
        new = np.flatnonzero(numbers < 0)
        codes[new, 0] = len(self.codes) + 1 + np.arange(len(new))
        for place, (column, lookup) in enumerate(zip(columns, self.values, strict=True), 1):
            codes[described, place] = _codes(column, lookup)
        return codes

    def statistics(self, codes: np.ndarray, user: int, at: int | None, clicked_at: Sequence[int], events: Sequence[int]) -> np.ndarray:
        """(n, K) float32 statistics of candidates, not standardised.

        Args:
            codes: (n, C) of the candidates.
            user: the user's number; -1 if unknown.
            at: Unix s of the request; None: the snapshot's moment.
            clicked_at: Unix s of the clicks that the request gives, where it gives times.
            events: how many items each history of the request has; a snapshot that knows fewer events of the user is older.
        """
        moment = (self.moment if at is None else at) - self.lag
        groups = [_rows(counts, codes[:, place] - 1) for place, counts in enumerate(self.counts)]
        known = user >= 0
        mine = self.user_counts[user] if known else np.zeros(4, np.int64)
        groups.append(GroupCounts(*np.broadcast_to(mine[:, None], (4, len(codes)))))
        in_catalogue = codes[:, 0] <= len(self.first)
        age = np.where(in_catalogue, moment - self.first[np.where(in_catalogue, codes[:, 0] - 1, 0)], -1)
        before = [time for time in clicked_at if time < moment]
        last = max([int(self.user_clicked[user]) if known else -1, *before])
        done = np.maximum(self.user_events[user] if known else 0, np.asarray(events))
        activity = Activity(np.broadcast_to(done, (len(codes), len(done))), np.full(len(codes), moment - last if last >= 0 else -1))
        return statistic_values(groups, np.full(len(codes), self.rate), age, activity)


def write_snapshot(folder: Path, catalogue: EncodedCatalogue, items: pl.DataFrame, columns: Sequence[str], moment: int) -> None:
    """Write a catalogue's log at one moment (Unix s) into `folder`."""
    features = catalogue.log_features
    folder.mkdir(parents=True, exist_ok=True)
    save_array(folder / "codes.npy", catalogue.codes)
    for place, name in enumerate(columns, 1):
        write_lookup(folder / f"value-{place}", items[name].drop_nulls().unique().sort(), first=1)
    facts = {"moment": moment, "lag": 0, "rate": 0.5, "since": features.since, "columns": len(columns), "together": False}
    if features.statistics is not None:
        facts |= _write_counts(folder, features, moment)
    if (together := features.together) is not None:
        save_array(folder / "together-key.npy", together.key)
        save_array(folder / "together-score.npy", together.score)
        facts["together"] = True
    write_json(folder / _FACTS, facts)


def _write_counts(folder: Path, features: LogFeatures, moment: int) -> dict[str, float]:
    log = features.statistics
    assert log is not None
    at = moment - log.lag
    for place, group in enumerate(log.item_groups):
        save_array(folder / f"counts-{place}.npy", _at(group, at))
    users = np.arange(len(log.user_group.of))
    activity = log.activity(users, np.full(len(users), at))
    save_array(folder / "user-counts.npy", _at(log.user_group, at))
    save_array(folder / "user-events.npy", activity.events)
    save_array(folder / "user-clicked.npy", np.where(activity.since >= 0, at - activity.since, -1))
    save_array(folder / "first.npy", log.first)
    return {"rate": float(log.rate(np.array([at]))[0]), "lag": log.lag}


def _at(group: Group, moment: int) -> np.ndarray:
    """(V, 4) the counts of all of a grouping's groups before a moment."""
    groups = np.arange(len(group.counts.start) - 1)
    return np.stack(recent_counts(group.counts, groups, np.full(len(groups), moment)), axis=1)


def open_snapshot(folder: Path) -> LogSnapshot:
    """Map what `write_snapshot` wrote."""
    facts = read_json(folder / _FACTS)
    codes = mapped(folder / "codes.npy")
    counted = (folder / "counts-0.npy").exists()
    places = range(facts["columns"] + 1)

    def array(name: str) -> np.ndarray:
        return mapped(folder / f"{name}.npy") if counted else np.zeros(0, np.int64)

    together = None
    if facts["together"]:
        together = CoOccurrence(key=mapped(folder / "together-key.npy"), score=mapped(folder / "together-score.npy"), items=len(codes))
    return LogSnapshot(
        codes=codes,
        values=[open_lookup(folder / f"value-{place}") for place in places[1:]],
        counts=[array(f"counts-{place}") for place in places] if counted else [],
        first=array("first"), user_counts=array("user-counts"), user_events=array("user-events"), user_clicked=array("user-clicked"),
        together=together, rate=facts["rate"], moment=facts["moment"], lag=facts["lag"], since=facts["since"],
    )  # fmt: skip


def _codes(values: pl.Series, lookup: Lookup) -> np.ndarray:
    """(n,) int32 codes of values: 0 for null, and for values that the lookup does not know numbers of their own after its last."""
    codes = lookup(values)
    codes[values.is_null().to_numpy()] = 0
    new = np.flatnonzero(codes < 0)
    if len(new):
        distinct = values.gather(new).rank("dense").to_numpy().astype(np.int64)
        codes[new] = len(lookup.hashes) + distinct
    return codes


def _rows(counts: np.ndarray, index: np.ndarray) -> GroupCounts:
    """The counts of groups (n,); zeros where a group is none of the snapshot's."""
    inside = (index >= 0) & (index < len(counts))
    return GroupCounts(*np.where(inside[:, None], counts[np.where(inside, index, 0)], 0).T)
