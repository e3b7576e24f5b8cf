"""Exact area under the ROC curve. A tie between a click and a non-click counts one half."""

import numpy as np


def auc(click: np.ndarray, score: np.ndarray) -> float:
    """Share of (click, non-click) pairs in which the click scores higher; a tied pair counts one half.

    The pairs are counted in integers, so the row order never matters: a constant score gives exactly 0.5.

    Args:
        click: (I,) 0 or 1 (any dtype).
        score: (I,) any real numbers, infinities too; only their order matters.

    Returns:
        A number in [0, 1]; nan if all labels are of one class.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or a score is NaN.

    >>> auc([1, 0, 1, 0], [0.9, 0.1, 0.5, 0.5])      # three pairs won, one tied
    0.875
    """
    click, score = checked(click, score)
    positives = int(click.sum())
    pairs = positives * (len(click) - positives)
    if pairs == 0:
        return float("nan")
    key = sort_key(np.zeros(len(click), np.uint64), score, click)
    _, below, below_or_tied = negatives_below(key)
    return (int(below.sum()) + int(below_or_tied.sum())) / (2 * pairs)


def checked(click: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I,) bool clicks and (I,) scores, or a ValueError that names the first bad row."""
    click, score = np.asarray(click), np.asarray(score)
    if click.ndim != 1 or click.shape != score.shape:
        raise ValueError(f"clicks have shape {click.shape}, scores {score.shape}; give two vectors of one length")
    is_click = click == 1
    bad = ~(is_click | (click == 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"row {row}: label {click[row]!r}; labels are 0 or 1")
    missing = np.isnan(score)
    if missing.any():
        raise ValueError(f"row {int(missing.argmax())}: the score is NaN, which has no rank")
    return is_click, score


def sort_key(group: np.ndarray, score: np.ndarray, click: np.ndarray) -> np.ndarray:
    """(I,) sorted uint64 keys: group (31 bits), then score (32), then click (1).

    Sorting plain numbers is about 15 times faster than `np.lexsort`, which moves row numbers too.
    `group` holds codes 0..G-1 as uint64.
    """
    key = (group << np.uint64(33)) | (ordered_code(score).astype(np.uint64) << np.uint64(1)) | click
    key.sort()
    return key


def ordered_code(score: np.ndarray) -> np.ndarray:
    """(I,) uint32 codes in the order of the scores, equal if the scores are equal.

    Scores that float32 holds exactly need no sort: the bits of a float32 are already ordered, up to the sign.
    """
    if score.dtype.kind != "f":
        return _rank(score)
    with np.errstate(over="ignore"):
        single = score.astype(np.float32) + np.float32(0)  # adding 0 turns -0.0 into 0.0: the two are tied
    if not np.array_equal(single, score):
        return _rank(score)
    bits = single.view(np.uint32)
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, ~bits, bits | sign)


def _rank(score: np.ndarray) -> np.ndarray:
    return np.unique(score, return_inverse=True)[1].astype(np.uint32)


def negatives_below(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each click (P of them, in key order): its position in `key` and two counts of non-clicks, int64.

    `below` counts the non-clicks of all groups whose (group, score) is smaller, `below_or_tied` also the tied ones.
    Their sum, minus twice the non-clicks of earlier groups, is twice the number of pairs won.
    """
    is_click = (key & np.uint64(1)).astype(bool)
    seen = np.zeros(len(key) + 1, np.int64)  # seen[i] = non-clicks among the first i keys
    np.cumsum(~is_click, out=seen[1:])
    position = np.flatnonzero(is_click)
    tie_start = np.searchsorted(key, key[position] & ~np.uint64(1))
    return position, seen[tie_start], seen[position]
