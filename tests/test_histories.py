"""Histories against a slow oracle: only earlier events, the newest are kept, oldest first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.arrays.time_keys import argsort_by_group_and_time, before
from data.log.events import ACTIONS, EventRows, by_action
from data.log.histories import NEVER, History, cart_history, click_history, jagged, padded, purchase_history
from data.log.shop_folder import Shop, load_shop
from run.errors import SettingError
from tests.shops import write_shop

ITEM_CATEGORY = np.array([0, 1, 0, 2, -1, 1], dtype=np.int32)  # 6 items, categories a, b, c; item 4 has none


class Event(NamedTuple):
    user: int
    item: int
    time: int
    action: str = "click"


class Session(NamedTuple):
    user: int
    time: int
    category: int = -1


def _shop(events: list[Event], sessions: list[Session]) -> Shop:
    """A shop with only what histories read."""
    events = sorted(events, key=lambda event: (event.user, event.time))
    sessions = sorted(sessions, key=lambda session: session.time)
    none = np.zeros(0, dtype=np.int32)
    return Shop(
        folder=Path(),
        items=pl.DataFrame(),
        users=pl.DataFrame(),
        impressions=pl.DataFrame(),
        item=none,
        user=none,
        session=none,
        click=none,
        time=none.astype(np.int64),
        session_user=np.array([session.user for session in sessions], dtype=np.int32),
        session_time=np.array([session.time for session in sessions], dtype=np.int64),
        session_split=np.zeros(len(sessions), dtype=np.int8),
        session_category=np.array([session.category for session in sessions], dtype=np.int32),
        item_category=ITEM_CATEGORY,
        category_names=["a", "b", "c"],
        events=by_action(
            EventRows(
                user=np.array([event.user for event in events], dtype=np.int32),
                item=np.array([event.item for event in events], dtype=np.int32),
                time=np.array([event.time for event in events], dtype=np.int64),
                action=np.array([ACTIONS.index(event.action) for event in events], dtype=np.int8),
            ),
            users=4,
        ),
        split_is_ordered=True,
    )


def _events_of(shop: Shop, action: str) -> list[Event]:
    log = shop.events.rows()
    rows = zip(log.user.tolist(), log.item.tolist(), log.time.tolist(), log.action.tolist(), strict=True)
    return [Event(u, i, t, action) for u, i, t, code in rows if ACTIONS[code] == action]


def _oracle(shop: Shop, action: str, session: int, max_items: int, *, by_category: bool = False) -> list[int]:
    """A session's history by its definition, one event at a time."""
    user, time = shop.session_user[session], shop.session_time[session]
    assert shop.session_category is not None
    category = shop.session_category[session]
    taken_out = _events_of(shop, "uncart")
    seen = []
    for event in _events_of(shop, action):
        if event.user != user or event.time >= time:
            continue
        if by_category and (category < 0 or ITEM_CATEGORY[event.item] != category):
            continue
        seen.append(event)
    kept = []
    for event in seen[-max_items:]:
        outs = [o.time for o in taken_out if (o.user, o.item) == (event.user, event.item) and o.time >= event.time]
        if action == "cart" and outs and min(outs) < time:
            continue
        kept.append(event.item)
    return kept


def _lists(history: History, shop: Shop, **options) -> list[list[int]]:
    """Every session's history from `padded`, without the padding."""
    rows = padded(history, np.arange(len(shop.session_time)), session_time=shop.session_time, **options)
    return [[item for item in row if item >= 0] for row in rows.tolist()]


few_times = st.integers(0, 8)  # so few that ties are common
events_lists = st.lists(st.builds(Event, st.integers(0, 2), st.integers(0, 5), few_times, st.sampled_from(ACTIONS)), max_size=40)
session_lists = st.lists(st.builds(Session, st.integers(0, 3), few_times, st.integers(-1, 2)), min_size=1, max_size=12)


@given(events=events_lists, sessions=session_lists, max_items=st.integers(1, 6))
def test_every_history_event_is_earlier_than_its_session(events, sessions, max_items):
    shop = _shop(events, sessions)
    times = [event.time for event in _events_of(shop, "click")]
    history = click_history(shop, max_items=max_items)
    for start, end, time in zip(history.start, history.end, shop.session_time, strict=True):
        assert all(event_time < time for event_time in times[start:end])
    history = click_history(shop, max_items=max_items, scope="category")
    clicks = [event for event in _events_of(shop, "click") if ITEM_CATEGORY[event.item] >= 0]
    by_category = sorted(clicks, key=lambda event: (event.user, ITEM_CATEGORY[event.item], event.time))
    for start, end, time in zip(history.start, history.end, shop.session_time, strict=True):
        assert all(event.time < time for event in by_category[start:end])


