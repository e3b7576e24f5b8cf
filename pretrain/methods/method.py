"""What the training loop asks of a method: which pictures a step looks at, how, and what they should pay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]  # what `Method.encode` makes of pictures: tensors with a row for each


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's pictures and whatever the loss needs to know of them.

    A picture that occurs many times in a batch stands here once: `places` points into the pictures.
    """

    number: int  # of the step, counted from 0; keys its randomness
    items: np.ndarray  # (P,) item index of each picture to encode
    view: np.ndarray  # (P,) which view of the item; keys its randomness
    places: dict[str, np.ndarray] = field(default_factory=dict)

    def part(self, rows: slice) -> Step:
        """Some of the pictures, as `Method.encode` is given them; nothing that points into all of them."""
        return Step(number=self.number, items=self.items[rows], view=self.view[rows])

    def group(self, device: torch.device) -> Tensor | None:
        """The groups that the method put into `places`, within which pictures compete; None: all of the step do."""
        return torch.as_tensor(self.places["group"], device=device) if "group" in self.places else None


class Method(ABC):
    """A way to train an encoder. A subclass gives `step`, `view` and `loss`; it holds no state but in `heads`.

    Pictures are encoded apart from their loss, so that a step may be encoded in chunks and over ranks: `encode` sees some of its pictures,
    `loss` the outputs of all.
    """

    heads: nn.Module  # what is trained beside the backbone and dropped afterwards
    head_common = 0.0  # length of the common part of first embeddings (see pretrain/backbones/backbone.py:add_common)
    head_rate = 1.0  # the backbone's linear head learns at this many times the learning rate
    body_rate = 1.0  # and its body at this many

    @abstractmethod
    def step(self, number: int) -> Step:
        """The pictures of step `number`; depends on nothing but the seed and the number."""

    @abstractmethod
    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        """(P, S, S, 3) uint8 -> (P, 3, size, size) normalised, with randomness from `keys`."""

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        """What the loss needs of each picture, row by row; "embedding" (P, D) is the backbone's output.

        Args:
            net: the backbone.
            pictures: (P, 3, size, size), from `view`.
            step: the part of the step that these pictures are.
        """
        return {"embedding": net(pictures)}

    @abstractmethod
    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        """The outputs of all of the step's pictures -> the loss in nats, and its parts for the log."""

    def after_step(self, net: nn.Module, done: float) -> None:  # noqa: B027 - most methods have nothing to do then
        """What follows an optimizer's step, when a share `done` of the pictures is encoded: a teacher that follows its student, say."""
