"""Every polars type in every column: the same shop as with the column's plain type, or a refusal that names file and column."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data.log.ingest import ingest
from data.log.shop_folder import Shop, load_shop
from run.errors import DataError
from tests.test_ingest import assert_same_shop

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.UInt128)
FLOATS = (pl.Float16, pl.Float32, pl.Float64, pl.Decimal(38, 6), pl.Decimal(4, 0))
UNITS = [pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Asia/Tokyo")]
SESSIONS, SHOWN, ITEMS, USERS = 20, 4, 6, 5


@cache
def plain() -> dict[str, pl.DataFrame]:
    """Tables of integers below 120 and of texts: values that nearly every type can hold."""
    random = np.random.default_rng(0)
    session = np.repeat(np.arange(SESSIONS), SHOWN)
    n = SESSIONS * SHOWN
    user = random.integers(0, USERS, SESSIONS)[session]
    names = pl.Series(["b", "a", None])
    impressions = pl.DataFrame(
        {
            "session_id": session,
            "user_id": user,
            "item_id": random.integers(0, ITEMS, n),
            "timestamp": session * 5 + np.tile(np.arange(SHOWN), SESSIONS),
            "click": np.arange(n) % 3 == 0,
            "query": names[(session % 3).tolist()],
            "category": names[(session % 3).tolist()],
            "split": pl.Series(["pretrain", "train", "valid", "test"])[(session // 5).tolist()],
            "feature": np.arange(n) % 4,
        }
    )
    number = np.arange(ITEMS)
    items = pl.DataFrame({"item_id": number, "image": names[(number % 3).tolist()], "title": names[(number % 3).tolist()]})
    items = items.with_columns(category=names[(number % 3).tolist()], feature=number % 4)
    users = pl.DataFrame({"user_id": np.arange(USERS), "feature": np.arange(USERS) % 4})
    events = pl.DataFrame({"user_id": user, "item_id": impressions["item_id"], "timestamp": np.arange(n)})
    events = events.with_columns(action=pl.Series(["click", "cart"])[(np.arange(n) % 2).tolist()])
    return {"items": items, "users": users, "impressions": impressions, "events": events}


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    for name, frame in plain().items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def write(plain_folder):
    """A function: a shop folder whose `file` has other values in a column; its other tables are those of `plain_folder`."""

    def write(folder: Path, file: str, column: str, values: pl.Series) -> Path:
        folder.mkdir()
        for name, frame in plain().items():
            path = folder / f"{name}.parquet"
            if name == file:
                frame.with_columns(values.alias(column)).write_parquet(path)
            else:
                path.symlink_to(plain_folder / f"{name}.parquet")
        return folder

    return write


def change(folder: Path, file: str, how: pl.Expr) -> None:
    path = folder / f"{file}.parquet"
    frame = pl.read_parquet(path).with_columns(how)
    path.unlink()
    frame.write_parquet(path)


def as_texts(values: pl.Series) -> pl.Series:
    return values if values.dtype == pl.String else values.cast(pl.Int64).cast(pl.String)


def typed(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The values cast to a type, whatever that makes of them."""
    codes = values.cast(pl.Int64) if values.dtype != pl.String else values.rank("dense").cast(pl.Int64)
    if dtype in (pl.String, pl.Categorical, pl.Binary):
        return as_texts(values).cast(dtype)
    if isinstance(dtype, pl.Enum):
        return as_texts(values).cast(pl.Enum(sorted(as_texts(values).drop_nulls().unique(), reverse=True)))
    if isinstance(dtype, pl.Null):
        return pl.Series([None] * len(values))
    if isinstance(dtype, (pl.List, pl.Array)):
        return codes.reshape((-1, 1)).cast(dtype)
    if isinstance(dtype, pl.Struct):
        return pl.DataFrame({"a": codes}).to_struct()
    if isinstance(dtype, pl.Datetime):
        return (codes * {"ms": 10**3, "us": 10**6, "ns": 10**9}[dtype.time_unit]).cast(pl.Datetime(dtype.time_unit)).dt.replace_time_zone(
            "UTC" if dtype.time_zone else None
        ).cast(dtype)  # fmt: skip
    return codes.cast(dtype) if dtype != pl.Boolean else codes > 0


OTHERS = (pl.Boolean(), pl.Null(), pl.Binary(), pl.Date(), pl.Time(), pl.Duration("us"), UNITS[0], pl.List(pl.Int64), pl.Array(pl.Int64, 1),
          pl.Struct({"a": pl.Int64}))  # fmt: skip
TYPES = (*(dtype() for dtype in INTEGERS), *(d if isinstance(d, pl.Decimal) else d() for d in FLOATS), pl.String(), pl.Categorical(),
         pl.Enum(["a"]), *OTHERS)  # fmt: skip
NUMBERS = {"integers": pl.Int64, "floats": pl.Float64, "text": pl.String, "boolean": pl.Boolean, "times": pl.Int64, "null": pl.String}
# what each kind of column accepts
TAKES = {
    "id": {"integers"}, "text id": {"text"}, "time": {"integers", "times"}, "click": {"integers", "floats", "boolean"},
    "text": {"text", "null"}, "name": {"text"}, "category": {"text", "null"}, "feature": {"integers", "floats", "text", "boolean"},
}  # fmt: skip
COLUMNS = [
    ("items", "item_id", "id"), ("items", "image", "text"), ("items", "title", "text"), ("items", "category", "category"),
    ("items", "feature", "feature"), ("users", "user_id", "id"), ("users", "feature", "feature"), ("impressions", "session_id", "session"),
    ("impressions", "user_id", "id"), ("impressions", "item_id", "id"), ("impressions", "timestamp", "time"),
    ("impressions", "click", "click"), ("impressions", "query", "text"), ("impressions", "category", "category"),
    ("impressions", "split", "name"), ("impressions", "feature", "feature"), ("events", "user_id", "id"), ("events", "item_id", "id"),
    ("events", "timestamp", "time"), ("events", "action", "name"),
]  # fmt: skip
TAKES["session"] = {"integers", "text"}


