"""CLIP: a picture and its item's title attract, other pictures and titles repel (Radford et al. 2021, arXiv 2103.00020).

The picture's side is the backbone's embedding as it is, the title's side is projected to the same length. The temperature is fixed, as in
the COURIER paper (appendix E), not learned.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.text import Titles, embed_titles, text_tower
from pretrain.methods.two_views import drawn
from pretrain.views import cropped, normalised


def clip_loss(image: Tensor, text: Tensor, *, temperature: float, group: Tensor | None = None, title: Tensor | None = None) -> Tensor:
    """Mean contrastive loss in nats, from pictures to titles and from titles to pictures: Radford et al. 2021, figure 3.

    l(i) = -1/2 log( exp(cos(x_i,t_i)/t) / sum_j exp(cos(x_i,t_j)/t) ) - 1/2 log( exp(cos(x_i,t_i)/t) / sum_j exp(cos(x_j,t_i)/t) )

    Args:
        image: (B, D) embeddings of any length; row i is picture i.
        text: (B, D) its title's embedding.
        temperature: t > 0; divides the cosine.
        group: (B,) a picture's negatives are those of its own group; None: the whole batch.
        title: (B,) equal numbers are equal titles. These are no negatives of each other: nothing tells which picture such a title belongs
            to. None: all differ.

    Raises:
        ValueError: pictures and titles differ in shape, or there are none.
    """
    if image.shape != text.shape or len(image) == 0:
        raise ValueError(f"as many pictures as titles are needed, of one length: {tuple(image.shape)} and {tuple(text.shape)}")
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    if group is not None:
        logits.masked_fill_(group[:, None] != group[None, :], -torch.inf)
    if title is not None:
        others = own[:, None] != own[None, :]
        logits.masked_fill_((title[:, None] == title[None, :]) & others, -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip_loss_of(outputs: Outputs, step: Step, *, temperature: float) -> Tensor:
    """`clip_loss` of a step's outputs "embedding" and "text"; pictures without a title (0 in `places["title"]`) do not enter."""
    embedding, text = outputs["embedding"], outputs["text"]
    title, group = torch.as_tensor(step.places["title"], device=embedding.device), step.group(embedding.device)
    titled = title.nonzero()[:, 0]
    if len(titled) == 0:
        return (embedding.sum() + text.sum()) * 0.0
    return clip_loss(
        embedding[titled], text[titled], temperature=temperature, group=None if group is None else group[titled], title=title[titled]
    )


def titled_pictures(items: np.ndarray, titles: Titles, batch: int, seed: int, number: int, group: np.ndarray | None = None) -> Step:
    """A step of one view of each drawn picture, with its title's row, and its group where there are groups ((N,), of each item)."""
    chosen = drawn(items, batch, seed, number)
    places = {"title": titles.of_item[chosen]} | ({} if group is None else {"group": group[chosen]})
    return Step(number=number, items=chosen, view=np.zeros(len(chosen), dtype=np.int64), places=places)


class Clip(Method):
    """The method over pictures shown in the pretraining period whose items have a title.

    Args:
        items: (M,) item indices of these pictures.
        titles: of the catalogue.
        config: batch size (pictures), the text tower and the loss.
        seed: of the order and of the tower's first weights.
        group: (N,) each item's group, within which pictures compete; None: the whole batch does.
    """

    def __init__(self, items: np.ndarray, titles: Titles, config: PretrainConfig, seed: int, group: np.ndarray | None = None):
        self.items, self.titles, self.own, self.seed, self.group = items, titles, config.clip, seed, group
        self.batch_size, self.body_rate = min(config.batch_pictures, len(items)), config.clip.body_rate
        self.heads = self.tower = text_tower(titles, config.clip, dim=config.dim, seed=seed)

    def step(self, number: int) -> Step:
        return titled_pictures(self.items, self.titles, self.batch_size, self.seed, number, self.group)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return normalised(cropped(pixels, size, keys, smallest=self.own.crop))

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        return {"embedding": net(pictures), "text": embed_titles(self.tower, self.titles, step.items, pictures.device)}

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        return clip_loss_of(outputs, step, temperature=self.own.temperature), {}
