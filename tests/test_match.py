"""Match, order and windows: closed forms of what a target shares with a history, and of what a place in it adds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr.model.match import NO_AGE, distances, match_values
from ctr.model.order import gap_bucket, order_buckets, position_bucket, positions, window_shares

AGE = torch.log1p(torch.tensor([[900.0, 30.0, 3.0]]))


def match(target, history, age=AGE, real=None):
    """(3C,) of one target with one column per history item."""
    codes = torch.tensor([[history]]).transpose(1, 2)
    return match_values(torch.tensor([[[target]]]), codes, age, real)[0, 0]


def test_count_share_and_recency_of_the_items_that_share_a_value():
    count, share, recency = match(5, [5, 7, 5]).tolist()
    assert count == pytest.approx(math.log(3))
    assert share == pytest.approx(2 / 3)
    assert recency == pytest.approx(1 - math.log(4) / 20)  # of the newest of them


def test_a_missing_value_matches_nothing_not_even_another_missing_one():
    assert match(0, [0, 0, 5]).tolist() == [0, 0, 0]


def test_padding_changes_nothing_and_an_empty_history_gives_zeros():
    padded = torch.log1p(torch.tensor([[900.0, 30.0, 3.0, 0.0]]))
    real = torch.tensor([[True, True, True, False]])
    torch.testing.assert_close(match(5, [5, 7, 5, 5], padded, real), match(5, [5, 7, 5]))
    assert match(5, [5, 5, 5], AGE, torch.zeros(1, 3, dtype=torch.bool)).tolist() == [0, 0, 0]


def test_an_unknown_time_counts_but_is_not_recent():
    count, share, recency = match(5, [5, 7, 5], torch.full((1, 3), NO_AGE)).tolist()
    assert (count, share, recency) == (pytest.approx(math.log(3)), pytest.approx(2 / 3), 0)


@given(st.permutations(range(6)), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_history_in_another_order_matches_alike(order, history):
    age = torch.log1p(torch.arange(6, 0, -1, dtype=torch.float32))[None]
    other = match(2, [history[place] for place in order], age)
    torch.testing.assert_close(other[:2], match(2, history, age)[:2])  # all but the recency


def test_the_distance_is_that_from_the_mean_of_the_known_numbers():
    history = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]])  # value and flag: the last is missing
    target = torch.tensor([[[5.0, 0.0], [0.0, 1.0]]])
    assert distances(target, history, None, [(0, 1)])[0, :, 0].tolist() == [pytest.approx(math.log(4)), 0]
    only_last = torch.tensor([[False, False, True]])
    assert distances(target, history, only_last, [(0, 1)])[0, :, 0].tolist() == [0, 0]


@given(st.integers(1, 5000))
def test_every_position_has_a_bucket_and_later_ones_no_lower_one(most):
    bucket = position_bucket(torch.arange(most))
    assert bucket[-1] + 1 == order_buckets("position", most)
    assert (bucket.diff() >= 0).all()
    assert (bucket.diff() <= 1).all()


def test_gap_buckets_are_doublings_and_an_unknown_time_has_its_own():
    assert gap_bucket(torch.log1p(torch.tensor([0.0, 1, 2, 3, 86_400, 1e12]))).tolist() == [0, 1, 1, 2, 16, 31]
    assert gap_bucket(torch.tensor([NO_AGE])).tolist() == [32]
    assert order_buckets("gap", 10) == 33


def test_windows_are_means_of_the_newest_items_however_short_the_history():
    real = torch.tensor([[True, True, True, True], [True, False, False, False]])
    place = positions(torch.zeros(2, 4), real)
    assert place[0].tolist() == [3, 2, 1, 0]
    shares = window_shares(place, real, (3, 1))
    torch.testing.assert_close(shares[0], torch.tensor([[0, 1, 1, 1], [0, 0, 0, 3]]) / 3)
    torch.testing.assert_close(shares[1], torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]]))
