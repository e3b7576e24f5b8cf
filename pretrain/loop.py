"""The one training loop of all encoders: draw, look, pay, step; validate, keep the best, go on after a kill."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.pictures import PictureStore
from data.shop_folder import Shop
from metrics.gauc import gauc
from pretrain.backbone import add_common, backbone, whiten_head
from pretrain.config import PretrainConfig
from pretrain.method import Method, Step
from pretrain.methods import METHODS
from pretrain.page_views import pretraining_items
from pretrain.similarity import centred, collapse, sim_scores
from pretrain.training import State, Training, prepare, resume, snapshot
from pretrain.views import whole
from run.checkpoint import save_checkpoint
from run.devices import set_up
from run.errors import UserError
from run.folder import MetricsLog, write_atomic
from run.progress import Progress
from run.randomness import permutation
from run.schedule import rise_and_cosine

_HEAD_FROM = 2048  # pictures that a head's first weights are made from
_HEALTHY = 0.1  # share of 1/sqrt(D) under which an embedding's spread is called collapsed


def train_encoder(
    name: str, shop: Shop, store: PictureStore, config: PretrainConfig, *, seed: int, folder: Path, threads: int = 0
) -> dict[str, Any]:
    """Train one encoder and leave `best.safetensors` (the backbone at its best checkpoint) in `folder`.

    Args:
        name: one of METHODS.
        seed: of the first weights, the order and the views; never of the data.
        folder: also gets metrics.jsonl, TensorBoard events and `last.pt`, from which a killed run goes on with the same numbers.
        threads: CPU threads; 0 leaves torch's choice.

    Returns:
        valid_gauc of the chosen checkpoint, at how many pictures it stood, pictures encoded, seconds.

    Raises:
        UserError: the log is too small for the method, or the loss is not a number.
    """
    fabric = set_up(threads, config.precision)
    net = first_weights(name, shop, store, config, seed=seed).to(fabric.device)
    make = METHODS[name]
    if make is None:
        state = State(best_gauc=validate(net, shop, store, config)[0])
        return _finish(folder, state, net.state_dict())
    run = prepare(name, net, make(shop, store.present, config, seed), shop, config, seed=seed, fabric=fabric)
    resumed = resume(run, folder / "last.pt")
    log = MetricsLog(folder, resume_step=run.state.step if resumed else None)
    last_save = time.monotonic()
    began = last_save - run.state.seconds
    with Progress(f"{name} seed {seed}", total=config.pictures, unit="pictures", start=run.state.pictures) as bar:
        while run.state.pictures < config.pictures:
            before = run.state.pictures
            line = take_step(run, store)
            bar.advance(run.state.pictures - before, note=f"loss {line['loss']:.3f}")
            checkpoint = passed_checkpoint(before, run.state.pictures, config)
            if checkpoint:
                line |= judge(run, shop, store)
            log.write(line)
            if checkpoint or time.monotonic() - last_save > config.checkpoint_seconds:
                last_save = time.monotonic()
                run.state.seconds = last_save - began
                save_checkpoint(folder / "last.pt", snapshot(run))
    log.close()
    return _finish(folder, run.state, run.best)


def take_step(run: Training, store: PictureStore) -> dict[str, Any]:
    """Draw, look, pay, step; the step's line for the log.

    Raises:
        UserError: the loss is not a number.
    """
    state, config = run.state, run.config
    for group in run.optimizer.param_groups:
        group["lr"] = group["rate"] * learning_rate(state.pictures / config.pictures, config, begins=group["begins"])
    step = run.method.step(state.step)
    run.net.train()
    embeddings = run.net(look(run.method, store, step, config, run.seed, state.step, run.fabric.device))
    loss, parts = run.method.loss(embeddings.float(), step)
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"{run.name}: the loss is {value} at step {state.step}; lower --pretrain.learning-rate")
    run.optimizer.zero_grad(set_to_none=True)
    run.fabric.backward(loss)
    run.optimizer.step()
    state.step += 1
    state.pictures += len(step.items)
    return {"step": state.step, "pictures": state.pictures, "loss": value} | {part: number.item() for part, number in parts.items()}


def judge(run: Training, shop: Shop, store: PictureStore) -> dict[str, float]:
    """Validate, and keep the weights where they are the best so far; valid_gauc and std (the spread) for the log."""
    score, spread = validate(run.net, shop, store, run.config)
    if score > run.state.best_gauc:
        run.state.best_gauc, run.state.best_pictures = score, run.state.pictures
        run.best = {key: tensor.detach().cpu().clone() for key, tensor in run.parts["backbone"].state_dict().items()}
    _warn_of_collapse(run.name, spread, run.config.dim)
    return {"valid_gauc": score, "std": spread}


def first_weights(name: str, shop: Shop, store: PictureStore, config: PretrainConfig, *, seed: int) -> nn.Module:
    """The backbone that every encoder of this seed begins with; only COURIER's head has a common part besides.

    COURIER compares embeddings as they are, at a low temperature, and sheds or keeps the common part as its loss asks. SimCLR compares
    projections: its embeddings would keep the common part for good, and their cosines would hardly differ.
    """
    net = backbone(config.backbone, dim=config.dim, seed=seed, weights=config.weights)
    common = config.head_common if name == "courier" else 0.0
    if config.head == "whitened" or common > 0:
        items = pretraining_items(shop, store.present)
        items = np.sort(items[permutation(len(items), seed, "whiten")[:_HEAD_FROM]])
        pictures = whole(torch.from_numpy(store.pixels[items]), config.image_size)
        if config.head == "whitened" and len(items) > config.dim:
            whiten_head(net, pictures)
        if common > 0 and len(items) > 1:
            add_common(net, pictures, common=common, seed=seed)
    return net


def look(method: Method, store: PictureStore, step: Step, config: PretrainConfig, seed: int, number: int, device: torch.device) -> Tensor:
    """The step's pictures as the backbone sees them: (P, 3, size, size)."""
    pixels = torch.from_numpy(store.pixels[step.items]).to(device)
    return method.view(pixels, (seed, "view", number, step.items, step.view), config.image_size)