def kind(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "integers"
    if dtype.is_float() or dtype.is_decimal():
        return "floats"
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return "text"
    return "times" if isinstance(dtype, pl.Datetime) else str(dtype).lower()


def plain_form(values: pl.Series) -> pl.Series:
    name = kind(values.dtype)
    if name == "times":
        return values.dt.epoch("s")
    return values.cast(NUMBERS[name])


@pytest.mark.parametrize(("file", "column", "takes"), COLUMNS, ids=[f"{file}.{column}" for file, column, _ in COLUMNS])
def test_every_type_is_read_as_its_plain_form_or_refused_by_file_and_column(file, column, takes, tmp_path, write):
    wanted: dict[str, Shop] = {}
    for number, dtype in enumerate((*TYPES, *(UNITS if takes == "time" else ()))):
        values = typed(plain()[file][column], dtype)
        folder = write(tmp_path / str(number), file, column, values)
        if kind(dtype) not in TAKES[takes]:
            with pytest.raises(DataError, match=rf"^\w+\.parquet: .*column '{column}'") as refused:
                load_shop(folder)
            assert f"{file}.parquet" in str(refused.value)
            continue
        written = plain_form(values)
        key = f"{kind(dtype)} {written.dtype} {written.to_list()}"  # the same for all types except those that truncate values
        if key not in wanted:
            wanted[key] = load_shop(write(tmp_path / f"plain {number}", file, column, written))
        assert_same_shop(at(wanted[key], folder), load_shop(folder))
        if number % 7 == 0:  # the same code reads all of them, so a sample will do
            assert_same_shop(at(wanted[key], folder), ingest(folder, tmp_path / f"log {number}", stretch=30))
    assert wanted


def at(shop: Shop, folder: Path) -> Shop:
    from dataclasses import replace

    return replace(shop, folder=folder)


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int128, pl.UInt128])
@pytest.mark.parametrize("file", ["items", "users", "impressions"])
def test_an_integer_feature_beyond_64_bits_is_refused_with_its_row(dtype, file, tmp_path, write):
    frame = plain()[file]
    values = pl.Series([1, 2**63] + [3] * (frame.height - 2), dtype=dtype)
    with pytest.raises(DataError, match=rf"{file}.parquet: row 1, column 'feature': value {2**63}; .* 64 bits .*; write them as text"):
        load_shop(write(tmp_path / "shop", file, "feature", values))


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0])
def test_ids_at_the_limits_of_64_bits_are_ordinary_ids(value, tmp_path, write):
    folder = write(tmp_path / "shop", "impressions", "session_id", plain()["impressions"]["session_id"])
    for name, column in (("items", "item_id"), ("impressions", "item_id"), ("events", "item_id")):
        change(folder, name, pl.col(column).replace({3: value, 0: 7}))
    shop = load_shop(folder)
    assert shop.items["item_id"][3] == value
    assert (shop.item == 3).any()
    assert_same_shop(shop, ingest(folder, tmp_path / "log", stretch=30))


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int128, pl.UInt128])
def test_a_time_beyond_64_bits_is_too_late(dtype, tmp_path, write):
    values = pl.Series([2**63] + [5] * (SESSIONS * SHOWN - 1), dtype=dtype)
    with pytest.raises(DataError, match=f"row 0, column 'timestamp': value {2**63}; is too late"):
        load_shop(write(tmp_path / "shop", "impressions", "timestamp", values))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_half_a_second_before_1970_is_before_1970(unit, tmp_path, write):
    moment = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
    values = pl.Series([moment] * SESSIONS * SHOWN, dtype=pl.Datetime(unit, "UTC"))
    with pytest.raises(DataError, match=r"row 0, column 'timestamp': .* before 1970"):
        load_shop(write(tmp_path / "shop", "impressions", "timestamp", values))


OURS = ("row", "index", "value", "time", "id", "size", "first_row", "key", "len", "count", "gone", "literal", "column_0", "of", "event")


@pytest.mark.parametrize("name", [*OURS, "*", "^", "$", "", "a.b", "%", "{}", "[red]"])
def test_a_feature_may_have_any_name(name, tmp_path, write):
    from data.suspicions.warnings import warnings

    folder = write(tmp_path / "shop", "impressions", name, pl.Series(np.arange(SESSIONS * SHOWN) % 5))
    for table in ("items", "users"):
        change(folder, table, (pl.int_range(pl.len()) % 2).alias(name))
    shop = load_shop(folder)
    stored = ingest(folder, tmp_path / "log", stretch=30)
    assert_same_shop(shop, stored)
    assert stored.impressions[name].to_list() == shop.impressions[name].to_list() == (np.arange(SESSIONS * SHOWN) % 5).tolist()
    assert [text for text in warnings(shop) if f"column {name!r}" in text and name not in ("", "index")] == []


@pytest.mark.parametrize("file", ["items", "users", "impressions"])
def test_a_name_that_polars_takes_for_a_pattern_is_refused(file, tmp_path, write):
    folder = write(tmp_path / "shop", file, "^f.*$", plain()[file]["feature"])
    for read in (load_shop, lambda folder: ingest(folder, tmp_path / "log", stretch=30)):
        with pytest.raises(DataError, match=rf"{file}.parquet: column '\^f\.\*\$': .*rename"):
            read(folder)
