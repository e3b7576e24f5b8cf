"""The tables of a CTR model over all ranks, each row updated by an optimizer that is part of the backward pass (TorchRec).

A step costs what it looks up, however large the tables are. One rank takes the same path as many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer_in_backward
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ShardingPlan, ShardingType
from torchrec.optim import RowWiseAdagrad

from ctr.config import CtrConfig
from ctr.model.ctr_model import CtrModel
from ctr.model.tables import draw_rows
from run.errors import SettingError

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, float]]] = {
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-10}),
    "rowwise_adagrad": (RowWiseAdagrad, {"eps": 1e-10}),
    "sgd": (torch.optim.SGD, {}),
}
_KERNELS = {"cpu": [EmbeddingComputeKernel.FUSED], "cuda": [EmbeddingComputeKernel.FUSED, EmbeddingComputeKernel.FUSED_UVM_CACHING]}


class TableShard(NamedTuple):
    """This rank's rows of one table."""

    name: str  # of the weight in the model
    table: str
    first: int  # the part's first row in the full table
    weight: Tensor  # (rows, dim), the memory that lookups read
    shape: tuple[int, ...]  # of the full table


def shard(model: CtrModel, config: CtrConfig, device: torch.device) -> DistributedModelParallel:
    """Spread a model's tables, made on the device "meta", over the ranks of the process group; each gets the complete network.

    Rows are not initialised here: see `draw_shards`.

    Raises:
        SettingError: a precision that tables on a CPU do not have.
    """
    if device.type == "cpu" and config.table_precision == "bf16":
        raise SettingError("table_precision", "bf16", "tables on a CPU are fp32 or fp16")
    for name, part in model.named_children():
        if name != "tables":
            part.to(device)
    for name, buffer in model.named_buffers(recurse=False):  # of the model itself, which is not moved as a whole: tables have no values yet
        setattr(model, name, buffer.to(device))
    kind, settings = OPTIMIZERS[config.table_optimizer]
    weights = [weight for _, weight in model.tables.named_tables()]
    apply_optimizer_in_backward(kind, weights, {"lr": config.table_learning_rate, **settings})
    set_gradient_division(False)  # each rank's loss is its share of one sum, and so is each gradient
    sharders: list[Any] = [EmbeddingCollectionSharder(), EmbeddingBagCollectionSharder()]
    plan = plan_of(model, sharders, config, device)
    # the network's gradients are summed by the training (ctr/training/training.py): nothing is left for a wrapper to do
    return DistributedModelParallel(model, device=device, plan=plan, sharders=sharders, init_data_parallel=False, init_parameters=False)


def plan_of(model: CtrModel, sharders: list[Any], config: CtrConfig, device: torch.device) -> ShardingPlan:
    """Which rank holds which rows: the planner of TorchRec, with constraints.

    Pooled words are sent as one row per text, and ranks differ in their number of texts: on a CPU, only an unsplit table can serve them.
    """
    ranks = dist.get_world_size()
    ways = [config.table_sharding]
    if config.table_sharding == "auto":  # row-wise only makes sense with several ranks
        ways = [ShardingType.TABLE_WISE.value, *([ShardingType.ROW_WISE.value] if ranks > 1 else [])]
    kernels = [kernel.value for kernel in _KERNELS[device.type]]
    constraints = {
        name: ParameterConstraints(sharding_types=[ShardingType.TABLE_WISE.value] if name == "word" else ways, compute_kernels=kernels)
        for name, _ in model.tables.named_tables()
    }
    memory = {"hbm_cap": torch.cuda.get_device_properties(device).total_memory} if device.type == "cuda" else {}
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or ranks)
    topology = Topology(world_size=ranks, local_world_size=local, compute_device=device.type, **memory)
    planner = EmbeddingShardingPlanner(topology=topology, constraints=constraints)
    group = dist.GroupMember.WORLD
    assert group is not None
    return planner.collective_plan(model, sharders, group)


def local_shards(model: DistributedModelParallel) -> list[TableShard]:
    """This rank's rows of every table that it has a part of."""
    found = []
    for name, weight in model.state_dict().items():
        if isinstance(weight, ShardedTensor):
            for piece in weight.local_shards():
                first = piece.metadata.shard_offsets[0]
                found.append(TableShard(name, name.split(".")[-2], first, piece.tensor.detach(), tuple(weight.metadata().size)))
    return found


def network_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights outside the tables, by name."""
    return {name: weight for name, weight in model.named_parameters() if not name.startswith("tables.")}


def draw_shards(parts: list[TableShard], seed: int) -> None:
    """Initial weights by (seed, table, row), whichever rank holds the row."""
    for part in parts:
        draw_rows(part.weight, seed, part.table, first=part.first)


def set_table_rate(model: DistributedModelParallel, rate: float) -> None:
    """Set the learning rate of the next backward pass."""
    for group in model.fused_optimizer.param_groups:
        group["lr"] = rate  # type: ignore[index]
    model.fused_optimizer.step()  # updates no row: it only passes on the rate


def like(template: ShardedTensor, tensors: Mapping[int, Tensor]) -> ShardedTensor:
    """A tensor sharded over ranks as `template` is, with other values.

    Args:
        tensors: for the first row of each local part, its values.
    """
    shards = [Shard(tensors[piece.metadata.shard_offsets[0]], piece.metadata) for piece in template.local_shards()]
    return ShardedTensor._init_from_local_shards_and_global_metadata(shards, template.metadata(), process_group=template._process_group)


def gathered(model: nn.Module, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Every weight by name, complete and on the CPU, on the first rank; the others send their parts and get empty tensors.

    With one rank, the CPU's tables are not copied.
    """
    first, ranks = dist.get_rank() == 0, dist.get_world_size()
    for name, weight in model.state_dict().items():
        if not isinstance(weight, ShardedTensor):
            yield name, weight.detach().cpu()
        elif ranks == 1:
            yield name, weight.local_shards()[0].tensor.detach().cpu()
        else:
            full = weight.metadata()
            out = torch.empty(full.size, dtype=full.tensor_properties.dtype, device=device) if first else None
            weight.gather(dst=0, out=out)
            yield name, torch.empty(0) if out is None else out.cpu()
