"""The gate of the image branch: validation decides how much of what the weights on pictures have learned is kept.

Optimizers that normalise gradients move a weight that has nothing to learn as far as one that has, so 64 numbers that know nothing
drown a small log's other features: on film likes they cost 0.3 percentage points of GAUC. Slower rates, weight decay and hiding pictures
in training cost true pictures as much (docs/log.md, 30 November 2026). Validation tells the two apart.
"""

from __future__ import annotations

import torch
from torch import nn

from ctr.inputs.encode import Inputs
from ctr.training.predict import measures, predict
from ctr.training.training import Training, averaged, is_image

_FACTOR = 4  # by which a validation cuts the branch, twice at most, or lets it grow again
_SLOWEST = 1 / 64  # of the others' learning rate: a branch that was cut by mistake can still learn


def validated(run: Training, inputs: Inputs) -> dict[str, float | None]:
    """Measures of the valid split by the averaged weights, with the share of the image branch that has the lowest log loss.

    The share is quartered, at most twice, as long as that lowers the log loss; a branch that was cut before may grow fourfold. The weights
    on pictures, averaged and own, are scaled by it, and so is their learning rate from now on, which never exceeds that of the others.
    """
    images = image_weights(run)
    with averaged(run) as model:
        learned = [weight.detach().clone() for weight in images]

        def keep(share: float) -> None:
            with torch.no_grad():
                for weight, full in zip(images, learned, strict=True):
                    torch.mul(full, share, out=weight)

        def with_share(share: float) -> dict[str, float | None]:
            keep(share)
            return measures(predict(model, inputs, "valid", run.fabric, run.config), inputs.shop.session)

        share, best = 1.0, with_share(1.0)
        if images and run.config.image_gate and run.state.step:
            while share > _FACTOR**-2 and lower(less := with_share(share / _FACTOR), best):
                share, best = share / _FACTOR, less
            if share == 1 and run.state.image_gate < 1 and lower(more := with_share(_FACTOR), best):
                share, best = _FACTOR, more
            keep(share)
    if run.average and share != 1:
        with torch.no_grad():
            torch._foreach_mul_(images, share)
    run.state.image_gate = min(1.0, max(_SLOWEST, run.state.image_gate * share))
    return best


def lower(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    """Whether the first log loss is a number, and lower than the second."""
    return one["log_loss"] is not None and other["log_loss"] is not None and one["log_loss"] < other["log_loss"]


def image_weights(run: Training) -> list[nn.Parameter]:
    """The weights on pictures, of all places where they enter; none in the baseline."""
    return [weight for name, weight in run.network.items() if is_image(name)]
