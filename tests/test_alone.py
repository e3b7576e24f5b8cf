"""Encoders without a CTR model: the scores are those of a loop over impressions and clicks, alone and beside popularity, and the sentences
say which way round.
"""

import numpy as np
import pytest

from data.log.shop_folder import load_shop
from data.log.statistics import popularity
from eval.alone import popularity_alone, similarity_alone
from eval.report.wording import alone, alone_shown
from features.embeddings import write_embeddings
from metrics.conditional_logit import conditional_logit
from pretrain.config import PretrainConfig
from tests.shops import write_shop


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("centre", [False, True])
def test_scores_are_mean_cosines_with_the_newest_clicks_less_the_mean_of_items_shown_in_pretraining(tmp_path, centre):
    shop = load_shop(write_shop(tmp_path / "shop", pictures=False))
    vectors = np.random.default_rng(0).normal(1, 1, size=(len(shop.items), 6)).astype(np.float32)
    vectors[-1] = 0  # the item without a picture
    write_embeddings(tmp_path / "embeddings", shop.items["item_id"], vectors, {})
    units = [unit(vector) if vector.any() else vector for vector in vectors.astype(np.float64)]
    if centre:
        shown = {int(shop.item[row]) for row in shop.rows("pretrain")}
        mean = np.mean([units[item] for item in sorted(shown) if units[item].any()], axis=0)
        units = [unit(vector - mean) if vector.any() else vector for vector in units]
    events = shop.events.rows()
    expected = {split: [] for split in ("valid", "test")}
    for row in np.concatenate([shop.rows(split) for split in expected]):
        target = shop.item[row]
        earlier = (events.user == shop.user[row]) & (events.time < shop.session_time[shop.session[row]]) & (events.action == 0)
        cosines = [units[target] @ units[item] for item in events.item[earlier][-4:] if item != target and units[item].any()]
        expected["valid" if row in shop.rows("valid") else "test"].append(np.mean(cosines) if cosines else 0.0)
    found, beside = similarity_alone(shop, tmp_path / "embeddings", PretrainConfig(centre=centre, valid_history=4, mask_same_item=True))
    assert len({round(score, 6) for score in expected["test"]}) > 10
    np.testing.assert_allclose(found, expected["test"], atol=1e-5)
    known = {split: popularity(shop, shop.rows(split)) for split in expected}
    weights = weights_of(shop, np.column_stack([known["valid"], expected["valid"]]))
    np.testing.assert_allclose(beside, np.column_stack([known["test"], expected["test"]]) @ weights, atol=1e-4)
    np.testing.assert_allclose(popularity_alone(shop), known["test"] @ weights_of(shop, known["valid"]), atol=1e-6)


def weights_of(shop, columns):
    rows = shop.rows("valid")
    return conditional_logit(columns, shop.click[rows], shop.session[rows])


def pair(a, b, mean):
    return {"a": a, "b": b, "delta_gauc": delta(mean), "delta_beside_popularity": delta(mean / 10)}


def delta(mean):
    return {"mean": mean, "ci95": [mean - 0.01, mean + 0.02], "p_value": 0.04}


def test_encoders_are_held_against_imagenet_where_it_is_there():
    results = {
        "alone": [{"encoder": name, "gauc": {"mean": value}} for name, value in (("courier", 0.59), ("imagenet", 0.56), ("pairs", 0.57))],
        "alone_pairs": [pair("courier", "imagenet", 0.03), pair("courier", "pairs", 0.02), pair("imagenet", "pairs", -0.01)],
    }
    shown = alone_shown(results)
    assert [(one["a"], one["b"], one["delta_gauc"]["mean"]) for one in shown] == [
        ("courier", "imagenet", 0.03),
        ("pairs", "imagenet", 0.01),
    ]
    assert shown[1]["delta_gauc"]["ci95"] == pytest.approx([-0.01, 0.02])
    assert shown[1]["delta_beside_popularity"] == delta(-0.001) | {"mean": 0.001, "ci95": pytest.approx([-0.019, 0.011])}
    text = alone(results)
    assert "courier 0.5900, imagenet 0.5600, pairs 0.5700 (courier minus imagenet +3.00 [+2.00, +5.00]; pairs minus" in text
    assert "popularity" not in text  # results of before it was measured
    for each, added in zip(results["alone"], (0.004, 0.002, -0.001), strict=True):
        each["over_popularity"] = delta(added)
    text = alone(results | {"popularity": {"mean": 0.63}})
    assert "popularity so far has a GAUC of 0.6300" in text
    assert "courier +0.40 [-0.60, +2.40], imagenet +0.20 [-0.80, +2.20], pairs" in text.replace("\N{MINUS SIGN}", "-")
    assert "(courier minus imagenet +0.30 [-0.70, +2.30]; pairs minus imagenet +0.10" in text.replace("\N{MINUS SIGN}", "-")


def test_without_imagenet_the_first_encoder_is_held_against_each():
    results = {
        "alone": [{"encoder": name, "gauc": {"mean": 0.5}} for name in ("a", "b", "c")],
        "alone_pairs": [pair("a", "b", 0.01), pair("a", "c", 0.02), pair("b", "c", 0.01)],
    }
    assert [(one["a"], one["b"]) for one in alone_shown(results)] == [("a", "b"), ("a", "c")]
    assert alone({"rows": []}) == ""
    assert alone_shown({"rows": []}) == []
