"""The training loop of a CTR model: shuffle sessions, look, pay, step; validate, keep the best, go on after a kill."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from ctr.batches import assemble
from ctr.config import CtrConfig
from ctr.inputs import Inputs, Layout, encode
from ctr.model import CtrModel, build
from ctr.order import part_of, shuffled
from ctr.predict import Predictions, measures, predict, write_predictions
from ctr.vocabulary_files import write_known
from ctr.weights import save_weights, warm_start
from data.shop_folder import Shop
from data.source import shop_fingerprint
from features.image_feature import ImageFeature, digest
from run.checkpoint import load_checkpoint, refuse_other_settings, save_checkpoint
from run.devices import set_up
from run.errors import UserError
from run.folder import MetricsLog, write_json
from run.progress import Progress
from run.schedule import rise_and_cosine

_LOG_STEPS = 20  # steps whose mean loss makes a line of metrics.jsonl
_NO_RESULT = ("checkpoint_seconds", "threads")  # settings that may change when a run goes on


@dataclass(kw_only=True)
class State:
    """Where a training stands, but for its weights."""

    step: int = 0
    impressions: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # since the last line of metrics
    loss_count: int = 0
    best_log_loss: float = math.inf  # on the valid split
    best_step: int = 0
    worse: int = 0  # validations since the best


def train_ctr(shop: Shop, feature: ImageFeature, config: CtrConfig, *, seed: int, folder: Path) -> dict[str, Any]:
    """Train one CTR model on the train split.

    The average of weights with the lowest log loss on the valid split predicts valid and test. Leaves in `folder`:
    predictions.parquet, best.safetensors, metrics.jsonl, TensorBoard events and, last of all, result.json. A killed run
    goes on from `last.pt` and ends with the same bits; the file goes when the run is done.

    Args:
        feature: what the model is told of the pictures.
        seed: of the first weights and the order of sessions; never of the data.

    Returns:
        What result.json holds: valid_auc, valid_gauc, valid_log_loss, best_step, steps, impressions, seconds.

    Raises:
        UserError: a split is empty, the loss is not a number, or `folder` holds a start with other settings.
    """
    fabric = set_up(config.threads, config.precision)
    if fabric.world_size > 1:
        raise UserError("a CTR model trains in one process for now; start it without torchrun")
    inputs = encode(shop, feature, config)
    train = part_of(shop, "train")
    if not len(shop.rows("valid")):
        raise UserError(f"{shop.folder}: the valid split has no impressions; set the split column or log more sessions")
    model = build(inputs.layout, config, seed)
    if config.init_from is not None:
        warm_start(model, config.init_from, inputs)
    net, *optimizers = fabric.setup(model, *optimizers_of(model, config, fabric.device.type))
    average = copy.deepcopy(model) if config.ema else model
    settings = settings_of(config, inputs.layout, seed) | {"shop": shop_fingerprint(shop.folder), "embeddings": digest(feature)}
    state, best = State(), {}
    saved = load_checkpoint(folder / "last.pt")
    if saved is not None:
        refuse_other_settings(folder / "last.pt", saved["settings"], settings)
        state, best = restore(saved, model, average, optimizers)

    batches_per_epoch = math.ceil(len(train.sessions) / config.batch_sessions)
    steps = config.epochs * batches_per_epoch
    log = MetricsLog(folder, resume_step=state.step if saved else None)
    last_save = began = time.monotonic()
    seconds_before = state.seconds
    total = config.epochs * len(train.rows)
    with Progress(f"ctr {feature.form} seed {seed}", total=total, unit="impressions", start=state.impressions) as bar:
        batches = shuffled(train, config.batch_sessions, seed=seed, epoch=state.step // batches_per_epoch)
        while state.step < steps and state.worse < config.patience:
            epoch, place = divmod(state.step, batches_per_epoch)
            if place == 0:
                batches = shuffled(train, config.batch_sessions, seed=seed, epoch=epoch)
            batch = fabric.to_device(assemble(inputs, train, batches[place]))
            rate = set_rates(optimizers, config, state.step / steps)
            net.train()
            loss = F.binary_cross_entropy_with_logits(net(batch), batch.click)
            value = loss.item()
            if not math.isfinite(value):
                raise UserError(f"ctr {feature.form}: loss {value} at step {state.step}; lower the learning rates")
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            for optimizer in optimizers:
                optimizer.step()
            if config.ema:
                follow(average, model, min(config.ema, (1 + state.step) / (10 + state.step)))

            state.step += 1
            state.impressions += len(batch.click)
            state.loss_sum, state.loss_count = state.loss_sum + value, state.loss_count + 1
            bar.advance(len(batch.click), note=f"loss {value:.4f}")
            validation = is_validation(state.step, batches_per_epoch, config)
            if state.loss_count == _LOG_STEPS or validation:
                log.write({"step": state.step, "loss": state.loss_sum / state.loss_count, "learning_rate": rate})
                state.loss_sum, state.loss_count = 0.0, 0
            if validation:
                best = judge(state, predict(average, inputs, "valid", fabric, config), shop, average, log) or best
            if validation or time.monotonic() - last_save >= config.checkpoint_seconds:
                last_save = time.monotonic()
                state.seconds = seconds_before + last_save - began
                save_checkpoint(folder / "last.pt", snapshot(settings, state, model, average, optimizers, best))
    log.close()
    average.load_state_dict(best)
    return finish(average, inputs, state, config, fabric, folder)


def optimizers_of(model: CtrModel, config: CtrConfig, device: str) -> list[torch.optim.Optimizer]:
    """AdamW for the network; Adagrad for tables: a row not looked up does not move, as in TorchRec's fused ones."""
    tables = [weight for _, weight in model.tables.named_tables()]
    of_tables = {id(weight) for weight in tables}
    network = [weight for weight in model.parameters() if id(weight) not in of_tables]
    return [
        torch.optim.AdamW(network, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True),
        torch.optim.Adagrad(tables, lr=config.table_learning_rate, fused=True if device == "cpu" else None),
    ]


