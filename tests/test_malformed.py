"""Malformed shop folders: one line that names file, row, column, value and the fix; exit code 2; never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.validate import main
from tests.shops import write_shop

ROOT = Path(__file__).parents[1]
Change = Callable[[pl.DataFrame], pl.DataFrame]


def cell(column: str, row: int, value: object) -> Change:
    """Put `value` in one cell; the column gets a type that can hold it."""
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    )


def column(name: str, values: object) -> Change:
    """Replace or add a column: an expression, or one value for all rows."""
    written: pl.Expr = values if isinstance(values, pl.Expr) else pl.lit(values)
    return lambda frame: frame.with_columns(written.alias(name))


def repeat_row_0(column_name: str, row: int) -> Change:
    """Give `row` the value of row 0."""
    return lambda frame: cell(column_name, row, frame[column_name][0])(frame)


def split_column(*names: str | None) -> Change:
    """A `split` column: 120 sessions of 5 rows, divided equally and in order among `names`."""
    return column("split", pl.Series([name for name in names for _ in range(600 // len(names))]))


def text_ids(name: str) -> Change:
    return column(name, pl.col(name).cast(pl.String))


SECONDS = pl.col("timestamp")

# name, the frames' changes, pieces of the message
TABLES: list[tuple[str, dict, tuple[str, ...]]] = [
    # missing and empty tables, missing columns
    ("no items", {"items_frame": None}, ("items.parquet", "no such file")),
    ("no impressions", {"impressions_frame": None}, ("impressions.parquet", "no such file")),
    ("no item rows", {"items_frame": lambda f: f.head(0)}, ("items.parquet", "no rows", "fill it")),
    ("no event rows", {"events_frame": lambda f: f.head(0)}, ("events.parquet", "no rows", "delete the file")),
    ("no user rows", {"users_frame": lambda f: f.head(0)}, ("users.parquet", "no rows", "delete the file")),
    ("item_id misspelt", {"items_frame": lambda f: f.rename({"item_id": "itemid"})},
     ("items.parquet", "column 'item_id'", "did you mean 'itemid'?")),
    ("no click column", {"impressions_frame": lambda f: f.drop("click")},
     ("impressions.parquet", "column 'click'", "no such column", "session_id, user_id")),
    ("no user_id of users", {"users_frame": lambda f: f.drop("user_id")}, ("users.parquet", "column 'user_id'")),
    ("action misspelt", {"events_frame": lambda f: f.rename({"action": "actions"})},
     ("events.parquet", "column 'action'", "did you mean 'actions'?")),
    # ids
    ("null item_id", {"items_frame": cell("item_id", 4, None)},
     ("items.parquet", "row 4", "column 'item_id'", "value None", "every row needs an id")),
    ("null session_id", {"impressions_frame": cell("session_id", 9, None)},
     ("impressions.parquet", "row 9", "column 'session_id'", "value None")),
    ("nothing but null ids", {"impressions_frame": column("user_id", None)},
     ("impressions.parquet", "row 0", "column 'user_id'", "every row needs an id")),
    ("item twice", {"items_frame": repeat_row_0("item_id", 7)},
     ("items.parquet", "row 7", "column 'item_id'", "value 100", "keep one row for each id")),
    ("user twice", {"users_frame": repeat_row_0("user_id", 3)},
     ("users.parquet", "row 3", "column 'user_id'", "value 7", "keep one row for each id")),
    ("float ids", {"items_frame": column("item_id", pl.col("item_id") + 0.5)},
     ("items.parquet", "column 'item_id'", "Float64", "integers or text")),
    ("id beyond 64 bits", {"items_frame": column("item_id", pl.int_range(40, dtype=pl.UInt64) + 2**63)},
     ("items.parquet", "row 0", "value 9223372036854775808", "write them as text")),
    ("items of another kind", {"items_frame": text_ids("item_id")},
     ("impressions.parquet", "column 'item_id'", "integers here but text in items.parquet", "one kind of id")),
    ("users of another kind", {"users_frame": text_ids("user_id")},
     ("impressions.parquet", "column 'user_id'", "integers here but text in users.parquet")),
    ("events of another kind", {"events_frame": text_ids("user_id")},
     ("events.parquet", "column 'user_id'", "text here but integers in users.parquet")),
    ("unknown item shown", {"impressions_frame": cell("item_id", 12, 5)},
     ("impressions.parquet", "row 12", "column 'item_id'", "value 5", "unknown to items.parquet", "add it there")),
    ("unknown user", {"impressions_frame": cell("user_id", 0, 8)},
     ("impressions.parquet", "row 0", "column 'user_id'", "value 8", "unknown to users.parquet")),
    ("unknown item clicked", {"events_frame": cell("item_id", 2, 99)},
     ("events.parquet", "row 2", "column 'item_id'", "value 99", "unknown to items.parquet")),
    ("unknown user of an event", {"events_frame": cell("user_id", 1, 99)},
     ("events.parquet", "row 1", "column 'user_id'", "value 99", "unknown to users.parquet")),
    # actions and clicks
    ("unknown action", {"events_frame": cell("action", 6, "view")},
     ("events.parquet", "row 6", "column 'action'", "value 'view'", "click, purchase, cart, uncart")),
    ("null action", {"events_frame": cell("action", 6, None)},
     ("events.parquet", "row 6", "column 'action'", "value None")),
    ("action numbers", {"events_frame": column("action", 1)}, ("events.parquet", "column 'action'", "type Int32")),
    ("click 2", {"impressions_frame": cell("click", 112, 2)},
     ("impressions.parquet: row 112, column 'click': value 2; clicks are 0 or 1",)),
    ("click -1", {"impressions_frame": cell("click", 0, -1)},
     ("row 0", "column 'click'", "value -1", "clicks are 0 or 1")),
    ("null click", {"impressions_frame": cell("click", 8, None)},
     ("row 8", "column 'click'", "value None", "clicks are 0 or 1")),
    ("half a click", {"impressions_frame": cell("click", 8, 0.5)},
     ("row 8", "column 'click'", "value 0.5", "clicks are 0 or 1")),
    ("NaN click", {"impressions_frame": cell("click", 8, float("nan"))}, ("row 8", "column 'click'", "value nan")),
    ("text clicks", {"impressions_frame": column("click", "yes")},
     ("column 'click'", "type String", "clicks are 0 or 1")),
    ("no click", {"impressions_frame": column("click", 0)},
     ("impressions.parquet", "column 'click'", "no row is a click")),
    ("all clicks", {"impressions_frame": column("click", 1)},
     ("impressions.parquet", "column 'click'", "every row is a click")),
    # times
    ("negative time", {"impressions_frame": cell("timestamp", 3, -5)},
     ("impressions.parquet", "row 3", "column 'timestamp'", "value -5", "before 1970", "Unix seconds")),
    ("milliseconds", {"impressions_frame": column("timestamp", SECONDS * 1000)},
     ("impressions.parquet", "row 0", "column 'timestamp'", "milliseconds", "Unix seconds")),
    ("one event in milliseconds", {"events_frame": cell("timestamp", 4, 1_700_000_000_000)},
     ("events.parquet", "row 4", "column 'timestamp'", "value 1700000000000", "milliseconds")),
    ("null time", {"impressions_frame": cell("timestamp", 11, None)},
     ("row 11", "column 'timestamp'", "value None", "needs a time")),
    ("float times", {"impressions_frame": column("timestamp", SECONDS + 0.25)},
     ("column 'timestamp'", "type Float64", "integers")),
    ("text times", {"events_frame": column("timestamp", "2023-11-14")},
     ("events.parquet", "column 'timestamp'", "type String", "datetime column")),
    ("dates", {"impressions_frame": column("timestamp", date(2024, 5, 1))},
     ("impressions.parquet", "column 'timestamp'", "type Date", "no time of day", "datetime column")),
    ("dates of events", {"events_frame": column("timestamp", date(2024, 5, 1))},
     ("events.parquet", "column 'timestamp'", "type Date", "no time of day")),
    ("before 1970", {"impressions_frame": column("timestamp", datetime(1969, 5, 1))},
     ("row 0", "column 'timestamp'", "value 1969-05-01 00:00:00", "before 1970")),
    # sessions
    ("one session, two users", {"impressions_frame": repeat_row_0("user_id", 9)},
     ("impressions.parquet", "row 9", "column 'user_id'", "value 7", "one session belongs to one user", "session_id")),
    ("one session, two categories", {"impressions_frame": cell("category", 6, "hat")},
     ("impressions.parquet", "row 6", "column 'category'", "value 'hat'", "one category")),
    # features
    ("infinite price", {"items_frame": cell("price", 5, float("inf"))},
     ("items.parquet", "row 5", "column 'price'", "value inf", "null where it is missing")),
    ("infinite spend", {"users_frame": cell("spend", 2, float("-inf"))},
     ("users.parquet", "row 2", "column 'spend'", "value -inf")),
    ("infinite discount", {"impressions_frame": cell("discount", 77, float("inf"))},
     ("impressions.parquet", "row 77", "column 'discount'", "value inf")),
    ("list feature", {"items_frame": column("tags", pl.concat_list("brand", "brand"))},
     ("items.parquet", "column 'tags'", "List(Int64)", "one column for each value")),
    ("struct feature", {"users_frame": column("home", pl.struct("user_id"))},
     ("users.parquet", "column 'home'", "Struct", "drop")),
    ("bytes feature", {"impressions_frame": column("raw", pl.col("query").cast(pl.Binary))},
     ("impressions.parquet", "column 'raw'", "Binary", "write it as text")),
    ("date feature", {"items_frame": column("since", date(2020, 1, 1))},
     ("items.parquet", "column 'since'", "Date", "as a number")),
    ("feature of nulls", {"items_frame": column("colour", None)},
     ("items.parquet", "column 'colour'", "Null", "drop the column")),
    ("category numbers", {"items_frame": column("category", 0.5)},
     ("items.parquet", "column 'category'", "text or integers")),
    ("categories of two kinds", {"items_frame": column("category", 3)},
     ("impressions.parquet", "column 'category'", "write both the same way")),
    ("title numbers", {"items_frame": column("title", 3)},
     ("items.parquet", "column 'title'", "type Int32", "as text")),
    ("query numbers", {"impressions_frame": column("query", 3)}, ("impressions.parquet", "column 'query'", "as text")),
    # image paths
    ("absolute image", {"items_frame": cell("image", 3, "/etc/hosts")},
     ("items.parquet", "row 3", "column 'image'", "value '/etc/hosts'", "relative path under images/")),
    ("image above images/", {"items_frame": cell("image", 3, "a/../../x.png")},
     ("items.parquet", "row 3", "column 'image'", "value 'a/../../x.png'", "no '..'")),
    ("image on a drive", {"items_frame": cell("image", 3, "C:\\x.png")}, ("items.parquet", "row 3", "column 'image'")),
    ("empty image", {"items_frame": cell("image", 3, "")},
     ("items.parquet", "row 3", "value ''", "null means no picture")),
    ("image numbers", {"items_frame": column("image", 3)},
     ("items.parquet", "column 'image'", "type Int32", "as text")),
    ("no image column", {"items_frame": lambda f: f.rename({"image": "imgae"})},
     ("column 'image'", "did you mean 'imgae'?")),
    # splits
    ("unknown split", {"impressions_frame": split_column("train", "valid", "tset")},
     ("impressions.parquet", "row 400", "column 'split'", "value 'tset'", "pretrain, train, valid, test")),
    ("null split", {"impressions_frame": split_column("train", None, "test")},
     ("row 200", "column 'split'", "value None")),
    ("split within a session",
     {"impressions_frame": lambda f: cell("split", 7, "valid")(split_column("train", "valid", "test")(f))},
     ("row 7", "column 'split'", "value 'valid'", "one split")),
    ("split without valid", {"impressions_frame": split_column("train", "test")},
     ("column 'split'", "no row has 'valid'")),
    ("split back in time", {"impressions_frame": split_column("train", "test", "valid")},
     ("row 595", "column 'split'", "value 'valid'", "after 'test' began (row 200", "--allow-unordered-split")),
    ("two sessions", {"impressions_frame": lambda f: f.head(10)},
     ("impressions.parquet", "2 sessions", "more sessions or other --split-fractions")),
    # names that are reserved but not read yet
    ("history list", {"impressions_frame": column("history", pl.concat_list("item_id"))},
     ("impressions.parquet", "column 'history'", "not supported yet", "events.parquet")),
]  # fmt: skip


def _no_folder(folder: Path) -> None:
    pass


def _a_file(folder: Path) -> None:
    folder.write_text("hello")


def _no_parquet(folder: Path) -> None:
    (write_shop(folder, pictures=False) / "items.parquet").write_text("item_id,image\n1,a.png\n")


def _cut_parquet(folder: Path) -> None:
    path = write_shop(folder, pictures=False) / "impressions.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def _table_is_folder(folder: Path) -> None:
    (write_shop(folder, pictures=False, events_frame=None) / "events.parquet").mkdir()


def _misspelt_file(folder: Path) -> None:
    write_shop(folder, pictures=False)
    (folder / "impressions.parquet").rename(folder / "impression.parquet")


def _csv(folder: Path) -> None:
    path = write_shop(folder, pictures=False) / "items.parquet"
    pl.read_parquet(path).write_csv(folder / "items.csv")
    path.unlink()


def _vectors(folder: Path) -> None:
    (write_shop(folder, pictures=False) / "vectors.npy").write_bytes(b"")


def _no_images(folder: Path) -> None:
    write_shop(folder, pictures=False)


def _doubled(folder: Path) -> None:
    write_shop(folder, items_frame=column("image", "images/" + pl.col("image")))


def _damaged_picture(folder: Path) -> None:
    path = write_shop(folder) / "images" / "0003.png"
    path.write_bytes(path.read_bytes()[:60])


def _picture_elsewhere(folder: Path) -> None:
    path = write_shop(folder) / "images" / "0003.png"
    path.rename(folder / "secret.png")
    path.symlink_to(folder / "secret.png")


FOLDERS: list[tuple[str, Callable[[Path], None], tuple[str, ...]]] = [
    ("no folder", _no_folder, ("/shop: no such folder", "items.parquet and impressions.parquet")),
    ("a file", _a_file, ("/shop: is a file", "give the folder")),
    ("no parquet", _no_parquet, ("items.parquet", "not readable as parquet", "write the file again")),
    ("cut parquet", _cut_parquet, ("impressions.parquet", "not readable as parquet", "write the file again")),
    ("table is a folder", _table_is_folder, ("events.parquet", "is not a file", "one parquet file")),
    ("csv", _csv, ("items.parquet: no such file", "there is 'items.csv': write it as parquet")),
    ("misspelt file", _misspelt_file, ("impressions.parquet", "no such file", "did you mean 'impression.parquet'?")),
    ("vectors", _vectors, ("vectors.npy", "not supported yet", "give pictures")),
    ("no images", _no_images, ("items.parquet: row 0", "'image'", "39 (100.0 %)", "images/0000.png", "--max-bad-images")),
    (
        "images/ before each path",
        _doubled,
        ("items.parquet: row 0, column 'image': value 'images/0000.png'", "drop", "'0000.png' instead of"),
    ),
    (
        "damaged picture",
        _damaged_picture,
        ("items.parquet: row 3, column 'image': value '0003.png'", "1 (2.6 %)", "images/0003.png", "set their image to null"),
    ),
    ("picture elsewhere", _picture_elsewhere, ("items.parquet", "1 (2.6 %)", "images/0003.png (leads out of images/)")),
]


def assert_refused(argv: list[str], pieces: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert [piece for piece in pieces if piece not in message] == [], message


@pytest.mark.parametrize(("changes", "pieces"), [pytest.param(c, p, id=name) for name, c, p in TABLES])
def test_a_bad_table_is_refused_with_place_value_and_fix(changes, pieces, tmp_path, capsys):
    assert_refused([str(write_shop(tmp_path / "shop", pictures=False, **changes))], pieces, capsys)


@pytest.mark.parametrize(("spoil", "pieces"), [pytest.param(s, p, id=name) for name, s, p in FOLDERS])
def test_a_bad_folder_is_refused_with_place_and_fix(spoil, pieces, tmp_path, capsys):
    spoil(tmp_path / "shop")
    assert_refused([str(tmp_path / "shop")], pieces, capsys)


@pytest.mark.parametrize("flags", [["--max-bad-images", "2"], ["--max-bad-images", "nan"], ["--workers", "0"]])
def test_a_bad_setting_is_refused_by_name(flags, shop_folder, capsys):
    assert_refused([str(shop_folder), *flags], (f"setting '{flags[0].strip('-').replace('-', '_')}'", "give a"), capsys)


def test_the_folder_behind_all_these_cases_is_accepted(shop_folder, capsys):
    assert main([str(shop_folder)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for piece in ("1 (2.5 %)", "600", "120", "2023-11-14", "split valid", "median", "p90", "one-class", "39 files"):
        assert piece in shown.out


def test_the_flags_that_messages_name_exist(tmp_path, capsys):
    three_sessions = write_shop(tmp_path / "three", pictures=False, impressions_frame=lambda f: f.head(15))
    assert main([str(three_sessions), "--no-images"]) == 2
    main([str(three_sessions), "--no-images", "--split-fractions", "0", "0.34", "0.33", "0.33"])
    assert "split valid" in capsys.readouterr().out
    back = write_shop(tmp_path / "back", pictures=False, impressions_frame=split_column("train", "test", "valid"))
    main([str(back), "--no-images", "--allow-unordered-split"])
    assert "allowed by --allow-unordered-split" in capsys.readouterr().out
    wrong = ["--split-fractions", "0.5", "0.5", "0.1", "0.1"]
    assert_refused([str(three_sessions), *wrong], ("setting 'split_fractions'", "sum 1"), capsys)


def test_a_few_unreadable_pictures_are_listed_and_accepted(tmp_path, capsys):
    _damaged_picture(tmp_path / "shop")
    assert main([str(tmp_path / "shop"), "--max-bad-images", "0.03"]) == 0
    shown = capsys.readouterr().out
    assert "unreadable: items.parquet row 3: images/0003.png: " in shown
    assert "39 files read, 1 unreadable" in shown


def test_a_picture_folder_named_images_within_images_is_a_path_like_any_other(tmp_path, capsys):
    folder = write_shop(tmp_path / "shop", items_frame=column("image", "images/" + pl.col("image")))
    (folder / "images").rename(folder / "inner")
    (folder / "images").mkdir()
    (folder / "inner").rename(folder / "images" / "images")
    main([str(folder)])
    assert "39 files read, 0 unreadable" in capsys.readouterr().out


def test_another_table_is_never_suggested_for_a_missing_one(tmp_path, capsys):
    (write_shop(tmp_path / "shop", pictures=False) / "items.parquet").unlink()
    listed = "there are: events.parquet, impressions.parquet, users.parquet"
    assert_refused([str(tmp_path / "shop")], ("items.parquet: no such file", listed), capsys)


def test_the_command_itself_exits_2_without_a_traceback(tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=cell("click", 112, 2))
    command = [sys.executable, "-m", "data.validate", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: impressions.parquet: row 112, column 'click': value 2; clicks are 0 or 1\n"


@settings(max_examples=40, deadline=None)
@given(
    place=st.floats(0, 1, exclude_max=True),
    new=st.binary(min_size=1, max_size=8),
    file=st.sampled_from(["items", "events"]),
)
def test_damaged_bytes_never_raise(place, new, file, tmp_path_factory):
    folder = write_shop(tmp_path_factory.mktemp("fuzz") / "shop", pictures=False)
    path = folder / f"{file}.parquet"
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + len(new)] = new
    path.write_bytes(content)
    assert main([str(folder), "--no-images"]) in (0, 1, 2)
