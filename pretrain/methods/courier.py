"""COURIER: reconstruct the next click from the pictures of earlier clicks (arXiv 2306.05001, sections 3.2-3.4), and its variants.

Shapes: R rows (page views), J page items, K history items, D embedding length, C clicked columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pretrain.methods.clip import ClipConfig, clip_loss_of, titled_items
from pretrain.methods.method import Method, Step
from pretrain.settings import CommonConfig, MethodSettings, share
from run.config import names, one_of, positive
from run.errors import SettingError
from run.randomness import hashed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Outputs
    from pretrain.page_views import PageViews
    from pretrain.parts.text import Titles

PARTS = ("ucs", "contrast", "reconstruction", "neg-pv")
_PAPER_LOSS = "give pv_weight 1, ucs_weight 1 and page_weight 0 (recipes/paper-loss.toml)"


@dataclass(frozen=True, kw_only=True)
class CourierConfig(MethodSettings):
    """COURIER, its variants and ablations (the paper's tables 6, 8, 11, 12)."""

    part = "courier"
    plain_flags = True
    presets: ClassVar = {
        "tiny": {"batch_size": 256},
        # clicks teach more within a page than across pages on every log with enough of them (docs/log.md, 1 December 2026)
        "small": {"pv_weight": 0.0, "ucs_weight": 0.0, "page_weight": 1.0, "page_items": 10, "popularity": True},
        "paper": {"batch_size": 3072, "head_common": 0.0, "head_rate": 1.0, "body_rate": 1.0, "crop": 0.6},
    }

    batch_size: int = 4096  # courier: page views of a step, over all ranks
    # courier: length of a part that all initial embeddings share, as a multiple of their average distance from it; 0: none, as always with
    # `head` components
    head_common: float = 4.0
    head_rate: float = 10.0  # courier: the linear head learns at this many times `learning_rate`
    # courier: the body learns at this many times `learning_rate`: little, because clicks teach it less than its initial weights know, and
    # Adam moves all weights equally: at the head's rate the body would forget before the head has adapted
    body_rate: float = 0.1
    page_items: int = 5  # courier: items kept of a page view, the clicked ones first (the paper's l_pv)
    history_items: int = 5  # courier: newest clicks that a clicked picture is rebuilt from (the paper's l_click)
    temperature: float = 0.05  # courier: divides the cosine; > 0
    scale_attention: bool = True  # courier: divide the attention's dot product by sqrt(dim) (Eq. 1)
    crop: float = 0.9  # courier: smallest share of the picture that a random crop keeps; 1 = all of it; a frozen body sees all of it
    # courier: what is left out (Table 6), comma-separated: ucs (the loss over the click sequence) | contrast (only pull a clicked picture
    # and its reconstruction together) | reconstruction (self-attention over the history in place of attention from the target) | neg-pv
    # (unclicked items of the page are no negatives)
    without: str = ""
    loss: str = "contrast"  # courier: contrast | hinge (Table 12)
    margin: float = 0.2  # courier: of `loss` "hinge"; how much closer a picture must be to its reconstruction than to a mismatched one
    projection_head: bool = False  # courier: an MLP after the embeddings while training, dropped afterwards (Table 11)
    with_clip: bool = False  # courier: add CLIP's loss on the titles of the step's pictures (Table 8)
    attention: str = "dot"  # courier: dot (the paper's) | multihead (with learned projections, as the authors' code)
    attention_heads: int = 4  # courier: of `attention` "multihead"
    logq: bool = False  # courier: an item competes once, however many of the step's pages show it (correction for popularity)
    symmetric: bool = False  # courier: histories' reconstructions compete for a clicked picture too; the mean of both directions
    pv_weight: float = 1.0  # courier: weight of the loss over page views (L_pv); 0: leave it out
    ucs_weight: float = 1.0  # courier: weight of the loss over the click sequence (L_ucs); 0: leave it out
    page_weight: float = 0.0  # courier: weight of the loss within the page: clicked items compete with its unclicked ones only
    # courier: within the page, an item's popularity so far stands beside its similarity, so that pictures explain only what it does not
    popularity: bool = False
    click_head: bool = False  # courier: add a loss that predicts clicks from pictures and reconstructions, as the authors' code

    def __post_init__(self):
        for name in ("batch_size", "head_rate", "body_rate", "page_items", "history_items", "temperature", "margin", "attention_heads"):
            positive(name, getattr(self, name))
        for name in ("pv_weight", "ucs_weight", "page_weight", "head_common"):
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "give 0 or more")
        if not any(self.weights.values()):
            raise SettingError("pv_weight", self.pv_weight, "no loss is left: one of pv_weight, ucs_weight and page_weight must be above 0")
        if "ucs" in self.left_out and not self.ucs_weight:
            raise SettingError("without", self.without, "ucs is left out already: its weight ucs_weight is 0")
        if "neg-pv" in self.left_out and not self.pv_weight:
            raise SettingError("without", self.without, "neg-pv is about the loss over page views, whose weight pv_weight is 0")
        across = [self.loss == "hinge", "contrast" in self.left_out, self.logq, self.symmetric]
        if any(across) and not self.weights["pv"] and not self.weights["ucs"]:
            setting = next(name for name, given in zip(("loss", "without", "logq", "symmetric"), across, strict=True) if given)
            raise SettingError(setting, getattr(self, setting), f"it is about the losses across pages, whose weights are 0; {_PAPER_LOSS}")
        if self.popularity and not self.page_weight:
            raise SettingError("popularity", self.popularity, "it is about the loss within the page, whose weight page_weight is 0")
        if self.page_weight and (self.loss == "hinge" or "contrast" in self.left_out):
            setting = "loss" if self.loss == "hinge" else "without"
            raise SettingError(setting, getattr(self, setting), f"the loss within the page is a contrast all the same; {_PAPER_LOSS}")
        if self.symmetric and (self.loss == "hinge" or "contrast" in self.left_out):
            raise SettingError("symmetric", self.symmetric, "only a contrast has two directions")
        share("crop", self.crop)
        one_of("loss", self.loss, ("contrast", "hinge"))
        one_of("attention", self.attention, ("dot", "multihead"))
        if self.without:
            names("without", self.without, PARTS)
        if "contrast" in self.left_out and self.loss == "hinge":
            raise SettingError("without", self.without, "hinge is a contrast: give one of the two")

    @property
    def left_out(self) -> frozenset[str]:
        """The parts named by `without`."""
        return frozenset(names("without", self.without, PARTS)) if self.without else frozenset()

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each part of the loss over pages and sequences."""
        ucs = 0.0 if "ucs" in self.left_out else self.ucs_weight
        return {"pv": self.pv_weight, "ucs": ucs, "page": self.page_weight}

    def check(self, common: CommonConfig) -> None:
        if self.attention == "multihead" and common.dim % self.attention_heads:
            raise SettingError("attention_heads", self.attention_heads, f"give a divisor of dim = {common.dim}")


class Courier(Method):
    """The weighted sum of L_pv, L_ucs (the paper's two, Eq. 7) and a contrast within the page, over batches of page views.

    Args:
        views: the page views of the pretraining period.
        config: batch size (rows), temperature and the options of the losses.
        seed: of the sampling of rows and of the heads' initial weights.
        group: (N,) each item's group, within which clicked items and negatives compete; None: all of a batch do.
        titles: of the catalogue, with `with_clip`: CLIP's loss is added, on the step's pictures that have a title (Table 8).
    """

    heads: nn.ModuleDict
    settings = CourierConfig
    also_reads = (ClipConfig,)
    by_default = True

    def __init__(self, views: PageViews, config: CommonConfig, seed: int, group: np.ndarray | None = None, titles: Titles | None = None):
        self.titles, self.clip = titles, config.part(ClipConfig)
        self.own, self.crop = config.part(CourierConfig), config.part(CourierConfig).crop
        self.views, self.mask_same_item, self.seed, self.group = views, config.mask_same_item, seed, group
        self.head_common, self.head_rate, self.body_rate = self.own.head_common, self.own.head_rate, self.own.body_rate
        self.batch_size = min(self.own.batch_size, len(views))
        self.heads = _heads(self.own, config.dim, seed)
        if titles is not None:
            from pretrain.parts.text import text_tower

            self.tower = self.heads["text"] = text_tower(titles, self.clip, dim=config.dim, seed=seed)

    @classmethod
    def reads(cls, config: CommonConfig) -> tuple[type[Any], ...]:
        return (CourierConfig, ClipConfig) if config.part(CourierConfig).with_clip else (CourierConfig,)

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Courier:
        from pretrain.needs import groups_of

        views, titles, _ = _material(shop, has_picture, config)
        return cls(views, config, seed, groups_of(shop, config), titles)

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        return _material(shop, has_picture, config)[2]

    @classmethod
    def attended_history(cls, config: CommonConfig) -> int:
        own = config.part(CourierConfig)
        return own.history_items if own.attention == "dot" else 0

    @classmethod
    def attention_weights(cls, target: Tensor, history: Tensor, config: CommonConfig) -> Tensor:
        import torch

        from pretrain.parts.reconstruction import attention

        present = torch.ones(1, len(history), dtype=torch.bool, device=history.device)
        return attention(target[None, None], history[None], present, scale=config.part(CourierConfig).scale_attention)[0, 0]

    @property
    def material(self) -> str:
        return f"{len(self.views):,} page views"

    def step(self, number: int) -> Step:
        from pretrain.page_views import distinct, rows_of_step

        rows = rows_of_step(len(self.views), self.batch_size, self.seed, number)
        items, places = distinct({"page": self.views.page[rows], "history": self.views.history[rows]})
        places["clicked"] = self.views.clicked[rows]
        if self.views.known is not None:
            places["known"] = self.views.known[rows]
        if self.group is not None:
            places["group"] = self.group[items]
        if self.titles is not None:
            places["title"] = self.titles.of_item[items]
        return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        outputs = super().encode(net, pictures, step)
        if self.titles is not None:
            from pretrain.parts.text import embed_titles

            outputs["text"] = embed_titles(self.tower, self.titles, step.items, pictures.device)
        return outputs

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        import torch

        embeddings = outputs["embedding"]
        if self.own.projection_head:
            embeddings = self.heads["projection"](embeddings)
        page, history, clicked = (torch.as_tensor(step.places[name], device=embeddings.device) for name in ("page", "history", "clicked"))
        weights, parts = self.own.weights, {}
        if weights["pv"]:
            parts["loss_pv"] = weights["pv"] * self._page_loss(embeddings, page, clicked, history, step)
        if weights["ucs"]:
            parts["loss_ucs"] = weights["ucs"] * self._sequence_loss(embeddings, history, step)
        if weights["page"]:
            parts["loss_page"] = weights["page"] * self._own_page_loss(embeddings, page, clicked, history, step)
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

    def _own_page_loss(self, embeddings: Tensor, page: Tensor, clicked: Tensor, history: Tensor, step: Step) -> Tensor:
        """Clicked items against the unclicked ones of their own page; those without any are left out."""
        import torch
        import torch.nn.functional as F

        from pretrain.parts.courier_losses import contrast_rows

        row, place = clicked.nonzero(as_tuple=True)
        target, unclicked = page[row, place], page.masked_fill(clicked, -1)[row]
        if self.mask_same_item:
            unclicked = unclicked.masked_fill(unclicked == target[:, None], -1)
        competes = (unclicked >= 0).any(1)
        row, place, target, unclicked = row[competes], place[competes], target[competes], unclicked[competes]
        if len(row) == 0:
            return embeddings.sum() * 0.0
        rebuilt = self._rebuilt(embeddings, target, history[row])
        others, ahead = F.embedding(unclicked.clamp(min=0), embeddings), None
        if self.views.known is not None:
            known = torch.as_tensor(step.places["known"], device=embeddings.device)
            ahead = known[row] - known[row, place][:, None]
        options = {"temperature": self.own.temperature, "ahead_CJ": ahead}
        return contrast_rows(F.embedding(target, embeddings), others, unclicked >= 0, rebuilt, **options)

    def _sequence_loss(self, embeddings: Tensor, history: Tensor, step: Step) -> Tensor:
        """L_ucs: the last click against its reconstruction from the clicks before it; rows with one click are left out."""
        import torch

        length = (history >= 0).sum(1)
        history, last = history[length >= 2], length[length >= 2] - 1
        if len(history) == 0:
            return embeddings.sum() * 0.0
        target = history.gather(1, last[:, None])[:, 0]
        earlier = torch.arange(history.shape[1], device=history.device)[None, :] < last[:, None]
        return self._compare(embeddings, target, target, history.where(earlier, -1), step)

    def _click_loss(self, embeddings: Tensor, page: Tensor, clicked: Tensor, history: Tensor) -> Tensor:
        """Binary cross entropy of clicks, predicted from each page item and its reconstruction."""
        import torch
        import torch.nn.functional as F

        row, place = (page >= 0).nonzero(as_tuple=True)
        target = page[row, place]
        rebuilt_MD = self._rebuilt(embeddings, target, history[row])
        logit_M = self.heads["click"](torch.cat([F.embedding(target, embeddings), rebuilt_MD], 1))[:, 0]
        return F.binary_cross_entropy_with_logits(logit_M, clicked[row, place].to(logit_M.dtype))

    def _rebuilt(self, embeddings: Tensor, target: Tensor, history: Tensor) -> Tensor:
        """(C, D) reconstruction of each target from its row of history; both are places in `embeddings`, -1 is padding."""
        import torch.nn.functional as F

        from pretrain.parts.reconstruction import reconstruct, summary

        history_CKD, present_CK = F.embedding(history.clamp(min=0), embeddings), history >= 0
        if "reconstruction" in self.own.left_out:
            return summary(history_CKD, present_CK, scale=self.own.scale_attention)
        target_C1D = F.embedding(target[:, None], embeddings)
        if self.own.attention == "multihead":
            return self.heads["attention"](target_C1D, history_CKD, present_CK)[:, 0]
        return reconstruct(target_C1D, history_CKD, present_CK, scale=self.own.scale_attention)[:, 0]

    def _compare(self, embeddings: Tensor, candidates: Tensor, target: Tensor, history: Tensor, step: Step) -> Tensor:
        """Reconstruct each target from its row of history and let it compete with the candidates; all are places in `embeddings`."""
        import torch
        import torch.nn.functional as F

        from pretrain.parts.courier_losses import contrast, contrast_within, hinge, pull

        rebuilt_CD = self._rebuilt(embeddings, target, history)
        if "contrast" in self.own.left_out:
            return pull(F.embedding(target, embeddings), rebuilt_CD)
        group = step.group(embeddings.device)
        if self.own.loss == "hinge":
            other = mismatched(target, group, self.mask_same_item, self.seed, step.number)
            return hinge(F.embedding(target, embeddings), rebuilt_CD, other, margin=self.own.margin)
        count = torch.bincount(candidates, minlength=len(embeddings))
        count = count.clamp(max=1) if self.own.logq else count
        options = {"temperature": self.own.temperature, "mask_same_item": self.mask_same_item, "symmetric": self.own.symmetric}
        if group is None:
            return contrast(embeddings, count, rebuilt_CD, target, **options)
        return contrast_within(embeddings, count, rebuilt_CD, target, group, **options)


def _heads(own: CourierConfig, dim: int, seed: int) -> nn.ModuleDict:
    """What the variants train with the backbone; empty for the paper's COURIER."""
    from torch import nn

    from pretrain.parts.reconstruction import MultiheadReconstruction
    from run.randomness import keyed_init

    heads = nn.ModuleDict()
    if own.projection_head:
        heads["projection"] = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim))
    if own.attention == "multihead":
        heads["attention"] = MultiheadReconstruction(dim, own.attention_heads)
    if own.click_head:
        heads["click"] = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, 1))
    keyed_init(heads, seed)
    return heads


