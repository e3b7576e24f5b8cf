"""Vocabularies, standardisation and batches: what the train split does not know counts nowhere."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from ctr.batches import assemble, part_of, shuffled
from ctr.config import PRESETS, CtrConfig
from ctr.inputs import encode
from ctr.vocabulary import Ragged, code, code_column, code_words, standardise
from data.words import words_of
from run.errors import SettingError, UserError
from tests.ctr_shop import items_of, make_shop, pictures

TINY = CtrConfig(**PRESETS["tiny"])


def test_values_seen_too_rarely_share_row_0_and_the_others_keep_their_order():
    coded = code(np.array([5, 1, 2, 0]), np.array([3, 2, 1, 0, 2]), min_count=2)
    assert coded.rows.tolist() == [0, 2, 0, 1, 2]
    assert coded.size == 3


@pytest.mark.parametrize("values", [list("b-ab-"), [7, "-", -3, 7, "-"], [True, "-", False, True, "-"]])
def test_null_is_a_value_like_others(values):
    column = pl.Series([None if value == "-" else value for value in values])
    coded = code_column(column, np.ones(5), min_count=2)
    assert coded.rows.tolist() == [2, 1, 0, 2, 1]


def test_a_value_of_later_splits_moves_no_row():
    early = code_column(pl.Series(["m", "k", "m", "k"]), np.ones(4), min_count=1)
    late = code_column(pl.Series(["m", "k", "m", "k", "a", "l", "z"]), np.array([1, 1, 1, 1, 0, 0, 0]), min_count=1)
    assert late.rows.tolist() == [*early.rows.tolist(), 0, 0, 0]
    assert late.size == early.size


def test_words_are_runs_of_letters_and_single_characters_of_scripts_without_spaces():
    found = words_of(pl.Series(["Red DRESS, size-10", "a_b", "长裙 new", "", None]), 5).to_list()
    assert found == [["red", "dress", "size", "10"], ["a", "b"], ["长", "裙", "new"], [], []]


def test_words_of_titles_and_queries_share_a_table_and_lists_keep_their_places():
    titles, queries = pl.Series(["red dress", None, "red shoe"]), pl.Series(["dress", "hat"])
    (of_titles, of_queries), size = code_words([titles, queries], [np.ones(3), np.array([1, 1])], 8, min_count=2)
    dress, red = 1, 2
    assert size == 3
    assert [of_titles.rows[a:b].tolist() for a, b in zip(of_titles.start, of_titles.start[1:], strict=False)] == [
        [red, dress],
        [],
        [red, 0],
    ]
    assert of_queries.rows.tolist() == [dress, 0]


def test_taking_lists_is_indexing():
    lists = [[3, 4], [], [5], [6, 7, 8]]
    ragged = Ragged(rows=np.concatenate(lists).astype(np.int32), start=np.array([0, 2, 2, 3, 6]))
    rows, lengths = ragged.take(np.array([3, 1, 0, 3]))
    assert rows.tolist() == [6, 7, 8, 3, 4, 6, 7, 8]
    assert lengths.tolist() == [3, 0, 2, 3]


def test_numbers_are_standardised_on_known_rows_and_a_missing_one_is_the_mean_with_a_flag():
    frame = pl.DataFrame({"x": [1.0, 3.0, None, 100.0], "y": [2.0, 2.0, 2.0, float("nan")]})
    found = standardise(frame, ["x", "y"], np.array([True, True, True, False]))
    assert found[:, 0].tolist() == [-1, 1, 0, 10]  # (1 - 2) / 1, (3 - 2) / 1, missing, cut at 10 deviations
    assert found[:, 1].tolist() == [0, 0, 1, 0]
    assert found[:, 2].tolist() == [0, 0, 0, 0]  # y lacks no known value: no flag
    assert found.shape == (4, 3)


def test_what_is_seen_only_after_the_train_split_has_no_row_of_its_own():
    shop, style = make_shop()
    train, later = shop.rows("train"), np.concatenate([shop.rows("valid"), shop.rows("test")])
    hidden = 7  # this item leaves the train period altogether
    item = shop.item.copy()
    item[train] = np.where(item[train] == hidden, hidden + 1, item[train])
    item[later[:20]] = hidden
    before = shop.events.time < shop.session_time[shop.session[train]].max()
    events = dataclasses.replace(shop.events, item=np.where(before & (shop.events.item == hidden), 8, shop.events.item))
    inputs = encode(dataclasses.replace(shop, item=item, events=events), pictures(style, "none"), TINY)
    assert inputs.layout.item[0].name == "item"
    assert inputs.items.rows[0, hidden] == 0
    assert inputs.items.rows[0, hidden + 1] > 0


def test_the_late_splits_change_nothing_of_what_the_train_split_is_given():
    shop, style = make_shop()
    late = np.isin(np.arange(len(shop.item)), np.concatenate([shop.rows("valid"), shop.rows("test")]))
    frame = shop.impressions.with_columns(
        hour=pl.when(pl.Series(late)).then(99.0).otherwise(pl.col("hour")),
        query=pl.when(pl.Series(late)).then(pl.lit("aaa")).otherwise(pl.col("query")),
    )
    changed = dataclasses.replace(shop, impressions=frame, item=np.where(late, 0, shop.item).astype(np.int32))
    one, two = (encode(s, pictures(style, "none"), TINY) for s in (shop, changed))
    train = shop.rows("train")
    assert one.layout == two.layout
    assert (one.items.rows == two.items.rows).all()
    assert (one.context.numeric[train] == two.context.numeric[train]).all()
    assert (one.context.rows[:, train] == two.context.rows[:, train]).all()


def test_columns_whose_names_differ_by_a_dot_have_tables_of_their_own():
    shop, style = make_shop()
    items = shop.items.with_columns(pl.Series("a.b", [1, 2] * 40), pl.Series("a%2Eb", [1, 2] * 40))
    inputs = encode(dataclasses.replace(shop, items=items), pictures(style, "none"), TINY)
    names = [table.name for table in inputs.layout.item]
    assert len(set(names)) == len(names)
    assert not any("." in name for name in names)


def test_a_batch_holds_every_impression_of_its_sessions_with_its_item_and_history():
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "cluster_id"), TINY)
    part = part_of(shop, "train")
    places = np.array([5, 17, 3, 40])
    batch = assemble(inputs, part, places)
    rows = batch.row.numpy()
    assert sorted(rows) == np.flatnonzero(np.isin(shop.session, part.sessions[places])).tolist()
    assert (batch.click.numpy() == shop.click[rows]).all()
    assert (batch.grid[batch.session, batch.slot] == batch.target).all()
    keys = batch.ids.to_dict()
    item_of = {row: item for item, row in enumerate(inputs.items.rows[0]) if row}  # rows above 0 belong to one item
    for place, row in enumerate(rows):
        assert item_of.get(int(keys["item"].values()[batch.target[place]]), shop.item[row]) == shop.item[row]
        history = items_of(batch.histories[0], int(batch.session[place]))
        window = inputs.histories[0]
        session = shop.session[row]
        wanted = window.item[window.start[session] : window.end[session]]
        assert inputs.items.rows[0, wanted].tolist() == keys["item"].values()[history].tolist()


def test_an_epoch_shows_each_session_once_in_an_order_of_its_own():
    shop, _ = make_shop()
    part = part_of(shop, "train")
    first, again, second = (np.concatenate(shuffled(part, 32, seed=1, epoch=e)) for e in (0, 0, 1))
    assert sorted(first) == list(range(len(part.sessions)))
    assert (first == again).all()
    assert (first != second).any()


def test_an_image_feature_of_another_catalogue_is_refused():
    shop, style = make_shop()
    with pytest.raises(UserError, match="80 items, but the image feature has 79"):
        encode(shop, pictures(style[:-1], "vector"), TINY)


@pytest.mark.parametrize(
    "setting",
    [{"heads": 3}, {"epochs": 0}, {"ema": 1.0}, {"pooling": "max"}, {"hidden": ()}, {"learning_rate": float("nan")}],
)
def test_settings_that_cannot_be_are_refused_by_name(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        CtrConfig(**setting)
