"""What the training loop asks of a method: which pictures a step looks at, how, and what they should pay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's pictures and whatever the loss needs to know of them.

    A picture that occurs many times in a batch stands here once: `places` points into the pictures.
    """

    items: np.ndarray  # (P,) item index of each picture to encode
    view: np.ndarray  # (P,) which view of the item; keys its randomness
    places: dict[str, np.ndarray] = field(default_factory=dict)

    def group(self, device: torch.device) -> Tensor | None:
        """The groups that the method put into `places`, within which pictures compete; None: all of the step do."""
        return torch.as_tensor(self.places["group"], device=device) if "group" in self.places else None


class Method(Protocol):
    """A way to train an encoder. `heads` holds what is trained beside the backbone and dropped afterwards."""

    @property
    def heads(self) -> nn.Module: ...

    def step(self, number: int) -> Step:
        """The pictures of step `number`; depends on nothing but the seed and the number."""
        ...

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        """(P, S, S, 3) uint8 -> (P, 3, size, size) normalised, with randomness from `keys`."""
        ...

    def loss(self, embeddings: Tensor, step: Step) -> tuple[Tensor, dict[str, Any]]:
        """(P, D) embeddings of the step's pictures -> the loss in nats, and its parts for the log."""
        ...
