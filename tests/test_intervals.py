import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import intervals
from metrics.auc import auc
from metrics.gauc import gauc
from metrics.intervals import (
    Draws,
    Resamples,
    auc_draws,
    difference,
    difference_of_auc,
    difference_of_gauc,
    gauc_draws,
)


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def world(random, *, seeds, seed_noise=0.0, users=60, sessions=3, size=4, signals=(0.8, 0.6), taste=0.8):
    """Clicks and two models' scores (K, I), and the true difference of their AUC, which is that of their GAUC too.

    The truth is Phi(signal / sqrt(2 + taste^2 + seed_noise^2)) for each model. A clicked
    score is N(signal, 1) moved by its user's and its seed's own luck, any other N(0, 1).
    """
    rows = users * sessions * size
    user, group = np.arange(rows) // (sessions * size), np.arange(rows) // size
    click = (np.arange(rows) % size == 0).astype(np.int8)
    shared = random.normal(size=rows)  # luck that both models share
    by_model, truth = [], []
    for signal in signals:
        by_user = random.normal(size=users) * taste
        by_seed = random.normal(size=(seeds, 1)) * seed_noise
        luck = (shared + random.normal(size=rows)) / math.sqrt(2)
        by_model.append(click * (signal + by_user[user] + by_seed) + luck)
        truth.append(normal_cdf(signal / math.sqrt(2 + taste**2 + seed_noise**2)))
    return click, by_model[0], by_model[1], group, user, truth[0] - truth[1]


def log(seed, seeds=2):
    return world(np.random.default_rng(seed), seeds=seeds, seed_noise=0.2, users=20)[:5]


@pytest.mark.parametrize("seeds, seed_noise", [(1, 0.0), (3, 0.22)])  # 0.22: the seeds' noise is that of the users
def test_the_interval_covers_the_true_difference_as_often_as_it_promises(seeds, seed_noise):
    covered = np.zeros(2)
    for number in range(300):
        random = np.random.default_rng([number, seeds])
        click, a, b, group, user, truth = world(random, seeds=seeds, seed_noise=seed_noise)
        resamples = Resamples(user, 300, seed=number)
        by_auc = difference(auc_draws(click, a, resamples), auc_draws(click, b, resamples))
        by_gauc = difference(gauc_draws(click, a, group, resamples), gauc_draws(click, b, group, resamples))
        covered += [i.low <= truth <= i.high for i in (by_auc, by_gauc)]
    assert (covered / 300 >= 0.90).all()
    assert (covered / 300 < 1).all()  # an interval that never misses is too wide


def test_models_that_are_equally_good_rarely_look_different():
    false = 0
    for number in range(200):
        click, a, b, group, user, _ = world(np.random.default_rng(number), seeds=3, seed_noise=0.22, signals=(0.7, 0.7))
        false += difference_of_gauc(click, a, b, group, user, resamples=300, seed=number).p_value < 0.05
    assert 1 <= false <= 20  # 10 expected


@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_scores_differ_by_exactly_zero(seeds):
    click, a, _, group, user = log(0, seeds)
    for interval in (
        difference_of_auc(click, a, a.copy(), user, resamples=100),
        difference_of_gauc(click, a, a.copy(), group, user, resamples=100),
    ):
        assert (interval.mean, interval.low, interval.high, interval.p_value) == (0, 0, 0, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3]))
def test_swapping_the_models_mirrors_the_interval(seed, seeds):
    click, a, b, group, user = log(seed, seeds)
    forth = difference_of_gauc(click, a, b, group, user, resamples=100, seed=seed)
    back = difference_of_gauc(click, b, a, group, user, resamples=100, seed=seed)
    assert (back.mean, back.low, back.high, back.p_value) == (-forth.mean, -forth.high, -forth.low, forth.p_value)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_row_order_and_the_spelling_of_user_ids_change_nothing(seed):
    click, a, b, group, user = log(seed)
    shuffled = np.random.default_rng(seed).permutation(len(click))
    name = np.array([f"user {u:04d}" for u in user])
    for first, second in (
        (
            difference_of_gauc(click, a, b, group, user, resamples=50),
            difference_of_gauc(click[shuffled], a[:, shuffled], b[:, shuffled], group[shuffled], name[shuffled], resamples=50),
        ),
        (
            difference_of_auc(click, a, b, user, resamples=50),
            difference_of_auc(click[shuffled], a[:, shuffled], b[:, shuffled], name[shuffled], resamples=50),
        ),
    ):
        np.testing.assert_allclose([first.low, first.high], [second.low, second.high], atol=1e-12)
        assert first.p_value == second.p_value


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 10**6]))
def test_a_drawn_metric_is_the_metric_of_the_repeated_rows(seed, levels):
    random = np.random.default_rng(seed)
    click, group = random.integers(2, size=60), np.arange(60) // 4
    score, user = random.integers(levels, size=60) / 7, group // 3
    resamples = Resamples(user, 5, seed=seed)
    by_auc, by_gauc = auc_draws(click, score, resamples), gauc_draws(click, score, group, resamples)
    by_weight = gauc_draws(click, score, group, resamples, weight="impression")
    assert by_auc.point == [auc(click, score)]
    assert by_gauc.point == pytest.approx([gauc(click, score, group).value], abs=1e-15)
    for number, counts in enumerate(resamples.counts):
        rows = np.repeat(np.arange(60), counts[user])
        copy = np.concatenate([np.arange(n) for n in counts[user]])  # the same session drawn twice is two sessions
        twice = group[rows] * 100 + copy
        np.testing.assert_allclose(by_auc.drawn[0, number], auc(click[rows], score[rows]), atol=1e-14)
        np.testing.assert_allclose(by_gauc.drawn[0, number], gauc(click[rows], score[rows], twice).value, atol=1e-14)
        expected = gauc(click[rows], score[rows], twice, weight="impression").value
        np.testing.assert_allclose(by_weight.drawn[0, number], expected, atol=1e-14)


