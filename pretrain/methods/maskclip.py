"""MaskCLIP: CLIP with masked self-distillation and masked words (Dong et al. 2023, arXiv 2208.12262).

L = L_clip + 0.05 L_dist + 0.05 L_mlm.

- L_clip: as in pretrain/methods/clip.py, on whole pictures and whole titles.
- L_dist: 3 in 4 patches are masked; a decoder of one layer says what stands there, in soft codes of a quantiser learned on the way, against
  those of a teacher that sees the whole picture and follows the student (pretrain/methods/distillation.py).
- L_mlm: 1 in 5 words is masked; a decoder of its own, over the text tower's states, restores them from the other words alone.

Assumed, where this project knows no detail of the paper, and settings where they are numbers: the quantiser is a projection of two layers
and K codewords, compared by cosine, with an average of its own on the teacher's side; the temperatures of both sides; the teacher keeps
0.999 of itself a step, rising evenly to 0.9999; the mean of the teacher's projections is taken out of all of them (as DINO, arXiv
2104.14294, centres its codes, lest all pictures come to share one); no gradient goes through the teacher; both decoders are half as
wide as what they decode.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.backbones.backbone import backbone, feature_map
from pretrain.config import PretrainConfig
from pretrain.methods.clip import clip_loss_of, titled_pictures
from pretrain.methods.distillation import (
    FeatureDecoder,
    HiddenPatches,
    Quantiser,
    Teacher,
    at_masked,
    distillation_loss,
    masked_places,
    places_last,
)
from pretrain.methods.method import Method, Outputs, Step
from pretrain.methods.text import Block, Titles, embed_titles, text_tower
from pretrain.views import cropped, normalised
from run.errors import SettingError, UserError
from run.randomness import keyed_init, uniform


def masked_words(titles: Titles, rows: np.ndarray, share: float, *, seed: int, number: int) -> np.ndarray:
    """(T', L) bool: which tokens of the titles `rows` are masked in step `number`; at least one word of each title that has words."""
    words = titles.words[rows]
    count = np.maximum(1, np.rint(share * words.sum(1)))
    draw = uniform(seed, "words", number, rows[:, None], np.arange(words.shape[1])[None, :])
    rank = np.where(words, draw, 2.0).argsort(1, kind="stable").argsort(1, kind="stable")
    return words & (rank < count[:, None])


class WordDecoder(nn.Module):
    """States of a text tower -> what each token may be, in logits; half as wide as the tower."""

    def __init__(self, states: int, heads: int, layers: int, size: int):
        super().__init__()
        width = max(1, states // 2)
        self.inward = nn.Linear(states, width)
        self.blocks = nn.ModuleList(Block(width, math.gcd(width, heads)) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)

    def forward(self, states_TLW: Tensor, present_TL: Tensor, masked_TL: Tensor) -> Tensor:
        """Logits (M, size) of the masked tokens, in their order."""
        inner_TLV = self.inward(states_TLW)
        for block in self.blocks:
            inner_TLV = block(inner_TLV, present_TL)
        return self.out(self.norm(inner_TLV[masked_TL]))


class MaskClip(Method):
    """The method over pictures shown in the pretraining period whose items have a title.

    Args:
        items: (M,) item indices of these pictures.
        titles: of the catalogue.
        config: batch size (pictures), the towers and the losses.
        seed: of the order, the masks and the heads' first weights.
        group: (N,) each item's group, within which pictures compete in L_clip; None: the whole batch does.

    Raises:
        UserError: the last feature map is a single place, or the tokeniser has no token to mask words with.
    """

    heads: nn.ModuleDict

    def __init__(self, items: np.ndarray, titles: Titles, config: PretrainConfig, seed: int, group: np.ndarray | None = None):
        self.items, self.titles, self.clip, self.own, self.seed, self.group = items, titles, config.clip, config.maskclip, seed, group
        self.batch_size, self.body_rate = min(config.batch_pictures, len(items)), config.clip.body_rate
        if titles.mask is None:
            raise UserError(
                "maskclip: the tokeniser of --clip.text-model has no mask token; give a model trained on masked words, such as BERT"
            )
        body = backbone(config.backbone, dim=config.dim, seed=seed, weights=config.weights)  # as the student begins
        with torch.no_grad():
            _, channels, self.height, columns = feature_map(body.eval(), torch.zeros(1, 3, config.image_size, config.image_size)).shape
        self.places = self.height * columns
        if self.places < 2:
            fix = f"maskclip masks places of the last feature map, and {config.backbone}'s has one; give more pixels"
            raise SettingError("image_size", config.image_size, fix)
        self.tower = text_tower(titles, config.clip, dim=config.dim, seed=seed)
        self.hidden, self.decoder = HiddenPatches(), FeatureDecoder(channels, self.places)
        self.quantiser = Quantiser(channels, self.own.code_width, self.own.codewords)
        self.words = WordDecoder(self.tower.width, config.clip.heads, self.own.word_layers, titles.size)
        new = nn.ModuleDict({"words": self.words, "decoder": self.decoder, "quantiser": self.quantiser})
        keyed_init(new, seed)
        self.teacher = Teacher(body, self.quantiser, self.own.code_width)
        self.heads = nn.ModuleDict({"text": self.tower, "hidden": self.hidden, "teacher": self.teacher, **new})

    def step(self, number: int) -> Step:
        return titled_pictures(self.items, self.titles, self.batch_size, self.seed, number, self.group)

    def view(self, pixels: Tensor, keys: tuple, size: int) -> Tensor:
        return normalised(cropped(pixels, size, keys, smallest=self.clip.crop))

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        projected_PSW = self.teacher(pictures)
        return {
            "embedding": net(pictures),
            "text": embed_titles(self.tower, self.titles, step.items, pictures.device),
            "loss_patches": self._patches_loss(net, pictures, projected_PSW, step),
            "loss_words": self._words_loss(step, pictures.device),
            "projected": projected_PSW.mean(1),
        }

    def loss(self, outputs: Outputs, step: Step) -> tuple[Tensor, Outputs]:
        clip = clip_loss_of(outputs, step, temperature=self.clip.temperature)
        patches, words = outputs["loss_patches"].mean(), outputs["loss_words"].mean()
        self.teacher.saw(outputs["projected"], self.own.centre_keep if step.number else 0.0)
        total = clip + self.own.distill_weight * patches + self.own.words_weight * words
        return total, {"loss_clip": clip.detach(), "loss_patches": patches.detach(), "loss_words": words.detach()}

    def after_step(self, net: nn.Module, done: float) -> None:
        keep = self.own.ema_first + (self.own.ema_last - self.own.ema_first) * done
        self.teacher.follow(net, self.quantiser, keep)

    def _patches_loss(self, net: nn.Module, pictures: Tensor, projected_PSW: Tensor, step: Step) -> Tensor:
        """(P,) L_dist of each picture."""
        masked = masked_places(step.items, self.places, self.own.masked, seed=self.seed, number=step.number)
        masked_PS = torch.as_tensor(masked, device=pictures.device)
        seen_PSC = places_last(feature_map(net, self.hidden(pictures, masked_PS, self.height)))
        student_PMW = self.quantiser.projection(self.decoder(seen_PSC, masked_PS))
        return distillation_loss(
            self.quantiser(student_PMW, self.teacher.centre),
            self.teacher.quantiser(at_masked(projected_PSW, masked_PS), self.teacher.centre),
            student_temperature=self.own.student_temperature,
            teacher_temperature=self.own.teacher_temperature,
        )

    def _words_loss(self, step: Step, device: torch.device) -> Tensor:
        """(P,) L_mlm of each picture's title: mean over its masked words, in nats. Equal titles have the same words masked."""
        rows, where = np.unique(self.titles.of_item[step.items], return_inverse=True)
        tokens_TL, present_TL = self.titles.batch(rows, device)
        masked = masked_words(self.titles, rows, self.own.masked_words, seed=self.seed, number=step.number)
        masked_TL = torch.as_tensor(masked, device=device)[:, : tokens_TL.shape[1]]
        assert self.titles.mask is not None
        states_TLW = self.tower.model(tokens_TL.masked_fill(masked_TL, self.titles.mask), present_TL)
        logits = self.words(states_TLW, present_TL, masked_TL)
        each = F.cross_entropy(logits.float(), tokens_TL[masked_TL], reduction="none")
        title = masked_TL.nonzero()[:, 0]
        total_T = torch.zeros(len(rows), device=device).index_add(0, title, each) / masked_TL.sum(1).clamp(min=1)
        return total_T[torch.as_tensor(where, device=device)]
