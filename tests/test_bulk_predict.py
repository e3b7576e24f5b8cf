"""A day predicted part by part: scores equal those of training, a kill costs one part at most, clicks are not read."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ctr.serving.bulk
from ctr.bulk_predict import main as bulk
from ctr.inputs.impression_parts import cuts, log_of, read_part
from data.log.shop_folder import load_shop
from tests.shops import write_shop
from tests.trained_ctr import make_run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("bulk"), "vector")


@pytest.fixture(scope="module")
def shop(run):
    return run.parent / "shop"


def predicted(out):
    parts = sorted(out.glob("part-*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts])


def write_test_split(shop, path, change=lambda frame: frame):
    """The impressions of the shop's test split as a file without clicks."""
    rows = load_shop(shop).rows("test")
    frame = pl.read_parquet(shop / "impressions.parquet")[np.sort(rows)].drop("click")
    change(frame).write_parquet(path)
    return np.sort(rows)


def test_the_runs_own_log_gets_the_scores_of_training(run, tmp_path):
    assert bulk(["--run", str(run), "--out", str(tmp_path / "out"), "--part-rows", "170", "--threads", "1"]) == 0
    found = predicted(tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert found["row"].to_list() == list(range(160 * 5))
    assert manifest["finished"]
    assert manifest["rows"] == 160 * 5
    assert manifest["parts"] == len(list((tmp_path / "out").glob("part-*.parquet"))) == 5
    offline = pl.read_parquet(run / "predictions.parquet").join(found, on="row", suffix="_bulk")
    assert len(offline) == 2 * 80
    np.testing.assert_allclose(offline["score_bulk"].to_numpy(), offline["score"].to_numpy(), atol=1e-6)
    assert offline["score"].std() > 0.01


def test_later_sessions_without_clicks_are_those_of_the_log(run, shop, tmp_path):
    rows = write_test_split(shop, tmp_path / "day.parquet")
    assert bulk(["--run", str(run), "--data", str(tmp_path / "day.parquet"), "--out", str(tmp_path / "out"), "--part-rows", "30"]) == 0
    found = predicted(tmp_path / "out").with_columns(row=pl.Series(rows))
    offline = pl.read_parquet(run / "predictions.parquet").join(found, on="row", suffix="_bulk")
    assert len(offline) == len(rows)
    np.testing.assert_allclose(offline["score_bulk"].to_numpy(), offline["score"].to_numpy(), atol=1e-6)


def test_sessions_with_scattered_rows_are_predicted_completely(run, shop, tmp_path):
    straight, scattered = tmp_path / "straight.parquet", tmp_path / "scattered.parquet"
    write_test_split(shop, straight)
    shuffled = np.random.default_rng(0).permutation(len(pl.read_parquet(straight)))
    write_test_split(shop, scattered, lambda frame: frame[shuffled])
    for path in (straight, scattered):
        assert bulk(["--run", str(run), "--data", str(path), "--out", str(tmp_path / path.stem), "--part-rows", "20"]) == 0
    one = predicted(tmp_path / "straight")
    two = predicted(tmp_path / "scattered").sort("row")
    assert two["row"].to_list() == list(range(len(shuffled)))
    np.testing.assert_allclose(two["score"].to_numpy(), one["score"].to_numpy()[shuffled], atol=1e-6)


def test_an_unseen_user_is_scored_without_a_history(run, shop, tmp_path):
    def new_user(frame):
        return frame.with_columns(user_id=pl.when(pl.int_range(pl.len()) < 5).then(-77).otherwise(pl.col("user_id")))

    write_test_split(shop, tmp_path / "day.parquet", new_user)
    assert bulk(["--run", str(run), "--data", str(tmp_path / "day.parquet"), "--out", str(tmp_path / "out")]) == 0
    assert predicted(tmp_path / "out")["score"].is_between(0, 1, closed="none").all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda frame: frame.drop("position"), "error: day.parquet: column 'position': no such column"),
        (lambda frame: frame.drop("query"), "error: day.parquet: column 'query': no such column"),
        (
            lambda frame: frame.with_columns(pl.col("position").cast(pl.Float64)),
            "error: day.parquet: column 'position': type Float64, but the model was trained on integers",
        ),
        (
            lambda frame: frame.with_columns(discount=pl.lit("x")),
            "error: day.parquet: column 'discount': type String, but the model was trained on numbers",
        ),
        (
            lambda frame: frame.with_columns(item_id=pl.lit(1)),
            "day.parquet: row 0, column 'item_id': value 1; unknown to the items of the shop",
        ),
        (lambda frame: frame.with_columns(session_id=pl.lit(1)), "row 5, column 'user_id': value .* one session belongs to one user"),
        (lambda frame: frame.drop("timestamp"), "day.parquet: column 'timestamp': no such column"),
        (lambda frame: frame.with_columns(discount=pl.lit(float("inf"))), "day.parquet: row 0, column 'discount': value inf"),
    ],
)
def test_data_that_do_not_fit_the_model_are_named(run, shop, tmp_path, capsys, change, expected):
    write_test_split(shop, tmp_path / "day.parquet", change)
    assert bulk(["--run", str(run), "--data", str(tmp_path / "day.parquet"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.search(expected, error), error


def test_a_wrong_file_an_export_and_an_unfinished_run_are_recognised_and_refused(run, tmp_path, capsys):
    (tmp_path / "day.csv").write_text("item_id\n1\n")
    (tmp_path / "unfinished/checkpoints").mkdir(parents=True)
    (tmp_path / "export").mkdir()
    (tmp_path / "export/model.pt2").write_bytes(b"PK")
    for words, expected in (
        (
            ["--run", str(run), "--data", str(tmp_path / "day.csv")],
            "day.csv: not a .parquet file; give a shop folder or a .parquet",
        ),
        (["--run", str(tmp_path / "export")], "export: is an export; give the run folder of ctr.train"),
        (["--run", str(tmp_path / "unfinished")], "unfinished: not trained to its end; the command that began it resumes it"),
    ):
        assert bulk([*words, "--out", str(tmp_path / "out")]) == 2
        assert expected in capsys.readouterr().err


def test_parts_hold_complete_sessions_and_every_row_once(shop):
    log = log_of("", load_shop(shop))
    for size in (1, 7, 100, 10_000):
        parts = cuts(log, size)
        assert sum(part.rows for part in parts) == 800
        assert pl.concat([part.sessions for part in parts]).n_unique() == 160
        assert all(part.rows <= size + 5 for part in parts)


def test_a_prediction_killed_by_sigkill_resumes_with_the_next_part_and_ends_with_the_same_bits(run, tmp_path):
    words = ["--run", str(run), "--part-rows", "5", "--threads", "1", "--out"]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "ctr.bulk_predict", *words, str(tmp_path / "killed")], cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("part-*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list((tmp_path / "killed").glob("part-*.parquet")))
    assert 2 <= there < 160
    assert not json.loads((tmp_path / "killed/manifest.json").read_text())["finished"]
    read = []
    with pytest.MonkeyPatch.context() as patch:
        original = ctr.serving.bulk._predicted
        patch.setattr(ctr.serving.bulk, "_predicted", lambda *words: read.append(1) or original(*words))
        assert bulk([*words, str(tmp_path / "killed")]) == 0
    assert len(read) == 160 - there
    assert bulk([*words, str(tmp_path / "undisturbed")]) == 0
    assert predicted(tmp_path / "killed").equals(predicted(tmp_path / "undisturbed"))


def test_parts_of_another_call_are_refused(run, shop, tmp_path, capsys):
    words = ["--run", str(run), "--out", str(tmp_path), "--part-rows"]
    assert bulk([*words, "400"]) == 0
    assert bulk([*words, "300"]) == 2
    assert "holds predictions of another call (part_rows, parts differ)" in capsys.readouterr().err


def test_a_run_is_applied_to_its_own_data_from_any_working_directory(run, tmp_path, monkeypatch, capsys):
    settings = tomllib.loads((run / "config.toml").read_text())
    assert [Path(settings[name]).is_absolute() for name in ("embeddings", "out")] == [True, True]
    assert Path(settings["source"]["data"]).is_absolute()
    relative = tmp_path / "relative"
    shutil.copytree(run, relative)
    text = (run / "config.toml").read_text().replace(settings["source"]["data"], "myshop")
    (relative / "config.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert bulk(["--run", "relative", "--out", "none"]) == 2
    error = capsys.readouterr().err
    assert "config.toml: data myshop: no such folder; give --data, the shop folder" in error
    write_shop(tmp_path / "myshop", sessions=100, seed=9)  # another shop of the same name
    assert bulk(["--run", "relative", "--out", "other"]) == 2
    assert "myshop: not the data that relative was trained on; to apply the model to it, give it as --data" in capsys.readouterr().err
    write_test_split(run.parent / "shop", tmp_path / "day.parquet")
    assert bulk(["--run", "relative", "--data", "day.parquet", "--out", "day"]) == 2
    assert "give it as --shop" in capsys.readouterr().err


def test_the_users_own_columns_may_have_any_name(run, shop, tmp_path):
    """Columns of a log to predict that are named like our own internal ones change nothing."""
    ours = ["row", "score", "part", "size", "first", "last", "len", "index", "", "image_cluster", "word", "item:a.b%2E/", "item_numeric"]
    rows = write_test_split(shop, tmp_path / "day.parquet", lambda frame: frame.with_columns(pl.lit(0.5).alias(name) for name in ours))
    log = log_of(str(tmp_path / "day.parquet"), load_shop(shop))
    parts = cuts(log, 30)
    found = np.concatenate([read_part(log, part)[1] for part in parts])
    assert (np.sort(found) == np.arange(len(rows))).all()
