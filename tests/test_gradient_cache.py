"""A step in chunks or over several ranks has the loss and the gradients of the full batch."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from pretrain.config import PretrainConfig
from pretrain.feed import feed, passes, pieces_of
from pretrain.gradient_cache import loss_of_step
from pretrain.loop import train_encoder
from pretrain.methods.clip import ClipConfig
from pretrain.methods.courier import CourierConfig
from pretrain.methods.simsiam import SimSiamConfig
from pretrain.methods.supervised import SupervisedConfig
from pretrain.methods.table import METHODS, make_method
from pretrain.train import main
from run.checkpoint import load_checkpoint
from run.errors import UserError
from run.folder import read_metrics
from tests.ranks import with_ranks
from tests.shops import write_shop
from tests.trainings import one_step

TRAINED = [name for name, method in METHODS.items() if method.trained]
CONFIG = PretrainConfig(
    weights="random",
    image_size=16,
    store_size=24,
    dim=8,
    pictures=600,
    checkpoints=2,
    batch_pictures=24,
    courier=CourierConfig(batch_size=24),
    supervised=SupervisedConfig(batch_size=24, heads=2, hidden=8),
    simsiam=SimSiamConfig(hidden=16, bottleneck=4),
    clip=ClipConfig(width=8, layers=1, heads=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shop whose titles differ by words that several of them share: CLIP has something to distinguish."""

    def titled(items):
        words = [f"colour{n % 7} cut{n % 5} cloth{n % 3}" for n in range(len(items))]
        return items.with_columns(title=pl.Series(words))

    return write_shop(tmp_path_factory.mktemp("shop"), sessions=300, items_frame=titled)


@pytest.fixture(scope="module")
def shop(folder):
    return load_shop(folder)


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=24, workers=1)


