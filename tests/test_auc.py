import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from metrics.auc import auc

FLOATS = st.floats(allow_nan=False, width=64)
TIED = st.integers(-3, 3).map(float)


def pairs_won(click, score):
    """AUC by its definition, pair by pair."""
    won = [
        1.0 if c > n else 0.5 if c == n else 0.0
        for c, y in zip(score, click, strict=True)
        if y
        for n, z in zip(score, click, strict=True)
        if not z
    ]
    return sum(won) / len(won) if won else float("nan")


@pytest.mark.parametrize("click, score, expected", [
    ([0, 1], [0.1, 0.2], 1.0),
    ([1, 0], [0.1, 0.2], 0.0),
    ([1, 0], [7.0, 7.0], 0.5),
    ([1, 0, 0, 0], [0.5, 0.5, 0.1, 0.9], (0.5 + 1 + 0) / 3),
    ([1, 1, 0], [0.0, -0.0, 0.0], 0.5),
    ([1, 0, 1, 0], [np.inf, 1.0, -np.inf, -1.0], 2 / 4),
])  # fmt: skip
def test_small_cases_have_closed_forms(click, score, expected):
    assert auc(np.array(click), np.array(score)) == expected


@given(st.lists(st.tuples(st.booleans(), FLOATS | TIED), max_size=12))
def test_auc_is_the_share_of_pairs_won(rows):
    click, score = np.array([c for c, _ in rows], int), np.array([s for _, s in rows], float)
    np.testing.assert_allclose(auc(click, score), pairs_won(click, score), rtol=1e-15)


@given(st.data())
def test_auc_agrees_with_scikit_learn_with_ties(data):
    rows = data.draw(st.integers(2, 200))
    seed = data.draw(st.integers(0, 2**32))
    levels = data.draw(st.sampled_from([2, 10, 10**6]))
    random = np.random.default_rng(seed)
    click = random.integers(2, size=rows)
    click[:2] = 0, 1
    score = random.integers(levels, size=rows) / 7
    assert abs(auc(click, score) - roc_auc_score(click, score)) < 1e-12


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, bool])
def test_scores_of_every_type_can_be_ranked(dtype):
    random = np.random.default_rng(0)
    click, score = random.integers(2, size=500), (random.normal(size=500) * 3).astype(dtype)
    assert abs(auc(click, score) - roc_auc_score(click, score)) < 1e-12


def test_scores_that_differ_in_the_last_bit_only_are_not_tied():
    assert auc(np.array([0, 1]), np.array([1.0, np.nextafter(1.0, 2.0)])) == 1.0
    assert auc(np.array([0, 1]), np.array([2**53, 2**53 + 1])) == 1.0


def test_scores_too_small_or_large_for_float32_still_rank():
    assert auc(np.array([0, 1, 0, 1]), np.array([1e-300, 2e-300, 1e300, 2e300])) == 3 / 4


@given(st.integers(0, 2**32), st.integers(2, 50))
def test_a_constant_score_ranks_nothing(seed, rows):
    click = np.random.default_rng(seed).permutation(np.arange(rows) % 2)
    assert auc(click, np.full(rows, 0.3)) == 0.5


@given(st.integers(0, 2**32))
def test_row_order_changes_nothing_and_negated_scores_give_the_complement(seed):
    random = np.random.default_rng(seed)
    click, score = random.integers(2, size=40), random.integers(8, size=40).astype(float)
    shuffled = random.permutation(40)
    value = auc(click, score)
    np.testing.assert_equal(auc(click[shuffled], score[shuffled]), value)
    np.testing.assert_allclose(auc(click, -score), 1 - value, atol=1e-15)


@pytest.mark.parametrize("click", [[0, 0], [1, 1], []])
def test_one_class_has_no_auc(click):
    assert np.isnan(auc(np.array(click, int), np.zeros(len(click))))


@pytest.mark.parametrize("click, score, message", [
    ([0, 1], [0.5], "one length"),
    ([[0, 1]], [[0.5, 0.2]], "vectors"),
    ([0, 2], [0.5, 0.1], "row 1: label"),
    ([0, np.nan], [0.5, 0.1], "row 1: label"),
    ([0, 1, 1], [0.5, 0.1, np.nan], "row 2: the score is NaN"),
])  # fmt: skip
def test_bad_input_is_refused_with_its_row(click, score, message):
    with pytest.raises(ValueError, match=message):
        auc(np.array(click), np.array(score))