def test_chunks_change_nothing(monkeypatch):
    click, a, _, group, user = log(0)
    resamples = Resamples(user, 50)
    at_once = auc_draws(click, a, resamples).drawn, gauc_draws(click, a, group, resamples).drawn
    monkeypatch.setattr(intervals, "CHUNK", 700)
    np.testing.assert_array_equal(auc_draws(click, a, resamples).drawn, at_once[0])
    np.testing.assert_allclose(gauc_draws(click, a, group, resamples).drawn, at_once[1], rtol=1e-14)


def test_one_seed_gives_the_bootstrap_error_of_a_mean():
    random = np.random.default_rng(0)
    users = 400
    won = random.integers(2, size=users)  # one session of one pair each, so the GAUC is a mean of independent 0s and 1s
    click, group = np.tile([1, 0], users), np.repeat(np.arange(users), 2)
    score = np.stack([won, 1 - won], axis=1).ravel()
    interval = difference_of_gauc(click, score, np.zeros(2 * users), group, group, resamples=4000)
    share = won.mean()
    assert interval.mean == pytest.approx(share - 0.5, abs=1e-15)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / users), rel=0.05)


def test_seed_noise_alone_gives_the_interval_of_students_t():
    point = np.array([0.01, 0.02, 0.06])
    a = Draws(point=point, drawn=np.repeat(point[:, None], 20_000, axis=1), seed=0)
    interval = difference(a, Draws(point=0 * point, drawn=0 * a.drawn, seed=0))
    assert interval.mean == pytest.approx(0.03, abs=1e-15)
    # between a normal's 1.96 and Student's 4.30 standard errors: 3 seeds drawn with replacement are no normal
    assert 1.96 < (interval.high - interval.mean) / (point.std(ddof=1) / math.sqrt(3)) < 6
    assert interval.p_value > 0.05  # Student's t gives 0.18, a plain bootstrap less than 1 / 20,000


def test_two_seeds_alone_have_a_p_value_in_closed_form():
    """Differences 0 and 2m: drawn twice with replacement, half the draws deviate by sqrt(2) m / |Z|, the others not."""
    point = np.array([0.0, 0.02])
    a = Draws(point=point, drawn=np.repeat(point[:, None], 40_000, axis=1), seed=0)
    interval = difference(a, Draws(point=0 * point, drawn=0 * a.drawn, seed=0))
    assert interval.p_value == pytest.approx(math.erf(1) / 2, abs=0.01)  # P(|Z| <= sqrt(2)) / 2


def test_more_users_than_pools_give_the_same_standard_error(monkeypatch):
    click, a, b, group, user, _ = world(np.random.default_rng(0), seeds=1, users=3000)
    exact = difference_of_gauc(click, a, b, group, user)
    monkeypatch.setattr(intervals, "MAX_POOLS", 1000)
    pooled = difference_of_gauc(click, a, b, group, user)
    assert Resamples(user, 10).counts.shape == (10, 1000)
    assert pooled.mean == exact.mean
    assert pooled.high - pooled.low == pytest.approx(exact.high - exact.low, rel=0.1)


def test_a_large_log_uses_fewer_resamples_of_the_auc(monkeypatch):
    click, a, _, _, user = log(0)
    monkeypatch.setattr(intervals, "MAX_WEIGHTED_ROWS", 0)
    assert auc_draws(click, a, Resamples(user, 300)).drawn.shape == (2, intervals.MIN_RESAMPLES)


def test_a_p_value_is_never_zero():
    click, _, _, group, user = log(0)
    interval = difference_of_gauc(click, click * 1.0, -click * 1.0, group, user, resamples=99)
    assert (interval.mean, interval.p_value) == (1.0, 1 / 100)


def test_the_seed_decides_the_interval():
    click, a, b, group, user = log(0, seeds=3)
    first, again, other = (difference_of_gauc(click, a, b, group, user, resamples=99, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_where_no_session_is_scored_there_is_no_interval():
    interval = difference_of_gauc(np.zeros(4), np.ones(4), np.zeros(4), np.arange(4), np.arange(4), resamples=9)
    assert all(math.isnan(x) for x in (interval.mean, interval.low, interval.high, interval.p_value))


def test_resamples_without_both_classes_are_left_out():
    click, user = np.array([1, 0, 0, 0]), np.array([0, 1, 2, 3])
    interval = difference_of_auc(click, np.array([2.0, 1, 1, 3]), np.zeros(4), user, resamples=200)
    assert interval.mean == pytest.approx(2 / 3 - 0.5)
    assert interval.low < interval.mean < interval.high


def test_bad_input_is_refused():
    click, a, b, group, user = log(0)
    with pytest.raises(ValueError, match="at least 2"):
        Resamples(np.zeros(5))
    with pytest.raises(ValueError, match="0 resamples"):
        Resamples(user, 0)
    with pytest.raises(ValueError, match="group 0 holds rows of two users"):
        difference_of_gauc(click, a, b, 0 * group, user, resamples=9)
    with pytest.raises(ValueError, match="a column per impression"):
        difference_of_auc(click, a[:, 1:], b[:, 1:], user, resamples=9)
    resamples, others = Resamples(user, 9, seed=0), Resamples(user, 9, seed=1)
    with pytest.raises(ValueError, match="draws differ"):
        difference(auc_draws(click, a, resamples), auc_draws(click, a, others))
    with pytest.raises(ValueError, match="pair the seeds"):
        difference(auc_draws(click, a, resamples), auc_draws(click, a[0], resamples))
