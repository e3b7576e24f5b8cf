"""A shop ingested to disk equals the shop read into memory, and is refused with the same messages."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.arrays.array_storage import OnDisk, blank_npy, scratch
from data.arrays.stored_frame import write_arrow
from data.log.event_parts import EventParts, even_cuts, sort_parts
from data.log.events import ACTIONS, EventRows, by_action
from data.log.histories import cart_history, click_history, purchase_history
from data.log.ingest import ingest, log_rows, open_log
from data.log.shop_folder import SPLITS, Shop, load_shop
from data.source import SourceConfig
from run.errors import UserError
from tests.full_disk import room_for
from tests.shops import write_shop
from tests.test_malformed import FOLDERS, TABLES, split_column

ROOT = Path(__file__).parents[1]
STRETCH = 130  # rows at a time: the 600 impressions of `write_shop` come in five chunks


def frame_of(table) -> pl.DataFrame:
    return table if isinstance(table, pl.DataFrame) else table.select(*table.columns)


def assert_same_shop(one: Shop, two: Shop) -> None:
    """Every field equal, types included, wherever it is stored."""
    for field in dataclasses.fields(Shop):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name in ("items", "users", "impressions"):
            assert frame_of(a).equals(frame_of(b))
            assert a.schema == b.schema
        elif isinstance(a, np.ndarray):
            assert (a.dtype, a.tolist()) == (b.dtype, b.tolist()), field.name
        elif field.name not in ("events", "stored_order"):
            assert a == b, field.name
    for log, other in zip(one.events.logs, two.events.logs, strict=True):
        for name in ("item", "time", "start"):
            a, b = getattr(log, name), getattr(other, name)
            assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())
    for a, b in zip(one.by_session, two.by_session, strict=True):
        assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())


def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sample(fraction=1.0, shuffle=True, seed=5)


def half_known(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(category=pl.when(pl.int_range(pl.len()) % 3 == 0).then("category"))


def no_clicks(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("action") != "click")


SHOPS = {
    "as written": {},
    "text ids": {"string_ids": True},
    "rows in any order": {"impressions_frame": shuffled, "events_frame": shuffled},
    "no users": {"users_frame": None},
    "no users, text ids": {"users_frame": None, "string_ids": True},
    "no events": {"events_frame": None},
    "events without clicks": {"events_frame": no_clicks},
    "no categories": {"impressions_frame": lambda f: f.drop("category"), "items_frame": lambda f: f.drop("category")},
    "some categories": {"impressions_frame": half_known},
    "categories of nulls": {"impressions_frame": lambda f: f.with_columns(category=pl.lit(None))},
    "integer categories": {
        "impressions_frame": lambda f: f.with_columns(category=pl.col("category").str.len_bytes()),
        "items_frame": lambda f: f.with_columns(category=pl.col("category").str.len_bytes()),
    },
    "a split column": {"impressions_frame": split_column("pretrain", "train", "valid", "test")},
    "datetimes": {"impressions_frame": lambda f: f.with_columns(timestamp=(pl.col("timestamp") * 1000).cast(pl.Datetime("ms")))},
    "boolean clicks": {"impressions_frame": lambda f: f.with_columns(pl.col("click").cast(pl.Boolean))},
    "a user of most events": {"events_frame": lambda f: f.with_columns(
        user_id=pl.when(pl.int_range(pl.len()) % 5 > 0).then(7).otherwise("user_id"))},
}  # fmt: skip


@pytest.mark.parametrize("changes", SHOPS.values(), ids=SHOPS.keys())
def test_an_ingested_shop_equals_the_shop_in_memory(changes, tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, **changes)
    stored = ingest(folder, tmp_path / "log", stretch=STRETCH)
    assert_same_shop(load_shop(folder), stored)
    assert_same_shop(stored, open_log(tmp_path / "log", folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "shop"]
    assert not (tmp_path / "log" / "parts").exists()


@pytest.mark.parametrize("changes", [SHOPS["as written"], SHOPS["a user of most events"]])
def test_histories_of_an_ingested_shop_equal_those_in_memory_and_click_windows_share_the_logs_array(changes, tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, **changes)
    one, two = load_shop(folder), ingest(folder, tmp_path / "log", stretch=STRETCH)
    for make in (
        lambda shop: click_history(shop, max_items=4),
        lambda shop: click_history(shop, max_items=4, scope="category"),
        lambda shop: purchase_history(shop, max_items=4),
        lambda shop: cart_history(shop, max_items=4),
    ):
        a, b = make(one), make(two)
        assert (a.item.tolist(), a.start.tolist(), a.end.tolist()) == (b.item.tolist(), b.start.tolist(), b.end.tolist())
        assert a.gone is b.gone is None or a.gone.tolist() == b.gone.tolist()
    for shop in (one, two):
        assert click_history(shop, max_items=4).item is shop.events.logs[0].item


def test_mapped_arrays_are_read_only(shop_folder, tmp_path):
    shop = ingest(shop_folder, tmp_path / "log", stretch=STRETCH)
    for array in (shop.item, shop.click, shop.events.logs[0].item, shop.rows("train")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def message_of(call) -> str:
    with pytest.raises(UserError) as refused:
        call()
    return str(refused.value)


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes, _ in TABLES])
def test_a_bad_table_is_refused_in_the_same_words(changes, tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, **changes)
    assert message_of(lambda: ingest(folder, tmp_path / "log", stretch=250)) == message_of(lambda: load_shop(folder))
    assert not (tmp_path / "log").exists()


WITHOUT_PICTURES = [entry for entry in FOLDERS if "picture" not in entry[0] and "images" not in entry[0]]


@pytest.mark.parametrize("spoil", [pytest.param(spoil, id=name) for name, spoil, _ in WITHOUT_PICTURES])
def test_a_bad_folder_is_refused_in_the_same_words(spoil, tmp_path):
    spoil(tmp_path / "shop")
    assert message_of(lambda: ingest(tmp_path / "shop", tmp_path / "log", stretch=STRETCH)) == message_of(
        lambda: load_shop(tmp_path / "shop")
    )


def worse(frame: pl.DataFrame) -> pl.DataFrame:
    """Faults of several kinds; the one that takes precedence is in the last row."""
    row, last = pl.int_range(pl.len()), pl.len() - 1
    return frame.with_columns(
        pl.when(row == 3).then(float("inf")).otherwise("discount").alias("discount"),
        pl.when(row == 70).then(2).otherwise("click").alias("click"),
        pl.when(row == 200).then(-1).otherwise("timestamp").alias("timestamp"),
        pl.when(row == last).then(None).otherwise("user_id").alias("user_id"),
    )


def worse_events(frame: pl.DataFrame) -> pl.DataFrame:
    row, last = pl.int_range(pl.len()), pl.len() - 1
    return frame.with_columns(
        pl.when(row == 1).then(pl.lit("look")).otherwise("action").alias("action"),
        pl.when(row == 150).then(5).otherwise("user_id").alias("user_id"),
        pl.when(row == last).then(5).otherwise("item_id").alias("item_id"),
    )


@pytest.mark.parametrize(
    ("changes", "place"),
    [({"impressions_frame": worse}, "row 599, column 'user_id'"), ({"events_frame": worse_events}, "column 'item_id': value 5")],
)
def test_with_faults_in_several_chunks_both_ways_name_the_same_one(changes, place, tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, **changes)
    message = message_of(lambda: ingest(folder, tmp_path / "log", stretch=STRETCH))
    assert place in message
    assert message == message_of(lambda: load_shop(folder))


def test_a_log_of_one_class_is_reported_before_later_faults(tmp_path):
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        return worse(frame).with_columns(pl.lit(0).alias("click"), frame["user_id"], frame["timestamp"])

    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=change)
    message = message_of(lambda: ingest(folder, tmp_path / "log", stretch=STRETCH))
    assert "no row is a click" in message
    assert message == message_of(lambda: load_shop(folder))


KILLED = """
import os, signal, sys
from pathlib import Path
import data.log.event_parts, data.log.ingest
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = die
data.log.ingest.ingest(sys.argv[1], Path(sys.argv[2]), stretch=64)
"""


@pytest.mark.parametrize(
    ("module", "name"), [("data.log.ingest", "build_shop"), ("data.log.ingest", "sort_parts"), ("data.log.ingest", "open_log")]
)
def test_a_killed_ingest_is_rebuilt(module, name, shop_folder, tmp_path):
    code = KILLED.format(module=module, name=name)
    command = [sys.executable, "-c", code, str(shop_folder), str(tmp_path / "log")]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "log").exists() == (name == "open_log")  # there only once it is complete
    assert_same_shop(load_shop(shop_folder), ingest(shop_folder, tmp_path / "log", stretch=STRETCH))


# a full disk


def many(folder: Path) -> EventParts:
    parts = EventParts(folder / "parts", np.array([0, 9]), 10**6)
    parts.append(EventRows(*(np.zeros(9000, kind) for kind in (np.int32, np.int32, np.int64, np.int8))))
    return parts


@pytest.mark.parametrize(
    ("write", "name"),
    [
        pytest.param(lambda folder: OnDisk(folder)("a", [np.zeros(9000)], np.float64), "a.npy", id="an array"),
        pytest.param(lambda folder: OnDisk(folder)("a", [np.zeros(1010)], np.float64), "a.npy", id="an array's last bytes"),
        pytest.param(lambda folder: blank_npy(folder / "b.npy", (9000,), np.int64), "b.npy", id="a mapped array"),
        pytest.param(lambda folder: scratch(9000, np.int64, folder), "", id="a nameless array"),
        pytest.param(lambda folder: write_arrow(folder / "c.arrow", pl.DataFrame({"a": np.zeros(9000)})), "c.arrow", id="a table"),
        pytest.param(many, "parts/000000.bin", id="parts of events"),
    ],
)
def test_a_full_disk_ends_in_an_error_that_names_the_file(write, name, tmp_path):
    with room_for(8192), pytest.raises(OSError) as error:
        write(tmp_path)
    assert error.value.filename == str(tmp_path / name)
    assert error.value.strerror == "File too large"


@pytest.mark.parametrize("size", [500, 3000, 4800])
def test_an_ingest_that_does_not_fit_leaves_nothing_and_succeeds_once_there_is_room(size, shop_folder, tmp_path):
    with room_for(size), pytest.raises(OSError, match="File too large") as error:
        ingest(shop_folder, tmp_path / "log", stretch=10)
    assert error.value.filename == str(tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert_same_shop(load_shop(shop_folder), ingest(shop_folder, tmp_path / "log", stretch=STRETCH))


@pytest.mark.parametrize("name", ["log [v1]", "lög*", "a?b"])
def test_a_log_may_be_ingested_into_a_folder_of_any_name(name, shop_folder, tmp_path):
    assert_same_shop(load_shop(shop_folder), ingest(shop_folder, tmp_path / name, stretch=STRETCH))


# the stage


def test_the_source_gives_the_same_shop_from_memory_and_from_the_disk(shop_folder, tmp_path):
    one, two = (SourceConfig(data=str(shop_folder), ingest=how).shop(tmp_path) for how in ("memory", "disk"))
    assert_same_shop(one, two)
    assert len(list((tmp_path).glob("log-*/stage.json"))) == 1


def test_a_log_above_a_number_of_rows_is_ingested_automatically(shop_folder, tmp_path, monkeypatch):
    rows = log_rows(shop_folder)
    assert rows == 600 + pl.read_parquet(shop_folder / "events.parquet").height
    for large, logs in ((rows, 0), (rows - 1, 1)):
        monkeypatch.setattr("data.source.LARGE", large)
        SourceConfig(data=str(shop_folder)).shop(tmp_path)
        assert len(list(tmp_path.glob("log-*"))) == logs


def test_an_ingested_folder_is_not_ingested_again(shop_folder, tmp_path, monkeypatch):
    config = SourceConfig(data=str(shop_folder), ingest="disk")
    config.shop(tmp_path)
    monkeypatch.setattr("data.log.ingest.build_shop", None)
    assert config.shop(tmp_path).item.tolist() == load_shop(shop_folder).item.tolist()


# parts of events

few = st.integers(0, 5)
rows_of_events = st.lists(st.tuples(few, st.integers(0, 9), st.integers(0, 6), st.integers(0, 3)), max_size=60)


@settings(max_examples=30, deadline=None)
@given(rows=rows_of_events, most=st.integers(1, 30), cuts=st.lists(st.integers(1, 5), max_size=4, unique=True), pieces=st.integers(1, 5))
def test_events_sorted_in_parts_equal_those_sorted_at_once(rows, most, cuts, pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    events = EventRows(*(table[:, n].astype(kind) for n, kind in enumerate((np.int32, np.int32, np.int64, np.int8))))
    parts = EventParts(folder / "parts", np.array([0, *sorted(cuts), 6]), most)
    for piece in np.array_split(np.arange(len(table)), pieces):
        parts.append(events.take(piece))
    found = sort_parts(parts, folder, users=6, total=len(table))
    for log, wanted in zip(found.logs, by_action(events, users=6).logs, strict=True):
        assert (log.item.tolist(), log.time.tolist(), log.start.tolist()) == (
            wanted.item.tolist(),
            wanted.time.tolist(),
            wanted.start.tolist(),
        )
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{a}.{n}.npy" for a in ACTIONS for n in ("item", "time", "start"))


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=30), most=st.integers(1, 15))
def test_even_cuts_keep_all_users_and_no_range_of_several_users_holds_twice_the_events(counts, most):
    cuts = even_cuts(np.array(counts), 5, most)
    assert (cuts[0], cuts[-1]) == (5, 5 + len(counts))
    assert np.all(np.diff(cuts) > 0)
    for low, high in zip(cuts[:-1] - 5, cuts[1:] - 5, strict=True):
        assert high - low == 1 or sum(counts[low:high]) <= 2 * most


def test_every_split_of_an_ingested_shop_is_part_of_one_array(shop_folder, tmp_path):
    shop = ingest(shop_folder, tmp_path / "log", stretch=STRETCH)
    for split in SPLITS:
        assert np.shares_memory(shop.rows(split), shop.by_session[0])
