"""An exported model gives the offline scores: for known candidates, and for new ones with new pictures."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from ctr.config import PRESETS, CtrConfig
from ctr.export import main as export
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from ctr.model.ctr_model import build
from ctr.score import Answer, Scorer
from ctr.score import main as score
from ctr.serving.exporter import refresh_log
from ctr.serving.serving_model import ModelInputs, ServingModel, exported
from ctr.serving.trained_run import open_run
from data.log.shop_folder import load_shop
from run.errors import UserError
from tests.ctr_shop import ages_of, begun_at_zero, items_of, make_shop, pictures
from tests.trained_ctr import as_object, asked_of, make_run

FORMS = ("none", "vector", "cluster_id", "sim_score")
KINDS = [(form, pooling, "before") for form in FORMS for pooling in ("self", "target")] + [("sim_score", "self", "after")]
HALVED = ("sim_score", "--score-place", "after", "--hash-ids", "50", "--table-precision", "fp16")
ALONE = """
import sys, torch
sys.modules["ctr"] = sys.modules["torchrec"] = None  # importing either would fail
program = torch.export.load(sys.argv[1]).module()
torch.save(program(*torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


def history_places(history):
    """The first session's items, oldest first; a single padding item for an empty history."""
    return torch.tensor(items_of(history, 0) or [-1])


def serving_inputs(inputs, batch):
    """A batch of one session as inputs of the serving model."""
    keys = batch.ids.to_dict()
    items = len(batch.present)

    def rows(tables):
        return torch.stack([keys[table.name].values() for table in tables], 1)

    words, lengths = batch.words.values(), batch.words.lengths().long()
    cut = int(lengths[:items].sum())
    return ModelInputs(
        user_rows=rows(inputs.layout.user)[0],
        user_numeric=batch.user_numeric[0],
        item_rows=rows(inputs.layout.item),
        item_numeric=batch.item_numeric,
        title_words=words[:cut],
        title_start=torch.cumsum(lengths[:items], 0) - lengths[:items],
        vectors=torch.zeros(items, 0) if batch.vectors is None else batch.vectors,
        present=batch.present,
        codes=batch.codes,
        **{name: ages_of(history, 0) for name, history in zip(("click_ages", "purchase_ages", "cart_ages"), batch.histories, strict=True)},
        clicks=history_places(batch.histories[0]),
        purchases=history_places(batch.histories[1]),
        cart=history_places(batch.histories[2]),
        candidates=batch.target,
        query_words=words[cut:],
        context_rows=rows(inputs.layout.context),
        context_numeric=batch.context_numeric,
        log_numbers=batch.log_numbers,
        own_logit=torch.zeros(len(batch.target)),
    )


@pytest.mark.parametrize(("form", "pooling", "score_place"), KINDS)
def test_the_exported_program_gives_the_trained_models_logits(form, pooling, score_place):
    shop, style = make_shop()
    config = CtrConfig(**PRESETS["tiny"], pooling=pooling, score_place=score_place)
    inputs = encode(shop, pictures(style, form), config)
    model = build(inputs.layout, config, seed=3).eval()
    with torch.no_grad():
        for _, table in model.tables.named_tables():
            table.mul_(10)
        begun_at_zero(model)
    serving = ServingModel(inputs.layout, config, model.state_dict())
    dim = 0 if inputs.vectors is None else inputs.vectors.shape[1]
    program = serving if pooling == "target" and form != "sim_score" else exported(serving, dim).module()  # exporting takes a second
    part, lengths = split_sessions(shop, "test"), set()
    with torch.no_grad():
        for session in range(25):
            batch = assemble(inputs, part, np.array([session]))
            asked = serving_inputs(inputs, batch)
            lengths.add(tuple(len(part) for part in (asked.clicks, asked.purchases, asked.cart)))
            logits = model(batch)
            torch.testing.assert_close(serving(*asked), logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(program(*asked), logits, atol=1e-5, rtol=0)
    assert len(lengths) > 5
    assert (part.count[:25] == 1).any()


def test_weights_of_another_model_are_refused_by_name():
    shop, style = make_shop()
    config = CtrConfig(**PRESETS["tiny"])
    inputs = encode(shop, pictures(style, "none"), config)
    weights = build(inputs.layout, config, seed=3).state_dict()
    with pytest.raises(UserError, match=r"weights of another model: 'hidden\.2\.bias'"):
        ServingModel(inputs.layout, dataclasses.replace(config, hidden=config.hidden[:-1]), weights)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function from a form and training flags to (shop folder, run folder, export folder), each built once."""
    root, there = tmp_path_factory.mktemp("serving"), {}

    def of(form, *flags):
        if (form, *flags) not in there:
            run = make_run(root, form, *flags)
            out = root / f"export-{run.name}"
            assert export(["--run", str(run), "--out", str(out)]) == 0
            there[form, *flags] = root / "shop", run, out
        return there[form, *flags]

    return of


@pytest.fixture(scope="module")
def scorer_of():
    """A function from an export to its scorer, loaded once, with the log as it is now."""
    loaded = {}

    def of(out):
        if out not in loaded:
            loaded[out] = Scorer.load(out)
        loaded[out].reload_log()
        return loaded[out]

    return of


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


def sessions_of(shop, split="test"):
    return np.unique(shop.session[shop.rows(split)]).tolist()


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
    folder, run, _ = made(form, "--no-statistics", "--no-co-occurrence")  # counts of a smaller log are others
    shop = load_shop(folder)
    out_of_it = shop.items["item_id"][int(np.bincount(shop.item[shop.rows("test")]).argmax())]
    smaller = tmp_path / "smaller"
    shutil.copytree(folder, smaller)
    for name in ("items", "impressions", "events"):
        pl.read_parquet(folder / f"{name}.parquet").filter(pl.col("item_id") != out_of_it).write_parquet(smaller / f"{name}.parquet")
    assert export(["--run", str(run), "--data", str(smaller), "--out", str(tmp_path / "export")]) == 0
    scorer, tested = Scorer.load(tmp_path / "export"), 0
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
            assert np.abs(without.probabilities - found.probabilities).max() > 1e-5
        bare = scorer.score(**request)
        assert bare.unknown_items == [out_of_it]
        tested += 1
        if tested == 3:
            break
    assert tested == 3


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


def test_pictures_are_found_next_to_the_request_file_and_errors_begin_with_its_path(made, scorer_of, tmp_path, monkeypatch):
    folder, _, out = made("vector")
    scorer = scorer_of(out)
    shutil.copyfile(folder / "images/0003.png", tmp_path / "new.png")
    path = tmp_path / "request.json"

    def asked(**fields):
        path.write_text(json.dumps({"user": 7, "candidates": [100, 101], **fields}))
        return path

    found = scorer.score_file(asked(pictures={"100": "new.png", "101": "absent.png"}))
    assert found.refused_pictures == {101: f"{tmp_path / 'absent.png'}: no such file"}
    elsewhere = scorer.score(user=7, candidates=[100, 101], pictures={100: "new.png"})
    assert elsewhere.refused_pictures == {100: "new.png: no such file"}
    monkeypatch.chdir(tmp_path)
    here = scorer.score(user=7, candidates=[100, 101], pictures={100: "new.png", 101: "absent.png"})
    assert here.probabilities.tolist() == found.probabilities.tolist()
    assert 100 not in here.without_picture
    for fields, expected in (
        ({"query": 5}, "query: value 5; give a text"),
        ({"usr": 1}, "usr: no such field; did you mean 'user'?"),
        ({"pictures": {"7": "x.png"}}, "pictures.7: neither a candidate nor an item of the histories as read; leave it out"),
    ):
        with pytest.raises(UserError) as error:
            scorer.score_file(asked(**fields))
        assert str(error.value) == f"{path}: {expected}"


def test_unreadable_pictures_count_as_missing_and_the_answer_says_why(made, scorer_of, tmp_path):
    folder, _, out = made("vector")
    shop, scorer = load_shop(folder), scorer_of(out)
    _, request = asked_of(shop, sessions_of(shop)[0])
    first, second, third, *_ = dict.fromkeys(request["candidates"])
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("L", (2, 2)).save(tmp_path / "loop.png")
    hostile = {first: tmp_path / "bad.png", second: tmp_path / "absent.png", third: b"<svg/>"}
    found = scorer.score(**request, pictures=hostile)
    assert set(found.refused_pictures) == {first, second, third}
    assert found.refused_pictures[second] == f"{tmp_path / 'absent.png'}: no such file"
    assert found.refused_pictures[third] == "not a PNG, JPEG or WebP picture"
    assert {first, second, third} <= set(found.without_picture)


def test_an_unseen_user_without_history_gets_a_score(made, scorer_of):
    _, _, out = made("sim_score")
    found = scorer_of(out).score(user=-5, candidates=[100])
    assert 0 < found.probabilities[0] < 1
    assert found.unknown_user


@pytest.mark.parametrize("kind", [("none",), HALVED])
def test_a_visitor_without_an_id_gets_a_score_and_may_have_a_history(made, scorer_of, kind):
    folder, _, out = made(*kind)
    shop, scorer = load_shop(folder), scorer_of(out)
    _, request = asked_of(shop, sessions_of(shop)[0])
    found = scorer.score(**request | {"user": None})
    assert found.unknown_user
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()
    unknown = scorer.score(**request | {"user": -5}).probabilities
    assert (unknown.tolist() == found.probabilities.tolist()) == (kind == ("none",))  # with hashing, an unknown id has a row like any other
    assert (
        scorer.score(**request | {"user": None, "history": {}, "history_times": {}}).probabilities.tolist() != found.probabilities.tolist()
    )
    columns = shop.users.drop("user_id").row(0, named=True)
    assert not scorer.score(**request | {"user": {"user_id": None, **columns}}).unknown_user


def test_a_user_described_like_a_known_one_gets_its_score(made, scorer_of):
    folder, _, out = made("none")
    shop, scorer = load_shop(folder), scorer_of(out)
    _, request = asked_of(shop, sessions_of(shop)[0])
    user = shop.users.filter(pl.col("user_id") == request["user"]).row(0, named=True)
    same = scorer.score(**request | {"user": user}).probabilities
    assert same.tolist() == scorer.score(**request).probabilities.tolist()
    other = scorer.score(**request | {"user": user | {"spend": 40.0}}).probabilities
    assert np.abs(other - same).max() > 1e-6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"candidates": []}, r"candidates: value \[\]; give at least one item"),
        ({"candidates": [100, "101"]}, r"candidates\[1\]: value '101'; item ids of this model are integers"),
        ({"candidates": [{"item_id": 5, "colour": 1}]}, r"candidates\[0\]\.colour: no such field; there are: item_id, category"),
        ({"candidates": [{"item_id": 5, "brand": "x"}]}, r"candidates\[0\]\.brand: value 'x'; the model was trained on integers"),
        ({"candidates": [{"item_id": 5, "price": "x"}]}, r"candidates\[0\]\.price: value 'x'; the model was trained on numbers; write it"),
        ({"candidates": [{"item_id": 5, "price": float("inf")}]}, r"candidates\[0\]\.price: value inf; give a finite number"),
        ({"candidates": [{"title": "x"}]}, r"candidates\[0\]\.item_id: missing"),
        ({"history": {"click": []}}, r"history\.click: no such field; did you mean 'clicks'\?"),
        ({"history": {"cart": 5}}, r"history\.cart: value 5; give a list"),
        ({"context": {"position": [1]}}, r"context\.position: value \[1\]; 1 values for 2 candidates; give one for each, or one for all"),
        ({"query": 5}, r"query: value 5; give a text"),
        ({"pictures": {"7": "x.png"}}, r"pictures\.7: neither a candidate nor an item of the histories"),
        ({"pictures": {"100": 7}}, r"pictures\.100: value 7; give a path"),
        ({"user": "martian"}, r"user: value 'martian'; user ids of this model are integers, or null for a visitor without one"),
        ({"candidates": [None]}, r"candidates\[0\]: value None; item ids of this model are integers$"),
        ({"usr": 1}, r"usr: no such field; did you mean 'user'\?"),
        ({"timestamp": "now"}, r"timestamp: value 'now'; give Unix seconds, an integer"),
        ({"timestamp": 1_700_000_000_000}, r"timestamp: value 1700000000000; give Unix seconds"),
        ({"history_times": {"clicks": []}}, r"timestamp: missing; history_times need the request's own time"),
        ({"timestamp": 9, "history": [100], "history_times": [1, 2]}, r"history_times\.clicks: value \[1, 2\]; 2 times for 1 items"),
        ({"timestamp": 9, "history": [100], "history_times": [9]}, r"history_times\.clicks\[0\]: value 9; is not before the request's"),
        ({"timestamp": 9, "history": [100, 101], "history_times": [5, 4]}, r"history_times\.clicks\[1\]: value 4; .*is oldest first"),
        ({"timestamp": 9, "history_times": {"likes": [1]}}, r"history_times\.likes: no such field; did you mean 'clicks'\?"),
        ({"own_score": [0.5]}, r"own_score: value \[0\.5\]; 1 values for 2 candidates; give one for each, or one for all"),
    ],
)
def test_a_malformed_request_is_refused_with_the_field_and_the_fix(made, scorer_of, change, expected):
    _, _, out = made("cluster_id")
    with pytest.raises(UserError, match=f"^request: {expected}"):
        scorer_of(out).score(**{"user": 7, "candidates": [100, 101]} | change)


def test_a_scorer_reads_counts_taken_again_as_if_loaded_anew_and_refuses_another_export(made, tmp_path):
    folder, run, first = made("cluster_id")
    out = tmp_path / "export"
    shutil.copytree(first, out)
    shop = load_shop(folder)
    session = sessions_of(shop)[0]
    _, request = asked_of(shop, session)
    scorer = Scorer.load(out)
    before = scorer.score(**request).probabilities
    moment = int(shop.session_time[session]) - 86_400
    refresh_log(open_run(run), out, as_of=moment)
    assert scorer.score(**request).probabilities.tolist() == before.tolist()
    assert scorer.reload_log() == moment == scorer.meta["as_of"]
    after = scorer.score(**request).probabilities
    assert after.tolist() != before.tolist()
    assert after.tolist() == Scorer.load(out).score(**request).probabilities.tolist()
    shutil.rmtree(out)
    shutil.copytree(made("vector")[2], out)
    with pytest.raises(UserError, match=r"another export than the one that was loaded; load it with Scorer\.load"):
        scorer.reload_log()
    assert scorer.score(**request).probabilities.tolist() == after.tolist()


def test_an_export_is_never_written_into_a_run_finished_or_not(made, tmp_path, capsys):
    _, run, _ = made("cluster_id")
    (tmp_path / "config.toml").touch()
    for out in (run, tmp_path):
        assert export(["--run", str(run), "--out", str(out)]) == 2
        assert f"{out}: a run or a shop folder; give another --out" in capsys.readouterr().err


def test_an_export_that_is_unfinished_damaged_or_of_an_unknown_form_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"not a finished export; write one with python -m ctr\.export --run RUN --out "):
        Scorer.load(tmp_path)
    _, run, _ = made("cluster_id")
    with pytest.raises(
        UserError, match=rf"is a run, not an export of it; write one with python -m ctr\.export --run {re.escape(str(run))} --out EXPORT"
    ):
        Scorer.load(run)
    out = tmp_path / "export"
    shutil.copytree(made("cluster_id")[2], out)
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"form": "hologram"}))
    with pytest.raises(UserError, match=r"form 'hologram'; there are none, cluster_id, sim_score, vector"):
        Scorer.load(out)
    (out / "meta.json").write_text(json.dumps(meta))
    (out / "model.pt2").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"model\.pt2: missing, or not the file that was exported"):
        Scorer.load(out)
