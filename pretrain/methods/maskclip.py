"""MaskCLIP: CLIP with masked self-distillation and masked words (Dong et al. 2023, arXiv 2208.12262).

L = L_clip + 0.05 L_dist + 0.05 L_mlm.

- L_clip: as in pretrain/methods/clip.py, on complete pictures and titles.
- L_dist: 3 in 4 patches are masked; a decoder of one layer predicts them as soft codes of an online quantiser, against
  those of a teacher that sees the full picture and follows the student (pretrain/parts/distillation.py).
- L_mlm: 1 in 5 words is masked; a separate decoder over the text tower's states restores them from the other words only.

Assumptions, where the paper's details are not known here (numbers are settings): the quantiser is a projection of two layers
and K codewords, compared by cosine, with an average of its own on the teacher's side; the temperatures of both sides; the teacher keeps
0.999 of itself per step, rising linearly to 0.9999; the mean of the teacher's projections is subtracted from all of them (as DINO, arXiv
2104.14294, centres its codes to prevent all pictures from sharing one); no gradient goes through the teacher; both decoders are half as
wide as what they decode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretrain.methods.clip import ClipConfig, clip_loss_of, titled_items, titled_pictures
from pretrain.methods.method import Method, Step
from pretrain.settings import CommonConfig, MethodSettings
from run.config import positive
from run.errors import SettingError, UserError
from run.randomness import uniform

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from data.log.shop_folder import Shop
    from pretrain.backbones.backbone import Backbone
    from pretrain.methods.method import Outputs
    from pretrain.parts.text import Titles


@dataclass(frozen=True, kw_only=True)
class MaskClipConfig(MethodSettings):
    """MaskCLIP's masked self-distillation on top of CLIP's loss (Dong et al. 2023, arXiv:2208.12262)."""

    part = "maskclip"
    presets: ClassVar = {"paper": {"codewords": 8192, "code_width": 256}}

    masked: float = 0.75  # share of patches that the student does not see; a patch is one place of the backbone's last feature map
    codewords: int = 256  # soft codes of the online quantiser
    code_width: int = 64  # length of the projections that are compared with the codewords
    student_temperature: float = 0.1  # of the student's codes
    teacher_temperature: float = 0.04  # of the teacher's codes: sharper
    ema_first: float = 0.999  # share of itself that the teacher keeps per step, at first
    ema_last: float = 0.9999  # and at the end
    centre_keep: float = 0.9  # share of itself that the mean of the teacher's projections keeps per step; it is subtracted from all of them
    distill_weight: float = 0.05  # of the loss over masked patches
    words_weight: float = 0.05  # of the loss over masked words
    masked_words: float = 0.2  # share of words masked
    word_layers: int = 4  # of the decoder that restores masked words

    def __post_init__(self):
        for name in ("codewords", "code_width", "student_temperature", "teacher_temperature", "word_layers"):
            positive(f"maskclip.{name}", getattr(self, name))
        for name in ("masked", "masked_words", "ema_first", "ema_last", "centre_keep"):
            if not 0 < getattr(self, name) < 1:
                raise SettingError(f"maskclip.{name}", getattr(self, name), "give a share above 0 and below 1")


def masked_words(titles: Titles, rows: np.ndarray, share: float, *, seed: int, number: int) -> np.ndarray:
    """(T', L) bool: which tokens of the titles `rows` are masked in step `number`; at least one word of each title that has words."""
    words = titles.words[rows]
    count = np.maximum(1, np.rint(share * words.sum(1)))
    draw = uniform(seed, "words", number, rows[:, None], np.arange(words.shape[1])[None, :])
    rank = np.where(words, draw, 2.0).argsort(1, kind="stable").argsort(1, kind="stable")
    return words & (rank < count[:, None])


class MaskClip(Method):
    """The method over pictures shown in the pretraining period whose items have a title.

    Args:
        items: (M,) item indices of these pictures.
        titles: of the catalogue.
        config: batch size (pictures), the towers and the losses.
        seed: of the sampling, the masks and the heads' initial weights.
        group: (N,) each item's group, within which pictures compete in L_clip; None: all of a batch do.

    Raises:
        UserError: the last feature map is a single place, or the tokeniser has no token to mask words with.
    """

    heads: nn.ModuleDict
    settings = MaskClipConfig
    also_reads = (ClipConfig,)
    frozen_views = "none"

    def __init__(self, items: np.ndarray, titles: Titles, config: CommonConfig, seed: int, group: np.ndarray | None = None):
        from torch import nn

        from pretrain.backbones.backbone import backbone_of
        from pretrain.parts.distillation import FeatureDecoder, HiddenPatches, Quantiser, Teacher
        from pretrain.parts.text import WordDecoder, text_tower
        from run.randomness import keyed_init

        super().__init__(items, config, seed, group)
        self.titles, self.clip = titles, config.part(ClipConfig)
        self.body_rate, self.crop = self.clip.body_rate, self.clip.crop
        _needs_mask(titles)
        student = backbone_of(config, seed)  # initial weights
        channels, self.height, columns = last_map(student, config)
        self.places = self.height * columns
        self.tower = text_tower(titles, self.clip, dim=config.dim, seed=seed)
        self.hidden, self.decoder = HiddenPatches(student.body.mean), FeatureDecoder(channels, self.places)
        self.quantiser = Quantiser(channels, self.own.code_width, self.own.codewords)
        self.words = WordDecoder(self.tower.width, self.clip.heads, self.own.word_layers, titles.size)
        new = nn.ModuleDict({"words": self.words, "decoder": self.decoder, "quantiser": self.quantiser})
        keyed_init(new, seed)
        self.teacher = Teacher(student, self.quantiser, self.own.code_width)
        self.heads = nn.ModuleDict({"text": self.tower, "hidden": self.hidden, "teacher": self.teacher, **new})

    @classmethod
    def build(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> MaskClip:
        from pretrain.needs import groups_of

        items, titles, _ = titled_items(shop, has_picture, config)
        return cls(items, titles, config, seed, groups_of(shop, config))

    @classmethod
    def check(cls, shop: Shop, has_picture: np.ndarray, config: CommonConfig) -> list[str]:
        from pretrain.backbones.backbone import backbone_of
        from pretrain.needs import two_pictures_a_batch

        two_pictures_a_batch(config, "titles of a batch compete with each other")
        _, titles, cautions = titled_items(shop, has_picture, config)
        _needs_mask(titles)
        last_map(backbone_of(replace(config, weights="random"), 0), config)
        return cautions

    def step(self, number: int) -> Step:
        return titled_pictures(self.items, self.titles, self.batch_size, self.seed, number, self.group)

    def encode(self, net: nn.Module, pictures: Tensor, step: Step) -> Outputs:
        from pretrain.parts.text import embed_titles

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
        self.teacher.observe(outputs["projected"], self.own.centre_keep if step.number else 0.0)
        total = clip + self.own.distill_weight * patches + self.own.words_weight * words
        return total, {"loss_clip": clip.detach(), "loss_patches": patches.detach(), "loss_words": words.detach()}

    def after_step(self, net: nn.Module, done: float) -> None:
        kept = self.own.ema_first + (self.own.ema_last - self.own.ema_first) * done
        self.teacher.follow(net, self.quantiser, kept)

    def _patches_loss(self, net: nn.Module, pictures: Tensor, projected_PSW: Tensor, step: Step) -> Tensor:
        """(P,) L_dist of each picture."""
        import torch

        from pretrain.parts.distillation import at_masked, distillation_loss, masked_places, places_last

        masked = masked_places(step.items, self.places, self.own.masked, seed=self.seed, number=step.number)
        masked_PS = torch.as_tensor(masked, device=pictures.device)
        seen_PSC = places_last(net.feature_map(self.hidden(pictures, masked_PS, self.height)))
        student_PMW = self.quantiser.projection(self.decoder(seen_PSC, masked_PS))
        return distillation_loss(
            self.quantiser(student_PMW, self.teacher.centre),
            self.teacher.quantiser(at_masked(projected_PSW, masked_PS), self.teacher.centre),
            student_temperature=self.own.student_temperature,
            teacher_temperature=self.own.teacher_temperature,
        )

    def _words_loss(self, step: Step, device: torch.device) -> Tensor:
        """(P,) L_mlm of each picture's title: mean over its masked words, in nats. Equal titles have the same words masked."""
        import torch
        import torch.nn.functional as F

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


def last_map(net: Backbone, config: CommonConfig) -> tuple[int, int, int]:
    """Channels, rows and columns of the backbone's last feature map.

    Raises:
        SettingError: it is a single place, so none can be masked while another is left.
    """
    import torch

    with torch.no_grad():
        _, channels, rows, columns = net.eval().feature_map(torch.zeros(1, 3, config.image_size, config.image_size)).shape
    if rows * columns < 2:
        fix = f"maskclip masks places of the last feature map, and {config.backbone}'s has one; give more pixels"
        raise SettingError("image_size", config.image_size, fix)
    return channels, rows, columns


def _needs_mask(titles: Titles) -> None:
    if titles.mask is None:
        raise UserError("the tokeniser of --clip.text-model has no mask token; give a model trained on masked words, such as BERT")
