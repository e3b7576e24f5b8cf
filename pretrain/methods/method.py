"""The interface between the training loop and a method: the pictures of a step, their views, and the loss.

Light to import, like every method's own file: commands read names and settings before torch is loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pretrain.settings import CommonConfig
from run.randomness import permutation

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from data.log.shop_folder import Shop

    Outputs = dict[str, Tensor]  # the result of `Method.encode`: tensors with a row per picture


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's pictures and whatever the loss needs to know about them.

    A picture that occurs many times in a batch is here once: `places` points into the pictures.
    """

    number: int  # of the step, counted from 0; keys its randomness
    items: np.ndarray  # (P,) item index of each picture to encode
    view: np.ndarray  # (P,) which view of the item; keys its randomness
    places: dict[str, np.ndarray] = field(default_factory=dict)

    def part(self, rows: slice) -> Step:
        """Some of the pictures, as passed to `Method.encode`; without `places`, which refers to all of them."""
        return Step(number=self.number, items=self.items[rows], view=self.view[rows])

    def group(self, device: torch.device) -> Tensor | None:
        """The groups that the method put into `places`, within which pictures compete; None: all of the step do."""
        import torch

        return torch.as_tensor(self.places["group"], device=device) if "group" in self.places else None


class Method(ABC):
    """A way to train an encoder, and how it is built from a shop. A subclass gives `loss`; all state is in `heads`.

    By default a step is one lightly cropped view of `batch_pictures` pictures of the pretraining period. Encoding is
    separate from the loss, so a step can be encoded in chunks and over ranks: `encode` sees some pictures, `loss` the outputs of all.

    Args:
        items: (M,) indices of the items whose pictures are learned from.
        config: the settings of all encoders; `self.own` becomes the method's own part.
        seed: of the sampling and the heads' initial weights.
        group: (N,) each item's group, within which pictures compete; None: all of a batch do.
    """

    settings: ClassVar[type[Any] | None] = None  # a frozen dataclass of its own settings, each with a default
    also_reads: ClassVar[tuple[type[Any], ...]] = ()  # settings that it shares with other methods
    contrasts: ClassVar[bool] = False  # pictures compete with each other: a shop in which none can compete is refused
    by_default: ClassVar[bool] = False  # trained if a command is given no encoders
    trained: ClassVar[bool] = True  # False: the initial backbone itself
    # of a frozen body: full (it learns from the features of full pictures) | distorted (from those of a few distorted views of each) | none
    # (it needs the pictures themselves)
    frozen_views: ClassVar[str] = "full"

    heads: nn.Module  # what is trained with the backbone and dropped afterwards
    head_common = 0.0  # length of the common part of initial embeddings (see pretrain/backbones/backbone.py:add_common)
    head_rate = 1.0  # the backbone's linear head learns at this many times the learning rate
    body_rate = 1.0  # and its body at this many
    crop = 0.9  # smallest share of the picture that the default view keeps

    def __init__(self, items: np.ndarray, config: CommonConfig, seed: int, group: np.ndarray | None = None):
        from torch import nn

        self.items, self.config, self.seed, self.group = items, config, seed, group
        self.own: Any = config.part(self.settings) if self.settings else None
        self.batch_size = min(config.batch_pictures, len(items))
        self.heads = nn.ModuleDict()

    @classmethod
    def reads(cls, config: CommonConfig) -> tuple[type[Any], ...]:
        """The settings that its encoder depends on, in addition to the common ones."""
        return (*((cls.settings,) if cls.settings else ()), *cls.also_reads)

    @classmethod
    def own_config(cls, config: CommonConfig) -> CommonConfig:
        """The settings of all encoders, as this one has them."""
        return config

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Method:
        """The method for a shop's pretraining period.

        Args:
            has_picture: (N,) bool, of each item.

        Raises:
            UserError: the period holds too little for it.
        """
        from pretrain.needs import enough_items, groups_of

        return cls(enough_items(shop, has_picture), config, seed, groups_of(shop, config))

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        """Cautions about what the method can hardly learn from, as sentences; called before anything is trained.

        Args:
            has_picture: (N,) bool; if pictures have not been read yet, the items that name one.

        Raises:
            UserError: the method could learn nothing.
        """
        from pretrain.needs import enough_items, groups_of, lonely_pictures

        items = enough_items(shop, has_picture)
        return lonely_pictures(items, config.batch_pictures, groups_of(shop, config)) if cls.contrasts else []

    @classmethod
    def attended_history(cls, config: CommonConfig) -> int:
        """How many clicks of a history `attention_weights` weighs; 0: the method has no attention to show."""
        return 0

    @classmethod
    def attention_weights(cls, target: Tensor, history: Tensor, config: CommonConfig) -> Tensor:
        """(K,) what the attention picked from a history: its weight on each of the (K, D) embeddings `history`, for the (D,) `target`."""
        raise NotImplementedError(f"{cls.__name__} has no attention to show")

    @property
    def material(self) -> str:
        """What it learns from, counted: "2,604 page views"."""
        items = getattr(self, "items", None)  # a user's method may keep something else
        return "the shop's pictures" if items is None else f"{len(items):,} pictures"

    def begin(self, trained: nn.Module) -> None:  # noqa: B027 - most methods need nothing here
        """Called once with what is trained at its initial weights, before its heads are: to copy it, say.

        Args:
            trained: the backbone, or its head alone if its body is frozen.
        """

    def step(self, number: int) -> Step:
        """The pictures of step `number`; depends only on the seed and the number."""
        items = drawn(self.items, self.batch_size, self.seed, number)
        places = {} if self.group is None else {"group": self.group[items]}
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        """(P, S, S, 3) uint8 -> (P, 3, size, size) float32 in [0, 1], with randomness from `keys`."""
        from pretrain.views import cropped

        return cropped(pixels, size, keys, smallest=self.crop)

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        """What the loss needs of each picture, row by row; "embedding" (P, D) is the backbone's output.

        Args:
            net: the backbone.
            pictures: (P, 3, size, size), from `view`.
            step: the part of the step that holds these pictures.
        """
        return {"embedding": net(pictures)}

    @abstractmethod
    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        """The outputs of all of the step's pictures -> the loss in nats, and its parts for the log."""

    def after_step(self, net: nn.Module, done: float) -> None:  # noqa: B027 - most methods need nothing here
        """Called after each optimizer step, when a share `done` of the pictures is encoded: to move a teacher after its student, say."""


class Untrained(Method):
    """The initial backbone, untrained: the reference for what training adds."""

    trained = False

    @classmethod
    def own_config(cls, config: CommonConfig) -> CommonConfig:
        return replace(config, weights="random")

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        return []

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        raise NotImplementedError(f"{type(self).__name__} is not trained")


def drawn(items: np.ndarray, batch: int, seed: int, number: int) -> np.ndarray:
    """(batch,) of the items for step `number`: each once in a pass, shuffled; a short remainder is left out."""
    per_pass = len(items) // batch
    ranking = permutation(len(items), seed, "pictures", number // per_pass)
    start = number % per_pass * batch
    return items[ranking[start : start + batch]]
