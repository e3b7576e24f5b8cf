"""The main job end to end on a very small world: cached, killed and resumed, no leak, results that add up."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data.source import SourceConfig
from eval.compare import CompareConfig
from eval.merge import select_forms
from eval.rows import BOOSTED, OTHER_SEEDS
from features.encoder_stages import Experiment, encoder_stage, initial_encoder_stage
from metrics.auc import auc
from metrics.gauc import gauc
from pretrain.config import PretrainConfig, initial_config
from run.folder import Stage

ROOT = Path(__file__).parent.parent
FORMS = ("cluster_id+semantic_id", "sim_score")
SIZE = (
    f"--image-features {','.join(FORMS)} --codes 4 --levels 2 "
    "--encoders courier,simclr --preset tiny --users 60 --items 60 --sessions 600 --clusters 8 "
    "--pretrain.image-size 16 --pretrain.store-size 24 --pretrain.dim 8 --pretrain.pictures 1500 --pretrain.start-pictures 500 "
    "--pretrain.checkpoint-seconds 0.5 --ctr.epochs 1 --ctr.checkpoint-seconds 0.5 --seeds 1"
).split()
TIMES = ("seconds", "commit")


def command(out, *words):
    return [sys.executable, "-m", "eval.compare", *SIZE, "--out", str(out), *words]


def run(out, *words):
    return subprocess.run(command(out, *words), cwd=ROOT, capture_output=True, text=True)


def timeless(value):
    """Results without what depends on the clock or the checkout."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def results(out):
    return timeless(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    done = run(out, "--controls")
    assert done.returncode == 0, done.stderr
    return out, done.stdout, done.stderr


def test_a_report_says_how_good_semantic_ids_are(undisturbed):
    out, _, _ = undisturbed
    codes = [row["codes"] for row in results(out)["rows"] if row["image_feature"] == FORMS[0]]
    assert all(len(of_seed["error"]) == 2 for of_row in codes for of_seed in of_row)
    text = (out / "report.html").read_text()
    assert text.count("of the pictures have codes that no other has") == 3  # of courier, simclr and random


def test_the_table_has_a_row_for_every_encoder_and_form_and_the_controls(undisturbed):
    out, printed, _ = undisturbed
    rows = {(row["encoder"], row["image_feature"]) for row in results(out)["rows"]}
    encoders = ("courier", "simclr", "random", "shuffled courier")
    assert rows == {(e, f) for e in encoders for f in FORMS} | {OTHER_SEEDS, BOOSTED}
    for encoder, form in rows:
        assert encoder.split(" ")[0] in printed
        assert form in printed


@pytest.mark.parametrize(
    ("encoders", "shuffled"),
    [("imagenet,courier", "courier"), ("imagenet", "random"), ("resnet18@random,courier", "resnet18@random"), ("random,simclr", "simclr")],
)
def test_controls_shuffle_the_first_trained_encoder(encoders, shuffled):
    rows = CompareConfig(encoders=encoders, controls=True, image_features="vector").rows
    assert [encoder for encoder, _ in rows if encoder.startswith("shuffled ")] == [f"shuffled {shuffled}"]


def test_results_hold_every_key_that_the_design_names(undisturbed):
    found = json.loads((undisturbed[0] / "results.json").read_text())
    for key in ("data", "preset", "seeds", "sessions_scored", "sessions_one_class", "baseline", "rows", "pairs", "versions", "commit"):
        assert key in found
    for row in found["rows"]:
        assert set(row) >= {"encoder", "image_feature", "auc", "gauc", "delta_auc", "delta_gauc", "selected", "valid_gauc", "seconds"}
        assert row["delta_gauc"]["ci95"][0] <= row["delta_gauc"]["mean"] <= row["delta_gauc"]["ci95"][1]
        assert row["delta_gauc"]["mean"] == pytest.approx(row["gauc"]["mean"] - found["baseline"]["gauc"]["mean"], abs=1e-12)
        assert 0 < row["delta_gauc"]["p_value"] <= 1
    assert {pair[side][0] for pair in found["pairs"] for side in ("a", "b")} == {"courier", "simclr", "random"}
    assert [each["encoder"] for each in found["alone"]] == ["courier", "simclr", "random"]
    assert [(pair["a"], pair["b"]) for pair in found["alone_pairs"]] == [("courier", "simclr"), ("courier", "random"), ("simclr", "random")]


def test_every_key_of_the_results_is_in_the_documentation(undisturbed):
    out = undisturbed[0]
    found = json.loads((out / "results.json").read_text())
    keys = {*found, *found["seconds"], *found["baseline"]}
    for part in found["rows"] + found["pairs"] + found["alone_pairs"]:
        keys |= {*part, *part["delta_gauc"], *part.get("auc", ()), *part.get("seconds", ())}
    for stage in ("encoders", "alone", "features", "ctr"):
        for path in (out / stage).glob("*/stage.json"):
            keys |= set(json.loads(path.read_text())["result"])
        for path in (out / stage).glob("*/metrics.jsonl"):
            keys |= {key for line in path.read_text().splitlines() for key in json.loads(line)}
    text = (ROOT / "docs" / "results-json.md").read_text()
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_metrics_are_those_of_the_predictions_on_disk(undisturbed):
    out = undisturbed[0]
    found = results(out)
    table = pl.read_parquet(next(out.glob("ctr/baseline-none-seed0-*/predictions.parquet"))).filter(pl.col("split") == "test")
    log = pl.read_parquet(next(out.glob("data/shop-*/world/impressions.parquet")))[table["row"].to_list()]
    click = table["click"].to_numpy()
    assert (log["click"].to_numpy() == click).all()
    assert found["baseline"]["auc"]["mean"] == pytest.approx(auc(click, table["score"].to_numpy()), abs=1e-12)
    value = gauc(click, table["score"].to_numpy(), log["session_id"].to_numpy())
    assert found["baseline"]["gauc"]["mean"] == pytest.approx(value.value, abs=1e-12)
    assert (found["sessions_scored"], found["sessions_one_class"]) == (value.sessions_scored, value.sessions_one_class)
    mixed = log.filter(pl.col("click").n_unique().over("session_id") == 2)
    assert found["users_scored"] == mixed["user_id"].n_unique()


def test_the_caveats_of_so_small_a_run_are_printed_and_reported(undisturbed):
    out, printed, _ = undisturbed
    report = (out / "report.html").read_text()
    for caveat in ("Preset tiny only shows that everything runs", "One seed: interval and p-value say nothing", "users scored"):
        assert caveat in " ".join(printed.split())
        assert caveat in report


def test_a_form_is_selected_by_validation_alone():
    rows = [("courier", "vector"), ("courier", "cluster_id"), ("simclr", "vector")]
    valid = {rows[0]: 0.61, rows[1]: 0.62, rows[2]: 0.5}
    assert select_forms(valid, rows) == {"courier": rows[1], "simclr": rows[2]}


def test_every_training_is_announced_with_its_number_when_it_begins(undisturbed):
    lines = [line for line in undisturbed[2].splitlines() if " of " in line]
    assert "initial encoder seed 0 (1 of 1)" in lines
    assert "encoder courier seed 0 (1 of 3)" in lines
    assert "ctr baseline (start) none seed 0 (1 of 1)" in lines
    assert "ctr baseline none seed 0 (5 of 11)" in lines
    assert f"ctr courier {FORMS[-1]} seed 0 (1 of 11)" in lines
    assert len(lines) == len(set(lines)) == 1 + 3 + 1 + 11


def test_a_second_call_trains_nothing_and_gives_the_same_results(undisturbed):
    out = undisturbed[0]
    before = results(out)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("stage.json")}
    again = run(out, "--controls")
    assert again.returncode == 0
    assert again.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in out.rglob("stage.json")} == stamps
    assert results(out) == before


