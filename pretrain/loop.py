"""The one training loop of all encoders: draw, forward, loss, backward, step; validate, keep the best, resume after a kill."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data.log.shop_folder import Shop
from data.pictures.reader import Pictures
from pretrain.backbones.backbone import Backbone, backbone_of
from pretrain.backbones.body import Body
from pretrain.backbones.feature_store import Features
from pretrain.backbones.heads import FIRST_START, add_common, from_components, starts
from pretrain.embedding import Validation, undistorted
from pretrain.feed import Piece, feed
from pretrain.gradient_cache import loss_of_step
from pretrain.methods.table import make_method
from pretrain.page_views import pretraining_items
from pretrain.settings import CommonConfig
from pretrain.training import State, Training, prepare, resume, snapshot, trained_part, whole
from run.checkpoint import save_checkpoint
from run.devices import scales_losses, set_up
from run.distributed import any_rank
from run.errors import Stopped, UserError
from run.files import replacing, write_atomic
from run.folder import MetricsLog
from run.prefetch import prefetch
from run.progress import Progress
from run.randomness import permutation
from run.schedule import rise_and_cosine
from run.stop import stop_requests

if TYPE_CHECKING:
    from pretrain.methods.method import Method, Outputs, Step

_HEAD_FROM = 2048  # pictures that a head's initial weights are computed from
_AT_ONCE = 512  # of them, pictures that go through the body at once
_HEALTHY = 0.1  # share of 1/sqrt(D) below which an embedding's spread counts as collapsed


def train_encoder(
    name: str, shop: Shop, store: Pictures | Features, config: CommonConfig, *, seed: int, folder: Path, threads: int = 0, title: str = ""
) -> dict[str, Any]:
    """Train one encoder and leave `best.safetensors` (the backbone at its best checkpoint) in `folder`.

    Under torchrun, ranks share each step's pictures and end with the weights of one rank; the first rank writes.

    Args:
        name: of a method (pretrain/methods/table.py).
        store: the shop's pictures; with `body` "frozen" their features.
        seed: of the initial weights, the sampling and the views; never of the data.
        folder: also gets metrics.jsonl, TensorBoard events and `last.pt`, from which a killed run resumes with the same numbers.
        threads: CPU threads; 0: torch's choice.
        title: what progress calls the encoder; empty: its name.

    Returns:
        valid_gauc of the chosen checkpoint, after how many pictures it was taken (0: none ranks better than what the encoder began as),
        that before the first step, and that of popularity alone (`Validation.beside_popularity`); which components the head began as, if
        there was a choice; pictures encoded, seconds, and what was learned from.

    Raises:
        UserError: the log is too small for the method, or the loss is not a number.
        Stopped: SIGTERM was received; the partial run is in `folder`.
    """
    fabric = set_up(threads, config.precision)
    method, validation = make_method(name, shop, store.present, config, seed), Validation.of(shop)
    net = first_weights(method.head_common if method else 0.0, shop, store, config, seed=seed).to(fabric.device)
    began = choose_components(net, validation, shop, store, config, seed=seed)
    if method is None:
        state = State(best_gauc=validation.gauc(trained_part(net, config), store, config)[0])
        return _finish(folder, state, validation, net.state_dict()) | began
    run = prepare(name, net, method, shop, config, seed=seed, fabric=fabric)
    resumed = resume(run, folder / "last.pt")
    _train(run, method, validation, store, folder, resumed=resumed, title=title or name)
    result = _finish(folder, run.state, validation, whole(run) if fabric.is_global_zero else None)
    fabric.barrier()  # the next step may read the weights
    return result | began | {"start_gauc": run.state.start_gauc, "material": method.material}


def _train(
    run: Training, method: Method, validation: Validation, store: Pictures | Features, folder: Path, *, resumed: bool, title: str
) -> None:
    """All remaining steps, with checkpoints, logging and saved partial runs.

    Raises:
        Stopped: SIGTERM was received; the partial run is in `folder`.
    """
    fabric, config = run.fabric, run.config
    log = MetricsLog(folder, resume_step=run.state.step if resumed else None) if fabric.is_global_zero else None
    pieces = feed(method, store, first=run.state.step, rank=fabric.global_rank, ranks=fabric.world_size, chunk=config.chunk, seed=run.seed)
    progress = Progress(f"{title} seed {run.seed}", total=config.pictures, unit="pictures", start=run.state.pictures)
    with prefetch(pieces) as taken, stop_requests() as asked_to_stop, progress as bar:
        last_save = time.monotonic()
        began = last_save - run.state.seconds
        if run.state.step == 0:  # what an encoder begins as may be chosen: training that teaches nothing makes nothing worse
            line = {"step": 0, "pictures": 0} | validate(run, validation, store, loss=None)
            run.state.start_gauc = line["valid_gauc"]
            if log:
                log.write(line)
        while run.state.pictures < config.pictures:
            before = run.state.pictures
            line = take_step(run, taken, folder)
            bar.advance(run.state.pictures - before, note=f"loss {line['loss']:.3f}")
            checkpoint = passed_checkpoint(before, run.state.pictures, config)
            if checkpoint:
                line |= validate(run, validation, store, loss=line["loss"])
            if log:
                log.write(line)
            stop = any_rank(fabric, asked_to_stop())
            if log and (checkpoint or stop or time.monotonic() - last_save > config.checkpoint_seconds):
                last_save = time.monotonic()
                run.state.seconds = last_save - began
                save_checkpoint(folder / "last.pt", snapshot(run))
            if stop:
                raise Stopped(f"{run.name}: stopped at {run.state.pictures:,} pictures, as requested; the same command resumes from here")
    if log:
        log.close()


def take_step(run: Training, pieces: Iterator[Piece], folder: Path) -> dict[str, Any]:
    """Draw, forward, loss, backward, step; the step's line for the log.

    Raises:
        UserError: the loss or a gradient is not a number; the step is written to `folder` for inspection.
    """
    state, config = run.state, run.config
    done = state.pictures / config.pictures
    for group in run.optimizer.param_groups:
        group["lr"] = group["rate"] * learning_rate(done, config, begins=config.head_first if group["waits"] else 0.0)
    run.parts.train()
    run.optimizer.zero_grad(set_to_none=True)
    step, loss, parts, outputs = loss_of_step(run, pieces)
    value = loss.item()
    if not math.isfinite(value) or not finite_gradients(run):
        saved = save_step(folder / "not_a_number.npz", step, outputs) if run.fabric.is_global_zero else ""
        what = "the loss" if not math.isfinite(value) else "a gradient"
        raise UserError(
            f"{run.name}: {what} is {value if what == 'the loss' else 'not finite'} at step {state.step}; lower --pretrain.learning-rate"
            f" ({saved} holds the step's items and embeddings)"
        )
    run.optimizer.step()
    state.step += 1
    state.pictures += len(step.items)
    run.method.after_step(run.parts["backbone"], min(1.0, state.pictures / config.pictures))
    return {"step": state.step, "pictures": state.pictures, "loss": value} | {part: number.item() for part, number in parts.items()}


def finite_gradients(run: Training) -> bool:
    """False where a weight's gradient is infinite or no number; with scaled losses, the scaler checks this and skips the step."""
    if scales_losses(run.fabric):
        return True
    gradients = [weight.grad for weight in run.parts.parameters() if weight.grad is not None]
    return math.isfinite(torch.nn.utils.get_total_norm(gradients).item())


