"""Unknown IDs begun from pictures: ridge regression in closed form, what it is fitted to, and whom it concerns."""

import dataclasses

import numpy as np
import pytest
import torch

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from ctr.train import TrainConfig
from ctr.training.loop import train_ctr
from ctr.training.training import prepare
from ctr.training.weights import read_weights, ridge
from eval.compare import CompareConfig
from run.devices import set_up
from run.errors import SettingError
from tests.ctr_shop import make_shop, pictures, trained_baseline

CONFIG = CtrConfig(**PRESETS["tiny"] | {"epochs": 1, "min_count": 18}, threads=1)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("baseline"), CONFIG)


def test_ridge_is_the_closed_form_at_the_strength_with_the_least_leave_one_out_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)) + 3
    y = x @ rng.normal(size=(5, 2)) + rng.normal(size=(40, 2)) + 7
    scale, found = np.square(np.linalg.svd(x - x.mean(0), compute_uv=False)).mean(), {}

    def fit(x, y, strength):
        centred = x - x.mean(0)
        weight = np.linalg.solve(centred.T @ centred + strength * np.eye(5), centred.T @ (y - y.mean(0))).T
        return weight, y.mean(0) - weight @ x.mean(0)

    for power in range(-4, 5):
        errors = []
        for row in range(40):
            others = np.arange(40) != row
            weight, bias = fit(x[others], y[others], scale * 10.0**power)
            errors.append(np.square(y[row] - weight @ x[row] - bias).sum())
        found[power] = np.sum(errors)
    weight, bias = ridge(torch.from_numpy(x), torch.from_numpy(y))
    expected = fit(x, y, scale * 10.0 ** min(found, key=found.get))
    np.testing.assert_allclose(weight, expected[0], rtol=1e-6)
    np.testing.assert_allclose(bias, expected[1], rtol=1e-6)


def test_ridge_of_nothing_says_nothing_and_of_noise_next_to_nothing():
    for rows in (0, 1):
        weight, bias = ridge(torch.randn(rows, 3), torch.randn(rows, 2))
        assert not weight.any()
        assert not bias.any()
    draw = torch.Generator().manual_seed(0)
    weight, _ = ridge(torch.randn(200, 50, generator=draw), torch.randn(200, 4, generator=draw))
    assert weight.norm() < 0.3  # least squares: about 1.2


def test_it_is_fitted_to_the_trained_rows_of_known_items_with_pictures(baseline):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline, id_start="ridge")
    inputs = encode(shop, pictures(style, "vector"), config)
    run = prepare(inputs, config, seed=0, steps=10, fabric=set_up(1), settings={})
    table = next(value for name, value in read_weights(baseline / "best.safetensors")[0].items() if name.endswith(".item.weight"))
    row = inputs.items.rows[0]
    known = (row > 0) & inputs.present
    assert 5 < known.sum() < len(row) - 5
    weight, bias = ridge(torch.from_numpy(inputs.unit[known]).double(), (table[torch.from_numpy(row[known])] - table[0]).double())
    torch.testing.assert_close(run.network["image_id.weight"].detach(), weight.float())
    torch.testing.assert_close(run.network["image_id.bias"].detach(), bias.float())


def test_a_map_that_has_been_trained_is_kept(baseline, tmp_path):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline, id_start="ridge")
    train_ctr(shop, pictures(style, "vector"), config, seed=0, folder=tmp_path)
    inputs = encode(shop, pictures(style, "vector"), config)
    again = prepare(inputs, dataclasses.replace(config, init_from=tmp_path), seed=0, steps=10, fabric=set_up(1), settings={})
    weights, _ = read_weights(tmp_path / "best.safetensors")
    assert torch.equal(again.network["image_id.weight"].detach(), weights["image_id.weight"])
    plain = dataclasses.replace(CONFIG, init_from=baseline)
    train_ctr(shop, pictures(style, "vector"), plain, seed=0, folder=tmp_path / "plain")
    begun = prepare(inputs, dataclasses.replace(config, init_from=tmp_path / "plain"), seed=0, steps=10, fabric=set_up(1), settings={})
    assert begun.network["image_id.weight"].any()


def test_only_unknown_items_with_a_picture_get_it(baseline):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline, id_start="ridge")
    inputs = encode(shop, pictures(style, "vector"), config)
    run = prepare(inputs, config, seed=0, steps=10, fabric=set_up(1), settings={})
    model, batch = run.model.module, assemble(inputs, split_sessions(shop, "test"), np.arange(20))
    row = batch.ids["item"].values()
    before = torch.randn(len(row), config.id_size)
    changed = (model.known_by_picture(before, row, batch.unit, batch.present) != before).any(1)
    assert torch.equal(changed, (row == 0) & batch.present)
    assert 0 < changed.sum() < len(row)


def test_it_needs_a_trained_model_and_ids_that_can_be_unknown(tmp_path):
    shop, style = make_shop()
    with pytest.raises(SettingError, match=r"needs a trained model: --init-from"):
        train_ctr(shop, pictures(style, "vector"), dataclasses.replace(CONFIG, id_start="ridge"), seed=0, folder=tmp_path)
    with pytest.raises(SettingError, match=r"needs a trained model: --init-from"):
        TrainConfig(image_feature="vector", ctr=CtrConfig(id_start="ridge"))
    with pytest.raises(SettingError, match="--start warm"):
        CompareConfig(start="cold", ctr=CtrConfig(id_start="ridge"))
    with pytest.raises(SettingError, match="hashed ID"):
        CtrConfig(id_start="ridge", hash_ids=100)
    with pytest.raises(SettingError, match="ridge"):
        CtrConfig(id_start="rigde")
