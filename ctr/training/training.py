"""One training of a CTR model as an object: its moving parts, and a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from ctr.config import CtrConfig, settings_read
from ctr.inputs.encode import Inputs, Layout
from ctr.inputs.feed import Share
from ctr.model.ctr_model import CtrModel
from ctr.training.sharding import TableShard, draw_shards, like, local_shards, network_of, set_table_rate, shard
from ctr.training.weights import begin_ids_from_pictures, of_image, warm_start
from run.distributed import join_group, sum_gradients, summed
from run.errors import UserError
from run.randomness import keyed_init
from run.schedule import linear_rise, rise_and_cosine

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_ADAM = ("step", "exp_avg", "exp_avg_sq")
_SWAPPED = 1 << 16  # rows of a table swapped at a time


@dataclass(kw_only=True)
class State:
    """The progress of a training: everything except tensors."""

    step: int = 0
    impressions: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # since the last line of metrics
    loss_count: int = 0
    best_log_loss: float = math.inf  # on the valid split
    best_step: int = 0
    worse: int = 0  # validations since the best
    image_gate: float = 1.0  # multiple of the learning rate that the weights on pictures learn at (ctr/training/gate.py)


@dataclass(kw_only=True)
class Training:
    """The moving parts of one training; the same on all ranks, except for `parts`."""

    config: CtrConfig
    fabric: Fabric
    form: str  # of the image feature
    steps: int  # until the epochs end
    model: DistributedModelParallel  # a CtrModel whose tables are sharded
    network: dict[str, nn.Parameter]  # the weights outside the tables
    parts: list[TableShard]  # this rank's rows of the tables
    optimizer: torch.optim.Optimizer  # AdamW, of the network
    average: dict[str, Tensor]  # the average of each weight that has one: network's by name, tables' as (name, first row)
    settings: dict[str, str]  # see `settings_of`
    alone: int = 0  # first steps, in which the image branch alone is trained (see `take_step`)
    began_after: int = 0  # steps that the initial weights count as in the average
    state: State = field(default_factory=State)


def prepare(inputs: Inputs, config: CtrConfig, *, seed: int, steps: int, fabric: Fabric, settings: dict[str, str]) -> Training:
    """A training before its first step.

    Args:
        settings: what a checkpoint and the run that resumes from it must agree on.
    """
    join_group(fabric)
    model = CtrModel(inputs.layout, config, device="meta", precision=config.table_precision)
    keyed_init(model, seed)
    sharded = shard(model, config, fabric.device)
    network, parts = network_of(sharded), local_shards(sharded)
    draw_shards(parts, seed)
    if config.start is not None:
        warm_start(sharded.module, network, parts, config.start, inputs)
        if isinstance(sharded.module.image_id, nn.Linear):
            begin_ids_from_pictures(sharded.module.image_id, config.start, inputs)
            for weight in sharded.module.image_id.parameters():  # processors differ in the last digits
                weight.data.copy_(fabric.broadcast(weight.detach()))
    elif config.click_rate_start and not inputs.layout.own_score:
        begin_at_click_rate(network["logit.bias"], inputs.shop.click[inputs.shop.rows("train")])
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    run = Training(
        config=config, fabric=fabric, form=inputs.layout.form, steps=steps, model=sharded, network=network, parts=parts,
        optimizer=optimizer, average={}, settings=settings, began_after=steps // config.epochs // 4 if config.start is not None else 0,
    )  # fmt: skip
    run.average = {name: weight.clone() for name, weight in followed(run).items()}
    return run


def parameter_groups(network: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """The network's weights in two groups: those on pictures have a learning rate of their own (ctr/training/gate.py)."""
    images = [weight for name, weight in network.items() if is_image(name)]
    others = [weight for name, weight in network.items() if not is_image(name)]
    return [{"params": others, "image": False}, {"params": images, "image": True}]


