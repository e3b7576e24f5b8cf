"""The event log by action, and what is read from it one range of users at a time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.log.events
import data.log.histories
from data.log.events import EventRows, by_action, user_ranges
from data.log.histories import cart_history, click_history, purchase_history
from data.log.shop_folder import load_shop

events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6), st.integers(0, 3)), max_size=40)


def columns(rows: list[tuple]) -> EventRows:
    table = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return EventRows(*(column.astype(kind) for column, kind in zip(table, (np.int32, np.int32, np.int64, np.int8), strict=True)))


@settings(deadline=None)
@given(rows=events)
def test_each_actions_log_is_sorted_by_user_and_time_with_each_users_first_position(rows):
    log = by_action(columns(rows), users=5)
    for action, found in enumerate(log.logs):
        wanted = sorted((row for row in rows if row[3] == action), key=lambda row: (row[0], row[2]))
        assert list(zip(found.item.tolist(), found.time.tolist(), strict=True)) == [(item, time) for _, item, time, _ in wanted]
        for user in range(5):
            assert found.start[user + 1] - found.start[user] == sum(row[0] == user for row in wanted)
    assert sorted(zip(*(column.tolist() for column in log.rows()), strict=True)) == sorted(rows)


@settings(deadline=None)
@given(rows=events, moment=st.integers(0, 7), most=st.integers(1, 9))
def test_counts_before_a_moment_are_those_of_a_loop(rows, moment, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.log.events, "user_ranges", partial(user_ranges, most=most))
        of_item, of_user = by_action(columns(rows), users=5).counts_before(moment, items=6)
    early = [row for row in rows if row[2] < moment]
    assert of_item.tolist() == [sum(row[1] == item for row in early) for item in range(6)]
    assert of_user.tolist() == [sum(row[0] == user for row in early) for user in range(5)]


@given(counts=st.lists(st.integers(0, 9), max_size=30), most=st.integers(1, 20))
def test_ranges_of_users_are_contiguous_and_within_the_limit_or_one_user(counts, most):
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = list(user_ranges(start, most))
    assert [low for low, _ in found] == [0, *(high for _, high in found)][: len(found)]
    assert (found[-1][1] if found else 0) == len(counts)
    assert all(high - low == 1 or start[high] - start[low] <= most for low, high in found)


def test_histories_do_not_depend_on_how_many_users_and_sessions_are_read_together(shop_folder, monkeypatch):
    shop = load_shop(shop_folder)
    makers = (
        partial(click_history, max_items=4),
        partial(click_history, max_items=4, scope="category"),
        partial(purchase_history, max_items=4),
        partial(cart_history, max_items=4),
    )
    at_once = [make(shop) for make in makers]
    monkeypatch.setattr(data.log.histories, "user_ranges", partial(user_ranges, most=7))
    monkeypatch.setattr(data.log.histories, "_SESSIONS", 11)
    for make, wanted in zip(makers, at_once, strict=True):
        found = make(shop)
        for name in ("item", "start", "end"):
            assert getattr(found, name).tolist() == getattr(wanted, name).tolist()
        assert (found.gone is None) == (wanted.gone is None)
        assert found.gone is None or wanted.gone is None or found.gone.tolist() == wanted.gone.tolist()
