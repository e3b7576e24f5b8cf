"""COURIER: reconstruct the next click from the pictures of earlier clicks (arXiv 2306.05001, sections 3.2-3.4), and its variants.

Shapes: R rows (page views), J page items, K history items, D embedding length, C clicked columns.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.clip import clip_loss_of
from pretrain.methods.courier_losses import contrast, contrast_within, hinge, pull
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.reconstruction import MultiheadReconstruction, reconstruct, summary
from pretrain.methods.text import Titles, embed_titles, text_tower
from pretrain.page_views import PageViews, distinct, rows_of_step
from pretrain.views import cropped, normalised
from run.randomness import hashed, keyed_init


class Courier(Method):
    """L = L_pv + L_ucs (Eq. 7) over batches of page views.

    Args:
        views: the page views of the pretraining period.
        config: batch size (rows), temperature and the options of the losses.
        seed: of the order of rows and of the heads' first weights.
        group: (N,) each item's group, within which clicked items and negatives compete; None: the whole batch does.
        titles: of the catalogue, with `with_clip`: CLIP's loss is added, on the step's pictures that have a title (Table 8).
    """

    heads: nn.ModuleDict

    def __init__(self, views: PageViews, config: PretrainConfig, seed: int, group: np.ndarray | None = None, titles: Titles | None = None):
        self.titles, self.clip = titles, config.clip
        self.views, self.own, self.mask_same_item, self.seed, self.group = views, config.courier, config.mask_same_item, seed, group
        self.head_common, self.head_rate, self.body_rate = self.own.head_common, self.own.head_rate, self.own.body_rate
        self.batch_size = min(self.own.batch_size, len(views))
        dim = config.dim
        heads = nn.ModuleDict()
        if self.own.projection_head:
            heads["projection"] = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim))
        if self.own.attention == "multihead":
            heads["attention"] = MultiheadReconstruction(dim, self.own.attention_heads)
        if self.own.click_head:
            heads["click"] = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, 1))
        keyed_init(heads, seed)
        if titles is not None:
            self.tower = heads["text"] = text_tower(titles, config.clip, dim=dim, seed=seed)
        self.heads = heads

    def step(self, number: int) -> Step:
        rows = rows_of_step(len(self.views), self.batch_size, self.seed, number)
        items, places = distinct({"page": self.views.page[rows], "history": self.views.history[rows]})
        places["clicked"] = self.views.clicked[rows]
        if self.group is not None:
            places["group"] = self.group[items]
        if self.titles is not None:
            places["title"] = self.titles.of_item[items]
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return normalised(cropped(pixels, size, keys, smallest=self.own.crop))

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        outputs = super().encode(net, pictures, step)
        if self.titles is not None:
            outputs["text"] = embed_titles(self.tower, self.titles, step.items, pictures.device)
        return outputs

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        embeddings = outputs["embedding"]
        if self.own.projection_head:
            embeddings = self.heads["projection"](embeddings)
        page, history, clicked = (torch.as_tensor(step.places[name], device=embeddings.device) for name in ("page", "history", "clicked"))
        parts = {"loss_pv": self._page_loss(embeddings, page, clicked, history, step)}
        if "ucs" not in self.own.left_out:
            parts["loss_ucs"] = self._sequence_loss(embeddings, history, step)
        if self.own.click_head:
            parts["loss_click"] = self._click_loss(embeddings, page, clicked, history)
        if self.titles is not None:
            parts["loss_clip"] = clip_loss_of(outputs, step, temperature=self.clip.temperature)
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _page_loss(self, embeddings: Tensor, page: Tensor, clicked: Tensor, history: Tensor, step: Step) -> Tensor:
        """L_pv: clicked page items against their reconstructions from the click history."""
        row, place = clicked.nonzero(as_tuple=True)
        target = page[row, place]
        candidates = target if "neg-pv" in self.own.left_out else page[page >= 0]
        return self._compare(embeddings, candidates, target, history[row], step)

    def _sequence_loss(self, embeddings: Tensor, history: Tensor, step: Step) -> Tensor:
        """L_ucs: the last click against its reconstruction from the clicks before it; rows with one click do not enter."""
        length = (history >= 0).sum(1)
        history, last = history[length >= 2], length[length >= 2] - 1
        if len(history) == 0:
            return embeddings.sum() * 0.0
        target = history.gather(1, last[:, None])[:, 0]
        earlier = torch.arange(history.shape[1], device=history.device)[None, :] < last[:, None]
        return self._compare(embeddings, target, target, history.where(earlier, -1), step)

    def _click_loss(self, embeddings: Tensor, page: Tensor, clicked: Tensor, history: Tensor) -> Tensor:
        """Binary cross entropy of clicks, told from each page item and its reconstruction."""
        row, place = (page >= 0).nonzero(as_tuple=True)
        target = page[row, place]
        rebuilt_MD = self._rebuilt(embeddings, target, history[row])
        logit_M = self.heads["click"](torch.cat([F.embedding(target, embeddings), rebuilt_MD], 1))[:, 0]
        return F.binary_cross_entropy_with_logits(logit_M, clicked[row, place].to(logit_M.dtype))

    def _rebuilt(self, embeddings: Tensor, target: Tensor, history: Tensor) -> Tensor:
        """(C, D) reconstruction of each target from its row of history; both are places in `embeddings`, -1 is padding."""
        history_CKD, present_CK = F.embedding(history.clamp(min=0), embeddings), history >= 0
        if "reconstruction" in self.own.left_out:
            return summary(history_CKD, present_CK, scale=self.own.scale_attention)
        target_C1D = F.embedding(target[:, None], embeddings)
        if self.own.attention == "multihead":
            return self.heads["attention"](target_C1D, history_CKD, present_CK)[:, 0]
        return reconstruct(target_C1D, history_CKD, present_CK, scale=self.own.scale_attention)[:, 0]

    def _compare(self, embeddings: Tensor, candidates: Tensor, target: Tensor, history: Tensor, step: Step) -> Tensor:
        """Reconstruct each target from its row of history and let it compete with the candidates; all are places in `embeddings`."""
        rebuilt_CD = self._rebuilt(embeddings, target, history)
        if "contrast" in self.own.left_out:
            return pull(F.embedding(target, embeddings), rebuilt_CD)
        group = step.group(embeddings.device)
        if self.own.loss == "hinge":
            other = mismatched(target, group, self.mask_same_item, self.seed, step.number)
            return hinge(F.embedding(target, embeddings), rebuilt_CD, other, margin=self.own.margin)
        count = torch.bincount(candidates, minlength=len(embeddings))
        options = {"temperature": self.own.temperature, "mask_same_item": self.mask_same_item}
        if group is None:
            return contrast(embeddings, count, rebuilt_CD, target, **options)
        return contrast_within(embeddings, count, rebuilt_CD, target, group, **options)


def mismatched(target_C: Tensor, group_U: Tensor | None, mask_same_item: bool, seed: int, number: int) -> Tensor:
    """(C,) for each column another one drawn at random, of its item's group; itself where there is none.

    Columns stand in a random order within their group, and each is given the one after it, the last the first.

    Args:
        target_C: (C,) each column's item.
        group_U: (U,) group of each item; None: all are one.
        mask_same_item: a column of the very same item counts as none.
        seed, number: of the draw.
    """
    group = np.zeros(len(target_C), dtype=np.int64) if group_U is None else group_U[target_C].cpu().numpy()
    order = np.lexsort((hashed(seed, "mismatched", number, np.arange(len(group))), group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    follower = np.arange(len(order)) + 1
    follower[starts + sizes - 1] = starts
    other = np.empty(len(order), dtype=np.int64)
    other[order] = order[follower]
    other_C = torch.as_tensor(other, device=target_C.device)
    if mask_same_item:
        other_C = torch.where(target_C[other_C] == target_C, torch.arange(len(other_C), device=target_C.device), other_C)
    return other_C
