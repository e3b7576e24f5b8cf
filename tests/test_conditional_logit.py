"""Conditional logit: its objective as a loop over clicks, a maximum that no direction improves, and weights found again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.conditional_logit import conditional_logit


def pages(seed, *, weights, count=300, shown=6, more=0.05):
    """Pages on each of which impressions are clicked with chances exp(w x), and columns x."""
    rng = np.random.default_rng(seed)
    page = np.repeat(rng.permutation(count) * 7, shown)
    columns = rng.normal(3, (1, 20)[: len(weights)] + (0.1,) * (len(weights) - 2), size=(len(page), len(weights)))
    logit = columns @ weights
    gumbel = rng.gumbel(size=len(page))
    best = {number: max(np.flatnonzero(page == number), key=lambda row: logit[row] + gumbel[row]) for number in np.unique(page)}
    click = np.zeros(len(page), dtype=np.int64)
    click[list(best.values())] = 1
    click[rng.random(len(page)) < more] = 1  # some pages have several clicks
    click[page == page[0]] = 1  # one has nothing else
    return columns, click, page


def slow_objective(columns, click, page, weight):
    total = 0.0
    used = [row for row in range(len(page)) if {0, 1} <= set(click[page == page[row]])]
    for row in used:
        if click[row]:
            unclicked = [other for other in used if page[other] == page[row] and not click[other]]
            total += columns[row] @ weight - np.log(sum(np.exp(columns[other] @ weight) for other in [row, *unclicked]))
    return total - (columns[used].std(0) * weight) @ (columns[used].std(0) * weight) / 2


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_direction_improves_the_objective(seed):
    columns, click, page = pages(seed, weights=np.array([0.8, -0.05]), count=25)
    order = np.random.default_rng(seed).permutation(len(page))  # impressions in any order
    found = conditional_logit(columns[order], click[order], page[order])
    best = slow_objective(columns, click, page, found)
    for step in np.array([[1, 0], [0, 0.05], [1, 0.05], [1, -0.05]]):
        for sign in (-1, 1):
            assert slow_objective(columns, click, page, found + sign * 1e-3 * step) < best


def test_weights_are_found_again():
    weights = np.array([1.0, -0.04, 3.0])
    columns, click, page = pages(3, weights=weights, count=4000, shown=8, more=0)
    np.testing.assert_allclose(conditional_logit(columns, click, page), weights, rtol=0.1)


def test_two_impressions_a_page_are_a_logistic_regression_without_intercept():
    """With one column of +1 or -1 for the clicked one: w maximises a log s(2w) + b log s(-2w) - w^2 / 2."""
    first, second = np.array([1.0] * 30 + [-1.0] * 10), np.array([-1.0] * 30 + [1.0] * 10)
    columns, click = np.stack([first, second], 1).reshape(-1, 1), np.tile([1, 0], 40)
    (found,) = conditional_logit(columns, click, np.repeat(np.arange(40), 2))
    s = 1 / (1 + np.exp(-2 * found))
    assert 2 * 30 * (1 - s) - 2 * 10 * s - found == pytest.approx(0, abs=1e-8)


def test_a_column_that_tells_all_has_a_finite_weight_and_one_that_tells_nothing_none():
    columns, click, page = pages(1, weights=np.array([1.0, 0.0]), count=50)
    columns = np.column_stack([click, np.full(len(click), 4.0)])
    found = conditional_logit(columns, click, page)
    assert 1 < found[0] < 20
    assert found[1] == 0


def test_without_a_page_of_both_kinds_there_is_nothing_to_weigh():
    assert conditional_logit(np.ones((4, 2)), np.array([1, 1, 0, 0]), np.array([1, 1, 2, 2])).tolist() == [0, 0]
    assert conditional_logit(np.ones((0, 3)), np.zeros(0), np.zeros(0, int)).tolist() == [0, 0, 0]