def _material(shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> tuple[PageViews, Titles | None, list[str]]:
    """Page views, titles if CLIP's loss is added, and cautions about what can hardly be learned.

    Raises:
        UserError: there are too few of either, or nothing competes.
    """
    from pretrain.needs import enough_views, groups_of, lonely_clicks, lonely_pages
    from pretrain.page_views import page_views

    own, cautions, titles = config.part(CourierConfig), [], None
    views = page_views(
        shop, page_items=own.page_items, history_items=own.history_items, has_picture=has_picture, with_popularity=own.popularity
    )
    enough_views(views, "both a click and earlier clicks with pictures")
    across_pages = own.weights["pv"] or own.weights["ucs"]
    if not across_pages:
        cautions += lonely_pages(views, mask_same_item=config.mask_same_item)
    one_click_competes = own.loss == "hinge" and not config.mask_same_item  # with the same item's click after another history
    if across_pages and "contrast" not in own.left_out and not one_click_competes:
        shown = np.concatenate([views.page[views.page >= 0], views.history[views.history >= 0]])
        cautions += lonely_clicks(views.page[views.clicked], shown, groups_of(shop, config))
    if own.with_clip:
        _, titles, of_titles = titled_items(shop, has_picture, config)
        cautions += [f"--with-clip: {caution}" for caution in of_titles]
    return views, titles, cautions


def mismatched(target_C: Tensor, group_U: Tensor | None, mask_same_item: bool, seed: int, number: int) -> Tensor:
    """(C,) for each column another one drawn at random from its item's group; itself if there is none.

    Columns are shuffled within their group, and each is given the one after it, the last the first.

    Args:
        target_C: (C,) each column's item.
        group_U: (U,) group of each item; None: all are one.
        mask_same_item: a column of the same item does not count as another.
        seed, number: of the draw.
    """
    import torch

    group = np.zeros(len(target_C), dtype=np.int64) if group_U is None else group_U[target_C].cpu().numpy()
    ranking = np.lexsort((hashed(seed, "mismatched", number, np.arange(len(group))), group))
    starts = np.flatnonzero(np.diff(group[ranking], prepend=-1))
    sizes = np.diff(np.append(starts, len(ranking)))
    follower = np.arange(len(ranking)) + 1
    follower[starts + sizes - 1] = starts
    other = np.empty(len(ranking), dtype=np.int64)
    other[ranking] = ranking[follower]
    other_C = torch.as_tensor(other, device=target_C.device)
    if mask_same_item:
        other_C = torch.where(target_C[other_C] == target_C, torch.arange(len(other_C), device=target_C.device), other_C)
    return other_C
