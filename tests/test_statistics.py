"""Statistics and co-occurrence are what a loop over the log counts, strictly before each session."""

import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.log.co_occurrence as co_occurrence_module
import data.log.statistics as statistics_module
from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import assemble
from ctr.inputs.encode import clicks_of, encode
from ctr.inputs.impression_parts import cuts, log_of, read_part
from ctr.inputs.sampler import split_sessions
from ctr.inputs.statistics import RECENT, log_statistics
from ctr.model.dense_features import dense_features
from ctr.training.loop import train_ctr
from data.log.co_occurrence import DISTANCE, SHRINK, co_occurrence
from data.log.events import CLICK
from data.log.ingest import ingest
from data.log.shop_folder import load_shop
from data.log.statistics import PRIOR, Clock, counts_of
from features.image_feature import no_image
from tests.random_logs import random_tables, write_tables

COLUMNS = ["colour", "size"]
DAY = 86_400


ORIGIN = {"source": "movielens", "negatives": {"per_positive": 3, "by": "popularity", "window_seconds": DAY}, "rows_refused": {}}


def slow_statistics(tables, row, lag, *, clicks_only=False):
    """The statistics of one impression by a loop over the log, in the order of `statistic_names`."""
    log, items = tables["impressions"].to_dicts(), tables["items"].to_dicts()
    mine = log[row]
    moment = min(each["timestamp"] for each in log if each["session_id"] == mine["session_id"]) - lag
    before = [each for each in log if each["timestamp"] < moment and (each["click"] or not clicks_only)]
    rate = (sum(each["click"] for each in before) + 1) / (len(before) + 2)
    target = items[mine["item_id"]]
    groups = [lambda each: each["item_id"] == mine["item_id"]]
    groups += [lambda each, name=name: target[name] is not None and items[each["item_id"]][name] == target[name] for name in COLUMNS]
    groups += [lambda each: each["user_id"] == mine["user_id"]]
    found = []
    for belongs in groups:
        of_group = [each for each in before if belongs(each)]
        recent = [each for each in of_group if each["timestamp"] >= moment - RECENT]
        (n, c), (rn, rc) = ((len(part), sum(each["click"] for each in part)) for part in (of_group, recent))
        smoothed = (c + PRIOR * rate) / (n + PRIOR)
        trend = (rc + PRIOR * smoothed) / (rn + PRIOR)
        logs = [math.log1p(value) for value in (n, c, rn, rc)]
        found += [logs[0], logs[1], math.log(smoothed / rate), logs[2], logs[3], math.log(trend / smoothed)]
    shown = [each["timestamp"] for each in before if each["item_id"] == mine["item_id"]]
    found.append(math.log1p(moment - min(shown)) if shown else 0.0)
    events = [each for each in tables["events"].to_dicts() if each["user_id"] == mine["user_id"] and each["timestamp"] < moment]
    if not (tables["events"]["action"] == "click").any():  # then the clicks are those of the impressions
        events += [each | {"action": "click"} for each in before if each["click"] and each["user_id"] == mine["user_id"]]
    found += [math.log1p(sum(each["action"] == action for each in events)) for action in ("click", "purchase", "cart")]
    clicked = [each["timestamp"] for each in events if each["action"] == "click"]
    return [*found, math.log1p(moment - max(clicked)) if clicked else 0.0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lag", [0, DAY])
@pytest.mark.parametrize("clicks_only", [False, True])
def test_statistics_are_those_of_a_loop_over_the_log(seed, lag, clicks_only, tmp_path):
    tables = random_tables(seed)
    shop = load_shop(write_tables(tmp_path, tables))
    found = log_statistics(shop, COLUMNS, lag=lag, clicks_only=clicks_only)
    session = shop.session
    values = found.features(shop.item, shop.session_user[session], shop.session_time[session])
    wanted = np.array([slow_statistics(tables, row, lag, clicks_only=clicks_only) for row in range(len(shop.item))])
    assert values.shape == wanted.shape == (len(shop.item), len(found.names))
    np.testing.assert_allclose(values, wanted, atol=1e-6)
    assert np.ptp(values, axis=0).max() > 0


@pytest.mark.parametrize("read", ["in memory", "ingested"])
def test_sampled_negatives_are_in_no_statistic(read, tmp_path):
    """Other negatives, drawn for the same clicks, change nothing that a click's impression knows of the log."""
    tables, numbers = random_tables(2), []
    negatives = tables["impressions"]["click"] == 0
    for draw in range(2):
        items = np.random.default_rng(draw).integers(len(tables["items"]), size=len(negatives))
        drawn = tables["impressions"].with_columns(item_id=pl.when(negatives).then(pl.Series(items)).otherwise(pl.col("item_id")))
        folder = write_tables(tmp_path / f"shop-{draw}", tables | {"impressions": drawn})
        (folder / "origin.json").write_text(json.dumps(ORIGIN))
        shop = load_shop(folder) if read == "in memory" else ingest(folder, tmp_path / f"log-{draw}", stretch=11)
        inputs = encode(shop, no_image(len(shop.items)), CtrConfig(**PRESETS["tiny"], co_occurrence=False))
        assert inputs.vocabularies.sampled
        clicked = np.flatnonzero(shop.click == 1)
        numbers.append(inputs.log_features.numbers(shop, clicks_of(shop, CtrConfig(**PRESETS["tiny"])), clicked))
    assert numbers[0].shape[1] > 20
    assert np.array_equal(*numbers)
    assert np.ptp(numbers[0], axis=0).max() > 0


def test_counts_made_in_stretches_are_those_made_at_once(tmp_path, monkeypatch):
    shop = load_shop(write_tables(tmp_path, random_tables(3)))
    arguments = (shop.item, shop.session_user[shop.session], shop.session_time[shop.session])
    at_once = log_statistics(shop, COLUMNS, lag=0).features(*arguments)
    monkeypatch.setattr(statistics_module, "_AT_ONCE", 7)
    assert np.array_equal(log_statistics(shop, COLUMNS, lag=0).features(*arguments), at_once)


def test_an_ingested_log_has_the_numbers_of_one_in_memory(tmp_path):
    folder = write_tables(tmp_path / "shop", random_tables(4))
    config = CtrConfig(**PRESETS["tiny"])
    shops = load_shop(folder), ingest(folder, tmp_path / "log", stretch=11)
    in_memory, mapped = (encode(shop, no_image(len(shop.items)), config).log_numbers for shop in shops)
    assert in_memory.shape[1] > 20
    assert np.array_equal(in_memory, mapped)


def test_a_part_of_a_file_has_the_numbers_of_the_complete_log(tmp_path):
    folder = write_tables(tmp_path, random_tables(5))
    shop, config = load_shop(folder), CtrConfig(**PRESETS["tiny"])
    inputs = encode(shop, no_image(len(shop.items)), config)
    log, seen = log_of("", shop), 0
    for part in cuts(log, 30):
        here, rows, _, _ = read_part(log, part)
        found = inputs.log_features.numbers(here, clicks_of(here, config), np.arange(len(rows)))
        wanted = inputs.log_features.numbers(shop, clicks_of(shop, config), rows)
        assert np.array_equal(found, wanted)
        seen += len(rows)
    assert seen == len(shop.item)


def test_a_group_of_none_and_a_moment_before_the_log_count_nothing(tmp_path):
    shop = load_shop(write_tables(tmp_path, random_tables(0)))
    counts = counts_of(np.arange(len(shop.items), dtype=np.int32), shop.item, shop, groups=len(shop.items), clock=Clock.of(shop.time))
    late = int(shop.time.max()) + 1
    everything = counts.before(np.arange(len(shop.items)), np.full(len(shop.items), late))
    assert everything[0].tolist() == np.bincount(shop.item, minlength=len(shop.items)).tolist()
    assert everything[1].sum() == shop.click.sum()
    assert [part.tolist() for part in counts.before(np.array([-1, 0, 0]), np.array([late, int(shop.time.min()), 0]))] == [[0, 0, 0]] * 2


def test_a_log_longer_than_136_years_counts_nothing_from_the_future(tmp_path):
    tables = random_tables(1)
    time = tables["impressions"]["timestamp"].to_numpy().copy()
    time[-3:] += 10**10
    session = tables["impressions"]["session_id"].to_numpy().copy()
    session[-3:] = session.max() + 1
    tables["impressions"] = tables["impressions"].with_columns(timestamp=time, session_id=session, user_id=pl.lit(0, pl.Int64))
    shop = load_shop(write_tables(tmp_path, tables))
    counts = counts_of(np.zeros(len(shop.items), np.int32), shop.item, shop, groups=1, clock=Clock.of(shop.time))
    found = counts.before(np.zeros(len(time), np.int64), time)[0]
    assert (found <= [(time < moment).sum() for moment in time]).all()
    assert found[-1] == (time < time[-1]).sum()


@given(seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_happens_at_or_after_a_session_changes_none_of_its_features(seed, data, tmp_path_factory):
    tables, config = random_tables(seed), CtrConfig(**PRESETS["tiny"])
    folder = tmp_path_factory.mktemp("log")
    shop = load_shop(write_tables(folder / "before", tables))
    inputs = encode(shop, no_image(len(shop.items)), config)
    session = data.draw(st.integers(int(np.flatnonzero(shop.session_split > 0)[0]), len(shop.session_time) - 1))
    moment, rows = int(shop.session_time[session]), np.flatnonzero(shop.session == session)
    moved = {name: table.clone() for name, table in tables.items()}
    for name in ("impressions", "events"):
        late = (tables[name]["timestamp"] >= moment).to_numpy()
        if name == "impressions":
            late[rows] = False
        times = tables[name]["timestamp"].to_numpy() + np.where(late, data.draw(st.integers(0, 200_000)), 0)
        moved[name] = moved[name].with_columns(timestamp=times)
        if name == "impressions":
            flipped = np.where(late, 1 - tables[name]["click"].to_numpy(), tables[name]["click"].to_numpy())
            flipped[rows] = tables[name]["click"].to_numpy()[rows]
            moved[name] = moved[name].with_columns(click=flipped).drop("split")
    if moved["impressions"]["click"].n_unique() < 2:
        return
    again = load_shop(write_tables(folder / "after", moved), allow_unordered_split=True)
    # the same sessions, in another order perhaps: matched by their rows
    split = replace(again, session_split=np.full(len(again.session_time), 1, np.int8))
    other = encode(split, no_image(len(again.items)), config, inputs.vocabularies)
    here, there = features_of(inputs, session, rows), features_of(other, int(again.session[rows[0]]), rows)
    for one, two in zip(here, there, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def features_of(inputs, session, rows):
    """All numbers and histories of a session's impressions."""
    part = replace_rows(inputs, session)
    batch = assemble(inputs, part, np.array([0]))
    order = np.argsort(batch.row.numpy())
    assert batch.row.numpy()[order].tolist() == rows.tolist()
    histories = [bucket.age.numpy() for history in batch.histories for bucket in history.buckets]
    return [batch.log_numbers.numpy()[order], *histories]


def replace_rows(inputs, session):
    part = split_sessions(inputs.shop, "train")
    rows = np.flatnonzero(inputs.shop.session == session)
    return replace(part, rows=rows, sessions=np.array([session]), start=np.array([0]), count=np.array([len(rows)]))


def slow_co_occurrence(log, items, *, since, moment, distance):
    """(N, N) scores by a loop over each user's clicks from `since` to before `moment`."""
    together, clicks = np.zeros((items, items)), np.zeros(items)
    for user in range(len(log.start) - 1):
        own = [int(log.item[k]) for k in range(log.start[user], log.start[user + 1]) if since <= log.time[k] < moment]
        for place, item in enumerate(own):
            clicks[item] += 1
            for other in own[place + 1 : place + 1 + distance]:
                if other != item:
                    together[item, other] += 1
                    together[other, item] += 1
    return together / (np.sqrt(np.outer(clicks, clicks)) + SHRINK)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [10**6, 40], ids=["all clicks", "the newest"])
def test_co_occurrence_is_that_of_a_loop_over_clicks(seed, most, tmp_path, monkeypatch):
    monkeypatch.setattr(co_occurrence_module, "MOST", most)
    tables = random_tables(seed, sessions=120)
    shop = load_shop(write_tables(tmp_path, tables | {"events": tables["events"].head(0)}))
    log, items = shop.events.logs[CLICK], len(shop.items)
    moment = int(np.quantile(log.time, 0.8))
    early = log.time[log.time < moment]
    assert len(early) > 40
    since, distance = (-1, DISTANCE) if most > len(early) else (int(np.quantile(early, 1 - most / len(early))), 1)
    first, second = (part.ravel() for part in np.indices((items, items)))
    found = co_occurrence(shop.events, moment, items=items).of(first, second).reshape(items, items)
    wanted = slow_co_occurrence(log, items, since=since, moment=moment, distance=distance)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert wanted.any()


def test_clicks_dealt_out_at_random_are_not_learned(tmp_path):
    rng = np.random.default_rng(0)
    tables = random_tables(8, sessions=1500, items=40, users=60, moments=900)
    dealt = rng.permutation(tables["impressions"]["click"].to_numpy())
    tables["impressions"] = tables["impressions"].with_columns(click=dealt)
    shop = load_shop(write_tables(tmp_path / "shop", tables | {"events": tables["events"].head(0)}))
    config = CtrConfig(**{**PRESETS["tiny"], "epochs": 1, "threads": 1})
    result = train_ctr(shop, no_image(len(shop.items)), config, seed=0, folder=tmp_path / "run")
    clicks = shop.click[shop.rows("test")]
    noise = math.sqrt((len(clicks) + 1) / (12 * clicks.sum() * (len(clicks) - clicks.sum())))
    assert abs(result["test_auc"] - 0.5) < 4 * noise
    assert abs(result["test_gauc"] - 0.5) < 0.1
    names, _, values = dense_features(encode(shop, no_image(len(shop.items)), config), "test")
    assert len(names) == values.shape[1] > 30
