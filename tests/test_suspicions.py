"""Warnings of `data.validate` are given where they should be, and not for sound logs."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import load_shop
from data.suspicions.columns import an_id, constant, row_number, sentinel
from data.suspicions.names import column_names, picture_hint
from data.suspicions.rows import repeats, twins
from data.suspicions.warnings import warnings
from tests.shops import write_shop

SESSIONS, SHOWN, ITEMS, USERS = 500, 6, 60, 40


@pytest.fixture(scope="module")
def log() -> dict[str, pl.DataFrame]:
    """A sound log: clicks depend on an item's worth, the same for all users; 40 impressions per item."""
    random = np.random.default_rng(0)
    worth = random.normal(-1, 0.7, ITEMS)
    item = np.stack([random.choice(ITEMS, SHOWN, replace=False) for _ in range(SESSIONS)]).ravel()
    session, user = np.repeat(np.arange(SESSIONS), SHOWN), np.repeat(random.integers(0, USERS, SESSIONS), SHOWN)
    click = (random.random(len(item)) < 1 / (1 + np.exp(-worth[item]))).astype(np.int64)
    time = 1_700_000_000 + session * 600 + np.tile(np.arange(SHOWN), SESSIONS)
    impressions = pl.DataFrame({"session_id": session, "user_id": user, "item_id": item, "timestamp": time, "click": click})
    impressions = impressions.with_columns(position=np.tile(np.arange(SHOWN), SESSIONS), dwell=random.random(len(item)))
    items = pl.DataFrame(
        {"item_id": np.arange(ITEMS), "image": pl.Series([None] * ITEMS, dtype=pl.String), "price": random.random(ITEMS) * 50}
    )
    items = items.with_columns(worth=pl.Series(worth), brand=np.arange(ITEMS) % 7)
    return {"items": items, "impressions": impressions, "users": pl.DataFrame({"user_id": np.arange(USERS), "age": np.arange(USERS) % 5})}


@pytest.fixture
def found(log, tmp_path):
    """A function that returns the warnings of the log with changed tables."""

    def run(**changes) -> list[str]:
        for name, frame in log.items():
            changes.get(name, lambda same: same)(frame).write_parquet(tmp_path / f"{name}.parquet")
        return list(warnings(load_shop(tmp_path)))

    return run


def add(**columns):
    return lambda frame: frame.with_columns(**columns)


def test_a_sound_log_has_no_warning_whatever_the_order_of_its_rows(found):
    assert found() == []
    assert found(impressions=lambda f: f.sample(fraction=1, shuffle=True, seed=3)) == []


def test_a_built_in_world_has_no_warning(world):
    assert list(warnings(load_shop(world))) == []


def test_the_tests_own_shop_has_no_warning(tmp_path):
    assert list(warnings(load_shop(write_shop(tmp_path / "shop", pictures=False)))) == []


# rows

CLICKED, ROW = pl.col("click") == 1, pl.int_range(pl.len())


def day_again(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame[600:606]])


def numbered(change):
    return lambda frame: change(frame).with_row_index("number_in_export").cast({"number_in_export": pl.Int64})


def click_and_skip(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.filter(CLICKED).with_columns(click=pl.lit(0, pl.Int64))])


EVERY = "repeat an earlier one in every column"
# name, change, words of the warning
ROWS = [
    ("twice", lambda f: pl.concat([f, f]), f"3,000 of 6,000 rows {EVERY} (row 3000 is row 0 again)"),
    ("a page again", day_again, f"6 of 3,006 rows {EVERY} (row 3000 is row 600 again)"),
    ("numbered afterwards", numbered(day_again), f"6 of 3,006 rows {EVERY}"),
    ("click and skip", click_and_skip, "clicks are in the log as skips too: rows"),
    (
        "click and skip, other dwell",
        lambda f: click_and_skip(f).with_columns(dwell=pl.int_range(pl.len()) / 7),
        "agree in session_id, item_id",
    ),
    ("one twin", lambda f: pl.concat([f, f[7:8].with_columns(click=1 - pl.col("click"))]), "1 clicks are in the log as skips too"),
    ("fan-out", lambda f: pl.concat([f, f.with_columns(dwell=1 - pl.col("dwell"))]), "a join match several rows"),
    ("session is the user", lambda f: f.with_columns(session_id="user_id"), "is it the user's?"),
]


@pytest.mark.parametrize(("change", "words"), [pytest.param(change, words, id=name) for name, change, words in ROWS])
def test_rows_that_should_not_be_there_are_found(change, words, found):
    texts = [text for text in found(impressions=change) if "number_in_export" not in text]
    assert len(texts) == 1, texts
    assert texts[0].startswith("impressions.parquet")
    assert words in texts[0]


