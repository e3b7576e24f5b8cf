"""The backbone trained end to end inside a small click model (the paper's "Supervised", section 4.2.3).

The paper gives no more detail. The model is this project's choice: each page item attends to the user's earlier clicks, and an MLP
predicts its click from the result. It sees nothing but pictures, so all it learns is in the embeddings.

Shapes: J page items, K history items, D embedding length, M page items of a batch without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretrain.methods.method import Method, Step
from pretrain.settings import CommonConfig, MethodSettings, share
from run.config import positive
from run.errors import SettingError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Outputs
    from pretrain.page_views import PageViews


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(MethodSettings):
    """The backbone trained end to end inside a small click model (the paper's "Supervised")."""

    part = "supervised"
    presets: ClassVar = {
        "tiny": {"batch_size": 128},
        "paper": {"batch_size": 3072, "head_rate": 1.0, "body_rate": 1.0, "crop": 0.6},
    }

    batch_size: int = 1024  # page views of a step, over all ranks
    page_items: int = 10  # items kept of a page view, the clicked ones first
    history_items: int = 10  # newest clicks that the attention reads
    heads: int = 4  # of the attention
    hidden: int = 128  # width of the MLP
    head_rate: float = 10.0  # supervised: the backbone's linear head learns at this many times the learning rate
    body_rate: float = 0.1  # supervised: and its body at this many: little, as with courier; at 1 the embeddings collapse
    crop: float = 0.9  # supervised: smallest share of the picture that a random crop keeps; 1 = all of it

    def __post_init__(self):
        for name in ("batch_size", "page_items", "history_items", "heads", "hidden", "head_rate", "body_rate"):
            positive(f"supervised.{name}", getattr(self, name))
        share("supervised.crop", self.crop)


class Supervised(Method):
    """Binary cross entropy of the clicks on all page items of a batch of page views, clicked pages or not.

    Args:
        views: the page views of the pretraining period that have a history.
        config: batch size (rows), the model's sizes, the crop.
        seed: of the sampling of rows and of the model's initial weights.

    Raises:
        SettingError: the heads of the attention do not divide the embedding.
    """

    heads: nn.ModuleDict
    settings = SupervisedConfig

    def __init__(self, views: PageViews, config: CommonConfig, seed: int):
        from torch import nn

        from pretrain.parts.reconstruction import MultiheadReconstruction
        from run.randomness import keyed_init

        self.views, self.own, self.seed = views, config.part(SupervisedConfig), seed
        self.head_rate, self.body_rate, self.crop = self.own.head_rate, self.own.body_rate, self.own.crop
        self.batch_size = min(self.own.batch_size, len(views))
        dim = config.dim
        _heads_divide(self.own, dim)
        self.heads = nn.ModuleDict(
            {
                "attention": MultiheadReconstruction(dim, self.own.heads),
                "click": nn.Sequential(nn.Linear(3 * dim, self.own.hidden), nn.ReLU(inplace=True), nn.Linear(self.own.hidden, 1)),
            }
        )
        keyed_init(self.heads, seed)

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Supervised:
        return cls(_views(shop, has_picture, config.part(SupervisedConfig)), config, seed)

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        own = config.part(SupervisedConfig)
        _heads_divide(own, config.dim)
        _views(shop, has_picture, own)
        return []

    @property
    def material(self) -> str:
        return f"{len(self.views):,} page views"

    def step(self, number: int) -> Step:
        from pretrain.page_views import distinct, rows_of_step

        rows = rows_of_step(len(self.views), self.batch_size, self.seed, number)
        items, places = distinct({"page": self.views.page[rows], "history": self.views.history[rows]})
        places["clicked"] = self.views.clicked[rows]
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        import torch
        import torch.nn.functional as F

        embeddings = outputs["embedding"]
        page, history, clicked = (torch.as_tensor(step.places[name], device=embeddings.device) for name in ("page", "history", "clicked"))
        logit_M = self._logits(embeddings, page, history)[page >= 0]
        return F.binary_cross_entropy_with_logits(logit_M, clicked[page >= 0].to(logit_M.dtype)), {}

    def _logits(self, embeddings: Tensor, page: Tensor, history: Tensor) -> Tensor:
        """(R, J) logit of a click on each page item; `page` (R, J) and `history` (R, K) are places in `embeddings`, -1 is padding."""
        import torch
        import torch.nn.functional as F

        target_RJD, history_RKD = (F.embedding(places.clamp(min=0), embeddings) for places in (page, history))
        seen_RJD = self.heads["attention"](target_RJD, history_RKD, history >= 0)
        return self.heads["click"](torch.cat([target_RJD, seen_RJD, target_RJD * seen_RJD], -1))[..., 0]


def _views(shop: Shop, has_picture: np.ndarray, own: SupervisedConfig) -> PageViews:
    """Page views of the pretraining period that have a history.

    Raises:
        UserError: they are too few, or all of their items were clicked, or none.
    """
    from pretrain.needs import enough_views
    from pretrain.page_views import page_views

    views = page_views(shop, page_items=own.page_items, history_items=own.history_items, has_picture=has_picture, unclicked=True)
    enough_views(views, "earlier clicks with pictures")
    clicked = views.clicked[views.page >= 0]
    if clicked.all() or not clicked.any():
        what = "every item" if clicked.all() else "no item"
        raise UserError(f"{what} of the pretraining period's page views was clicked, so there is nothing to distinguish; log more")
    return views


def _heads_divide(own: SupervisedConfig, dim: int) -> None:
    if dim % own.heads:
        raise SettingError("supervised.heads", own.heads, f"give a divisor of dim = {dim}")
