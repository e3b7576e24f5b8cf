"""The gate of the image branch: validation cuts what knows nothing, keeps what is true, and leaves the baseline alone."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.encode import encode
from ctr.training.gate import image_weights, lower, validated
from ctr.training.loop import train_ctr
from ctr.training.predict import measures, predict
from ctr.training.training import averaged, prepare, set_rates
from features.forms.table import FORM_NAMES
from run.devices import set_up
from tests.ctr_shop import make_shop, pictures

CONFIG = CtrConfig(**PRESETS["tiny"] | {"epochs": 3, "patience": 10_000}, threads=1)
SHARES = (1.0, 1 / 4, 1 / 16)


def a_training(form="vector", config=CONFIG, scale=1.0):
    """A run at step 1 whose weights on pictures are drawn, averaged and own ones differently."""
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, form), config)
    run = prepare(inputs, config, seed=0, steps=10, fabric=set_up(1), settings={})
    run.state.step = 1
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in run.network.items():
            if ".image." in name:
                weight.copy_(torch.randn(weight.shape, generator=draw))
                if run.average:
                    run.average[name].copy_(scale * torch.randn(weight.shape, generator=draw))
    return run, inputs


def by_hand(run, inputs, share):
    """The valid split's measures with a share of the averaged weights on pictures."""
    with averaged(run) as model:
        kept = [weight.detach().clone() for weight in image_weights(run)]
        with torch.no_grad():
            for weight in image_weights(run):
                weight.mul_(share)
        found = measures(predict(model, inputs, "valid", run.fabric, run.config), inputs.shop.session)
        with torch.no_grad():
            for weight, full in zip(image_weights(run), kept, strict=True):
                weight.copy_(full)
    return found


@pytest.mark.parametrize("ema", [0.99, 0.0])
@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("form", [*FORM_NAMES, "sim_tier+cluster_id"])
def test_the_share_is_the_one_that_validates_best(form, scale, ema):
    run, inputs = a_training(form, dataclasses.replace(CONFIG, ema=ema), scale)
    tried = [by_hand(run, inputs, share) for share in SHARES]
    expected = 0
    while expected < 2 and lower(tried[expected + 1], tried[expected]):
        expected += 1
    own, average = [weight.clone() for weight in image_weights(run)], {name: weight.clone() for name, weight in run.average.items()}
    assert validated(run, inputs) == tried[expected]
    assert run.state.image_gate == SHARES[expected]
    for weight, before in zip(image_weights(run), own, strict=True):
        assert torch.equal(weight, before * SHARES[expected])
    for name, before in average.items():
        assert torch.equal(run.average[name], before * (SHARES[expected] if ".image." in name else 1.0))


@pytest.fixture(scope="module")
def large():
    """A shop with enough to learn from, and its items' styles."""
    return make_shop(sessions=2500)


@pytest.fixture(scope="module")
def ungated(large, tmp_path_factory):
    """The folder of a training on true pictures without a gate."""
    folder = tmp_path_factory.mktemp("ungated")
    train_ctr(large[0], pictures(large[1], "vector"), dataclasses.replace(CONFIG, image_gate=False), seed=0, folder=folder)
    return folder


def test_a_branch_that_was_cut_may_grow_again_up_to_the_full_rate(large, ungated):
    feature = pictures(large[1], "vector")
    config = dataclasses.replace(CONFIG, init_from=ungated)
    inputs = encode(large[0], feature, config)
    run = prepare(inputs, config, seed=0, steps=10, fabric=set_up(1), settings={})
    with torch.no_grad():
        for weight, name in zip(image_weights(run), [name for name in run.network if ".image." in name], strict=True):
            weight.mul_(0.25)
            run.average[name].mul_(0.25)
    run.state.step, run.state.image_gate = 1, 1 / 16
    validated(run, inputs)
    assert run.state.image_gate == 1 / 4
    with torch.no_grad():
        for weight, name in zip(image_weights(run), [name for name in run.network if ".image." in name], strict=True):
            weight.mul_(0.25)
            run.average[name].mul_(0.25)
    run.state.image_gate = 1 / 2
    validated(run, inputs)
    assert run.state.image_gate == 1.0  # never faster than the others
    run.state.image_gate = 0.125
    set_rates(run)
    rates = {group["image"]: group["lr"] for group in run.optimizer.param_groups}
    assert rates[True] == rates[False] / 8


def lines(folder, key):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in found if key in line]


def test_what_is_true_is_kept_and_what_knows_nothing_is_cut(large, ungated, tmp_path):
    shop, style = large

    def trained(of, gated):
        folder = tmp_path / f"{of is style}{gated}"
        config = dataclasses.replace(CONFIG, image_gate=gated)
        return train_ctr(shop, pictures(of, "vector"), config, seed=0, folder=folder)["valid_log_loss"], lines(folder, "image_gate")

    loss, gates = trained(style, True)
    assert set(gates) == {1.0}
    assert loss == json.loads((ungated / "result.json").read_text())["valid_log_loss"]
    noise = np.random.default_rng(1).permutation(style)
    loss, gates = trained(noise, True)
    assert min(gates) == 1 / 64
    without, gates = trained(noise, False)
    assert loss < without
    assert set(gates) == {1.0}


def test_the_baseline_has_no_gate(tmp_path):
    shop, style = make_shop()
    results = [
        train_ctr(shop, pictures(style, "none"), dataclasses.replace(CONFIG, image_gate=gated), seed=0, folder=tmp_path / str(gated))
        for gated in (True, False)
    ]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    assert lines(tmp_path / "True", "image_gate") == []
