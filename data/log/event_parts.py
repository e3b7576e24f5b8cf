"""An event log larger than memory: partitioned on disk by ranges of users, each part sorted in memory, joined by action.

Legend: E events, U users, P parts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data.arrays.array_storage import NpyWriter, append_to, mapped
from data.arrays.time_keys import argsort_by_group_and_time
from data.log.events import ACTIONS, ActionLog, EventRows, Events
from run.progress import Progress

RECORD = np.dtype([("user", "<i4"), ("item", "<i4"), ("time", "<i8"), ("action", "i1")])
ARRAYS = {"item": np.int32, "time": np.int64, "start": np.int64}  # of an ActionLog


class EventParts:
    """Files of events, one for each range of users.

    Args:
        folder: created here, for the files.
        cuts: (P + 1,) ascending; part p holds users from cuts[p] to cuts[p + 1] - 1.
        most: the largest number of events to sort at a time.
    """

    def __init__(self, folder: Path, cuts: np.ndarray, most: int):
        self.folder, self.cuts, self.most = folder, cuts, most
        folder.mkdir()

    def path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.bin"

    def append(self, rows: EventRows) -> None:
        """Append events to their parts, in the order given."""
        part = np.searchsorted(self.cuts, rows.user, side="right") - 1
        records = np.empty(len(part), RECORD)
        for name, column in zip(RECORD.names or (), rows, strict=True):
            records[name] = column
        by_part = np.argsort(part.astype(np.uint16), kind="stable")  # numpy sorts 16 bits by counting, not by comparing
        records, ends = records[by_part], np.cumsum(np.bincount(part, minlength=len(self.cuts) - 1))
        for number in np.unique(part):
            with open(self.path(number), "ab") as file:
                append_to(file, self.path(number), records[ends[number - 1] if number else 0 : ends[number]])

    def take(self, part: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The cuts and events (records) of a part, or of the finer parts that a too large one is split into. Its files are deleted."""
        path, cuts = self.path(part), self.cuts[part : part + 2]
        count = os.path.getsize(path) // RECORD.itemsize if path.exists() else 0
        if count <= 2 * self.most or cuts[1] - cuts[0] == 1:
            yield cuts, np.fromfile(path, RECORD) if count else np.zeros(0, RECORD)
        else:
            finer = EventParts(self.folder / f"{part:06d}", even_cuts(self._counts(path, cuts), cuts[0], self.most), self.most)
            for rows in self._chunks(path):
                finer.append(EventRows(*(rows[name] for name in RECORD.names or ())))
            path.unlink()
            for number in range(len(finer.cuts) - 1):
                yield from finer.take(number)
        path.unlink(missing_ok=True)

    def _counts(self, path: Path, cuts: np.ndarray) -> np.ndarray:
        counts = np.zeros(cuts[1] - cuts[0], dtype=np.int64)
        for rows in self._chunks(path):
            counts += np.bincount(rows["user"] - cuts[0], minlength=len(counts))
        return counts

    def _chunks(self, path: Path) -> Iterator[np.ndarray]:
        with open(path, "rb") as file:
            while len(rows := np.fromfile(file, RECORD, count=self.most)):
                yield rows


def equal_ranges(users: int, events: int, most: int) -> np.ndarray:
    """Cuts between ranges of equally many users, for parts of about `most` events if all users have equally many."""
    parts = min(max(1, -(-events // most)), users, 1 << 15)
    return np.linspace(0, users, parts + 1).astype(np.int64)


def even_cuts(counts: np.ndarray, first: int, most: int) -> np.ndarray:
    """Cuts between ranges of about `most` events each.

    >>> even_cuts(np.array([1, 30, 0, 2]), 10, most=10).tolist()
    [10, 11, 12, 14]

    Args:
        counts: events of user `first`, `first` + 1, ...
    """
    before = np.cumsum(counts) - counts
    crossed = np.flatnonzero(np.diff(before // most)) + 1
    heavy = np.flatnonzero(counts > most)  # each its own part: neighbours' events would make it larger still
    inner = np.unique(np.concatenate([crossed, heavy, heavy + 1]))
    inner = inner[(inner > 0) & (inner < len(counts))]
    return first + np.concatenate([[0], inner, [len(counts)]])


def sort_parts(parts: EventParts, folder: Path, *, users: int, total: int) -> Events:
    """Sort part after part by (action, user, time) and write each action's arrays into `folder`.

    Args:
        total: events in all parts, for the progress bar.
    """
    ends = [0] * len(ACTIONS)
    with Progress("sorting events", total=total, unit="events") as bar, ExitStack() as opened:
        files = [
            {name: opened.enter_context(NpyWriter(_path(folder, action, name), ARRAYS[name])) for name in ARRAYS} for action in ACTIONS
        ]
        for file in files:
            file["start"].append(np.zeros(1, np.int64))
        for part in range(len(parts.cuts) - 1):
            for (low, high), records in parts.take(part):
                for action, file in enumerate(files):
                    rows = records[records["action"] == action]
                    user, time = np.ascontiguousarray(rows["user"]), np.ascontiguousarray(rows["time"])
                    ranking = argsort_by_group_and_time(user, time)
                    file["item"].append(rows["item"][ranking])
                    file["time"].append(time[ranking])
                    file["start"].append(ends[action] + np.cumsum(np.bincount(user - low, minlength=high - low)))
                    ends[action] += len(rows)
                bar.advance(len(records))
    shutil.rmtree(parts.folder)
    assert all(file["start"].count == users + 1 for file in files)
    return open_events(folder)


def open_events(folder: Path) -> Events:
    """The events that `sort_parts` wrote, mapped."""
    logs = tuple(ActionLog(**{name: mapped(_path(folder, action, name)) for name in ARRAYS}) for action in ACTIONS)
    return Events(logs=logs, folder=folder)


def _path(folder: Path, action: str, name: str) -> Path:
    return folder / f"{action}.{name}.npy"
