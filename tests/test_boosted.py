"""The LightGBM check: it reads the baseline's numbers, finds what they hold, and repeats itself exactly."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ctr.boosted import fit_trees, predicted, train_boosted
from ctr.config import CtrConfig
from ctr.impression_numbers import impression_numbers, thinned
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from data.log.histories import jagged
from eval.checks import note_missing_controls
from eval.compare import CompareConfig
from eval.rows import BOOSTED
from features.image_feature import no_image
from metrics.auc import auc
from tests.ctr_shop import make_shop

CONFIG = CtrConfig()


@pytest.fixture(scope="module")
def shop():
    return make_shop(sessions=600)[0]


@pytest.fixture(scope="module")
def inputs(shop):
    return encode(shop, no_image(len(shop.items)), CONFIG)


def column(found, name):
    return found.values[:, found.names.index(name)]


def test_every_number_has_a_name_of_its_own_and_is_finite(inputs):
    for split in ("train", "valid", "test"):
        found = impression_numbers(inputs, split_sessions(inputs.shop, split))
        assert found.values.shape == (len(inputs.shop.rows(split)), len(found.names))
        assert len(set(found.names)) == len(found.names)
        assert np.isfinite(found.values).all()
        assert sorted(found.rows) == sorted(inputs.shop.rows(split))


def test_the_match_counts_history_items_of_the_targets_category(inputs):
    shop, part = inputs.shop, split_sessions(inputs.shop, "test")
    found = impression_numbers(inputs, part)
    category = shop.items["category"].to_numpy()
    for place, row in enumerate(part.rows):
        history, _ = jagged(inputs.histories[0], shop.session[row : row + 1])
        same = (category[history] == category[shop.item[row]]).sum()
        assert column(found, "clicks category: count")[place] == pytest.approx(np.log1p(same), abs=1e-5)
        assert column(found, "clicks: length")[place] == len(history)
    assert column(found, "clicks category: count").max() > 1  # otherwise the loop has compared zeros


def test_without_the_logs_numbers_the_tables_columns_remain(shop):
    bare = encode(shop, no_image(len(shop.items)), replace(CONFIG, match=False, statistics=False, co_occurrence=False))
    found = impression_numbers(bare, split_sessions(shop, "test"))
    assert not any(name.endswith((": count", ": click rate")) for name in found.names)
    assert "item: price missing" in found.names
    assert {found.names[place] for place in found.codes} == {"item: category", "user: age", "context: position"}


def test_statistics_are_those_of_the_network(inputs):
    found = impression_numbers(inputs, split_sessions(inputs.shop, "valid"))
    for place, scale in enumerate(inputs.vocabularies.log_numbers):
        np.testing.assert_array_equal(column(found, scale.column), inputs.log_numbers[found.rows, place])


def test_codes_are_the_tables_rows(inputs):
    found = impression_numbers(inputs, split_sessions(inputs.shop, "test"))
    rows = inputs.vocabularies.item.categorical["category"].rows(inputs.shop.items["category"])
    np.testing.assert_array_equal(column(found, "item: category"), rows[inputs.shop.item[found.rows]])


@pytest.mark.parametrize("most, step", [(10**9, 1), (800, 3)])
def test_a_large_split_is_thinned_to_complete_sessions(inputs, most, step):
    part = split_sessions(inputs.shop, "train")
    few = thinned(part, most)
    assert -(-len(part.rows) // most) == step
    np.testing.assert_array_equal(few.sessions, part.sessions[::step])
    np.testing.assert_array_equal(few.rows, part.rows[np.isin(inputs.shop.session[part.rows], few.sessions)])
    numbers, all_numbers = impression_numbers(inputs, few), impression_numbers(inputs, part)
    np.testing.assert_allclose(numbers.values, all_numbers.values[np.isin(all_numbers.rows, numbers.rows)], atol=1e-6)


def test_trees_learn_a_rule_of_a_column(shop, tmp_path):
    click = (shop.items["weight"].to_numpy() > 0.6)[shop.item].astype(np.int8)
    flipped = np.random.default_rng(0).random(len(click)) < 0.1
    ruled = replace(shop, click=np.where(flipped, 1 - click, click).astype(np.int8))
    result = train_boosted(ruled, CONFIG, seed=0, folder=tmp_path)
    assert result["test_auc"] > 0.85  # the rule itself has about 0.9


def test_predictions_are_of_all_impressions_of_valid_and_test_and_give_the_measures_reported(shop, tmp_path):
    result = train_boosted(shop, CONFIG, seed=0, folder=tmp_path)
    table = pl.read_parquet(tmp_path / "predictions.parquet")
    for split in ("valid", "test"):
        own = table.filter(pl.col("split") == split)
        np.testing.assert_array_equal(own["row"], np.sort(shop.rows(split)))
        np.testing.assert_array_equal(own["click"], shop.click[own["row"].to_numpy()])
        assert result[f"{split}_auc"] == pytest.approx(auc(own["click"].to_numpy(), own["score"].to_numpy()), abs=1e-12)
    assert 0 < result["best_step"] <= result["steps"]
    assert result["impressions"] == len(shop.rows("train"))


def test_trees_start_from_the_users_own_model(shop, tmp_path):
    random = np.random.default_rng(1)
    own = random.normal(size=len(shop.click))
    click = (random.random(len(own)) < 1 / (1 + np.exp(-own))).astype(np.int8)  # the own model knows all that can be known
    scored = shop.impressions.with_columns(own_score=pl.Series(1 / (1 + np.exp(-own))))
    with_own = replace(shop, impressions=scored, click=click)
    train_boosted(with_own, CONFIG, seed=0, folder=tmp_path)
    table = pl.read_parquet(tmp_path / "predictions.parquet").filter(pl.col("split") == "test")
    score, truth = table["score"].to_numpy(), 1 / (1 + np.exp(-own[table["row"].to_numpy()]))
    assert np.abs(score - truth).mean() < 0.05
    assert auc(table["click"].to_numpy(), score) > auc(table["click"].to_numpy(), truth) - 0.02


def test_the_same_seed_gives_the_same_trees_and_another_one_others(inputs):
    shop = inputs.shop
    train, valid = (impression_numbers(inputs, split_sessions(shop, split)) for split in ("train", "valid"))

    def logits(seed):
        return predicted(fit_trees(train, valid, shop.click, seed=seed), valid, shop).logit

    first = logits(0)
    np.testing.assert_array_equal(first, logits(0))
    assert not np.array_equal(first, logits(1))


def test_a_missing_package_leaves_the_row_out_and_says_how_to_install_it(monkeypatch, capsys):
    with_package = CompareConfig(controls=True).rows
    assert with_package[-1] == BOOSTED
    note_missing_controls(with_package, controls=True)
    note_missing_controls(CompareConfig().rows, controls=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("eval.rows.find_spec", lambda name: None)
    rows = CompareConfig(controls=True).rows
    assert rows == with_package[:-1]
    note_missing_controls(rows, controls=True)
    assert "pip install '.[lightgbm]'" in capsys.readouterr().err
