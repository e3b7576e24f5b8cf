"""Epochs of the image branch alone: they move nothing else, then everything; a kill changes no bit; a trained model is needed."""

import dataclasses

import numpy as np
import pytest
import torch

import ctr.training.loop
from ctr.config import PRESETS, CtrConfig
from ctr.inputs.encode import encode
from ctr.inputs.feed import feed
from ctr.inputs.sampler import split_sessions
from ctr.training.loop import train_ctr
from ctr.training.training import prepare, take_step
from ctr.training.weights import of_image
from eval.compare import CompareConfig
from features.image_feature import no_image
from run.devices import set_up
from run.errors import SettingError, Stopped
from run.files import read_json
from tests.ctr_shop import make_shop, pictures, trained_baseline

CONFIG = CtrConfig(**PRESETS["tiny"] | {"epochs": 1, "patience": 10_000}, threads=1)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("baseline"), CONFIG)


@pytest.mark.parametrize("form", ["vector", "cluster_id+sim_tier", "sim_attention"])
def test_only_the_image_branch_moves_until_it_joins(baseline, form):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline)
    inputs = encode(shop, pictures(style, form), config)
    run = prepare(inputs, config, seed=0, steps=10, fabric=set_up(1), settings={})
    run.alone = 4
    shares = feed(inputs, split_sessions(shop, "train"), config, seed=0, first=0, rank=0, ranks=1)

    def weights():
        return {name: weight.detach().clone() for name, weight in [*run.network.items(), *((part.name, part.weight) for part in run.parts)]}

    def moved(before):
        return {name for name, weight in weights().items() if not torch.equal(weight, before[name])}

    begun = weights()
    for _ in range(4):
        take_step(run, next(shares))
    assert moved(begun) == {name for name in begun if of_image(name)}
    assert not any(run.optimizer.state[weight] for name, weight in run.network.items() if not of_image(name))
    joined = weights()
    take_step(run, next(shares))
    assert {name for name in begun if name.startswith(("first.base", "histories.clicks.project.base"))} <= moved(joined)
    assert any("item" in name for name in moved(joined) if name.startswith("tables"))


def test_a_killed_run_ends_bit_equal_and_the_baseline_has_no_such_epochs(baseline, tmp_path, monkeypatch):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline, picture_epochs=2)
    whole = train_ctr(shop, pictures(style, "vector"), config, seed=0, folder=tmp_path / "whole")
    plain = train_ctr(shop, no_image(len(shop.items)), config, seed=0, folder=tmp_path / "plain")
    assert whole["steps"] == 3 * plain["steps"]
    steps = 0

    def dies(run, taken):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Stopped("stopped")
        return take_step(run, taken)

    monkeypatch.setattr(ctr.training.loop, "take_step", dies)
    killed = dataclasses.replace(config, checkpoint_seconds=0)
    with pytest.raises(Stopped):
        train_ctr(shop, pictures(style, "vector"), killed, seed=0, folder=tmp_path / "killed")
    monkeypatch.undo()
    train_ctr(shop, pictures(style, "vector"), killed, seed=0, folder=tmp_path / "killed")
    assert (tmp_path / "killed/best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()
    assert read_json(tmp_path / "killed/result.json")["valid_auc"] == whole["valid_auc"]


def test_patience_waits_until_the_branch_has_joined(baseline, tmp_path):
    shop, style = make_shop()
    config = dataclasses.replace(CONFIG, init_from=baseline, picture_epochs=3, patience=1, learning_rate=1e-9, table_learning_rate=1e-9)
    result = train_ctr(shop, pictures(style, "vector"), config, seed=0, folder=tmp_path)
    per_epoch = int(np.ceil(len(split_sessions(shop, "train").sessions) / CONFIG.batch_sessions))
    assert result["steps"] > 3 * per_epoch


def test_without_a_trained_model_they_are_refused(tmp_path):
    shop, style = make_shop()
    with pytest.raises(SettingError, match=r"needs a trained model: --init-from"):
        train_ctr(shop, pictures(style, "vector"), dataclasses.replace(CONFIG, picture_epochs=1), seed=0, folder=tmp_path)
    with pytest.raises(SettingError, match="--start warm"):
        CompareConfig(start="cold", ctr=CtrConfig(picture_epochs=1))
