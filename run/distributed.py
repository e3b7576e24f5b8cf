"""Collective operations of ranks: sums, gathers of unequal lengths, gradients. With one rank, each is the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric
    from torch import Tensor, nn


def join_group(fabric: Fabric) -> None:
    """Start a process group for a single process too: TorchRec shards tables over a group even if it has one rank."""
    import torch.distributed as dist

    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if fabric.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def summed(fabric: Fabric, *numbers: float) -> list[float]:
    """Each number's sum over ranks, in one message."""
    import torch

    if fabric.world_size == 1:
        return list(numbers)
    total = fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64, device=fabric.device), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    return total.tolist()


def any_rank(fabric: Fabric, flag: bool) -> bool:
    """True on all ranks if `flag` is true on any of them, to stop all after the same step."""
    return summed(fabric, float(flag))[0] > 0


def gather_ragged(fabric: Fabric, own: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """(sum of n, ...) the rows of all ranks in the order of ranks, without their gradient history.

    Args:
        own: (n, ...) this rank's rows; n may differ between ranks, the other axes may not.
        sizes: n of every rank, if all ranks know it already; None: exchanged in a message of its own.
    """
    import torch

    if fabric.world_size == 1:
        return own
    if sizes is None:
        sizes = [int(size) for size in fabric.all_gather(torch.tensor(len(own), device=fabric.device))]
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    gathered = fabric.all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def gather_objects(own: Any) -> list[Any]:
    """Every rank's object, in the order of ranks; for small plain values between ranks of one trusted run (torch pickles them)."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return [own]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def sum_gradients(fabric: Fabric, weights: Sequence[nn.Parameter]) -> None:
    """Replace each weight's gradient by its sum over ranks, all in one message; weights without one are left out."""
    import torch

    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if fabric.world_size == 1 or not gradients:
        return
    flat = fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="sum")
    assert isinstance(flat, torch.Tensor)
    for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))
