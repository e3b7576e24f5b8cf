"""An exported model gives the offline scores: for known candidates, and for new ones with new pictures."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from ctr.export import main as export
from ctr.score import Answer, Scorer
from ctr.score import main as score
from ctr.serving.exporter import refresh_log
from ctr.serving.trained_run import open_run
from data.log.shop_folder import load_shop
from tests.exports import FORMS, HALVED
from tests.trained_ctr import as_object, asked_of, sessions_of

ALONE = """
import sys, torch
sys.modules["ctr"] = sys.modules["torchrec"] = None  # importing either would fail
program = torch.export.load(sys.argv[1]).module()
torch.save(program(*torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


@pytest.fixture(scope="module")
def scorer_at(scorer_of):
    """A function from a run, its export, shop and a session to the scorer whose log was counted at the session's time, as offline."""

    def of(run, out, shop, session):
        refresh_log(open_run(run), out, as_of=int(shop.session_time[session]))
        return scorer_of(out)

    return of


def offline(run, rows):
    table = pl.read_parquet(run / "predictions.parquet")
    return table.filter(pl.col("row").is_in(rows)).sort("row")["score"].to_numpy()


@pytest.mark.parametrize("kind", [*((form,) for form in FORMS), HALVED])
def test_known_candidates_score_as_offline(made, scorer_at, kind):
    folder, run, out = made(*kind)
    shop, seen = load_shop(folder), []
    for session in sessions_of(shop)[:8]:
        rows, request = asked_of(shop, session)
        found = scorer_at(run, out, shop, session).score(**request)
        assert found.items == request["candidates"]
        assert (found.unknown_user, found.unknown_items) == (False, [])
        np.testing.assert_allclose(found.probabilities, offline(run, rows), atol=1e-5)
        seen += found.probabilities.tolist()
    assert np.std(seen) > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_an_item_removed_from_the_catalogue_scores_as_offline_if_its_picture_is_sent(made, form, tmp_path):
    folder, run, _ = made(form, "--no-statistics", "--no-co-occurrence", "--seed", "1")  # counts of a smaller log are others
    shop = load_shop(folder)
    out_of_it = shop.items["item_id"][int(np.bincount(shop.item[shop.rows("test")]).argmax())]
    smaller = tmp_path / "smaller"
    shutil.copytree(folder, smaller)
    for name in ("items", "impressions", "events"):
        pl.read_parquet(folder / f"{name}.parquet").filter(pl.col("item_id") != out_of_it).write_parquet(smaller / f"{name}.parquet")
    assert export(["--run", str(run), "--data", str(smaller), "--out", str(tmp_path / "export")]) == 0
    scorer, tested, moved = Scorer.load(tmp_path / "export"), 0, 0.0
    path = folder / "images" / shop.items.filter(pl.col("item_id") == out_of_it)["image"][0]
    for session in sessions_of(shop):
        rows, request = asked_of(shop, session)
        if out_of_it not in request["candidates"]:
            continue
        candidates = [as_object(shop, item) if item == out_of_it else item for item in request["candidates"]]
        for picture in (path, str(path), path.read_bytes()):
            handed_in = {} if form == "none" else {out_of_it: picture}
            found = scorer.score(**request | {"candidates": candidates, "pictures": handed_in})
            assert (found.unknown_items, found.refused_pictures) == ([], {})
            np.testing.assert_allclose(found.probabilities, offline(run, rows), atol=1e-5)
        without = scorer.score(**request | {"candidates": candidates})
        if form != "none":
            assert out_of_it in without.without_picture
            moved = max(moved, np.abs(without.probabilities - found.probabilities).max())  # not for a user without a history
        bare = scorer.score(**request)
        assert bare.unknown_items == [out_of_it]
        tested += 1
        if tested == 3:
            break
    assert tested == 3
    assert form == "none" or moved > 1e-5


def test_the_program_runs_without_this_toolkit(made, scorer_at, tmp_path):
    folder, run, out = made("sim_score")
    shop = load_shop(folder)
    session = sessions_of(shop)[0]
    rows, request = asked_of(shop, session)
    scorer = scorer_at(run, out, shop, session)
    tensors, _ = scorer.catalogue.model_inputs(scorer.catalogue.check(request), {})
    torch.save(tensors, tmp_path / "question.pt")
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        ALONE,
        str(out / "model.pt2"),
        str(tmp_path / "question.pt"),
        str(tmp_path / "logits.pt"),
    ]
    subprocess.run(words, cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), offline(run, rows), atol=1e-5)


def test_the_command_prints_items_and_probabilities_as_json(made, scorer_at, tmp_path, capsys):
    folder, run, out = made("cluster_id")
    shop = load_shop(folder)
    session = sessions_of(shop)[0]
    rows, request = asked_of(shop, session)
    scorer_at(run, out, shop, session)
    new = {"item_id": 999_999, "category": "shoe", "title": "shoe number 3"}
    request["candidates"].append(new)
    request["context"] = {name: [*values, values[0]] for name, values in request["context"].items()}
    request["pictures"] = {"999999": str(folder / "images/0003.png")}
    (tmp_path / "request.json").write_text(json.dumps(request))
    capsys.readouterr()  # of the training
    assert score(["--export", str(out), "--request", str(tmp_path / "request.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["items"] == [*request["candidates"][:-1], 999_999]
    np.testing.assert_allclose(found["probabilities"][:-1], offline(run, rows), atol=1e-5)
    assert 0 < found["probabilities"][-1] < 1
    assert found["unknown_items"] == []
    fields = {field.name for field in dataclasses.fields(Answer)}
    assert set(found) == fields == {"items", "probabilities", "unknown_user", "unknown_items", "without_picture", "refused_pictures"}