def test_an_item_shown_twice_on_a_few_pages_is_not_reported(found):
    """Once clicked and once not, at the same second, in 8 of some 900 clicks."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        again = frame.filter(CLICKED).head(8).with_columns(click=pl.lit(0, pl.Int64), position=pl.col("position") + 6, dwell=pl.lit(0.1))
        return pl.concat([frame, again])

    assert found(impressions=change) == []


def test_events_loaded_twice_are_found_and_one_repeated_purchase_is_not(tmp_path):
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame, frame.filter(pl.col("action") == "click"), frame.filter(pl.col("action") == "purchase").head(1)])

    (text,) = warnings(load_shop(write_shop(tmp_path, pictures=False, events_frame=change)))
    assert re.match(r"events.parquet: (\d+) of (\d+) click events repeat another", text)


def test_sessions_of_one_second_are_found(found):
    (text,) = found(impressions=add(timestamp=pl.lit(1_700_000_000)))
    assert "column 'timestamp': all sessions begin at the same second" in text


values = pl.Series([1, 2, 1, 3, 2, 1])


def test_a_repeat_names_the_first_row_and_the_one_it_repeats():
    result = repeats(pl.DataFrame({"a": values, "b": [0, 0, 1, 0, 0, 1]}), ["a", "b"])
    assert result is not None
    assert (result.rows, result.row, result.earlier) == (2, 4, 1)
    assert repeats(pl.DataFrame({"a": [1, None, 2]}), ["a"]) is None


def test_twins_are_counted_in_clicks():
    result = twins(pl.DataFrame({"a": values, "click": [0, 1, 1, 1, 1, 1]}), ["a"])
    assert result is not None
    assert (result.clicks, result.click, result.skip) == (2, 2, 0)
    assert twins(pl.DataFrame({"a": [1, 2], "click": [0, 1]}), ["a"]) is None


# columns


@pytest.mark.parametrize(
    ("file", "columns", "words"),
    [
        ("items", {"Unnamed: 0": pl.lit(3)}, "by its name the index of a data frame"),
        ("impressions", {"__index_level_0__": pl.int_range(pl.len()) * 2}, "by its name the index of a data frame"),
        ("impressions", {"n": pl.int_range(pl.len())}, "numbers the rows from 0 to 2999"),
        ("items", {"n": pl.int_range(pl.len(), 0, -1)}, "numbers the rows from 1 to 60"),
        ("users", {"n": pl.int_range(pl.len()).cast(pl.Float64)}, "numbers the rows from 0 to 39"),
        ("items", {"sku": pl.format("sku {}", "item_id")}, "no two of its 60 rows share a value"),
        ("items", {"category": pl.format("leaf {}", "item_id")}, "no two of its 60 rows share a value"),
        ("items", {"cents": pl.int_range(pl.len()) * 7 + 99}, "write it as floats if it is a number"),
        ("users", {"country": pl.lit("NL")}, "it holds 'NL' in every row"),
        ("impressions", {"depth": pl.lit(1.5)}, "it holds 1.5 in every row"),
        ("items", {"material": pl.lit(None, pl.String)}, "it holds only nulls"),
        ("items", {"price": pl.when(ROW == 7).then(1.797e308).otherwise("price")}, "row 7: value 1.797e+308 (1 of 60 rows)"),
        ("items", {"price": pl.when(ROW == 7).then(-1e200).otherwise("price")}, "row 7: value -1e+200"),
        ("items", {"price": pl.when(ROW > 50).then(1e20).otherwise("price")}, "row 51: value 1e+20 (9 of 60 rows)"),
        ("items", {"price": pl.when(ROW == 9).then(-999.0).otherwise("price")}, "row 9: value -999"),
    ],
)  # fmt: skip
def test_columns_that_teach_nothing_are_found(file, columns, words, found):
    (text,) = found(**{file: add(**columns)})
    assert text.startswith(f"{file}.parquet, column '{next(iter(columns))}': ")
    assert words in text


def test_features_like_others_are_not_suspected():
    random = np.random.default_rng(1)
    heavy = pl.Series("spend", random.pareto(1.0, 100_000))
    assert sentinel(heavy) is None
    assert sentinel(pl.Series("x", random.standard_normal(1000))) is None
    assert sentinel(pl.Series("x", [-1.0, -0.5, 3.0] * 10)) is None
    assert sentinel(pl.Series("x", [None, float("nan")], dtype=pl.Float64)) is None
    assert row_number(pl.Series("position", [0, 1, 2, 3] * 10)) is None
    assert row_number(pl.Series("rank", [*range(39), 40])) is None
    assert an_id(pl.Series("brand", ["a", "b"] * 20)) is None
    assert an_id(pl.Series("rare", [*range(15), *[None] * 30])) is None
    assert constant(pl.Series("flag", [True, None])) is None


# labels in features


def rate(log, *, rows=slice(None), smoothing=0.0):
    """An item column: click rates over some rows."""
    part = log["impressions"][rows]
    shown, clicks = (np.bincount(part["item_id"], weights=weight, minlength=ITEMS) for weight in (None, part["click"].to_numpy()))
    return pl.Series((clicks + 0.3 * smoothing) / (shown + smoothing))


def counts(log):
    return pl.Series(np.bincount(log["impressions"]["item_id"], weights=log["impressions"]["click"].to_numpy(), minlength=ITEMS)).cast(
        pl.Int64
    )


EARLY, BEFORE = slice(0, 2400), slice(0, 1200)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(rate, id="rates"),
        pytest.param(lambda log: rate(log).round(2), id="rounded"),
        pytest.param(lambda log: rate(log, smoothing=5.0), id="smoothed"),
        pytest.param(lambda log: -rate(log).log1p(), id="of the logarithm, reversed"),
        pytest.param(counts, id="click counts"),
    ],
)
def test_an_item_column_made_of_the_clicks_of_the_full_log_is_found(made, log, found):
    column = made(log)
    (text,) = found(items=add(popularity=column))
    assert re.match(r"items.parquet, column 'popularity': its rank correlation with the click(s| rate) of each item is", text)
    (text,) = found(impressions=lambda f: f.with_columns(popularity=column.gather(f["item_id"])))
    assert text.startswith("impressions.parquet, column 'popularity': ")


def test_a_user_column_made_of_the_clicks_of_the_full_log_is_found(log, found):
    column = log["impressions"].group_by("user_id").agg(pl.col("click").mean()).sort("user_id")["click"]
    (text,) = found(users=add(eagerness=column))
    assert "users.parquet, column 'eagerness'" in text


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda log: rate(log, rows=EARLY), id="the rate before validation"),
        pytest.param(lambda log: rate(log, rows=BEFORE), id="the rate in the pretraining period"),
        pytest.param(lambda log: log["items"]["worth"] * 2, id="what clicks depend on"),
    ],
)
def test_what_was_known_before_is_not_a_leak(made, log, found):
    assert found(items=add(popularity=made(log))) == []


def test_an_items_true_worth_is_not_a_leak_in_logs_of_any_size():
    """None of 60 logs, short and long, causes a warning about the very column that its clicks depend on."""
    from data.suspicions.leaks import EXPLAINED, SURER, _rank_correlation

    random, suspected = np.random.default_rng(5), 0
    for shown in (10, 100, 1000, 10_000) * 15:
        worth = random.beta(2, 6, ITEMS)
        early, late = random.binomial(int(0.8 * shown), worth), random.binomial(shown - int(0.8 * shown), worth)
        full, before = _rank_correlation(worth, (early + late) / shown), _rank_correlation(worth, early / (0.8 * shown))
        suspected += full**2 >= EXPLAINED and 1 - before**2 > SURER * (1 - full**2)
    assert suspected == 0


def test_negatives_with_a_value_of_their_own_are_found(found):
    (text,) = found(impressions=lambda f: f.with_columns(position=pl.when(CLICKED).then(pl.col("position") % 6).otherwise(0)))
    assert "column 'position': it is 0 for all skips, but varies among clicks" in text


def test_a_query_that_only_clicks_have_is_found(found):
    (text,) = found(impressions=lambda f: f.with_columns(query=pl.when(CLICKED).then(pl.lit("shoe"))))
    assert "column 'query': alone it ranks clicks with AUC 1.000" in text


# names


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        ("impressions.parquet", "Query", "rename it if 'query' was meant"),
        ("items.parquet", "title ", "rename it if 'title' was meant"),
        ("items.parquet", "click", "it has its meaning only in impressions.parquet"),
        ("impressions.parquet", "title", "it has its meaning only in items.parquet"),
        ("users.parquet", "timestamp", "it has its meaning only in"),
        ("items.parquet", "own_score", "it has its meaning only in impressions.parquet"),
    ],
)
def test_a_column_named_like_one_with_a_meaning_is_found(file, name, words):
    (text,) = column_names(file, pl.DataFrame({name: [1]}))
    assert text[0] == name
    assert "read as a feature" in text[1]
    assert words in text[1]


def test_columns_that_differ_only_by_case_are_found():
    assert [name for name, _ in column_names("items.parquet", pl.DataFrame({"item_id": [1], "price": [2.0], "Price": [3.0]}))] == ["Price"]
    assert list(column_names("users.parquet", pl.DataFrame({"user_id": [1], "category": ["a"], "item_id": [3]}))) == []


def test_categories_that_differ_only_by_case_or_normal_form_are_found(found):
    (text,) = found(items=add(category=pl.Series(["café", "cafe\u0301", "shoe", "bag"])[[n % 4 for n in range(ITEMS)]]))
    assert "2 categories differ from another only by case, spaces or Unicode form" in text


@pytest.mark.parametrize(
    ("there", "asked", "hint"),
    [
        ("Shoe.PNG", "shoe.png", "Shoe.PNG"),
        ("a/cafe\u0301.png", "A/caf\u00e9.png", "a/cafe\u0301.png"),
        ("a.png", "b.png", None),
        ("a.png", "a.png", None),
        ("a.png", "a.png/b.png", None),
    ],
)
def test_for_a_missing_picture_one_that_looks_the_same_is_suggested(there, asked, hint, tmp_path):
    (tmp_path / "images" / there).parent.mkdir(parents=True)
    (tmp_path / "images" / there).write_bytes(b"")
    assert picture_hint(tmp_path, asked) == hint
