"""What `data.validate` prints for a folder that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from data.log.shop_folder import load_shop
from data.readiness import problems
from data.validate import main
from metrics.auc import auc
from pretrain.page_views import page_views
from tests.shops import Change, write_shop


@pytest.fixture
def validated(tmp_path, capsys, monkeypatch):
    """A function that writes a shop with changed frames and validates it without its pictures -> (exit code, output)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*flags: str, folder: Path | None = None, **changes: Change | int) -> tuple[int, str]:
        folder = folder or write_shop(tmp_path / "shop", pictures=False, **changes)  # type: ignore[arg-type]
        code = main([str(folder), "--no-images", *flags])
        shown = capsys.readouterr()
        assert shown.err == ""
        return code, shown.out

    return run


def _clicks_of_events(rows: int):
    return lambda frame: pl.concat([frame.filter(pl.col("action") == "click").head(rows), frame.filter(pl.col("action") == "cart")])


@pytest.mark.parametrize(
    ("events", "source"),
    [
        (None, "impressions.parquet: there is no events.parquet"),
        (_clicks_of_events(0), "impressions.parquet: events.parquet holds no click"),
        (_clicks_of_events(1), "events.parquet: 1 in place of the 180 of impressions.parquet"),
    ],
)
def test_it_reports_which_clicks_the_history_holds(validated, events, source):
    _, printed = validated(events_frame=events)
    assert source in next(line for line in printed.splitlines() if "click history from" in line)


def _column(name: str, values: pl.Expr | pl.Series):
    return lambda frame: frame.with_columns(values.alias(name))


ROW, SESSION = pl.int_range(pl.len()), pl.int_range(pl.len()) // 5  # the frame has 120 sessions of 5 impressions
FIRST = pl.col("timestamp").first()
TEST = SESSION >= 108
NO_TRAIN_CLICK = _column("click", pl.when((SESSION >= 48) & (SESSION < 96)).then(0).otherwise("click"))
NO_TEST_CLICK = _column("click", pl.when(TEST).then(0).otherwise("click"))
NO_VALID_SKIP = _column("click", pl.when((SESSION >= 96) & ~TEST).then(1).otherwise("click"))
NO_TRAIN_OF_ENCODERS = _column("split", pl.Series([name for name in ("train", "valid", "test") for _ in range(200)]))
ONE_EACH = _column("session_id", ROW)


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        (
            {"impressions_frame": NO_TRAIN_CLICK},
            ["clicks and skipped items in the train split.*give train a larger part by --split-fractions"],
        ),
        ({"impressions_frame": ONE_EACH}, ["sessions in which items compete.*the same session_id"]),
        ({"impressions_frame": NO_TEST_CLICK}, ["a test session with both.*give test a larger part by --split-fractions"]),
        ({"impressions_frame": NO_VALID_SKIP}, ["a valid session with both"]),
        ({"impressions_frame": _column("user_id", pl.lit(7))}, ["test impressions of at least two users"]),
        ({"impressions_frame": _column("user_id", pl.when(TEST).then(7).otherwise("user_id"))}, ["test impressions of at least two users"]),
        ({"items_frame": _column("image", pl.lit(None, pl.String))}, ["at least 2 items with a picture.* there are 0"]),
        ({"impressions_frame": NO_TRAIN_OF_ENCODERS}, ["at least 2 items with a picture.*give more sessions the split 'pretrain'"]),
        ({"users": 120, "events_frame": None}, ["at least 2 sessions of the pretraining period.* there are 0"]),
    ],
)
def test_what_a_comparison_lacks_is_a_problem_with_its_fix_and_exit_code_1(validated, changes, needs):
    code, printed = validated(**changes)
    assert code == 1
    found = [line for line in printed.splitlines() if line.startswith("problem: ")]
    assert len(found) == len(needs), found
    assert all(re.search("a comparison needs (both )?" + need, line) for need, line in zip(needs, found, strict=True)), found
    assert "click rate" in printed
    assert printed.splitlines()[-1].startswith("not ok: ")


def test_problems_of_the_pretraining_period_are_what_courier_refuses(tmp_path):
    """The count in `data.readiness` and the page views of COURIER are the same, as long as no history is cut."""
    found = set()
    for users in (30, *range(41, 49)):
        shop = load_shop(write_shop(tmp_path / str(users), pictures=False, users=users, events_frame=None))
        views = page_views(shop, page_items=5, history_items=600, has_picture=shop.items["image"].is_not_null().to_numpy())
        refused = any("sessions of the pretraining period" in problem for problem in problems(shop))
        assert refused == (len(views) < 2)
        found.add(len(views))
    assert {0, 1, 2} <= found, found


def test_a_shop_that_can_be_used_has_neither_warnings_nor_problems(validated):
    code, printed = validated()
    assert code == 0
    assert "warning" not in printed
    assert "problem" not in printed
    assert printed.splitlines()[-1] == "ok: the folder can be used"


def test_the_users_own_predictions_are_summarised_and_a_constant_is_warned_of(validated, tmp_path):
    ranked = pl.col("click") * 0.4 + pl.col("impression_row") % 2 * 0.5
    code, printed = validated(
        impressions_frame=lambda f: f.with_row_index("impression_row").with_columns(own_score=ranked).drop("impression_row")
    )
    assert code == 0
    click, score = (pl.read_parquet(tmp_path / "shop" / "impressions.parquet")[name] for name in ("click", "own_score"))
    assert re.search(rf"own score +│ AUC {auc(click.to_numpy(), score.to_numpy()):.4f}, mean {score.mean():.4f}", printed)
    assert "warning" not in printed
    _, printed = validated(impressions_frame=_column("own_score", pl.lit(0.1)))
    assert "column 'own_score': it holds 0.1 in every row" in printed


def test_sessions_that_are_users_are_warned_of(validated):
    code, printed = validated(impressions_frame=lambda f: f.drop("category").with_columns(session_id="user_id"))
    assert re.search(r"warning: .*column 'session_id': \d+ of 30 sessions last longer than a day; is it the user's?", printed)
    assert code in (0, 1)


def test_a_few_long_sessions_are_not_warned_of(validated):
    _, printed = validated(impressions_frame=_column("timestamp", pl.col("timestamp") + pl.when(ROW == 4).then(100_000).otherwise(0)))
    assert "warning" not in printed


def test_an_optional_table_in_another_format_is_warned_of(validated, tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False, events_frame=None)
    (folder / "events.csv").write_text("user_id,item_id,timestamp,action\n")
    code, printed = validated(folder=folder)
    assert "warning: events.csv is not read: write it as events.parquet" in printed
    assert code == 0


def test_an_unknown_id_is_explained_by_one_that_looks_the_same(tmp_path, capsys):
    folder = write_shop(
        tmp_path / "shop", pictures=False, string_ids=True, impressions_frame=_column("item_id", pl.col("item_id").str.to_uppercase())
    )
    assert main([str(folder), "--no-images"]) == 2
    assert re.search(r"row 0, column 'item_id': value 'I\d{4}'; unknown to items.parquet; it has 'i\d{4}'", capsys.readouterr().err)


def test_a_missing_picture_is_explained_by_one_that_looks_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = write_shop(tmp_path / "shop")
    (folder / "images" / "0003.png").rename(folder / "images" / "0003.PNG")
    assert main([str(folder), "--max-bad-images", "0.5"]) == 0
    assert re.search(r"unreadable: items.parquet row 3: images/0003.png: .*; there is '0003.PNG'", capsys.readouterr().out)