def learning_rate(done: float, config: PretrainConfig, *, begins: float = 0.0) -> float:
    """The rate when a share `done` of the pictures is encoded: 0 until `begins`, a linear rise, then a half cosine to 0."""
    return config.learning_rate * rise_and_cosine(done, rise=config.warmup, begins=begins)


def passed_checkpoint(before: int, after: int, config: PretrainConfig) -> bool:
    """True where a step crossed one of the evenly spaced checkpoints; the last lies at the end of the training."""
    parts, whole = config.checkpoints, config.pictures
    return min(after, whole) * parts // whole > before * parts // whole


@torch.no_grad()
def embed(net: nn.Module, store: PictureStore, config: PretrainConfig, *, batch: int = 1024) -> np.ndarray:
    """(N, D) float32 unit embeddings of every item's picture, undistorted; zero rows where there is none."""
    device = next(net.parameters()).device
    net.eval()
    vectors = np.zeros((len(store.present), config.dim), dtype=np.float32)
    present = np.flatnonzero(store.present)
    for start in range(0, len(present), batch):
        part = present[start : start + batch]
        pixels = torch.from_numpy(store.pixels[part]).to(device)
        out = net(whole(pixels, config.image_size)).float()
        vectors[part] = torch.nn.functional.normalize(out, dim=1).cpu().numpy()
    return vectors


def validate(net: nn.Module, shop: Shop, store: PictureStore, config: PretrainConfig) -> tuple[float, float]:
    """(SimScore's GAUC in validation sessions, spread of the unit embeddings): what a checkpoint is chosen by, and collapse."""
    vectors = embed(net, store, config)
    spread = collapse(vectors)
    if config.centre:
        vectors = centred(vectors, pretraining_items(shop, store.present))
    rows = shop.rows("valid")
    scores = sim_scores(shop, vectors, rows, history_items=config.valid_history, mask_same_item=config.mask_same_item)
    return gauc(shop.click[rows], scores, shop.session[rows]).value, spread


def _warn_of_collapse(name: str, spread: float, dim: int) -> None:
    if spread < _HEALTHY / dim**0.5:
        print(f"warning: {name}'s embeddings have collapsed: spread {spread:.4f}, healthy {dim**-0.5:.4f}", file=sys.stderr)


def _finish(folder: Path, state: State, best: dict[str, Tensor]) -> dict[str, Any]:
    """Write the chosen weights; what `train_encoder` returns."""
    from safetensors.torch import save

    write_atomic(folder / "best.safetensors", save({key: tensor.contiguous() for key, tensor in best.items()}))
    return {
        "valid_gauc": state.best_gauc,
        "best_pictures": state.best_pictures,
        "pictures": state.pictures,
        "seconds": state.seconds,
    }
