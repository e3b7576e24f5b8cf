"""Pairs: pictures that one user clicked in succession attract, and where there are queries, a query and the picture clicked after it.

The industry's way to picture embeddings for recommendation: InfoNCE of item pairs (item to item) and of query-click pairs, with negatives
of the batch or of a momentum queue (Sheng et al. 2024, arXiv:2407.19467; He et al. 2020, arXiv:1911.05722).

Shapes: R pairs, P distinct pictures of a step, D embedding length, Q queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pretrain.methods.clip import ClipConfig, clip_loss
from pretrain.methods.method import Method, Step
from pretrain.settings import CommonConfig, MethodSettings, share
from run.config import positive
from run.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Outputs
    from pretrain.parts.click_pairs import ClickQueries
    from pretrain.parts.text import Titles


@dataclass(frozen=True, kw_only=True)
class PairsConfig(MethodSettings):
    """InfoNCE of pictures clicked in succession, and of queries and clicked pictures."""

    part = "pairs"
    presets: ClassVar = {
        "tiny": {"batch_size": 256},
        # at the defaults, a head that begins as components collapses (docs/log.md, 1 December 2026)
        "small": {"head_rate": 1.0, "temperature": 0.1, "logq": True},
        "paper": {"head_common": 0.0, "head_rate": 1.0, "body_rate": 1.0, "crop": 0.6},
    }

    batch_size: int = 4096  # pairs of a step, over all ranks
    apart: int = 1  # clicks between the pictures of a pair at most: 1 pairs each click with the user's next one
    temperature: float = 0.05  # pairs: divides the cosine; > 0
    logq: bool = False  # pairs: an item competes once, however many pairs of the step or queue have it (correction for popularity)
    queue: int = 0  # negatives from earlier steps, embedded by a momentum encoder; 0: the batch's alone
    momentum: float = 0.999  # share of itself that the momentum encoder keeps per step
    queries: float = 1.0  # weight of the loss over queries and clicked pictures, where the log has queries; 0: none
    head_common: float = 4.0  # pairs: length of a common part of initial embeddings, as for courier
    head_rate: float = 10.0  # pairs: the backbone's head learns at this many times the learning rate
    body_rate: float = 0.1  # pairs: and its body at this many
    crop: float = 0.9  # pairs: smallest share of the picture that a random crop keeps; 1 = all of it; a frozen body sees all of it

    def __post_init__(self):
        for name in ("batch_size", "apart", "temperature", "head_rate", "body_rate"):
            positive(f"pairs.{name}", getattr(self, name))
        for name in ("queue", "queries", "head_common"):
            if getattr(self, name) < 0:
                raise SettingError(f"pairs.{name}", getattr(self, name), "give 0 or more")
        if not 0 <= self.momentum < 1:
            raise SettingError("pairs.momentum", self.momentum, "give a share from 0 up to but not 1")
        share("pairs.crop", self.crop)


class Pairs(Method):
    """InfoNCE in both directions over batches of pairs, plus CLIP's loss over queries.

    Args:
        pairs: (R, 2) items clicked in succession.
        config: settings of all encoders.
        seed: of the sampling and of the text tower.
        group: (N,) each item's group, within which pictures compete; None: all of a batch do.
        queries: that led to clicks, and their texts as tokens; None: there are none.
    """

    heads: nn.ModuleDict
    settings = PairsConfig
    also_reads = (ClipConfig,)

    def __init__(
        self, pairs: np.ndarray, config: CommonConfig, seed: int, group: np.ndarray | None = None,
        queries: tuple[ClickQueries, Titles] | None = None,
    ):  # fmt: skip
        from torch import nn

        self.pairs, self.config, self.seed, self.group, self.queries = pairs, config, seed, group, queries
        self.own = config.part(PairsConfig)
        self.head_common, self.head_rate, self.body_rate = self.own.head_common, self.own.head_rate, self.own.body_rate
        self.crop = self.own.crop
        self.batch_size = min(self.own.batch_size, len(pairs))
        self.heads = nn.ModuleDict()
        if queries is not None:
            from pretrain.parts.text import text_tower

            self.heads["text"] = text_tower(queries[1], config.part(ClipConfig), dim=config.dim, seed=seed)

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Pairs:
        from pretrain.needs import groups_of

        return cls(_pairs(shop, has_picture, config), config, seed, groups_of(shop, config), _queries(shop, has_picture, config))

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        from pretrain.needs import groups_of, lonely_clicks

        pairs = _pairs(shop, has_picture, config)
        return lonely_clicks(pairs.ravel(), pairs.ravel(), groups_of(shop, config))

    @property
    def material(self) -> str:
        return f"{len(self.pairs):,} pairs of clicks"

    def begin(self, trained: nn.Module) -> None:
        if self.own.queue:
            from pretrain.parts.momentum import Momentum

            self.heads["momentum"] = Momentum(trained, dim=self.config.dim, size=self.own.queue, kept=self.own.momentum)

    def step(self, number: int) -> Step:
        from pretrain.page_views import distinct, rows_of_step

        rows = rows_of_step(len(self.pairs), self.batch_size, self.seed, number)
        items, places = distinct({"pair": self.pairs[rows]})
        if self.group is not None:
            places["group"] = self.group[items]
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        import torch

        outputs = {"embedding": net(pictures)}
        if self.own.queue:
            outputs["key"] = self.heads["momentum"](pictures)
        if self.queries is not None:
            from pretrain.parts.text import embed_titles

            found, texts = self.queries
            query = found.drawn(step.items, self.seed, step.number)
            outputs["text"] = embed_titles(self.heads["text"], texts, query, pictures.device)
            outputs["query"] = torch.as_tensor(texts.of_item[query], device=pictures.device).to(pictures.dtype)
        return outputs

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        import torch

        embedding = outputs["embedding"]
        first, second = torch.as_tensor(step.places["pair"], device=embedding.device).unbind(1)
        group = step.group(embedding.device)
        items = torch.as_tensor(step.items, device=embedding.device)
        forward, backward = (self._info_nce(outputs, one, other, items, group) for one, other in ((first, second), (second, first)))
        parts = {"loss_pairs": (forward + backward) / 2}
        if self.queries is not None:
            parts["loss_queries"] = self.own.queries * self._query_loss(outputs, group)
        if self.own.queue:
            self.heads["momentum"].push(outputs["key"].detach(), items)
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _info_nce(self, outputs: Outputs, anchor: Tensor, target: Tensor, items: Tensor, group: Tensor | None) -> Tensor:
        """Mean over pairs of -log softmax of cos(anchor, target) / t among the step's targets and the queue (places in `items`)."""
        import torch
        import torch.nn.functional as F

        from pretrain.parts.courier_losses import contrast, contrast_within

        candidates, count = outputs["embedding"], torch.bincount(target, minlength=len(items))
        count = count.clamp(max=1) if self.own.logq else count
        if self.own.queue:
            queue = self.heads["momentum"]
            candidates = torch.cat([outputs["key"].detach(), queue.embedding.to(candidates)])
            older = (queue.item >= 0) & ~torch.isin(queue.item, items)  # the step's own pictures have newer embeddings
            if self.own.logq:
                _, place, times = queue.item.unique(return_inverse=True, return_counts=True)
                older = older / times[place]
            count = torch.cat([count, older])
            if group is not None and self.group is not None:
                of_queue = self.group[queue.item.clamp(min=0).cpu().numpy()]
                group = torch.cat([group, torch.as_tensor(of_queue, device=items.device)])
        anchors = F.embedding(anchor, outputs["embedding"])
        options: dict[str, Any] = {"temperature": self.own.temperature, "mask_same_item": self.config.mask_same_item}
        if group is None:
            return contrast(candidates, count, anchors, target, **options)
        return contrast_within(candidates, count, anchors, target, group, **options)

    def _query_loss(self, outputs: Outputs, group: Tensor | None) -> Tensor:
        """CLIP's loss over the step's pictures and a query each; pictures that no query led to are left out."""
        query = outputs["query"].detach()
        asked = query.nonzero()[:, 0]
        if len(asked) == 0:
            return (outputs["embedding"].sum() + outputs["text"].sum()) * 0.0
        return clip_loss(
            outputs["embedding"][asked], outputs["text"][asked], temperature=self.config.part(ClipConfig).temperature,
            group=None if group is None else group[asked], title=query[asked],
        )  # fmt: skip

    def after_step(self, net: nn.Module, done: float) -> None:
        if self.own.queue:
            self.heads["momentum"].follow(net)


def _pairs(shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> np.ndarray:
    """(R, 2) the pairs of the pretraining period.

    Raises:
        UserError: they are too few.
    """
    from data.readiness import FEWEST
    from pretrain.parts.click_pairs import successive_clicks
    from run.errors import UserError

    found = successive_clicks(shop, has_picture, apart=config.part(PairsConfig).apart)
    if len(found) < FEWEST:
        raise UserError(f"{len(found)} pairs of successive clicks with pictures are in the pretraining period; it needs at least {FEWEST}")
    return found


def _queries(shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> tuple[ClickQueries, Titles] | None:
    import polars as pl

    from pretrain.parts.click_pairs import click_queries
    from pretrain.parts.text import tokens_of

    found = click_queries(shop, has_picture) if config.part(PairsConfig).queries else None
    if found is None:
        return None
    every = np.arange(len(found.queries))
    return found, tokens_of(pl.Series(found.queries), every, config.part(ClipConfig))