def save_step(path: Path, step: Step, outputs: Outputs) -> Path:
    """Write the contents of a refused step: numpy arrays `number`, `items` (indices), `view`, the method's places and its outputs."""
    arrays: dict[str, Any] = {"number": step.number, "items": step.items, "view": step.view} | step.places
    arrays |= {f"output_{name}": output.detach().cpu().numpy() for name, output in outputs.items()}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return path


def validate(run: Training, validation: Validation, store: Pictures | Features, *, loss: float | None) -> dict[str, float]:
    """Validate, and keep the weights if they are the best so far; valid_gauc and std (the spread) for the log.

    Args:
        loss: of the last step: if it is 0, nothing can be learned; None before the first.
    """
    net = run.trained
    score, spread = validation.gauc(net, store, run.config, run.fabric)
    if score > run.state.best_gauc:
        run.state.best_gauc, run.state.best_pictures = score, run.state.pictures
        run.best = {key: tensor.detach().cpu().clone() for key, tensor in net.state_dict().items()}
    if loss is not None:
        _warn_of_collapse(run, spread, loss)
    return {"valid_gauc": score, "std": spread}


def first_weights(common: float, shop: Shop, store: Pictures | Features, config: CommonConfig, *, seed: int) -> Backbone:
    """The backbone that every encoder of this seed begins with; its head also gets a common part if the method asks for one (`common` > 0).

    A head that begins as principal components is the frozen encoder, and gets none.

    A method that compares the embeddings themselves, at a low temperature, sheds or keeps the common part as its loss demands. One that
    compares projections has none: its embeddings would keep the common part, and their cosines would hardly differ.
    """
    net = backbone_of(config, seed)
    common = 0.0 if config.head == "components" else common
    if config.head != "given" or common > 0:
        features = some_features(net.body, shop, store, config, seed=seed)
        if config.head != "given" and len(features) > config.dim:
            from_components(net.head, features, whiten=config.head == "whitened")
        if common > 0 and len(features) > 1:
            add_common(net.head, features, common=common, seed=seed)
    return net


