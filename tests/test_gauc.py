import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.auc import auc
from metrics.gauc import gauc, group_auc

CLICK = np.array([1, 0, 1, 0, 0, 1, 0, 0])
SCORE = np.array([0.9, 0.1, 0.2, 0.2, 0.1, 0.5, 0.5, 0.5])
GROUP = np.array([5, 5, 3, 3, 3, 9, 7, 7])  # 5: AUC 1; 3: 0.75; 9 and 7 are of one class


def log(seed, rows=300, groups=40):
    random = np.random.default_rng(seed)
    return random.integers(2, size=rows), random.integers(6, size=rows) / 5, random.integers(groups, size=rows)


def test_each_group_has_its_own_auc():
    groups = group_auc(CLICK, SCORE, GROUP)
    np.testing.assert_array_equal(groups.group, [3, 5, 7, 9])
    np.testing.assert_array_equal(groups.auc, [0.75, 1.0, np.nan, np.nan])
    np.testing.assert_array_equal(groups.impressions, [3, 2, 2, 1])


def test_the_plain_mean_counts_each_scored_group_once():
    result = gauc(CLICK, SCORE, GROUP)
    assert (result.value, result.sessions_scored, result.sessions_one_class) == ((1 + 0.75) / 2, 2, 2)


def test_the_impression_weight_counts_rows_of_scored_groups_only():
    assert gauc(CLICK, SCORE, GROUP, weight="impression").value == (2 * 1 + 3 * 0.75) / 5


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_a_group_auc_is_the_auc_of_the_groups_rows(seed, groups):
    click, score, group = log(seed, groups=groups)
    found = group_auc(click, score, group)
    expected = [auc(click[group == g], score[group == g]) for g in found.group]
    np.testing.assert_allclose(found.auc, expected, atol=1e-15)
    np.testing.assert_array_equal(found.group, np.unique(group))


@given(st.integers(0, 2**32))
def test_row_order_changes_nothing(seed):
    click, score, group = log(seed)
    shuffled = np.random.default_rng(seed).permutation(len(click))
    assert gauc(click[shuffled], score[shuffled], group[shuffled]) == gauc(click, score, group)


@given(st.integers(0, 2**32))
def test_a_monotone_map_within_each_group_changes_nothing(seed):
    click, score, group = log(seed)
    assert gauc(click, np.exp(score) * (group + 1) - 50 * group, group) == gauc(click, score, group)


@pytest.mark.parametrize("ids", [
    lambda group: group.astype(str),
    lambda group: group.astype(np.int8) - 100,
    lambda group: group.astype(np.uint64) + np.uint64(2**63),
    lambda group: group * 10**12 - 5 * 10**12,
    lambda group: group / 3,
    lambda group: np.array([f"session {g:03d}" for g in group], dtype=object),
])  # fmt: skip
def test_any_kind_of_id_names_a_group(ids):
    click, score, group = log(0)
    found = group_auc(click, score, ids(group))
    expected = {str(i): a for i, a in zip(np.unique(ids(group)), found.auc, strict=True)}
    for g in np.unique(group):
        rows = group == g
        np.testing.assert_equal(expected[str(ids(group)[rows][0])], auc(click[rows], score[rows]))
    assert found.group.dtype == ids(group).dtype


@pytest.mark.parametrize("click, scored, one_class", [([0, 0, 0], 0, 2), ([], 0, 0)])
def test_no_group_to_score_gives_nan(click, scored, one_class):
    result = gauc(np.array(click, int), np.zeros(len(click)), np.array([1, 1, 2][: len(click)], int))
    assert np.isnan(result.value)
    assert (result.sessions_scored, result.sessions_one_class) == (scored, one_class)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="give each row its group"):
        gauc(CLICK, SCORE, GROUP[1:])
    with pytest.raises(ValueError, match="NaN"):
        gauc(CLICK, np.full(8, np.nan), GROUP)
    with pytest.raises(ValueError, match="no GAUC weight 'user'"):
        gauc(CLICK, SCORE, GROUP, weight="user")  # pyright: ignore[reportArgumentType]


def test_a_million_rows_need_no_loop_over_groups():
    random = np.random.default_rng(0)
    click, score = random.integers(2, size=10**6), random.random(10**6)
    group = random.integers(3 * 10**5, size=10**6)
    start = time.perf_counter()
    gauc(click, score, group)
    assert time.perf_counter() - start < 3  # 0.2 s here; a loop over 300,000 groups takes 10 s and more


def test_metrics_need_numpy_only():
    code = "import sys, metrics.intervals; print({'torch', 'sklearn', 'scipy', 'polars', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
