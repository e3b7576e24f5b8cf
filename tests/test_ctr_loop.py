"""Training learns, leaks nothing and is repeatable, and a killed run ends like an undisturbed one."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

import ctr.training.loop
import ctr.training.training
from ctr.config import PRESETS, CtrConfig, code_of
from ctr.inputs.encode import encode
from ctr.training.loop import train_ctr
from ctr.training.training import prepare, settings_of
from features.forms.table import FORM_NAMES, form_modules
from features.image_feature import no_image
from metrics.auc import auc
from run.devices import set_up
from run.errors import UserError
from run.source_code import modules_of
from tests.ctr_shop import make_shop, pictures

ROOT = Path(__file__).parent.parent
TINY = CtrConfig(**PRESETS["tiny"], threads=1)
LONG = dataclasses.replace(TINY, epochs=4, patience=10_000, checkpoint_seconds=0)
FORMS = ("none", *FORM_NAMES)
KILLED = """
from pathlib import Path
from tests.test_ctr_loop import LONG, make_shop, pictures, train_ctr
shop, style = make_shop()
train_ctr(shop, pictures(style, "sim_score"), LONG, seed=0, folder=Path({folder!r}))
"""


def predictions(folder):
    return pl.read_parquet(folder / "predictions.parquet")


def train(folder, form="none", config=TINY, seed=0, shop=None):
    made, style = make_shop()
    train_ctr(shop or made, pictures(style, form), config, seed=seed, folder=folder)
    return predictions(folder)


def losses(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def with_clicks(shop, click):
    return dataclasses.replace(shop, click=click, impressions=shop.impressions.with_columns(click=pl.Series(click)))


@pytest.mark.parametrize("form", FORMS)
def test_a_run_writes_a_probability_for_every_valid_and_test_impression(tmp_path, form):
    table = train(tmp_path, form, dataclasses.replace(TINY, epochs=1))
    shop, _ = make_shop()
    for split in ("valid", "test"):
        part = table.filter(pl.col("split") == split)
        assert part["row"].to_list() == sorted(shop.rows(split))
        assert part["click"].to_list() == shop.click[part["row"].to_numpy()].tolist()
    assert table.schema["score"] == pl.Float64
    assert table["score"].is_between(0, 1, closed="none").all()
    result = json.loads((tmp_path / "result.json").read_text())
    valid = table.filter(pl.col("split") == "valid")
    assert result["valid_auc"] == pytest.approx(auc(valid["click"].to_numpy(), valid["score"].to_numpy()), abs=1e-9)
    assert (tmp_path / "best.safetensors").exists()
    assert not (tmp_path / "checkpoints").exists()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    one, two, other = (train(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.equals(two)
    assert not one["score"].equals(other["score"])


@pytest.mark.parametrize("ema", [0.99, 0.0])
def test_a_run_stopped_midway_resumes_to_the_same_bits_and_losses(tmp_path, monkeypatch, ema):
    config = dataclasses.replace(TINY, checkpoint_seconds=0, ema=ema)
    undisturbed = train(tmp_path / "undisturbed", "cluster_id", config)
    take_step, calls = ctr.training.loop.take_step, []

    def stop(run, share):
        calls.append(run.state.step)
        if len(calls) in (4, 4 + 11):
            raise KeyboardInterrupt
        return take_step(run, share)

    monkeypatch.setattr(ctr.training.loop, "take_step", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", "cluster_id", config)
    assert train(tmp_path / "parts", "cluster_id", config).equals(undisturbed)
    assert losses(tmp_path / "parts") == losses(tmp_path / "undisturbed")


def test_a_run_killed_by_sigkill_resumes_to_the_same_bits(tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED.format(folder=str(folder))], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.glob("checkpoints/step-*"))
    assert not (folder / "result.json").exists()
    assert train(folder, "sim_score", LONG).equals(train(tmp_path / "undisturbed", "sim_score", LONG))


def test_resuming_with_other_settings_is_refused_by_their_names(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, checkpoint_seconds=0)
    save = ctr.training.loop.save

    def save_and_stop(*words):
        save(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(ctr.training.loop, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config=config)
    with pytest.raises(
        UserError, match=r"checkpoints: started with other settings \(learning_rate: .* then, .* now, seed: 0 then, 5 now\)"
    ):
        train(tmp_path, config=dataclasses.replace(config, learning_rate=0.1), seed=5)


def test_clicks_of_the_test_split_change_no_prediction_but_by_the_counts_of_later_sessions(tmp_path):
    shop, _ = make_shop()
    click = shop.click.copy()
    click[shop.rows("test")] ^= 1
    counts = []
    for config in (dataclasses.replace(TINY, statistics=False), TINY):
        folder = tmp_path / str(config.statistics)
        one, two = train(folder / "a", config=config), train(folder / "b", config=config, shop=with_clicks(shop, click))
        assert not one["click"].equals(two["click"])
        same = (one["score"] == two["score"]).to_numpy()
        first = shop.session_time[shop.session[one["row"].to_numpy()]] <= shop.session_time[shop.session[shop.rows("test")]].min()
        assert same[first].all()  # nobody's clicks are counted before or at their own time
        counts.append(same.mean())
    assert counts[0] == 1 > counts[1]


def test_a_model_begins_at_the_click_rate_of_the_train_split(tmp_path):
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "none"), TINY)
    run = prepare(inputs, TINY, seed=0, steps=1, fabric=set_up(1), settings={})
    rate = shop.click[shop.rows("train")].mean()
    assert torch.sigmoid(run.network["logit.bias"]).item() == pytest.approx(rate, rel=1e-6)
    assert torch.equal(run.average["logit.bias"], run.network["logit.bias"])
    begun = prepare(inputs, TINY, seed=1, steps=1, fabric=set_up(1), settings={})
    assert torch.equal(begun.network["logit.bias"], run.network["logit.bias"])


def test_training_stops_when_the_valid_log_loss_no_longer_falls(tmp_path):
    config = dataclasses.replace(TINY, epochs=40, patience=2, learning_rate=0.01)
    train(tmp_path, config=config)
    result = json.loads((tmp_path / "result.json").read_text())
    seen = [line["valid_log_loss"] for line in losses(tmp_path) if "valid_log_loss" in line]
    assert len(seen) < 40 * config.validations_per_epoch
    assert min(seen) == seen[-3] == pytest.approx(result["valid_log_loss"], abs=1e-12)


def test_clicks_in_random_order_teach_nothing(tmp_path):
    shop, style = make_shop(sessions=1000)
    click = np.random.default_rng(0).permutation(shop.click)
    result = train_ctr(with_clicks(shop, click), pictures(style, "cluster_id"), TINY, seed=0, folder=tmp_path)
    assert abs(result["valid_auc"] - 0.5) < 0.08  # 2.7 standard errors of an AUC over some 900 impressions


@pytest.mark.parametrize("form", FORMS)
def test_a_model_learns_that_items_of_one_style_are_clicked(tmp_path, form):
    shop, style = make_shop(sessions=1000)
    chance = np.where(style[shop.item] == 0, 0.9, 0.1)
    click = (np.random.default_rng(1).random(len(chance)) < chance).astype(np.int8)
    config = dataclasses.replace(TINY, epochs=4, learning_rate=0.01)
    result = train_ctr(with_clicks(shop, click), pictures(style, form, missing=0), config, seed=0, folder=tmp_path)
    assert result["valid_auc"] > 0.75  # the rule itself has about 0.86


def test_sim_score_carries_what_no_other_input_does(tmp_path):
    shop, style = make_shop(sessions=1500, events=3000, strength=5)
    config = dataclasses.replace(TINY, learning_rate=0.01)
    plain, seen = (
        train_ctr(shop, pictures(style, form, missing=0), config, seed=0, folder=tmp_path / form)["valid_auc"]
        for form in ("none", "sim_score")
    )
    assert seen > plain + 0.05


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    config = dataclasses.replace(TINY, learning_rate=1e30, warm_up=0.0)
    with pytest.raises(UserError, match=r"loss (nan|inf) at step \d+; lower the learning rates"):
        train(tmp_path, config=config)


def test_a_warm_start_is_the_trained_baseline_before_its_first_step(tmp_path, monkeypatch):
    baseline = train(tmp_path / "baseline")
    monkeypatch.setattr(ctr.training.training, "linear_rise", lambda done, until: 0.0)
    for form in (*FORM_NAMES, "sim_tier+cluster_id", "none"):
        start = tmp_path / "baseline" if form == "vector" else tmp_path / "baseline" / "best.safetensors"
        config = dataclasses.replace(TINY, epochs=1, init_from=start)
        warm = train(tmp_path / form, form, config)
        np.testing.assert_allclose(warm["score"].to_numpy(), baseline["score"].to_numpy(), atol=1e-6)


def test_files_without_weights_and_weights_of_other_data_are_refused(tmp_path):
    train(tmp_path / "baseline")
    config = dataclasses.replace(TINY, init_from=tmp_path / "baseline" / "best.safetensors")
    other, _ = make_shop(seed=1)
    with pytest.raises(UserError, match="weights of other data"):
        train(tmp_path / "other", config=config, shop=other)
    with pytest.raises(UserError, match="train both with the same sizes"):
        train(tmp_path / "wide", config=dataclasses.replace(config, width=32))
    save_file({"weight": torch.zeros(1)}, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"encoder\.safetensors: not the weights of a CTR run"):
        train(tmp_path / "encoder", config=dataclasses.replace(config, init_from=tmp_path / "encoder.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not readable as weights"):
        train(tmp_path / "broken", config=dataclasses.replace(config, init_from=tmp_path / "broken.safetensors"))


def test_half_precision_trains(tmp_path):
    table = train(tmp_path, "sim_score", dataclasses.replace(TINY, epochs=1, precision="bf16-mixed"))
    assert table["score"].is_finite().all()


@pytest.mark.parametrize(("click", "what"), [(0, "no click"), (1, "nothing but clicks")])
def test_a_train_split_of_one_class_is_refused_before_training(tmp_path, click, what):
    shop, _ = make_shop(sessions=60)
    clicks = shop.click.copy()
    clicks[shop.rows("train")] = click
    with pytest.raises(UserError, match=f"the train split holds {what}"):
        train_ctr(with_clicks(shop, clicks), no_image(len(shop.items)), TINY, seed=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_records_the_content_of_its_initial_weights_not_their_path(tmp_path):
    shop, _ = make_shop(sessions=60)
    layout = encode(shop, no_image(len(shop.items)), TINY).layout
    assert settings_of(dataclasses.replace(TINY, init_from=tmp_path), layout, 0) == settings_of(TINY, layout, 0)


def test_a_run_depends_on_the_code_of_its_own_form_only():
    assert len({code_of(form) for form in ("none", *FORM_NAMES)}) == 1 + len(FORM_NAMES)
    for form in FORM_NAMES:
        (own,), others = form_modules(form), {module for name in FORM_NAMES if name != form for module in form_modules(name)}
        assert not others & modules_of("ctr.training.loop", own, without=("features.forms.table", *others))
        assert {own, "features.image_feature", "features.forms.form"} <= modules_of("ctr.training.loop", own)
    both = code_of("sim_tier+vector")
    assert both not in {code_of("sim_tier"), code_of("vector")}