def is_image(name: str) -> bool:
    """Whether a weight of the network reads the image feature.

    >>> is_image("histories.clicks.project.image.weight"), is_image("first.base.weight")
    (True, False)
    """
    return ".image." in f".{name}."


@torch.no_grad()
def begin_at_click_rate(bias: Tensor, click: np.ndarray) -> None:
    """Set the bias (1,) of the logit to that of the click rate, where every other weight would otherwise push at once.

    From a bias of 0, the first hundred steps do little but lower all logits, through every layer, and leave units of the MLP without a
    gradient, which a picture's branch later lacks: on `shop` they cost its vector half of its lift.

    Args:
        click: (n,) clicks of the train split, 0 and 1, not all alike.
    """
    bias.copy_(torch.logit(torch.tensor(click.mean())))


def take_step(run: Training, taken: Share) -> float:
    """Forward, loss, backward, step; returns the mean loss in nats over the impressions of all ranks.

    Tables are updated inside the backward pass, so the loss is checked before it.

    In the first `run.alone` steps everything but the image branch is held: a small version of MAKE (Sheng et al. 2024, arXiv:2407.19467),
    in which pictures learn for several epochs, and IDs, which overfit after one, do not. There the branch is a model of its own before it
    joins; here it learns from the first what the trained baseline leaves.

    Raises:
        UserError: the loss is not a number.
    """
    set_rates(run)
    run.model.train()
    alone = run.state.step < run.alone
    run.model.module.pictures_alone = alone
    with run.fabric.autocast():
        logits = run.model(run.fabric.to_device(taken.batch))
    own = F.binary_cross_entropy_with_logits(logits.float(), taken.batch.click.to(logits.device), reduction="sum")
    loss = own * taken.real / taken.impressions
    (value,) = summed(run.fabric, loss.item())
    if not math.isfinite(value):
        raise UserError(f"ctr {run.form}: loss {value} at step {run.state.step}; lower the learning rates")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trained = [weight for name, weight in run.network.items() if of_image(name) or not alone]
    for weight in trained:  # one may have a gradient on another rank only; all must send the same sizes
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    sum_gradients(run.fabric, trained)
    if alone:  # without a gradient, the optimizer leaves a weight and what it remembers of it alone
        for name, weight in run.network.items():
            weight.grad = weight.grad if of_image(name) else None
    run.optimizer.step()
    follow(run)
    run.state.step += 1
    run.state.impressions += taken.impressions
    return value


def set_rates(run: Training) -> None:
    """Set the learning rates of the next step: a linear rise in the first epoch, then constant; or a rise and a half cosine to 0."""
    done, config = run.state.step / run.steps, run.config
    share = (
        linear_rise(done * config.epochs, config.warm_up) if config.schedule == "constant" else rise_and_cosine(done, rise=config.warm_up)
    )
    for group in run.optimizer.param_groups:
        group["lr"] = config.learning_rate * share * (run.state.image_gate if group["image"] else 1.0)
    set_table_rate(run.model, run.config.table_learning_rate * share)


def followed(run: Training) -> dict[str, Tensor]:
    """The averaged weights, by their names in the average."""
    if not run.config.ema:
        return {}
    weights: dict[str, Tensor] = {name: weight.detach() for name, weight in run.network.items()}
    if run.config.ema_tables:
        weights |= {part_key(part.name, part.first): part.weight for part in run.parts}
    return weights


def part_key(name: str, first: int) -> str:
    """The name, in an average, of a table's rows from `first` on."""
    return f"{name}@{first}"


@torch.no_grad()
def follow(run: Training) -> None:
    """average <- decay * average + (1 - decay) * weights.

    At first step t weighs as t, so that random initial weights are forgotten; later, one step has 1 - `ema` of the weight. Trained
    initial weights count as a quarter of an epoch: a training that goes on from them does not begin anew.
    """
    if run.average:
        steps = run.state.step + run.began_after
        decay = min(run.config.ema, (1 + steps) / (3 + steps))
        torch._foreach_lerp_(list(run.average.values()), list(followed(run).values()), 1 - decay)


