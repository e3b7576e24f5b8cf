"""CLIP: a picture and its item's title attract, other pictures and titles repel (Radford et al. 2021, arXiv 2103.00020).

The picture's side is the backbone's embedding itself; the title's side is projected to the same length. The temperature is fixed, as in
the COURIER paper (appendix E), not learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretrain.methods.method import Method, Step, drawn
from pretrain.settings import CommonConfig, MethodSettings, share
from run.config import positive
from run.errors import SettingError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.methods.method import Outputs
    from pretrain.parts.text import Titles


@dataclass(frozen=True, kw_only=True)
class ClipConfig(MethodSettings):
    """CLIP's text tower and loss, for clip, maskclip and courier with --with-clip."""

    part = "clip"
    presets: ClassVar = {
        "tiny": {"width": 32},
        "paper": {"body_rate": 1.0, "crop": 0.6, "words": 32, "width": 512, "layers": 6, "heads": 8},
    }

    temperature: float = 0.1  # clip: divides the cosine; > 0
    text_model: Path | None = None  # folder of a Hugging Face text encoder; empty: a small transformer trained from scratch on the titles
    # the body learns at this many times `learning_rate`, in clip and maskclip: little, because a few thousand titles are soon memorised
    body_rate: float = 0.1
    crop: float = 0.9  # smallest share of the picture that a random crop keeps, for clip and maskclip; 1 = all of it
    words: int = 16  # longest title, in tokens; further words are cut off
    vocabulary: int = 30_000  # words known at most, the most frequent in titles of the pretraining period; all others count as one word
    width: int = 64  # of the small transformer's states
    layers: int = 2  # of the small transformer, each attention and a two-layer network
    heads: int = 4  # of the small transformer's attention

    def __post_init__(self):
        for name in ("temperature", "body_rate", "words", "vocabulary", "width", "layers", "heads"):
            positive(f"clip.{name}", getattr(self, name))
        share("clip.crop", self.crop)
        if self.width % self.heads:
            raise SettingError("clip.width", self.width, f"give a multiple of clip.heads = {self.heads}")


def clip_loss(image: Tensor, text: Tensor, *, temperature: float, group: Tensor | None = None, title: Tensor | None = None) -> Tensor:
    """Mean contrastive loss in nats, from pictures to titles and from titles to pictures: Radford et al. 2021, figure 3.

    l(i) = -1/2 log( exp(cos(x_i,t_i)/t) / sum_j exp(cos(x_i,t_j)/t) ) - 1/2 log( exp(cos(x_i,t_i)/t) / sum_j exp(cos(x_j,t_i)/t) )

    Args:
        image: (B, D) embeddings of any length; row i is picture i.
        text: (B, D) its title's embedding.
        temperature: t > 0; divides the cosine.
        group: (B,) a picture's negatives are those of its own group; None: all of the batch.
        title: (B,) equal numbers are equal titles. These are no negatives of each other: nothing says which picture such a title belongs
            to. None: all differ.

    Raises:
        ValueError: pictures and titles differ in shape, or are empty.
    """
    import torch
    import torch.nn.functional as F

    if image.shape != text.shape or len(image) == 0:
        raise ValueError(f"there must be as many pictures as titles, of one length: {tuple(image.shape)} and {tuple(text.shape)}")
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    if group is not None:
        logits.masked_fill_(group[:, None] != group[None, :], -torch.inf)
    if title is not None:
        others = own[:, None] != own[None, :]
        logits.masked_fill_((title[:, None] == title[None, :]) & others, -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip_loss_of(outputs: Outputs, step: Step, *, temperature: float) -> Tensor:
    """`clip_loss` of a step's outputs "embedding" and "text"; pictures without a title (0 in `places["title"]`) are left out."""
    import torch

    embedding, text = outputs["embedding"], outputs["text"]
    title, group = torch.as_tensor(step.places["title"], device=embedding.device), step.group(embedding.device)
    titled = title.nonzero()[:, 0]
    if len(titled) == 0:
        return (embedding.sum() + text.sum()) * 0.0
    return clip_loss(
        embedding[titled], text[titled], temperature=temperature, group=None if group is None else group[titled], title=title[titled]
    )


def titled_pictures(items: np.ndarray, titles: Titles, batch: int, seed: int, number: int, group: np.ndarray | None = None) -> Step:
    """A step of one view of each drawn picture, with its title's row, and its group if there are groups ((N,), of each item)."""
    chosen = drawn(items, batch, seed, number)
    places = {"title": titles.of_item[chosen]} | ({} if group is None else {"group": group[chosen]})
    return Step(number=number, items=chosen, view=np.zeros(len(chosen), dtype=np.int64), places=places)


def titled_items(shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> tuple[np.ndarray, Titles, list[str]]:
    """The pictures of the pretraining period whose items have a title, the catalogue's titles, and cautions on what is hardly learned.

    Raises:
        DataError: there is no column of titles.
        UserError: too few items have one, or all titles are the same wherever they compete.
    """
    from data.readiness import FEWEST
    from pretrain.needs import groups_of, lonely_titles
    from pretrain.page_views import pretraining_items
    from pretrain.parts.text import read_titles

    items = pretraining_items(shop, has_picture)
    titles = read_titles(shop, items, config.part(ClipConfig))
    items = items[titles.of_item[items] > 0]
    if len(items) < FEWEST:
        raise UserError(
            f"{len(items)} items with a picture and a title were shown in the pretraining period; it needs at least {FEWEST}: "
            "fill the column 'title' of items.parquet"
        )
    group = groups_of(shop, config)
    return items, titles, lonely_titles(titles.of_item[items], None if group is None else group[items])


class Clip(Method):
    """The method over pictures shown in the pretraining period whose items have a title.

    Args:
        items: (M,) item indices of these pictures.
        titles: of the catalogue.
        config: batch size (pictures), the text tower and the loss.
        seed: of the sampling and of the tower's initial weights.
        group: (N,) each item's group, within which pictures compete; None: all of a batch do.
    """

    settings = ClipConfig

    def __init__(self, items: np.ndarray, titles: Titles, config: CommonConfig, seed: int, group: np.ndarray | None = None):
        from pretrain.parts.text import text_tower

        super().__init__(items, config, seed, group)
        self.titles, self.body_rate, self.crop = titles, self.own.body_rate, self.own.crop
        self.heads = self.tower = text_tower(titles, self.own, dim=config.dim, seed=seed)

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Clip:
        from pretrain.needs import groups_of

        items, titles, _ = titled_items(shop, has_picture, config)
        return cls(items, titles, config, seed, groups_of(shop, config))

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        from pretrain.needs import two_pictures_a_batch

        two_pictures_a_batch(config, "titles of a batch compete with each other")
        return titled_items(shop, has_picture, config)[2]

    def step(self, number: int) -> Step:
        return titled_pictures(self.items, self.titles, self.batch_size, self.seed, number, self.group)

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        from pretrain.parts.text import embed_titles

        return {"embedding": net(pictures), "text": embed_titles(self.tower, self.titles, step.items, pictures.device)}

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        return clip_loss_of(outputs, step, temperature=self.own.temperature), {}