def set_rates(optimizers: list, config: CtrConfig, done: float) -> float:
    """Set the learning rates where a share `done` of all steps is behind: a linear rise, then a half cosine to 0."""
    share = rise_and_cosine(done, rise=config.warm_up)
    for optimizer, rate in zip(optimizers, (config.learning_rate, config.table_learning_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * share
    return config.learning_rate * share


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """average <- keep * average + (1 - keep) * model. A small `keep` at the start forgets the first weights."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


def is_validation(step: int, batches_per_epoch: int, config: CtrConfig) -> bool:
    """True after the steps that divide each epoch into `validations_per_epoch` parts, the epoch's last one included."""
    parts = config.validations_per_epoch
    return step * parts // batches_per_epoch > (step - 1) * parts // batches_per_epoch


def judge(state: State, found: Predictions, shop: Shop, average: nn.Module, log: MetricsLog) -> dict[str, Tensor] | None:
    """Note a validation in `state` and in the log; the weights where its log loss is the lowest so far, else None."""
    values = measures(found, shop.session)
    log.write({"step": state.step} | {f"valid_{name}": value for name, value in values.items()})
    log_loss = values["log_loss"]
    if log_loss is None:
        raise UserError(f"the valid log loss is not a number at step {state.step}; lower the learning rates")
    if log_loss >= state.best_log_loss:
        state.worse += 1
        return None
    state.best_log_loss, state.best_step, state.worse = log_loss, state.step, 0
    return {name: tensor.detach().cpu().clone() for name, tensor in average.state_dict().items()}


def settings_of(config: CtrConfig, layout: Layout, seed: int) -> dict[str, Any]:
    """What a start must agree in with the run that goes on from it, as plain text."""
    values = {field.name: getattr(config, field.name) for field in fields(CtrConfig) if field.name not in _NO_RESULT}
    values |= {"seed": seed, "image feature": layout.form, "tables": asdict(layout)}
    return {name: repr(value) for name, value in values.items()}


def snapshot(
    settings: dict[str, Any],
    state: State,
    model: nn.Module,
    average: nn.Module,
    optimizers: list,
    best: dict[str, Tensor],
) -> dict[str, Any]:
    """Everything a run needs to go on bit for bit."""
    return {
        "settings": settings,
        "state": asdict(state),
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "best": best,
    }


def restore(saved: dict[str, Any], model: nn.Module, average: nn.Module, optimizers: list) -> tuple[State, dict[str, Tensor]]:
    """Take a `snapshot` back; its state and best weights."""
    average.load_state_dict(saved["average"])
    model.load_state_dict(saved["model"])
    for optimizer, of_optimizer in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(of_optimizer)
    return State(**saved["state"]), saved["best"]


def finish(model: nn.Module, inputs: Inputs, state: State, config: CtrConfig, fabric: Fabric, folder: Path) -> dict[str, Any]:
    """Predict valid and test with the best weights and write what a run leaves; what result.json holds."""
    save_weights(folder / "best.safetensors", model.state_dict(), inputs)
    write_known(folder, inputs, config)
    splits = {split: predict(model, inputs, split, fabric, config) for split in ("valid", "test")}
    write_predictions(folder / "predictions.parquet", splits)
    found = measures(splits["valid"], inputs.shop.session)
    result: dict[str, Any] = {f"valid_{name}": value for name, value in found.items()}
    for name in ("best_step", "impressions", "seconds"):
        result[name] = getattr(state, name)
    result["steps"] = state.step
    write_json(folder / "result.json", result)
    (folder / "last.pt").unlink()
    return result