@pytest.mark.parametrize("backbone", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("name", TRAINED)
def test_pictures_encoded_in_chunks_give_the_gradients_of_the_full_batch(name, backbone, shop, store):
    config = replace(CONFIG, backbone=backbone)
    if name == "maskclip":  # its patches are positions of the last feature map
        config = replace(config, image_size=32 if backbone == "small_cnn" else 64, store_size=96)
    loss, full = one_step(name, shop, store, config)
    in_pieces, parts = one_step(name, shop, store, replace(config, chunk=7))
    assert in_pieces == pytest.approx(loss, rel=1e-9)
    assert parts.keys() == full.keys()
    length = torch.stack([gradient.norm() for gradient in full.values()]).norm()
    for key, gradient in full.items():
        assert (parts[key] - gradient).norm() <= 1e-9 * max(gradient.norm(), 0.1 * length), key


def test_recomputed_blocks_give_the_same_gradients(shop, store):
    config = replace(CONFIG, backbone="resnet18")
    loss, kept = one_step("simclr", shop, store, config)
    recomputed, gradients = one_step("simclr", shop, store, replace(config, recompute=True))
    assert recomputed == loss
    for key, gradient in kept.items():
        torch.testing.assert_close(gradients[key], gradient)


@given(pictures=st.integers(0, 500), ranks=st.integers(1, 9), chunk=st.integers(0, 60))
def test_the_pieces_of_all_ranks_hold_every_picture_once_in_order(pictures, ranks, chunk):
    pieces = [piece for rank in range(ranks) for piece in pieces_of(pictures, rank, ranks, chunk)]
    assert [place for piece in pieces for place in range(piece.start, piece.stop)] == list(range(pictures))
    if chunk:
        assert all(piece.stop - piece.start <= chunk for piece in pieces)


def test_a_step_in_several_pieces_is_read_twice_and_one_in_a_single_piece_once():
    assert passes(pieces_of(10, 0, 1, 0)) == 1
    assert passes(pieces_of(10, 0, 1, 10)) == 1
    assert passes(pieces_of(10, 0, 1, 9)) == 2


SCRATCH = Path(__file__).parent.parent / "recipes" / "scratch.toml"
FROZEN = "frozen"  # COURIER on features of a frozen body, with the loss within the page


def words_of(name, folder):
    size = "--image-size 32 --store-size 48" if name == "maskclip" else "--image-size 16 --store-size 24"
    if name == FROZEN:
        within_the_page = ["--pv-weight", "0", "--ucs-weight", "0", "--page-weight", "1"]
        return [*words_of("courier", folder), "--body", "frozen", "--head", "components", *within_the_page]
    return (
        f"--recipe {SCRATCH} --encoder {name} --data {folder} --weights random {size} --dim 8 --pictures 900 --checkpoints 2 "
        "--batch-pictures 25 --batch-size 24 --supervised.batch-size 24 --supervised.heads 2 --supervised.hidden 8 --simsiam.hidden 16 "
        "--simsiam.bottleneck 4 --clip.width 8 --clip.layers 1 --clip.heads 2"
    ).split()


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A folder with a training of every method on two ranks and on one: `2-NAME` and `1-NAME`."""
    root = tmp_path_factory.mktemp("ranks")
    twice = [("pretrain.train", [*words_of(name, folder), "--out", str(root / f"2-{name}")]) for name in [*TRAINED, FROZEN]]
    both = with_ranks(2, "tests.ranks", [json.dumps(twice)], root / "2.txt")
    for name in [*TRAINED, FROZEN]:
        assert main([*words_of(name, folder), "--out", str(root / f"1-{name}")]) == 0
    assert both.wait() == 0, (root / "2.txt").read_text()
    return root


@pytest.mark.parametrize("name", [*TRAINED, FROZEN])
def test_two_ranks_give_the_losses_and_weights_of_one(name, trained):
    """Batches of 25 pictures do not divide by two: shares are ragged."""
    logs = (read_metrics(trained / f"{ranks}-{name}" / "metrics.jsonl") for ranks in (1, 2))
    one, two = ([line for line in log if "loss" in line] for log in logs)
    assert len(one) == len(two) > 5
    # the first step's loss is the same sum; later ones have drifted by rounding that Adam magnifies
    for ours, theirs in zip(one[:3], two[:3], strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5, abs=1e-6)
    np.testing.assert_allclose([line["loss"] for line in two], [line["loss"] for line in one], rtol=1e-3, atol=1e-4)
    ours, theirs = (load_checkpoint(trained / f"{ranks}-{name}" / "last.pt")["parts"] for ranks in (1, 2))
    assert ours.keys() == theirs.keys()
    for key, weights in ours.items():
        torch.testing.assert_close(theirs[key], weights, atol=2e-3, rtol=1e-3, msg=key)


def test_sigterm_ends_a_training_cleanly_and_the_same_command_completes_it_to_the_same_bits(folder, tmp_path):
    words = [*words_of("simclr", folder), "--pictures", "12000", "--checkpoint-seconds", "1000"]
    stopped = with_ranks(1, "pretrain.train", [*words, "--out", str(tmp_path / "stopped")], tmp_path / "stopped.txt")
    deadline = time.monotonic() + 100
    while len(read_metrics(tmp_path / "stopped/metrics.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 143
    assert "the same command resumes from here" in (tmp_path / "stopped.txt").read_text()
    for name in ("stopped", "full"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) | {"seconds": 0} for name in ("full", "stopped")]
    assert results[0] == results[1]
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "stopped/best.safetensors").read_bytes()


def test_a_step_whose_loss_is_not_finite_is_saved_for_inspection(shop, store, tmp_path):
    with pytest.raises(UserError, match=r"not_a_number.npz holds the step's items and embeddings"):
        train_encoder("courier", shop, store, replace(CONFIG, learning_rate=1e30), seed=0, folder=tmp_path, threads=1)
    kept = np.load(tmp_path / "not_a_number.npz")
    assert kept["items"].max() < len(store.present)
    assert kept["output_embedding"].shape == (len(kept["items"]), CONFIG.dim)
    assert np.abs(kept["output_embedding"]).max() > 1e20


def test_fewer_pictures_than_ranks_are_refused(shop, store):
    class TwoRanks:
        world_size = 100

    class Run:
        fabric = TwoRanks()

    method = make_method("simclr", shop, store.present, CONFIG, 0)
    with pytest.raises(UserError, match="has none for some of 100 ranks"):
        loss_of_step(Run(), feed(method, store, first=0, rank=0, ranks=1, chunk=0))  # type: ignore[arg-type]
