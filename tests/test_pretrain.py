"""Encoder training end to end: which rows are used, no leak, bit-exact resuming, the choice of a checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from data.log.shop_folder import SPLITS, load_shop
from data.pictures.store import build_store
from metrics.gauc import gauc
from pretrain import loop
from pretrain.backbones.backbone import backbone
from pretrain.backbones.heads import from_components
from pretrain.config import PRESETS, PretrainConfig
from pretrain.embedding import embed
from pretrain.loop import first_weights, learning_rate, passed_checkpoint, train_encoder
from pretrain.methods.clip import ClipConfig
from pretrain.methods.courier import Courier, CourierConfig
from pretrain.methods.table import check_needs
from pretrain.methods.two_views import DistortionConfig
from pretrain.page_views import newest, page_views
from pretrain.similarity import collapse, sim_scores
from pretrain.train import TrainConfig, unread
from run.checkpoint import load_checkpoint, save_checkpoint
from run.config import with_settings
from run.errors import DataError, SettingError, UserError
from run.folder import read_metrics
from tests.shops import write_shop
from tests.trainings import train_with_a_stop

CONFIG = PretrainConfig(
    weights="random",
    image_size=16,
    store_size=24,
    dim=8,
    pictures=1200,
    checkpoints=3,
    courier=CourierConfig(batch_size=32),
    batch_pictures=32,
    checkpoint_seconds=0.01,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), sessions=300)


@pytest.fixture(scope="module")
def shop(folder):
    return load_shop(folder)


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=24, workers=1)


def test_rows_hold_clicked_items_first_and_only_earlier_clicks(shop, store):
    views = page_views(shop, page_items=3, history_items=4, has_picture=store.present)
    assert len(views) > 20
    assert views.clicked.any(1).all()
    assert (views.history[:, 0] >= 0).all()
    for page, clicked in zip(views.page, views.clicked, strict=True):
        assert not clicked[page < 0].any()
        assert (np.diff(clicked[page >= 0].astype(int)) <= 0).all()
    assert store.present[views.page[views.page >= 0]].all()
    assert store.present[views.history[views.history >= 0]].all()


def test_rows_are_those_of_a_slow_walk_through_the_log(shop, store):
    views = page_views(shop, page_items=3, history_items=2, has_picture=store.present)
    expected = []
    for session in np.flatnonzero(shop.session_split == SPLITS.index("pretrain")):
        rows = np.flatnonzero((shop.session == session) & store.present[shop.item])
        rows = sorted(rows, key=lambda row: (-shop.click[row], row))[:3]
        seen = [
            int(item)
            for user, item, when, action in zip(*shop.events.rows(), strict=True)
            if user == shop.session_user[session] and when < shop.session_time[session] and action == 0 and store.present[item]
        ][-2:]
        if seen and shop.click[rows].any():
            expected.append(([int(shop.item[row]) for row in rows], seen))
    found = [([int(i) for i in p if i >= 0], [int(i) for i in h if i >= 0]) for p, h in zip(views.page, views.history, strict=True)]
    assert found == expected


def test_newest_keeps_the_last_entries_in_order():
    items = np.array([[5, 6, 7, 8], [1, 2, -1, -1]])
    kept = np.array([[True, False, True, True], [False, True, False, False]])
    assert newest(items, kept, 2).tolist() == [[7, 8], [2, -1]]


@pytest.mark.parametrize("encoder", ["courier", "simclr"])
def test_clicks_after_the_validation_change_no_weight(folder, encoder, shop, store, tmp_path):
    """The choice of a checkpoint, like the weights, does not depend on test clicks."""
    train_encoder(encoder, shop, store, CONFIG, seed=0, folder=tmp_path / "a", threads=1)
    test = shop.session_split[shop.session] == SPLITS.index("test")
    first_test = int(shop.session_time[shop.session_split == SPLITS.index("test")].min())
    changed = write_shop(
        tmp_path / "shop", sessions=300, pictures=False,
        impressions_frame=lambda frame: frame.with_columns(click=pl.Series(np.where(test, 1 - shop.click, shop.click))),
        events_frame=lambda frame: frame.filter(pl.col("timestamp") < first_test),
    )  # fmt: skip
    other = load_shop(changed)
    assert (other.session_split == shop.session_split).all()
    train_encoder(encoder, other, store, CONFIG, seed=0, folder=tmp_path / "b", threads=1)
    assert (tmp_path / "a/best.safetensors").read_bytes() == (tmp_path / "b/best.safetensors").read_bytes()


def test_a_run_stopped_anywhere_ends_with_the_same_bits(shop, store, tmp_path):
    full_run = train_encoder("courier", shop, store, CONFIG, seed=1, folder=tmp_path / "undisturbed", threads=1)
    resumed = train_with_a_stop("courier", Courier, 17, shop, store, CONFIG, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**full_run, "seconds": 0}
    assert (tmp_path / "undisturbed/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()
    assert read_metrics(tmp_path / "undisturbed/metrics.jsonl") == read_metrics(tmp_path / "killed/metrics.jsonl")


def test_a_run_in_half_precision_resumes_with_its_loss_scale(shop, store, tmp_path, monkeypatch):
    def half_precision(threads, precision):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=6)
        return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))

    monkeypatch.setattr(loop, "set_up", half_precision)
    train_encoder("courier", shop, store, CONFIG, seed=1, folder=tmp_path / "undisturbed", threads=1)
    train_with_a_stop("courier", Courier, 17, shop, store, CONFIG, tmp_path / "killed")
    full_run, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("undisturbed", "killed"))
    steps = full_run["state"]["step"]
    assert full_run["scaler"]["scale"] == 2.0 ** (8 + steps // 6)  # it doubles after 6 steps without an overflow
    assert resumed["scaler"] == full_run["scaler"]


def test_a_checkpoint_without_a_loss_scale_can_be_resumed(shop, store, tmp_path):
    config = replace(CONFIG, pictures=200, checkpoints=1)
    first = train_encoder("simclr", shop, store, config, seed=0, folder=tmp_path, threads=1)
    saved = load_checkpoint(tmp_path / "last.pt")
    assert saved.pop("scaler") == {}
    save_checkpoint(tmp_path / "last.pt", saved)
    assert train_encoder("simclr", shop, store, config, seed=0, folder=tmp_path, threads=1) == first


def test_all_encoders_of_a_seed_begin_with_the_same_weights_and_encode_as_many_pictures(shop, store, tmp_path):
    results = {name: train_encoder(name, shop, store, CONFIG, seed=0, folder=tmp_path / name, threads=1) for name in ("courier", "simclr")}
    for result in results.values():
        assert CONFIG.pictures <= result["pictures"] < CONFIG.pictures + 64
    lines = {name: [line for line in read_metrics(tmp_path / name / "metrics.jsonl") if "valid_gauc" in line] for name in results}
    assert all(found[0]["step"] == 0 and len(found) == 1 + CONFIG.checkpoints for found in lines.values())
    for name, found in lines.items():
        best = max(found, key=lambda line: line["valid_gauc"])
        assert results[name]["valid_gauc"] == best["valid_gauc"]
        assert results[name]["best_pictures"] == best["pictures"]
        assert results[name]["start_gauc"] == found[0]["valid_gauc"]


def test_a_partial_run_with_other_settings_is_refused_by_name(shop, store, tmp_path):
    train_encoder("simclr", shop, store, CONFIG, seed=0, folder=tmp_path, threads=1)
    with pytest.raises(UserError, match=r"started with other settings \(seed: 0 then, 1 now, learning_rate: 0\.0\d+ then, 0\.\d+ now\)"):
        train_encoder("simclr", shop, store, replace(CONFIG, learning_rate=0.1), seed=1, folder=tmp_path, threads=1)


def test_a_log_too_short_for_courier_is_refused(tmp_path):
    few = load_shop(write_shop(tmp_path / "few", users=120, sessions=120))
    small = build_store(few, tmp_path / "store", size=24, workers=1)
    with pytest.raises(UserError, match="needs a longer log"):
        train_encoder("courier", few, small, CONFIG, seed=0, folder=tmp_path / "x", threads=1)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(shop, store, tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+"):
        train_encoder("courier", shop, store, replace(CONFIG, learning_rate=1e30), seed=0, folder=tmp_path, threads=1)


def test_initial_embeddings_are_spread_and_their_loss_is_near_chance(shop, store):
    views = page_views(shop, page_items=5, history_items=5, has_picture=store.present)
    method = Courier(views, CONFIG, seed=0)
    net = first_weights(CONFIG.courier.head_common, shop, store, CONFIG, seed=0)
    step = method.step(0)
    pictures = method.view(torch.from_numpy(store.read(step.items)), (0, "view", 0, step.items, step.view), CONFIG.image_size)
    with torch.no_grad():
        parts = method.loss(method.encode(net, pictures, step), step)[1]
    candidates = int((step.places["page"] >= 0).sum())
    assert abs(parts["loss_pv"].item() - np.log(candidates)) < 0.3
    whitened = backbone("small_cnn", dim=8, seed=0)
    pictures = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        from_components(whitened.head, whitened.body(pictures), whiten=True)
    with torch.no_grad():
        covariance = torch.cov(whitened(pictures).T)
    torch.testing.assert_close(covariance, 0.25 * torch.eye(8), atol=1e-3, rtol=0)


def test_embeddings_are_unit_rows_and_zeros_without_a_picture(store):
    vectors = embed(backbone("small_cnn", dim=8, seed=0), store, CONFIG)
    np.testing.assert_allclose(np.linalg.norm(vectors[store.present], axis=1), 1, rtol=1e-5)
    assert (vectors[~store.present] == 0).all()
    assert (~store.present).sum() == 1


@pytest.mark.parametrize("mask", [False, True])
def test_sim_score_is_the_mean_cosine_with_earlier_clicks(shop, store, mask):
    vectors = np.random.default_rng(0).normal(size=(len(store.present), 4)) * store.present[:, None]
    rows = shop.rows("valid")[:40]
    found = sim_scores(shop, vectors, rows, history_items=3, mask_same_item=mask)
    for row, score in zip(rows, found, strict=True):
        session = shop.session[row]
        events = shop.events.rows()
        seen = (events.user == shop.user[row]) & (events.time < shop.session_time[session]) & (events.action == 0)
        items = events.item[seen][-3:]
        items = items[store.present[items] & ~((items == shop.item[row]) & mask)]
        target = vectors[shop.item[row]]
        cosines = [target @ vectors[i] / np.linalg.norm(target) / np.linalg.norm(vectors[i]) for i in items] if target.any() else []
        assert score == pytest.approx(np.mean(cosines) if cosines else 0.0, abs=1e-6)


def test_checkpoints_are_evenly_spaced_and_the_last_is_the_end():
    config = PretrainConfig(pictures=1000, checkpoints=4)
    marks = [n for n in range(0, 1040, 40) if passed_checkpoint(n, n + 40, config)]
    assert marks == [240, 480, 720, 960]
    for parts in range(1, 40):
        config = PretrainConfig(pictures=600_000, checkpoints=parts)
        assert passed_checkpoint(599_000, 601_000, config)


def test_the_rate_rises_then_falls_to_zero():
    config = PretrainConfig(warmup=0.1, learning_rate=1.0)
    assert learning_rate(0.05, config) == pytest.approx(0.5)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(1.0, config) == pytest.approx(0.0)
    assert learning_rate(0.19, config, begins=0.2) == 0.0
    assert learning_rate(0.25, config, begins=0.2) == pytest.approx(0.5)


def test_random_pictures_of_one_kind_have_no_spread_and_an_auc_of_one_half(shop):
    same = np.ones((len(shop.items), 4))
    rows = shop.rows("valid")
    assert collapse(same) == 0
    assert gauc(shop.click[rows], sim_scores(shop, same, rows, history_items=5), shop.session[rows]).value == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store_size": 32}, "store_size"),
        ({"backbone": "resnet"}, "'resnet18'"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_bad_settings_are_refused_on_construction(settings, message):
    with pytest.raises(SettingError, match=message):
        PretrainConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"crop": 1.5}, "crop"),
        ({"without": "uks"}, "did you mean 'ucs'"),
        ({"without": "contrast", "loss": "hinge"}, "hinge is a contrast"),
    ],
)
def test_bad_settings_of_courier_are_refused_on_construction(settings, message):
    with pytest.raises(SettingError, match=message):
        CourierConfig(**settings)


def test_the_command_resumes_after_sigkill(folder, tmp_path):
    words = ["--encoder", "simclr", "--data", str(folder), "--image-size", "16", "--store-size", "24", "--dim", "8", "--pictures", "8000",
             "--batch-pictures", "32", "--checkpoints", "3", "--checkpoint-seconds", "0.2", "--start-pictures", "500"]  # fmt: skip
    command = [sys.executable, "-m", "pretrain.train", *words]
    root, one_thread = Path(__file__).parent.parent, os.environ | {"OMP_NUM_THREADS": "1"}

    def launch(out):
        return subprocess.Popen(
            [*command, "--out", str(out)], cwd=root, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    full_run = launch(tmp_path / "undisturbed")
    killed = launch(tmp_path / "killed")
    deadline = time.monotonic() + 100
    while not (tmp_path / "killed/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/result.json").exists()
    assert launch(tmp_path / "killed").wait() == 0
    assert full_run.wait() == 0
    full_result, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("undisturbed", "killed"))
    assert {**resumed, "seconds": 0} == {**full_result, "seconds": 0}
    assert (tmp_path / "undisturbed/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()


def test_flags_of_another_method_are_reported():
    small = with_settings(PretrainConfig(), PRESETS["small"], source="small")
    given = replace(small, courier=replace(small.part(CourierConfig), with_clip=True), clip=ClipConfig(heads=4, width=32))
    config = TrainConfig(encoder="simclr", pretrain=given)
    assert list(unread(config)) == ["--with-clip", "--clip.width"]
    assert not unread(replace(config, encoder="courier"))
    tiny = with_settings(PretrainConfig(), PRESETS["tiny"], source="tiny")
    assert not unread(TrainConfig(encoder="simclr", preset="tiny", pretrain=tiny))


def test_flags_that_a_frozen_body_does_not_read_are_reported():
    small = with_settings(PretrainConfig(), PRESETS["small"], source="small")
    own = replace(small.part(CourierConfig), crop=0.5, body_rate=1.0, temperature=0.1)
    config = TrainConfig(encoder="courier", pretrain=replace(small, courier=own))
    assert unread(config) == dict.fromkeys(("--body-rate", "--crop"), "the body is frozen (--body tuned reads it)")
    assert not unread(replace(config, pretrain=replace(config.pretrain, body="tuned")))


def test_flags_of_the_initial_encoder_apply_where_there_is_one():
    small = with_settings(PretrainConfig(), PRESETS["small"], source="small")
    config = replace(small, weights="pictures", body="tuned", distortion=DistortionConfig(strength=0.1))
    assert not unread(TrainConfig(encoder="courier", pretrain=config))
    assert list(unread(TrainConfig(encoder="courier", pretrain=replace(config, weights="random")))) == ["--distortion.strength"]


def test_heads_that_do_not_divide_an_embedding_are_refused():
    with pytest.raises(SettingError, match="'attention_heads': value 5; give a divisor of dim = 64"):
        PretrainConfig(courier=CourierConfig(attention="multihead", attention_heads=5))


def test_a_text_tower_without_titles_is_refused_before_anything_is_trained(shop):
    untitled = replace(shop, items=shop.items.drop("title"))
    for name, config in (("clip", CONFIG), ("maskclip", CONFIG), ("courier", replace(CONFIG, courier=CourierConfig(with_clip=True)))):
        with pytest.raises(DataError, match="column 'title'"):
            check_needs(name, untitled, config)
    check_needs("courier", untitled, CONFIG)