@given(events=events_lists, sessions=session_lists, max_items=st.integers(1, 6))
def test_histories_are_those_of_the_definition(events, sessions, max_items):
    shop = _shop(events, sessions)
    everyone = range(len(sessions))
    clicked = click_history(shop, max_items=max_items)
    assert _lists(clicked, shop) == [_oracle(shop, "click", s, max_items) for s in everyone]
    scoped = click_history(shop, max_items=max_items, scope="category")
    assert _lists(scoped, shop) == [_oracle(shop, "click", s, max_items, by_category=True) for s in everyone]
    bought = purchase_history(shop, max_items=max_items)
    assert _lists(bought, shop) == [_oracle(shop, "purchase", s, max_items) for s in everyone]
    cart = cart_history(shop, max_items=max_items)
    assert _lists(cart, shop) == [_oracle(shop, "cart", s, max_items) for s in everyone]


@given(events=events_lists, sessions=session_lists, length=st.integers(1, 5))
def test_a_limit_keeps_the_newest_and_both_layouts_agree(events, sessions, length):
    shop = _shop(events, sessions)
    chosen = np.arange(len(sessions))[::-1]
    for history in (click_history(shop, max_items=9), cart_history(shop, max_items=9)):
        full = padded(history, chosen, session_time=shop.session_time)
        short = padded(history, chosen, length=length, session_time=shop.session_time)
        values, lengths = jagged(history, chosen, length=length, session_time=shop.session_time)
        assert short.shape == (len(chosen), length)
        assert short.dtype == values.dtype == np.int64
        assert [[i for i in row if i >= 0] for row in short.tolist()] == [[i for i in row if i >= 0][-length:] for row in full.tolist()]
        assert short[short >= 0].tolist() == values.tolist()
        assert (short >= 0).sum(axis=1).tolist() == lengths.tolist()


def test_an_event_in_the_same_second_as_the_session_is_not_seen():
    shop = _shop([Event(0, 1, 9), Event(0, 2, 10), Event(0, 3, 11)], [Session(0, 10)])
    assert _lists(click_history(shop, max_items=5), shop) == [[1]]


def test_a_window_holds_the_newest_items_oldest_first():
    shop = _shop([Event(0, item, 10 + item) for item in range(6)] + [Event(1, 5, 1)], [Session(0, 100), Session(0, 14)])
    history = click_history(shop, max_items=3)
    assert _lists(history, shop) == [[1, 2, 3], [3, 4, 5]]  # sessions by time: 14, then 100
    assert history.lengths().tolist() == [3, 3]


def test_events_of_one_second_stay_in_file_order():
    shop = _shop([Event(0, item, 5) for item in (3, 0, 2, 1)], [Session(0, 6)])
    assert _lists(click_history(shop, max_items=2), shop) == [[2, 1]]


def test_windows_point_into_one_array_that_all_sessions_share():
    shop = _shop([Event(0, item, item) for item in range(6)], [Session(0, 10 + n) for n in range(50)])
    history = click_history(shop, max_items=6)
    assert history.item.tolist() == [0, 1, 2, 3, 4, 5]
    assert history.item.dtype == np.int32
    assert history.start.dtype == history.end.dtype == np.int64
    assert set(history.start.tolist()) == {0}


def test_scope_category_shows_only_the_category_searched():
    sessions = [Session(0, 9, 0), Session(0, 9, 1), Session(0, 9, -1)]
    shop = _shop([Event(0, item, item) for item in range(6)], sessions)
    assert _lists(click_history(shop, max_items=5, scope="category"), shop) == [[0, 2], [1, 5], []]


def test_scope_category_without_that_column_is_refused_with_the_fix(tmp_path):
    folder = write_shop(tmp_path, pictures=False, impressions_frame=lambda frame: frame.drop("category"))
    with pytest.raises(SettingError, match=r"impressions\.parquet has no column 'category': add it"):
        click_history(load_shop(folder), max_items=5, scope="category")