def choose_components(
    net: Backbone, validation: Validation, shop: Shop, store: Pictures | Features, config: CommonConfig, *, seed: int
) -> dict[str, str]:
    """Let a head begin as the components that rank best in validation sessions: "components", which one of `starts` they are.

    Which layer knows what taste is for depends on the shop. A single layer, or a head that does not begin as components, leaves nothing
    to choose, and the result is empty.
    """
    if config.head != "components" or len(net.body.parts) == 1:
        return {}
    features = some_features(net.body, shop, store, config, seed=seed)
    if len(features) <= config.dim:
        return {}
    best, score, head = "", -1.0, net.head.state_dict()
    for name, weight_F in starts(features, net.body.parts).items():
        if name != FIRST_START:  # the head begins as that already
            from_components(net.head, features, whiten=False, weight_F=weight_F)
        found = validation.gauc(trained_part(net, config), store, config)[0]
        if found > score:
            best, score, head = name, found, {key: value.clone() for key, value in net.head.state_dict().items()}
    net.head.load_state_dict(head)
    return {"components": best}


@torch.no_grad()
def some_features(body: Body, shop: Shop, store: Pictures | Features, config: CommonConfig, *, seed: int) -> Tensor:
    """(P, F) float32 features of some of the pretraining period's pictures, on the body's device."""
    items = pretraining_items(shop, store.present)
    items = np.sort(items[permutation(len(items), seed, "whiten")[:_HEAD_FROM]])
    read = torch.from_numpy(store.read(items)).to(next(body.parameters()).device)
    if read.ndim == 2:
        return read
    body.eval()
    return torch.cat([body(undistorted(part, config.image_size)).float() for part in read.split(_AT_ONCE)])


def learning_rate(done: float, config: CommonConfig, *, begins: float = 0.0) -> float:
    """The learning rate when a share `done` of the pictures is encoded: 0 until `begins`, a linear rise, then a half cosine to 0."""
    return config.learning_rate * rise_and_cosine(done, rise=config.warmup, begins=begins)


def passed_checkpoint(before: int, after: int, config: CommonConfig) -> bool:
    """True if a step crossed one of the evenly spaced checkpoints; the last is at the end of the training."""
    parts, total = config.checkpoints, config.pictures
    return min(after, total) * parts // total > before * parts // total


def _warn_of_collapse(run: Training, spread: float, loss: float) -> None:
    healthy = run.config.dim**-0.5
    if spread >= _HEALTHY * healthy:
        return
    if loss == 0:
        advice = "its loss is 0: the pictures of a step do not compete with each other, and no other learning rate would help"
    else:
        advice = "it may be too early to judge; otherwise start from trained weights (setting `weights`) or lower the learning rate"
    print(f"warning: {run.name}'s embeddings have collapsed: spread {spread:.4f}, healthy {healthy:.4f}; {advice}", file=sys.stderr)


def _finish(folder: Path, state: State, validation: Validation, best: dict[str, Tensor] | None) -> dict[str, Any]:
    """Write the chosen weights, unless another rank does; what `train_encoder` returns."""
    from safetensors.torch import save

    if best is not None:
        write_atomic(folder / "best.safetensors", save({key: tensor.contiguous() for key, tensor in best.items()}))
    return {
        "valid_gauc": state.best_gauc,
        "popularity_gauc": validation.beside_popularity(),
        "best_pictures": state.best_pictures,
        "pictures": state.pictures,
        "seconds": state.seconds,
    }
