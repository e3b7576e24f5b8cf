"""The backbone trained end to end inside a small click model (the paper's "Supervised", section 4.2.3).

The paper says no more than that. The model is this project's choice: each page item looks over the user's earlier clicks, and an MLP
tells its click from what it saw. It knows pictures alone, so that whatever it learns is in the embeddings.

Shapes: J page items, K history items, D embedding length, M page items of a batch without padding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.reconstruction import MultiheadReconstruction
from pretrain.page_views import PageViews, distinct, rows_of_step
from pretrain.views import cropped, normalised
from run.errors import SettingError
from run.randomness import keyed_init


class Supervised(Method):
    """Binary cross entropy of the clicks on all page items of a batch of page views, clicked pages or not.

    Args:
        views: the page views of the pretraining period that have a history.
        config: batch size (rows), the model's sizes, the crop.
        seed: of the order of rows and of the model's first weights.

    Raises:
        SettingError: the heads of the attention do not divide the embedding.
    """

    heads: nn.ModuleDict

    def __init__(self, views: PageViews, config: PretrainConfig, seed: int):
        self.views, self.own, self.seed = views, config.supervised, seed
        self.head_rate, self.body_rate = self.own.head_rate, self.own.body_rate
        self.batch_size = min(self.own.batch_size, len(views))
        dim = config.dim
        if dim % self.own.heads:
            raise SettingError("supervised.heads", self.own.heads, f"give a divisor of dim = {dim}")
        self.heads = nn.ModuleDict(
            {
                "attention": MultiheadReconstruction(dim, self.own.heads),
                "click": nn.Sequential(nn.Linear(3 * dim, self.own.hidden), nn.ReLU(inplace=True), nn.Linear(self.own.hidden, 1)),
            }
        )
        keyed_init(self.heads, seed)

    def step(self, number: int) -> Step:
        rows = rows_of_step(len(self.views), self.batch_size, self.seed, number)
        items, places = distinct({"page": self.views.page[rows], "history": self.views.history[rows]})
        places["clicked"] = self.views.clicked[rows]
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return normalised(cropped(pixels, size, keys, smallest=self.own.crop))

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        embeddings = outputs["embedding"]
        page, history, clicked = (torch.as_tensor(step.places[name], device=embeddings.device) for name in ("page", "history", "clicked"))
        logit_M = self._logits(embeddings, page, history)[page >= 0]
        return F.binary_cross_entropy_with_logits(logit_M, clicked[page >= 0].to(logit_M.dtype)), {}

    def _logits(self, embeddings: Tensor, page: Tensor, history: Tensor) -> Tensor:
        """(R, J) logit of a click on each page item; `page` (R, J) and `history` (R, K) are places in `embeddings`, -1 is padding."""
        target_RJD, history_RKD = (F.embedding(places.clamp(min=0), embeddings) for places in (page, history))
        seen_RJD = self.heads["attention"](target_RJD, history_RKD, history >= 0)
        return self.heads["click"](torch.cat([target_RJD, seen_RJD, target_RJD * seen_RJD], -1))[..., 0]
