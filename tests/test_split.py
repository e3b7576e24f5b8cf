"""Sessions are divided into splits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.log.shop_folder import SPLITS, Shop, load_shop
from data.log.split import FRACTIONS, check_order, is_ordered, split_by_time
from run.errors import DataError, SettingError
from tests.shops import write_shop

sizes_of_sessions = st.lists(st.integers(1, 20), min_size=1, max_size=60)
parts = st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any)


def _columned(names: list[str]):
    """A `split` column: the 120 sessions of the tiny shop, 5 rows each, divided equally and in order among `names`."""
    column = pl.Series("split", [name for name in names for _ in range(600 // len(names))])
    return lambda frame: frame.with_columns(column)


def _spans(shop: Shop) -> list[tuple[int, int]]:
    """First and last session time of each split that has sessions."""
    members = [shop.session_time[shop.session_split == code] for code in range(len(SPLITS))]
    return [(int(times.min()), int(times.max())) for times in members if len(times)]


@given(sizes=sizes_of_sessions, parts=parts)
def test_splits_follow_time_and_each_gets_its_fraction_to_within_a_session(sizes, parts):
    fractions = [part / sum(parts) for part in parts]
    split = split_by_time(np.array(sizes), fractions)
    assert split.shape == (len(sizes),)  # each session in exactly one split
    assert np.all(np.diff(split) >= 0)
    assert set(split.tolist()) <= set(range(len(SPLITS)))
    got = np.bincount(split, weights=sizes, minlength=len(SPLITS))
    assert np.all(np.abs(got - np.array(fractions) * sum(sizes)) <= max(sizes) + 1e-6)


@given(sizes=sizes_of_sessions)
def test_a_split_with_fraction_0_is_empty(sizes):
    assert not np.any(split_by_time(np.array(sizes), (0.0, 0.5, 0.0, 0.5)) % 2 == 0)


def test_the_default_cuts_ten_equal_sessions_4_4_1_1():
    assert split_by_time(np.full(10, 7)).tolist() == [0] * 4 + [1] * 4 + [2, 3]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.4, 0.4, 0.1, 0.2), (1.2, -0.2, 0.0, 0.0), (np.nan, 0.4, 0.1, 0.1)])
def test_fractions_that_do_not_add_up_are_refused(fractions, shop_folder):
    with pytest.raises(SettingError, match=r"'split_fractions'.* --split-fractions 0.4 0.4 0.1 0.1"):
        load_shop(shop_folder, fractions=fractions)


def test_a_shop_is_cut_in_time_at_session_borders(shop_folder):
    shop = load_shop(shop_folder)
    spans = _spans(shop)
    assert all(earlier[1] < after[0] for earlier, after in pairwise(spans))
    counts = [len(shop.rows(name)) for name in SPLITS]
    assert counts == [round(600 * fraction) for fraction in FRACTIONS]
    assert shop.split_is_ordered
    of_row = shop.session_split[shop.session]
    assert pl.DataFrame({"s": shop.session, "split": of_row}).n_unique() == 120


def test_a_split_column_is_honoured(tmp_path):
    names = ["train", "train", "valid", "test"]
    shop = load_shop(write_shop(tmp_path, pictures=False, impressions_frame=_columned(names)))
    assert [len(shop.rows(name)) for name in SPLITS] == [0, 300, 150, 150]
    assert [SPLITS[code] for code in shop.session_split] == ["train"] * 60 + ["valid"] * 30 + ["test"] * 30
    assert shop.split_is_ordered


def test_a_split_that_goes_back_in_time_is_accepted_only_when_allowed_and_is_marked(tmp_path):
    folder = write_shop(tmp_path, pictures=False, impressions_frame=_columned(["test", "train", "valid"]))
    with pytest.raises(DataError, match="allow-unordered-split"):
        load_shop(folder)
    shop = load_shop(folder, allow_unordered_split=True)
    assert not shop.split_is_ordered
    assert len(shop.rows("test")) == 200


def test_allowing_an_unordered_split_does_not_mark_an_ordered_one(tmp_path):
    folder = write_shop(tmp_path, pictures=False, impressions_frame=_columned(["train", "valid", "test"]))
    assert load_shop(folder, allow_unordered_split=True).split_is_ordered


sessions_with_splits = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=12)


@given(sessions=sessions_with_splits)
def test_a_split_is_ordered_when_no_earlier_split_starts_after_a_later_one(sessions):
    split, time = (np.array(part) for part in zip(*sessions, strict=True))
    expected = all(t_a <= t_b for s_a, t_a in sessions for s_b, t_b in sessions if s_a < s_b)
    assert is_ordered(split, time) == expected
    if expected:
        check_order(split, time, np.arange(len(split)))
    else:
        with pytest.raises(DataError, match="column 'split'"):
            check_order(split, time, np.arange(len(split)))
