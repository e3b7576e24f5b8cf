"""A shop folder loaded into memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import ACTIONS, SPLITS, Shop, load_shop
from run.errors import UserError
from tests.shops import START, shop_frames, write_shop


def _load(folder, **changes) -> Shop:
    return load_shop(write_shop(folder, pictures=False, **changes))


def _impressions(rows: list[tuple]) -> pl.DataFrame:
    """Rows of (session_id, user_id, item_id, timestamp, click), with the `split` column that so few sessions need."""
    return pl.DataFrame(rows, schema=["session_id", "user_id", "item_id", "timestamp", "click"], orient="row")


def _tiny(folder, rows: list[tuple], **changes) -> Shop:
    """A shop of a few impressions of items 100..139 by users 7, 10, 13, ...; split by thirds of the sessions."""
    frames = {"impressions_frame": _impressions(rows), "events_frame": None, **changes}
    return load_shop(write_shop(folder, pictures=False, **frames), fractions=(0.0, 0.34, 0.33, 0.33))


@pytest.mark.parametrize("string_ids", [False, True])
def test_indices_lead_back_to_the_ids_on_disk(tmp_path, string_ids):
    shop = _load(tmp_path, string_ids=string_ids)
    on_disk = pl.read_parquet(tmp_path / "impressions.parquet")
    assert shop.items["item_id"].gather(shop.item).to_list() == on_disk["item_id"].to_list()
    assert shop.users["user_id"].gather(shop.user).to_list() == on_disk["user_id"].to_list()
    assert shop.session_user[shop.session].tolist() == shop.user.tolist()
    assert shop.click.tolist() == on_disk["click"].to_list()
    assert shop.impressions.columns == on_disk.columns
    assert shop.items.height == 40
    assert [array.dtype for array in (shop.item, shop.user, shop.session, shop.session_user)] == [np.int32] * 4
    assert shop.click.dtype == shop.session_split.dtype == np.int8
    assert shop.session_time.dtype == np.int64


def test_sessions_are_numbered_by_time_whatever_the_order_of_rows(tmp_path):
    shop = _load(tmp_path, impressions_frame=lambda frame: frame.sample(fraction=1.0, shuffle=True, seed=3))
    assert np.all(np.diff(shop.session_time) >= 0)
    numbers = shop.impressions.with_columns(pl.Series("number", shop.session)).select("session_id", "number").unique()
    assert numbers["session_id"].to_list() != sorted(numbers["session_id"].to_list())
    assert numbers.sort("session_id")["number"].to_list() == list(range(120))  # session ids were written in time order


def test_a_session_begins_with_its_earliest_impression_and_ties_go_by_row(tmp_path):
    rows = [(5, 7, 100, 50, 1), (9, 10, 101, 40, 0), (5, 7, 102, 30, 0), (2, 10, 103, 30, 0), (9, 10, 104, 60, 1)]
    shop = _tiny(tmp_path, rows)
    assert shop.session.tolist() == [0, 2, 0, 1, 2]  # session 5 at 30 (row 0), session 2 at 30 (row 3), session 9 at 40
    assert shop.session_time.tolist() == [30, 30, 40]


def test_rows_of_a_split_come_by_session_then_row_and_the_splits_share_out_all_rows(tmp_path):
    shop = _load(tmp_path, impressions_frame=lambda frame: frame.sample(fraction=1.0, shuffle=True, seed=3))
    for name in SPLITS:
        rows = shop.rows(name)
        assert rows.tolist() == sorted(rows.tolist(), key=lambda row: (shop.session[row], row))
        assert set(shop.session_split[shop.session[rows]].tolist()) == {SPLITS.index(name)}
    assert sorted(np.concatenate([shop.rows(name) for name in SPLITS]).tolist()) == list(range(600))


@pytest.mark.parametrize("dtype", [pl.Int16, pl.UInt32, pl.UInt64, pl.Int64])
def test_ids_may_be_of_every_integer_type(tmp_path, dtype):
    shop = _load(tmp_path, items_frame=lambda frame: frame.with_columns(pl.col("item_id").cast(dtype)))
    assert shop.items["item_id"].dtype == pl.Int64
    assert len(shop.item) == 600


def test_ids_may_be_negative_and_text_ids_may_be_categorical(tmp_path):
    def negative(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(-(pl.col("item_id") * 10**15))

    shop = _load(tmp_path / "a", items_frame=negative, impressions_frame=negative, events_frame=negative)
    assert shop.items["item_id"][int(shop.item[0])] == shop.impressions["item_id"][0] < 0
    categorical = pl.col("item_id").cast(pl.Categorical)
    shop = _load(tmp_path / "b", string_ids=True, impressions_frame=lambda frame: frame.with_columns(categorical))
    assert shop.items["item_id"].gather(shop.item).to_list() == shop.impressions["item_id"].to_list()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_datetime_is_the_same_second_as_its_unix_time(tmp_path, unit, zone):
    def dated(frame: pl.DataFrame) -> pl.DataFrame:
        instant = (pl.col("timestamp") * 1000).cast(pl.Datetime("ms")).cast(pl.Datetime(unit))
        if zone is not None:
            instant = instant.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        return frame.with_columns(instant.alias("timestamp"))

    plain = _load(tmp_path / "plain")
    shop = _load(tmp_path / "dated", impressions_frame=dated, events_frame=dated)
    assert shop.impressions["timestamp"].to_list() == plain.impressions["timestamp"].to_list()
    assert shop.events.rows().time.tolist() == plain.events.rows().time.tolist()


def test_time_zones_are_converted_and_fractions_of_a_second_are_dropped(tmp_path):
    half_past = datetime(2024, 1, 1, 9, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=9)))
    rows = [(n, 7, 100, half_past + timedelta(days=n), n % 2) for n in range(3)]
    shop = _tiny(tmp_path, rows)
    assert shop.session_time[0] == datetime(2024, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Int64, pl.UInt8, pl.Float64])
def test_clicks_may_be_written_in_any_type_that_holds_0_and_1(tmp_path, dtype):
    expected = shop_frames(string_ids=False, users=30, items=40, sessions=120, seed=0)["impressions"]["click"]
    shop = _load(tmp_path, impressions_frame=lambda frame: frame.with_columns(pl.col("click").cast(dtype)))
    assert shop.click.tolist() == expected.to_list()


def test_features_may_have_missing_values(tmp_path):
    def holes(name: str):
        gaps = [(0, None), (1, float("nan"))]
        return lambda frame: frame.with_columns(pl.Series(name, [dict(gaps).get(n, 1.5) for n in range(frame.height)], dtype=pl.Float64))

    shop = _load(tmp_path, items_frame=holes("price"), users_frame=holes("spend"), impressions_frame=holes("discount"))
    assert shop.items["price"].null_count() == 1
    assert shop.items["price"].is_nan().sum() == 1


def test_a_shop_without_any_picture_title_or_category_is_accepted(tmp_path):
    shop = _load(
        tmp_path,
        items_frame=lambda frame: frame.select("item_id", pl.lit(None).alias("image"), pl.lit(None).alias("title")),
        impressions_frame=lambda frame: frame.drop("category", "query"),
    )
    assert shop.items["image"].null_count() == shop.items["title"].null_count() == 40
    assert shop.item_category is None
    assert shop.session_category is None
    assert shop.category_names == []


# users


def test_without_a_users_table_users_are_those_seen_in_ascending_order(tmp_path):
    shop = _load(tmp_path, users_frame=None)
    seen = pl.read_parquet(tmp_path / "impressions.parquet")["user_id"]
    assert shop.users.columns == ["user_id"]
    assert shop.users["user_id"].to_list() == sorted(set(seen.to_list()))


def test_without_a_users_table_events_of_unseen_users_are_left_out(tmp_path):
    stranger = pl.DataFrame({"user_id": [-1], "item_id": [100], "timestamp": [START], "action": ["click"]})
    without = _load(tmp_path / "a", users_frame=None)
    shop = _load(tmp_path / "b", users_frame=None, events_frame=lambda frame: pl.concat([stranger, frame]))
    assert len(shop.events) == len(without.events)
    assert shop.events.rows().item.tolist() == without.events.rows().item.tolist()


# events


def test_the_events_of_an_action_are_sorted_by_user_then_time_with_ties_in_file_order(tmp_path):
    rows = [(n, 7 if n % 2 else 10, 100, 100 + n, n % 2) for n in range(6)]
    events = pl.DataFrame(
        {
            "user_id": [10, 7, 7, 10, 7, 7],
            "item_id": [101, 102, 103, 104, 105, 106],
            "timestamp": [50, 60, 40, 50, 60, 60],
            "action": ["click", "cart", "click", "purchase", "click", "click"],
        }
    )
    shop = _tiny(tmp_path, rows, events_frame=events)
    clicks, purchases, carts, uncarts = shop.events.logs
    assert shop.items["item_id"].gather(clicks.item).to_list() == [103, 105, 106, 101]
    assert clicks.time.tolist() == [40, 60, 60, 50]
    assert shop.items["item_id"].gather(purchases.item).to_list() == [104]
    assert shop.items["item_id"].gather(carts.item).to_list() == [102]
    assert (len(uncarts), len(shop.events)) == (0, 6)
    second, fourth = (shop.users["user_id"].index_of(user) for user in (7, 10))
    assert clicks.start[second : second + 2].tolist() == [0, 3]
    assert clicks.start[fourth : fourth + 2].tolist() == [3, 4]


ROWS = [(0, 7, 100, 100, 1), (0, 7, 101, 101, 0), (1, 7, 102, 200, 1), (2, 10, 103, 50, 0), (3, 10, 104, 300, 0)]


def test_without_events_the_clicks_are_those_of_impressions_at_their_own_time(tmp_path):
    shop = _tiny(tmp_path, ROWS)
    assert shop.items["item_id"].gather(shop.events.rows().item).to_list() == [100, 102]
    assert shop.events.rows().time.tolist() == [100, 200]
    assert shop.clicks_from == "impressions.parquet"
    assert set(shop.events.rows().action.tolist()) == {ACTIONS.index("click")}


def test_events_without_clicks_are_completed_by_the_clicks_of_impressions(tmp_path):
    cart = pl.DataFrame({"user_id": [7], "item_id": [105], "timestamp": [150], "action": ["cart"]})
    shop = _tiny(tmp_path, ROWS, events_frame=cart)
    assert shop.items["item_id"].gather(shop.events.rows().item).to_list() == [100, 105, 102]
    assert [ACTIONS[code] for code in shop.events.rows().action] == ["click", "cart", "click"]
    assert shop.clicks_from == "impressions.parquet"


def test_events_with_a_click_are_the_complete_log(tmp_path):
    click = pl.DataFrame({"user_id": [7], "item_id": [105], "timestamp": [150], "action": ["click"]})
    shop = _tiny(tmp_path, ROWS, events_frame=click)
    assert shop.items["item_id"].gather(shop.events.rows().item).to_list() == [105]
    assert shop.clicks_from == "events.parquet"


def test_other_columns_of_events_are_ignored(tmp_path):
    shop = _load(tmp_path, events_frame=lambda frame: frame.with_columns(pl.concat_list("item_id").alias("odd")))
    assert len(shop.events) > 0


# categories


def test_items_and_sessions_share_one_list_of_category_names(tmp_path):
    shop = _load(tmp_path)
    assert shop.category_names == ["bag", "shirt", "shoe"]
    assert shop.item_category is not None
    assert shop.session_category is not None
    assert [shop.category_names[code] for code in shop.item_category] == shop.items["category"].to_list()
    searched = [shop.category_names[code] for code in shop.session_category[shop.session]]
    assert searched == shop.impressions["category"].to_list()


def test_an_unknown_category_is_minus_1_and_one_known_row_sets_it_for_its_session(tmp_path):
    def gaps(frame: pl.DataFrame) -> pl.DataFrame:
        row = pl.int_range(pl.len())
        return frame.with_columns(pl.when((row < 5) | (row == 6)).then(None).otherwise("category").alias("category"))

    shop = _load(tmp_path, impressions_frame=gaps, items_frame=gaps)
    assert shop.session_category is not None
    assert shop.item_category is not None
    assert shop.session_category[0] == -1
    assert shop.category_names[shop.session_category[1]] == shop.impressions["category"][5]
    assert shop.item_category[:8].tolist().count(-1) == 6


def test_categories_may_be_integers(tmp_path):
    numbers = {"category": pl.col("category").replace_strict({"shirt": 3, "shoe": 20, "bag": 100})}

    def numbered(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(**numbers)

    shop = _load(tmp_path, items_frame=numbered, impressions_frame=numbered)
    assert shop.category_names == ["100", "20", "3"]


# the folder


def test_the_truth_of_a_simulated_shop_is_never_read(tmp_path):
    write_shop(tmp_path, pictures=False)
    (tmp_path / "truth").mkdir()
    for name in ("impressions", "items", "events", "users"):
        (tmp_path / "truth" / f"{name}.parquet").write_bytes(b"not to be read")
    assert len(load_shop(tmp_path).item) == 600


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "day=1 [a*b]?"
    shop = _load(folder)
    assert "day" not in shop.items.columns
    assert shop.folder == folder


def test_a_path_may_be_given_as_text(tmp_path):
    assert load_shop(str(write_shop(tmp_path, pictures=False))).folder == tmp_path


def test_every_refusal_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_shop(tmp_path / "nowhere")


def test_ids_and_categories_are_compared_as_they_are_written(tmp_path):
    """Unicode has two spellings of the same letter; a log with both has two items."""
    one, two = "caf\u00e9", "cafe\u0301"

    def rename(column: str):
        return lambda frame: frame.with_columns(pl.col(column).replace({"i0000": one, "i0001": two, "shirt": one, "shoe": two}))

    changes = {"items_frame": lambda f: rename("category")(rename("item_id")(f)), "events_frame": rename("item_id")}
    changes["impressions_frame"] = lambda f: rename("category")(rename("item_id")(f))
    shop = load_shop(write_shop(tmp_path / "shop", pictures=False, string_ids=True, **changes))
    assert shop.items["item_id"].to_list()[:2] == [one, two]
    assert set(shop.items["item_id"].gather(shop.item)) >= {one, two}
    assert {one, two} < set(shop.category_names)
