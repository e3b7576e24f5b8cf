"""Settings of encoder training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from pretrain.methods.method_configs import (
    ClipConfig,
    CourierConfig,
    DistortionConfig,
    MaskClipConfig,
    SimClrConfig,
    SimSiamConfig,
    SupervisedConfig,
)
from run.config import one_of, positive
from run.errors import SettingError

# settings that only say how a run proceeds: they change no result, but for the last digits of sums
PACE = ("checkpoint_seconds", "chunk", "recompute", "compile")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How an encoder is trained. Every encoder of a comparison gets the same backbone, pictures and checkpoints."""

    backbone: str = "small_cnn"  # small_cnn | resnet18 | swin_t
    # first weights of the body, the same for every encoder: pictures (the start: SimCLR on the shop's own pictures, since a small
    # backbone has no ImageNet weights) | imagenet (torchvision's download) | random | a file of weights for the backbone
    weights: str = "pictures"
    start_pictures: int = 400_000  # pictures encoded in the training of the start; read only with --weights pictures
    # first weights of the linear head: given (the head that comes with the body's weights, or a new one, as in the paper) | whitened
    # (principal components of the pictures' features)
    head: str = "given"
    centre: bool = True  # take the part that all embeddings share out of them before they are compared, in validation and features
    image_size: int = 32  # pixels a side that the backbone sees
    store_size: int = 48  # pixels a side of the stored pictures; at least 1.5 x image_size, so that random crops are fair
    dim: int = 64  # length of an embedding
    pictures: int = 300_000  # pictures encoded in the whole training, the same for every encoder
    checkpoints: int = 10  # how often it is validated and may be chosen, evenly spaced
    batch_pictures: int = 1024  # pictures of a step of methods that look at pictures, not page views (simclr, simsiam: two views of each)
    learning_rate: float = 3e-3  # Adam's, at its height
    beta2: float = 0.95  # decay of Adam's second moment; trainings of a few hundred steps need it to forget their first ones
    warmup: float = 0.1  # share of the training in which the rate rises from 0; it then falls along a cosine
    head_first: float = 0.06  # share of the training in which only linear heads learn, before the body follows
    weight_decay: float = 1e-6  # Adam's
    # leave the target's own item out of courier's negatives and of the SimScore that validation watches: needed in a small catalogue
    mask_same_item: bool = True
    # whose pictures compete in a contrast: batch (all) | category (those of the picture's own category: the paper pre-trains on one
    # category alone, so that telling categories apart earns nothing there; a shop without categories is one)
    negatives: str = "category"
    valid_history: int = 50  # newest clicks whose cosines make the SimScore that validation watches
    precision: str = "32-true"  # Lightning Fabric's names: 32-true | bf16-mixed | 16-mixed
    # pictures that go through the backbone at once; more of them in a step are encoded twice (gradient caching): the same gradients in
    # bounded memory; 0: all at once
    chunk: int = 0
    recompute: bool = False  # compute the backbone's blocks again in the backward pass, in place of keeping what they computed
    compile: bool = False  # let torch.compile fuse the backbone
    checkpoint_seconds: float = 30.0  # how often the state is saved, for a run that is killed
    courier: Annotated[CourierConfig, tyro.conf.arg(name="")] = field(default_factory=CourierConfig)
    distortion: DistortionConfig = field(default_factory=DistortionConfig)
    simclr: SimClrConfig = field(default_factory=SimClrConfig)
    simsiam: SimSiamConfig = field(default_factory=SimSiamConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    maskclip: MaskClipConfig = field(default_factory=MaskClipConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def resolved(self) -> PretrainConfig:
        """The same settings with absolute paths, for a run folder's config.toml."""
        is_file = self.weights not in ("pictures", "imagenet", "random")
        return replace(self, weights=str(Path(self.weights).absolute())) if is_file else self

    def __post_init__(self):
        for name in (
            "image_size", "dim", "pictures", "start_pictures", "checkpoints", "batch_pictures", "learning_rate", "valid_history",
            "checkpoint_seconds",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        one_of("backbone", self.backbone, ("small_cnn", "resnet18", "swin_t"))
        one_of("head", self.head, ("given", "whitened"))
        for name in ("weight_decay", "chunk"):
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "give 0 or more")
        if self.store_size < 1.5 * self.image_size:
            raise SettingError("store_size", self.store_size, f"give at least 1.5 x image_size = {-(-3 * self.image_size // 2)}")
        one_of("negatives", self.negatives, ("batch", "category"))
        if self.courier.attention == "multihead" and self.dim % self.courier.attention_heads:
            raise SettingError("attention_heads", self.courier.attention_heads, f"give a divisor of dim = {self.dim}")
        one_of("precision", self.precision, ("32-true", "bf16-mixed", "16-mixed"))
        for name in ("warmup", "head_first", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "give a share from 0 up to but not 1")
        if self.warmup + self.head_first >= 1:
            raise SettingError("head_first", self.head_first, f"warmup {self.warmup} and head_first together must stay below 1")


def initial_config(config: PretrainConfig) -> PretrainConfig:
    """Settings of the SimCLR training whose weights all encoders begin with (`weights` "pictures")."""
    return replace(config, weights="random", head="whitened", pictures=config.start_pictures)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "pictures": 24_000, "start_pictures": 12_000, "checkpoints": 3, "batch_pictures": 256,
        "image_size": 24, "store_size": 36, "dim": 32,
        "courier": {"batch_size": 256}, "supervised": {"batch_size": 128}, "clip": {"width": 32},
    },
    "small": {},
    "paper": {
        "backbone": "swin_t", "weights": "imagenet", "centre": False, "image_size": 224, "store_size": 336, "dim": 256, "checkpoints": 20,
        "pictures": 300_000_000, "batch_pictures": 30_720, "learning_rate": 1e-4, "beta2": 0.999, "warmup": 0.01, "head_first": 0.0,
        "mask_same_item": False, "negatives": "batch", "precision": "16-mixed", "recompute": True, "chunk": 512,
        "courier": {"batch_size": 3072, "head_common": 0.0, "head_rate": 1.0, "body_rate": 1.0, "crop": 0.6},
        "distortion": {"strength": 1.0, "crop": 0.08, "blur": True},
        "simsiam": {"hidden": 2048, "bottleneck": 512, "head_rate": 1.0, "body_rate": 1.0},
        "clip": {"body_rate": 1.0, "crop": 0.6, "words": 32, "width": 512, "layers": 6, "heads": 8},
        "maskclip": {"codewords": 8192, "code_width": 256},
        "supervised": {"batch_size": 3072, "head_rate": 1.0, "body_rate": 1.0, "crop": 0.6},
    },
}  # fmt: skip