def test_a_run_killed_again_and_again_ends_with_the_same_results(undisturbed, tmp_path):
    out = tmp_path / "run"
    moments = random.Random(4)
    for _ in range(3):
        process = subprocess.Popen(
            command(out, "--controls"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(3, 9))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert run(out, "--controls").returncode == 0
    assert results(out) == results(undisturbed[0])


def test_the_report_and_its_settings_are_written(undisturbed):
    out = undisturbed[0]
    assert (out / "report.html").read_text().count("not what a real shop would gain") == 1
    assert "[pretrain]" in (out / "config.toml").read_text()
    special = results(out)["settings"]
    assert (special["levels"], special["ctr.epochs"], special["pretrain.dim"]) == (2, 1, 8)
    assert not {"encoders", "image-features", "seeds", "out", "controls"} & set(special)
    for stage in ("encoders", "ctr"):
        folder = next((out / stage).iterdir())
        assert (folder / "metrics.jsonl").exists() or "random" in folder.name
        assert list(folder.glob("events.out.tfevents*")) or "random" in folder.name


def test_the_initial_encoder_has_a_folder_and_seconds_of_its_own(undisturbed):
    out = undisturbed[0]
    folders = sorted(folder.name.rsplit("-", 1)[0] for folder in (out / "encoders").iterdir())
    assert folders == ["courier-seed0", "random-seed0", "simclr-seed0", "start-seed0"]
    start = json.loads(next(out.glob("encoders/start-seed0-*/stage.json")).read_text())["result"]["seconds"]
    for row in json.loads((out / "results.json").read_text())["rows"]:
        begins_with_it = row["encoder"] in ("courier", "simclr", "shuffled courier")
        assert row["seconds"].get("start") == (start if begins_with_it else None)


def test_an_initial_encoder_has_the_hash_that_its_settings_have_as_simclr(tmp_path):
    source, config = SourceConfig(data=str(tmp_path)), PretrainConfig()
    experiment = Experiment(root=tmp_path, source=source, pretrain=config)
    start = initial_encoder_stage(experiment, 1)
    assert start.hash == encoder_stage(replace(experiment, pretrain=initial_config(config)), "simclr", 1).hash
    assert start.folder == tmp_path / "encoders" / f"start-seed1-{start.hash}"


def test_the_truth_is_read_by_no_stage(undisturbed, tmp_path):
    """A world without its truth gives the same numbers, except for the ceiling."""
    out = undisturbed[0]
    world = next(out.glob("data/shop-*/world"))
    copy = tmp_path / "shop"
    copy.mkdir()
    for name in ("items.parquet", "users.parquet", "impressions.parquet", "events.parquet", "images"):
        (copy / name).symlink_to(world / name)
    done = run(tmp_path / "run", "--data", str(copy), "--encoders", "simclr", "--image-features", FORMS[-1])
    assert done.returncode == 0, done.stderr
    found, first = results(tmp_path / "run"), results(out)
    assert "oracle" in first
    assert "oracle" not in found
    assert found["baseline"] == first["baseline"]
    same = next(row for row in first["rows"] if (row["encoder"], row["image_feature"]) == ("simclr", FORMS[-1]))
    assert found["rows"][0] == {**same, "selected": True}
    assert "No clusters are shown: no image feature was made of clusters." in (tmp_path / "run" / "report.html").read_text()
    assert "No clusters are shown" not in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoders", "courir"], "did you mean 'courier'"),
        (["--image-features", "clusters"], "image_features"),
        (["--image-features", "vector+"], "give a form on both sides of each +"),
        (["--image-features", "none,vector"], "the baseline is always there"),
        (["--image-features", "none+vector"], "stands alone"),
        (["--image-features", "vector+sim_tier,sim_tier+vector"], "named twice"),
        (["--image-features", "vector+vector"], "name each once"),
        (["--data", "nowhere"], "no such folder"),
        (["--preset", "smal"], "did you mean 'small'"),
        (["--seeds", "0"], "above 0"),
    ],
)
def test_a_mistake_is_reported_in_one_line(tmp_path, words, message):
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_depends_on_its_key_alone(tmp_path):
    assert Stage(tmp_path, "a", {"x": 1, "y": 2}).folder == Stage(tmp_path, "a", {"y": 2, "x": 1}).folder
    assert np.unique([Stage(tmp_path, "a", {"x": n}).hash for n in range(100)]).size == 100


def test_a_warm_start_trains_one_baseline_first_and_all_rows_start_from_it(tmp_path):
    done = run(tmp_path, "--encoders", "random", "--image-features", "cluster_id", "--start", "warm")
    assert done.returncode == 0, done.stderr
    (start,) = (tmp_path / "ctr").glob("*start*")
    stage = start.name.rsplit("-", 1)[1]
    assert done.stderr.index("ctr baseline (start)") < done.stderr.index("ctr baseline none")
    rows = [json.loads(path.read_text())["key"] for path in (tmp_path / "ctr").glob("*/stage.json") if path.parent.name != start.name]
    assert len(rows) == 2
    assert all(key["start"] == stage for key in rows)
    warm = {path.parent.name: json.loads(path.read_text())["valid_log_loss"] for path in (tmp_path / "ctr").glob("*/result.json")}
    assert len(set(warm.values())) == 3
