"""One step's loss and gradients: encoded in pieces and over ranks, with the gradients of the full batch.

A contrast needs the embeddings of all pictures of a step, but not the network's activations. So pictures are encoded without keeping
activations, the loss is computed from all embeddings, and pictures are encoded again, piece by piece, each propagating the loss's
gradient at its embeddings (gradient caching: Gao et al. 2021, arXiv:2101.06983). Where a rank's share is one piece, the first pass is kept.

Every rank computes the same loss from the embeddings of all ranks, so only the gradients of the weights are summed over ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pretrain.feed import Piece, pieces_of
from run.distributed import gather_ragged, sum_gradients
from run.errors import UserError
from run.randomness import integer_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pretrain.methods.method import Outputs, Step
    from pretrain.training import Training


def loss_of_step(run: Training, feed: Iterator[Piece]) -> tuple[Step, Tensor, Outputs, Outputs]:
    """Take a step's pieces from `feed`, and store the gradient of its loss in the weights.

    Returns:
        the step, its loss in nats, the loss's parts, and the outputs of all pictures.
    """
    first = next(feed)
    step = first.step
    if len(step.items) < run.fabric.world_size:
        raise UserError(f"a step of {len(step.items)} pictures has none for some of {run.fabric.world_size} ranks; use fewer")
    pieces = pieces_of(len(step.items), run.fabric.global_rank, run.fabric.world_size, run.config.chunk)
    kept = len(pieces) == 1
    with torch.set_grad_enabled(kept):
        own = [encode(run, piece) for piece in chain([first], islice(feed, len(pieces) - 1))]
    outputs = gathered_outputs(run.fabric, {name: torch.cat([part[name].detach() for part in own]) for name in own[0]}, len(step.items))
    loss, parts = run.method.loss({name: output.requires_grad_() for name, output in outputs.items()}, step)
    ranks = run.fabric.world_size
    run.fabric.backward(loss / ranks)
    for rows, part in zip(pieces, own if kept else again(run, feed, len(pieces)), strict=True):
        gradients = {name: output.grad[rows] * ranks for name, output in outputs.items() if output.grad is not None}
        torch.autograd.backward([part[name] for name in gradients], list(gradients.values()))
    sum_gradients(run.fabric, list(run.parts.parameters()))
    return step, loss.detach(), parts, outputs


def encode(run: Training, piece: Piece) -> Outputs:
    """`Method.encode` of a piece: inside in the run's precision, its outputs in that of the weights. Features stand for their pictures.

    The network's random numbers (stochastic depth) depend on (seed, step, piece): the second pass and a resumed run draw the same.
    """
    step = piece.step.part(piece.rows)
    torch.manual_seed(integer_seed(run.seed, "network", step.number, piece.rows.start))
    pictures = piece.read.to(run.fabric.device, non_blocking=True)
    kind = next(run.parts.parameters()).dtype
    if run.config.body == "tuned":
        pictures = run.method.view(pictures, (run.seed, "view", step.number, step.items, step.view), run.config.image_size)
    pictures = pictures.to(kind)
    with run.fabric.autocast():
        outputs = run.method.encode(run.encoder, pictures, step)
    return {name: output.to(kind) for name, output in outputs.items()}


def again(run: Training, feed: Iterator[Piece], pieces: int) -> Iterator[Outputs]:
    """The second pass over a step's pieces, each encoded on demand."""
    return (encode(run, piece) for piece in islice(feed, pieces))


def gathered_outputs(fabric: Fabric, own: Outputs, pictures: int) -> Outputs:
    """The outputs of all ranks' shares, in the sequence of the step's pictures, without their gradient history."""
    ranks = fabric.world_size
    sizes = [pictures * (rank + 1) // ranks - pictures * rank // ranks for rank in range(ranks)]
    return {name: gather_ragged(fabric, output, sizes) for name, output in own.items()}
