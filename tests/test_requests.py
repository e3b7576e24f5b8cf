"""Requests to a scorer: pictures that come with them, users without an id or a history, and one line for each mistake."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image

from data.log.shop_folder import load_shop
from run.errors import UserError
from tests.exports import HALVED
from tests.trained_ctr import asked_of, sessions_of


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
