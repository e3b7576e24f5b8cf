"""own_score: every model begins as the user's own, in training, export, scorer and bulk prediction; the table has a row for it."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ctr.bulk_predict import main as bulk_predict
from ctr.config import PRESETS, CtrConfig
from ctr.export import main as export
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.own_score import LEAST, own_logits
from ctr.inputs.sampler import split_sessions
from ctr.model.ctr_model import build
from ctr.score import Scorer
from ctr.serving.exporter import refresh_log
from ctr.serving.trained_run import open_run
from ctr.train import main as train
from data.log.ingest import ingest
from data.log.shop_folder import load_shop
from eval.compare import main as compare
from features.image_feature import no_image
from metrics.auc import auc
from run.errors import DataError, UserError
from tests.random_logs import random_tables, write_tables
from tests.shops import write_shop
from tests.trained_ctr import TRAINING, asked_of

TINY = CtrConfig(**PRESETS["tiny"])
PAGE = Path(__file__).parent.parent / "docs" / "own-model.md"
FASTER = {"ctr.train": TRAINING, "eval.compare": ["--preset", "tiny", "--encoders", "none", "--seeds", "1"]}  # than the page's commands


def with_own_score(folder, score=None, *, seed=0):
    """The shop in `folder` with a column own_score; returns it (I,)."""
    path = folder / "impressions.parquet"
    frame = pl.read_parquet(path)
    score = np.random.default_rng(seed).random(len(frame)) if score is None else score
    frame.with_columns(own_score=pl.Series(score)).write_parquet(path)
    return np.asarray(score)


def test_a_model_begins_as_the_users_own(tmp_path):
    folder = write_tables(tmp_path, random_tables(0))
    score = with_own_score(folder)
    with_own_score(folder, np.where(np.arange(len(score)) < 2, 0.0, score))
    shop = load_shop(folder)
    inputs = encode(shop, no_image(len(shop.items)), TINY)
    model = build(inputs.layout, TINY, seed=3).eval()
    part = split_sessions(shop, "train")
    batch = assemble(inputs, part, np.arange(len(part.sessions)))
    clipped = np.clip(shop.impressions["own_score"].to_numpy()[batch.row.numpy()], LEAST, 1 - LEAST)
    scale, bias = inputs.layout.own_line
    with torch.no_grad():
        np.testing.assert_allclose(model(batch).numpy(), scale * np.log(clipped / (1 - clipped)) + bias, atol=1e-4)
    assert abs(scale) < 0.3  # the scores are noise


def test_without_the_column_or_with_the_setting_off_nothing_changes(tmp_path):
    folder = write_tables(tmp_path, random_tables(0))
    plain = load_shop(folder)
    before = build(encode(plain, no_image(len(plain.items)), TINY).layout, TINY, seed=3).state_dict()
    with_own_score(folder)
    shop, off = load_shop(folder), CtrConfig(**PRESETS["tiny"], own_score=False)
    inputs = encode(shop, no_image(len(shop.items)), off)
    after = build(inputs.layout, off, seed=3).state_dict()
    assert inputs.own_logit is None
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_ingested_log_has_the_own_logits_of_one_in_memory(tmp_path):
    folder = write_tables(tmp_path / "shop", random_tables(2))
    with_own_score(folder)
    one, two = load_shop(folder), ingest(folder, tmp_path / "log", stretch=9)
    assert own_logits(one, file="").tolist() == own_logits(two, file="").tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, r"row 3, column 'own_score': value 1\.5; give your model's predicted probability of a click, from 0 to 1"),
        (-0.1, r"row 3, column 'own_score': value -0\.1"),
        (None, r"row 3, column 'own_score': value None; every row needs one"),
        (float("nan"), r"row 3, column 'own_score': value nan; every row needs one"),
    ],
)
@pytest.mark.parametrize("read", [load_shop, lambda folder: ingest(folder, folder.parent / "log")], ids=["in memory", "ingested"])
def test_a_score_that_is_no_probability_is_refused_by_row(value, expected, read, tmp_path):
    folder = write_tables(tmp_path / "shop", random_tables(0))
    count = len(pl.read_parquet(folder / "impressions.parquet"))
    with_own_score(folder, [value if row == 3 else 0.5 for row in range(count)])
    with pytest.raises(DataError, match=expected):
        read(folder)


def test_labels_in_place_of_probabilities_are_refused(tmp_path):
    folder = write_tables(tmp_path, random_tables(0))
    with_own_score(folder, pl.read_parquet(folder / "impressions.parquet")["click"].to_numpy())
    with pytest.raises(DataError, match="column 'own_score': type Int64; give your model's predicted probability"):
        load_shop(folder)


def test_scorer_and_bulk_prediction_give_the_offline_scores(tmp_path, capsys):
    folder = tmp_path / "shop"
    write_shop(folder, sessions=120)
    with_own_score(folder)
    run, out = tmp_path / "run", tmp_path / "export"
    assert train([*TRAINING, "--epochs", "2", "--data", str(folder), "--out", str(run)]) == 0
    assert export(["--run", str(run), "--out", str(out)]) == 0
    shop, offline = load_shop(folder), pl.read_parquet(run / "predictions.parquet")
    own = shop.impressions["own_score"].to_numpy()
    for session in np.unique(shop.session[shop.rows("test")])[:3]:
        refresh_log(open_run(run), out, as_of=int(shop.session_time[session]))
        scorer = Scorer.load(out)
        rows, request = asked_of(shop, int(session))
        found = scorer.score(**request, own_score=own[rows].tolist())
        wanted = offline.filter(pl.col("row").is_in(rows)).sort("row")["score"].to_numpy()
        np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)
        with pytest.raises(UserError, match="own_score: missing; the model was trained on top of it"):
            scorer.score(**request)
        with pytest.raises(UserError, match=r"own_score\[0\]: value 2; give your model's predicted probability"):
            scorer.score(**request, own_score=2)
    assert bulk_predict(["--run", str(run), "--out", str(tmp_path / "bulk"), "--part-rows", "100", "--threads", "1"]) == 0
    bulk = pl.concat([pl.read_parquet(part) for part in sorted((tmp_path / "bulk").glob("part-*.parquet"))])
    both = bulk.join(offline, on="row", suffix="_offline")
    assert len(both) == len(offline)
    np.testing.assert_allclose(both["score"], both["score_offline"], atol=1e-5)
    without = tmp_path / "day.parquet"
    shop.impressions.drop("own_score").write_parquet(without)
    assert bulk_predict(["--run", str(run), "--data", str(without), "--out", str(tmp_path / "day")]) == 2
    assert "day.parquet: column 'own_score': no such column" in capsys.readouterr().err


def test_the_table_has_the_users_own_model_and_a_perfect_one_is_not_made_worse(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop", random_tables(7, sessions=300, users=30, items=30, moments=200))
    click = pl.read_parquet(folder / "impressions.parquet")["click"].to_numpy()
    with_own_score(folder, np.where(click == 1, 0.999, 0.001))
    flags = ["--preset", "tiny", "--encoders", "none", "--seeds", "1", "--out", str(tmp_path / "run"), "--ctr.epochs", "1"]
    assert compare(["--data", str(folder), *flags]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    own = results["own_model"]
    assert own["auc"] == own["gauc"] == results["baseline"]["auc"]["mean"] == 1
    assert own["log_loss"] == pytest.approx(-np.log(0.999))
    assert own["calibration"]["pcoc"] == pytest.approx(1, abs=0.01)
    assert own["delta_gauc"]["mean"] == 0
    printed = capsys.readouterr().out
    assert "own model" in printed
    assert "starts from the predictions of your own model" in printed.replace("\n", " ")
    assert "own model" in (tmp_path / "run" / "report.html").read_text()


def test_yesterdays_model_is_put_in_place_of_ones_own_as_the_page_says(tmp_path, monkeypatch):
    write_shop(tmp_path / "films", sessions=300)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    steps = PAGE.read_text().partition("## With yesterday's model")[2]
    for language, block in re.findall(r"```(python|)\n(.*?)```", steps, re.DOTALL):
        if language == "python":
            exec(block, names)
            continue
        for command in block.strip().splitlines():
            _, _, module, *flags = command.split()
            assert importlib.import_module(module).main([*flags, *FASTER.get(module, [])]) in (0, None)
    shop = load_shop(tmp_path / "films-own")
    rows, score = shop.rows("test"), shop.impressions["own_score"].to_numpy()
    own = json.loads((tmp_path / "runs" / "films-own" / "results.json").read_text())["own_model"]
    assert own["auc"] == pytest.approx(auc(shop.click[rows], score[rows]), abs=1e-6)
    assert own["auc"] != 0.5
