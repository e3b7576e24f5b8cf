"""Sessions to splits: pretrain < train < valid < test in time, cut at session borders; or as a `split` column gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.log.tables import IMPRESSIONS
from run.errors import DataError, SettingError

SPLITS = ("pretrain", "train", "valid", "test")
NEEDED = ("train", "valid", "test")
FRACTIONS = (0.4, 0.4, 0.1, 0.1)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that are not four numbers from 0 to 1 with sum 1."""
    numbers = [float(part) for part in fractions]
    good = len(numbers) == len(SPLITS) and all(0 <= part <= 1 for part in numbers) and abs(sum(numbers) - 1) < 1e-6
    if not good:
        fix = f"give {len(SPLITS)} numbers from 0 to 1 with sum 1, for {', '.join(SPLITS)}, as in --split-fractions 0.4 0.4 0.1 0.1"
        raise SettingError("split_fractions", ",".join(str(part) for part in fractions), fix)


def split_by_time(sizes: np.ndarray, fractions: Sequence[float] = FRACTIONS) -> np.ndarray:
    """Cut sessions in time order, each split getting its fraction of the impressions.

    A session belongs to the split in which its middle impression falls, so no border is off by more than half a session.

    Args:
        sizes: (S,) impressions of each session, sessions in time order.
        fractions: of the impressions, one for each of SPLITS.

    Returns:
        (S,) int8 index into SPLITS, non-decreasing.
    """
    check_fractions(fractions)
    ends = np.cumsum(sizes, dtype=np.float64)
    borders = np.cumsum(fractions, dtype=np.float64)[:-1] * (ends[-1] if len(ends) else 0.0)
    return np.searchsorted(borders, ends - np.asarray(sizes) / 2, side="right").astype(np.int8)


def is_ordered(split: np.ndarray, time: np.ndarray) -> bool:
    """Whether no session of an earlier split starts after one of a later split."""
    return _out_of_order(split, time) is None


def check_order(split: np.ndarray, time: np.ndarray, first_row: np.ndarray) -> None:
    """Refuse a split that goes back in time.

    Args:
        split: (S,) index into SPLITS.
        time: (S,) Unix s.
        first_row: (S,) each session's first row in the file, for the message.
    """
    wrong = _out_of_order(split, time)
    if wrong is not None:
        late, early = wrong
        fix = (
            f"starts at {time[late]}, after '{SPLITS[split[early]]}' began (row {first_row[early]}, {time[early]}); "
            "order the splits in time, or give --allow-unordered-split"
        )
        raise DataError(IMPRESSIONS, row=int(first_row[late]), column="split", value=SPLITS[split[late]], fix=fix)


def check_complete(split: np.ndarray, *, by_column: bool) -> None:
    """Refuse a division in which train, valid or test has no session."""
    for name in NEEDED:
        if not np.any(split == SPLITS.index(name)):
            if by_column:
                raise DataError(IMPRESSIONS, column="split", fix=f"no row has '{name}'; train, valid and test need rows")
            fix = f"{len(split)} sessions leave split '{name}' empty; give more sessions or other --split-fractions"
            raise DataError(IMPRESSIONS, fix=fix)


def _out_of_order(split: np.ndarray, time: np.ndarray) -> tuple[int, int] | None:
    """Two sessions (late one of an earlier split, early one of a later split), or None."""
    for number in range(1, len(SPLITS)):
        before, after = np.flatnonzero(split < number), np.flatnonzero(split == number)
        if len(before) and len(after):
            late, early = before[np.argmax(time[before])], after[np.argmin(time[after])]
            if time[late] > time[early]:
                return int(late), int(early)
    return None
