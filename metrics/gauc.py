"""AUC within groups (search sessions, users) and its mean over the groups."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metrics.auc import checked, negatives_below, sort_key

Weight = Literal["session", "impression"]


@dataclass(frozen=True, kw_only=True)
class GroupAuc:
    """One AUC for each of G groups."""

    auc: np.ndarray  # (G,) float64; nan if the group's labels are of one class
    group: np.ndarray  # (G,) sorted unique ids
    impressions: np.ndarray  # (G,) int64 rows of the group


@dataclass(frozen=True, kw_only=True)
class Gauc:
    """Mean AUC over groups, and the number of groups behind it. The groups are sessions unless the caller chose others."""

    value: float  # nan when no group has both classes
    sessions_scored: int  # groups with both classes
    sessions_one_class: int  # groups left out: only clicks, or none


def group_auc(click: np.ndarray, score: np.ndarray, group: np.ndarray) -> GroupAuc:
    """Exact AUC within every group, ties one half, by one sort and no loop over groups.

    Args:
        click: (I,) 0 or 1.
        score: (I,) any real numbers.
        group: (I,) ids of any sortable kind, in any order.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or a score is NaN.
    """
    click, score = checked(click, score)
    group = np.asarray(group)
    if group.shape != click.shape:
        raise ValueError(f"groups have shape {group.shape}, clicks {click.shape}; give each row its group")
    ids, code = dense_codes(group)
    impressions = np.bincount(code, minlength=len(ids))
    clicks = np.bincount(code, weights=click, minlength=len(ids))
    pairs = clicks * (impressions - clicks)

    key = sort_key(code.astype(np.uint64), score, click)
    position, below, below_or_tied = negatives_below(key)
    owner = (key[position] >> np.uint64(33)).astype(np.int64)
    earlier = np.concatenate([[0], np.cumsum(impressions - clicks)]).astype(np.int64)  # non-clicks of earlier groups
    twice_won = np.bincount(owner, weights=below + below_or_tied - 2 * earlier[owner], minlength=len(ids))
    with np.errstate(invalid="ignore"):
        value = np.where(pairs > 0, twice_won / (2 * pairs), np.nan)
    return GroupAuc(auc=value, group=ids, impressions=impressions)


def gauc(click: np.ndarray, score: np.ndarray, group: np.ndarray, *, weight: Weight = "session") -> Gauc:
    """Mean of the AUC within each group; groups of one class are left out and counted.

    Args:
        click: (I,) 0 or 1.
        score: (I,) any real numbers.
        group: (I,) ids.
        weight: "session", the plain mean over groups (COURIER, arXiv:2306.05001, section 4.2), or "impression",
            each scored group weighted by its rows.

    Raises:
        ValueError: as `group_auc`, or an unknown weight.

    >>> gauc([1, 0, 1, 0, 1], [0.9, 0.1, 0.2, 0.7, 0.3], ["a", "a", "b", "b", "c"])
    Gauc(value=0.5, sessions_scored=2, sessions_one_class=1)
    """
    groups = group_auc(click, score, group)
    scored = ~np.isnan(groups.auc)
    weights = group_weights(groups, weight)[scored]
    value = float((groups.auc[scored] * weights).sum() / weights.sum()) if scored.any() else float("nan")
    return Gauc(value=value, sessions_scored=int(scored.sum()), sessions_one_class=int((~scored).sum()))


def group_weights(groups: GroupAuc, weight: Weight) -> np.ndarray:
    """(G,) float64 weight of each group in the mean; ValueError for an unknown name."""
    if weight == "session":
        return np.ones(len(groups.auc))
    if weight == "impression":
        return groups.impressions.astype(np.float64)
    raise ValueError(f"no GAUC weight {weight!r}; give session or impression")


def dense_codes(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted unique ids (G,) and each row's index into them (I,) int64; without a sort if the ids are dense ints."""
    if len(group) and group.dtype.kind in "iu":
        first, last = int(group.min()), int(group.max())
        if last - first < 4 * len(group):
            wide = np.uint64 if group.dtype.kind == "u" else np.int64
            offset = (group.astype(wide) - wide(first)).astype(np.int64)
            present = np.bincount(offset, minlength=last - first + 1) > 0
            ids = (np.flatnonzero(present).astype(wide) + wide(first)).astype(group.dtype)
            return ids, (np.cumsum(present) - 1)[offset]
    return np.unique(group, return_inverse=True)
