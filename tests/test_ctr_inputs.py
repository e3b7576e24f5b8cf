"""Vocabularies, standardisation and batches: nothing is learned from outside the train split."""

import dataclasses
from itertools import islice

import numpy as np
import polars as pl
import pytest

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import IdDropout, assemble
from ctr.inputs.encode import encode
from ctr.inputs.feed import feed
from ctr.inputs.sampler import shuffled, split_sessions
from data.log.events import by_action
from run.errors import SettingError, UserError
from tests.ctr_shop import items_of, make_shop, pictures

TINY = CtrConfig(**PRESETS["tiny"])


def test_values_seen_only_after_the_train_split_have_no_row_of_their_own():
    shop, style = make_shop()
    train, later_rows = shop.rows("train"), np.concatenate([shop.rows("valid"), shop.rows("test")])
    hidden = 7  # this item leaves the train period altogether
    item = shop.item.copy()
    item[train] = np.where(item[train] == hidden, hidden + 1, item[train])
    item[later_rows[:20]] = hidden
    rows = shop.events.rows()
    before = rows.time < shop.session_time[shop.session[train]].max()
    events = by_action(rows._replace(item=np.where(before & (rows.item == hidden), 8, rows.item)), users=len(shop.users))
    inputs = encode(dataclasses.replace(shop, item=item, events=events), pictures(style, "none"), TINY)
    assert inputs.layout.item[0].name == "item"
    assert inputs.items.rows[0, hidden] == 0
    assert inputs.items.rows[0, hidden + 1] > 0


def test_later_splits_do_not_change_the_inputs_of_the_train_split():
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


def test_columns_whose_names_differ_by_a_dot_have_separate_tables():
    shop, style = make_shop()
    items = shop.items.with_columns(pl.Series("a.b", [1, 2] * 40), pl.Series("a%2Eb", [1, 2] * 40))
    inputs = encode(dataclasses.replace(shop, items=items), pictures(style, "none"), TINY)
    names = [table.name for table in inputs.layout.item]
    assert len(set(names)) == len(names)
    assert not any("." in name for name in names)


def test_a_batch_holds_every_impression_of_its_sessions_with_its_item_and_history():
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "cluster_id"), TINY)
    part = split_sessions(shop, "train")
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


def test_each_epoch_shows_every_session_once_in_its_own_order():
    shop, _ = make_shop()
    part = split_sessions(shop, "train")
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
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        CtrConfig(**setting)


def ids_of(batch):
    return {name: values.values().numpy() for name, values in batch.ids.to_dict().items()}


def test_id_dropout_hides_a_share_of_items_and_users_and_nothing_else():
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "none"), TINY)
    part = split_sessions(shop, "train")
    places = np.arange(len(part.sessions))
    full = ids_of(assemble(inputs, part, places))
    shares = {"item": [], "user": []}
    for step in range(20):
        found = ids_of(assemble(inputs, part, places, IdDropout(share=0.7, seed=1, step=step)))
        for name, rows in full.items():
            differ = found[name] != rows
            assert (found[name][differ] == 0).all()
            if name in shares:
                shares[name].append(differ[rows > 0].mean())
            else:
                assert not differ.any()
    assert np.mean(shares["item"]) == pytest.approx(0.7, abs=0.05)
    assert np.mean(shares["user"]) == pytest.approx(0.7, abs=0.1)


def test_the_same_ids_are_hidden_on_every_rank_and_after_a_resume():
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "none"), TINY)
    part = split_sessions(shop, "train")
    config = dataclasses.replace(TINY, id_dropout=0.5)
    steps = [list(islice(feed(inputs, part, config, seed=3, first=first, rank=0, ranks=1), 6 - first)) for first in (0, 4)]
    for one, two in zip(steps[0][4:], steps[1], strict=True):
        assert all((ids_of(one.batch)[name] == rows).all() for name, rows in ids_of(two.batch).items())
    halves = [next(feed(inputs, part, config, seed=3, first=2, rank=rank, ranks=2)).batch for rank in (0, 1)]
    whole = steps[0][2].batch

    def hidden_users(batch):
        return dict(zip(shop.session_user[shop.session[batch.row.numpy()]], ids_of(batch)["user"][batch.session.numpy()], strict=True))

    assert hidden_users(halves[0]) | hidden_users(halves[1]) == hidden_users(whole)
    assert 0 in hidden_users(whole).values()