def test_an_unknown_scope_and_a_negative_length_are_refused_and_length_0_is_empty(shop_folder):
    shop = load_shop(shop_folder)
    with pytest.raises(SettingError, match=r"'history_scope': value 'brand'; give one of all, category"):
        click_history(shop, max_items=5, scope="brand")
    with pytest.raises(SettingError, match=r"'max_cart': value -1"):
        cart_history(shop, max_items=-1)
    assert (cart_history(shop, max_items=0).lengths() == 0).all()


def test_an_item_removed_from_the_cart_is_gone_from_the_next_second():
    events = [Event(0, 1, 10, "cart"), Event(0, 2, 11, "cart"), Event(0, 1, 20, "uncart"), Event(0, 1, 30, "cart")]
    shop = _shop(events, [Session(0, 15), Session(0, 20), Session(0, 21), Session(0, 31)])
    history = cart_history(shop, max_items=5)
    assert history.gone is not None
    assert history.gone.tolist() == [20, NEVER, NEVER]
    assert _lists(history, shop) == [[1, 2], [1, 2], [2], [2, 1]]


def test_one_users_uncart_leaves_another_users_cart_alone():
    events = [Event(0, 1, 1, "cart"), Event(1, 1, 1, "cart"), Event(1, 1, 2, "uncart")]
    shop = _shop(events, [Session(0, 9), Session(1, 9)])
    assert _lists(cart_history(shop, max_items=5), shop) == [[1], []]


def test_a_cart_without_session_times_is_the_callers_bug(shop_folder):
    shop = load_shop(shop_folder)
    history = cart_history(shop, max_items=5)
    with pytest.raises(ValueError, match=r"session_time=shop\.session_time"):
        padded(history, np.arange(3))
    with pytest.raises(ValueError, match=r"session_time=shop\.session_time"):
        padded(history, np.arange(3), session_time=shop.session_time[:3])


def test_padding_is_minus_1_on_the_right_and_at_least_one_wide():
    shop = _shop([Event(0, 3, 1), Event(0, 4, 2)], [Session(0, 9), Session(1, 9)])
    history = click_history(shop, max_items=5)
    assert padded(history, np.array([0, 1])).tolist() == [[3, 4], [-1, -1]]
    assert padded(history, np.array([1])).tolist() == [[-1]]
    assert padded(history, np.array([1, 0, 0]), length=3).tolist() == [[-1, -1, -1], [3, 4, -1], [3, 4, -1]]
    assert padded(history, np.array([0]), length=1).tolist() == [[4]]
    assert padded(history, np.zeros(0, dtype=np.int64)).shape == (0, 1)


def test_a_shop_without_events_has_empty_histories():
    shop = _shop([], [Session(0, 5, 0)])
    for history in (
        click_history(shop, max_items=3),
        click_history(shop, max_items=3, scope="category"),
        purchase_history(shop, max_items=3),
        cart_history(shop, max_items=3),
    ):
        assert _lists(history, shop) == [[]]


def test_a_loaded_shop_has_the_histories_of_the_definition(shop_folder):
    shop = load_shop(shop_folder)
    everyone = range(len(shop.session_time))
    assert _lists(purchase_history(shop, max_items=4), shop) == [_oracle(shop, "purchase", s, 4) for s in everyone]
    assert _lists(cart_history(shop, max_items=4), shop) == [_oracle(shop, "cart", s, 4) for s in everyone]
    assert any(_lists(cart_history(shop, max_items=4), shop))


# sorting by (group, time)

wide = st.tuples(st.sampled_from([0, 1, 2**20, 2**40, 2**61]), st.sampled_from([0, 1, 7, 10**9, 10**11]))


@given(events=st.lists(wide, max_size=20), queries=st.lists(wide, max_size=10))
def test_sorting_and_windows_hold_where_a_combined_key_exceeds_64_bits(events, queries):
    group, time = (np.array([pair[part] for pair in events], dtype=np.int64) for part in (0, 1))
    ranking = argsort_by_group_and_time(group, time)
    assert ranking.tolist() == sorted(range(len(events)), key=lambda row: events[row])
    at_group, at_time = (np.array([pair[part] for pair in queries], dtype=np.int64) for part in (0, 1))
    first, stop = (np.searchsorted(group[ranking], at_group, side) for side in ("left", "right"))
    end = before(time[ranking], first, stop, at_time)
    ordered = sorted(events)
    for (g, t), a, b in zip(queries, first, end, strict=True):
        assert ordered[a:b] == [event for event in ordered if event[0] == g and event[1] < t]