@contextmanager
def averaged(run: Training) -> Iterator[DistributedModelParallel]:
    """The model with the average in place of its weights, which are restored afterwards; no third copy is made."""
    swap(run)
    try:
        yield run.model
    finally:
        swap(run)


@torch.no_grad()
def swap(run: Training) -> None:
    """Exchange weights and average, _SWAPPED rows at a time."""
    for weight, average in zip(followed(run).values(), run.average.values(), strict=True):
        for one, other in zip(weight.split(_SWAPPED), average.split(_SWAPPED), strict=True):
            held = one.clone()
            one.copy_(other)
            other.copy_(held)


def settings_of(config: CtrConfig, layout: Layout, seed: int) -> dict[str, str]:
    """What a checkpoint and the run that resumes from it must agree on, as text; not the number of ranks."""
    values = settings_read(config, layout.form)
    values |= {"seed": seed, "image feature": layout.form, "tables": asdict(layout)}
    return {name: repr(value) for name, value in values.items()}


def tensors_of(run: Training) -> dict[str, Any]:
    """All tensors needed to resume bit for bit: those of tables as they are in memory, those of the network end to end."""
    adam = [adam_state(run.optimizer, weight) for weight in run.network.values()]
    return {
        "network": {
            "weights": flat(run.network.values()),
            "average": flat(network_average(run)),
            **{name: flat(state[name] for state in adam) for name in _ADAM},
        },
        "tables": sharded_tables(run),
        "table average": table_average(run),
        "table optimizer": run.model.fused_optimizer.state_dict()["state"],
    }


def restore(run: Training, tensors: dict[str, Any]) -> None:
    """Copy the network's tensors, read from a checkpoint, into a run; those of tables were read in place."""
    adam = [adam_state(run.optimizer, weight) for weight in run.network.values()]
    unflat(tensors["network"]["weights"], run.network.values())
    unflat(tensors["network"]["average"], network_average(run))
    for name in _ADAM:
        unflat(tensors["network"][name], [state[name] for state in adam])


def best_of(run: Training) -> dict[str, Any]:
    """Tensors that a checkpoint's validated weights are read into: averages if it holds them, and the model's own tables."""
    averages = bool(run.config.ema and run.config.ema_tables)
    return {
        "network": {"average" if run.config.ema else "weights": flat(run.network.values())},
        "table average" if averages else "tables": sharded_tables(run),
    }


def restore_best(run: Training, tensors: dict[str, Any]) -> None:
    """Copy the network of `best_of`, read from a checkpoint, into the model."""
    (weights,) = tensors["network"].values()
    unflat(weights, run.network.values())


def sharded_tables(run: Training) -> dict[str, ShardedTensor]:
    """The tables over ranks, by the names of their weights."""
    return {name: weight for name, weight in run.model.state_dict().items() if isinstance(weight, ShardedTensor)}


def network_average(run: Training) -> list[Tensor]:
    """The network's part of the average."""
    return [run.average[name] for name in run.network if name in run.average]


def table_average(run: Training) -> dict[str, ShardedTensor]:
    """The tables' part of the average, sharded as they are."""
    if not (run.config.ema and run.config.ema_tables):
        return {}
    found = {}
    for name, table in sharded_tables(run).items():
        firsts = [piece.metadata.shard_offsets[0] for piece in table.local_shards()]
        found[name] = like(table, {first: run.average[part_key(name, first)] for first in firsts})
    return found


def adam_state(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state of one weight; before the first step, its initial state."""
    state = optimizer.state[weight]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    return state


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors end to end as one with one axis: the cost of a checkpoint grows with the number of tensors."""
    parts = [tensor.detach().flatten() for tensor in tensors]
    return torch.cat(parts) if parts else torch.zeros(0)


@torch.no_grad()
def unflat(joined: Tensor, tensors: Iterable[Tensor]) -> None:
    """Fill tensors from what `flat` made of tensors of the same shapes."""
    tensors = list(tensors)
    for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
