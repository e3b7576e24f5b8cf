"""Settings that belong to one method, or to few; those that all encoders share stand in pretrain/config.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from run.config import names, one_of, positive
from run.errors import SettingError

PARTS = ("ucs", "contrast", "reconstruction", "neg-pv")


@dataclass(frozen=True, kw_only=True)
class CourierConfig:
    """COURIER, its variants and ablations (the paper's tables 6, 8, 11, 12)."""

    batch_size: int = 4096  # courier: page views of a step, over all ranks
    # courier: length of a part that all first embeddings share, in their average distance from it; 0: none
    head_common: float = 4.0
    head_rate: float = 10.0  # courier: the linear head learns at this many times --learning-rate
    # courier: the body learns at this many times --learning-rate: little, for clicks teach a body less than its first weights know, and
    # Adam moves all weights alike: at the head's rate the body would forget before the head has turned
    body_rate: float = 0.1
    page_items: int = 5  # courier: items kept of a page view, the clicked ones first (the paper's l_pv)
    history_items: int = 5  # courier: newest clicks that a clicked picture is rebuilt from (the paper's l_click)
    temperature: float = 0.05  # courier: divides the cosine; > 0
    scale_attention: bool = True  # courier: divide the attention's dot product by sqrt(dim) (Eq. 1)
    crop: float = 0.9  # courier: smallest share of the picture that a random crop keeps; 1 = the whole picture
    # courier: what is left out (Table 6), by comma: ucs (the loss over the click sequence) | contrast (only pull a clicked picture and its
    # reconstruction together) | reconstruction (self-attention over the history in place of attention from the target) | neg-pv (unclicked
    # items of the page are no negatives)
    without: str = ""
    loss: str = "contrast"  # courier: contrast | hinge (Table 12)
    margin: float = 0.2  # courier: of --loss hinge; how much more alike a picture and its reconstruction must be than a mismatched one
    projection_head: bool = False  # courier: an MLP after the embeddings while training, dropped afterwards (Table 11)
    with_clip: bool = False  # courier: add CLIP's loss on the titles of the step's pictures (Table 8)
    attention: str = "dot"  # courier: dot (the paper's) | multihead (with learned projections, as the authors' code)
    attention_heads: int = 4  # courier: of --attention multihead
    click_head: bool = False  # courier: add a loss that predicts clicks from pictures and reconstructions, as the authors' code

    def __post_init__(self):
        for name in ("batch_size", "head_rate", "body_rate", "page_items", "history_items", "temperature", "margin", "attention_heads"):
            positive(name, getattr(self, name))
        if self.head_common < 0:
            raise SettingError("head_common", self.head_common, "give 0 or more")
        _share("crop", self.crop)
        one_of("loss", self.loss, ("contrast", "hinge"))
        one_of("attention", self.attention, ("dot", "multihead"))
        if self.without:
            names("without", self.without, PARTS)
        if "contrast" in self.left_out and self.loss == "hinge":
            raise SettingError("without", self.without, "hinge is a contrast: ask for one of the two")

    @property
    def left_out(self) -> frozenset[str]:
        """The parts named by `without`."""
        return frozenset(names("without", self.without, PARTS)) if self.without else frozenset()


@dataclass(frozen=True, kw_only=True)
class DistortionConfig:
    """The distorted views that SimCLR and SimSiam compare (Chen et al. 2020, appendix A)."""

    strength: float = 0.5  # of the colour distortion (Chen et al. use 1 at 224 pixels and 0.5 on small pictures)
    crop: float = 0.2  # smallest share of the picture that a random crop keeps
    blur: bool = False  # Gaussian blur half of the time (Chen et al. leave it out on small pictures)

    def __post_init__(self):
        _share("distortion.crop", self.crop)


@dataclass(frozen=True, kw_only=True)
class SimClrConfig:
    """SimCLR's own settings."""

    temperature: float = 0.2  # simclr: divides the cosine; > 0

    def __post_init__(self):
        positive("simclr.temperature", self.temperature)


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig:
    """SimSiam's heads and rates."""

    hidden: int = 128  # width of the projector (2048 at Swin-T)
    bottleneck: int = 32  # width of the predictor's middle layer: a quarter of `hidden`
    head_rate: float = 0.1  # simsiam: the backbone's linear head learns at this many times the learning rate
    # simsiam: and its body at this many: hardly at all, for SimCLR's weights, with which it begins, lost validation GAUC at 0.1 and more
    body_rate: float = 0.01

    def __post_init__(self):
        for name in ("hidden", "bottleneck", "head_rate", "body_rate"):
            positive(f"simsiam.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """CLIP's text tower and loss, for clip, maskclip and courier with --with-clip."""

    temperature: float = 0.1  # clip: divides the cosine; > 0
    text_model: Path | None = None  # folder of a Hugging Face text encoder; empty: a small transformer trained from scratch on the titles
    # the body learns at this many times --learning-rate, in clip and maskclip: little, for a few thousand titles are soon known by heart
    body_rate: float = 0.1
    crop: float = 0.9  # smallest share of the picture that a random crop keeps, for clip and maskclip; 1 = the whole picture
    words: int = 16  # longest title, in tokens; words after it are cut off
    vocabulary: int = 30_000  # words known at most, the most frequent of the titles shown in the pretraining period; the others are one
    width: int = 64  # of the small transformer's states
    layers: int = 2  # of the small transformer, each attention and a two-layer network
    heads: int = 4  # of the small transformer's attention

    def __post_init__(self):
        for name in ("temperature", "body_rate", "words", "vocabulary", "width", "layers", "heads"):
            positive(f"clip.{name}", getattr(self, name))
        _share("clip.crop", self.crop)
        if self.width % self.heads:
            raise SettingError("clip.width", self.width, f"give a multiple of clip.heads = {self.heads}")


@dataclass(frozen=True, kw_only=True)
class MaskClipConfig:
    """MaskCLIP's masked self-distillation beside CLIP's loss (Dong et al. 2023, arXiv:2208.12262)."""

    masked: float = 0.75  # share of patches that the student does not see; a patch is one place of the backbone's last feature map
    codewords: int = 256  # soft codes of the online quantiser
    code_width: int = 64  # length of the projections that are compared with the codewords
    student_temperature: float = 0.1  # of the student's codes
    teacher_temperature: float = 0.04  # of the teacher's codes: sharper
    ema_first: float = 0.999  # share of itself that the teacher keeps a step, at the start
    ema_last: float = 0.9999  # and at the end
    centre_keep: float = 0.9  # share of itself that the mean of the teacher's projections keeps a step; it is taken out of all of them
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


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """The backbone trained end to end inside a small click model (the paper's "Supervised")."""

    batch_size: int = 1024  # page views of a step, over all ranks
    page_items: int = 10  # items kept of a page view, the clicked ones first
    history_items: int = 10  # newest clicks that the attention looks over
    heads: int = 4  # of the attention
    hidden: int = 128  # width of the MLP
    head_rate: float = 10.0  # supervised: the backbone's linear head learns at this many times the learning rate
    body_rate: float = 0.1  # supervised: and its body at this many: little, as with courier; at 1 the embeddings collapse
    crop: float = 0.9  # supervised: smallest share of the picture that a random crop keeps; 1 = the whole picture

    def __post_init__(self):
        for name in ("batch_size", "page_items", "history_items", "heads", "hidden", "head_rate", "body_rate"):
            positive(f"supervised.{name}", getattr(self, name))
        _share("supervised.crop", self.crop)


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise SettingError(name, value, "give a share above 0 and up to 1")
