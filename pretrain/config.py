"""Settings of encoder training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from run.config import one_of, positive
from run.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How an encoder is trained. Every encoder of a comparison gets the same backbone, pictures and checkpoints."""

    backbone: str = "small_cnn"  # small_cnn | resnet18 | swin_t
    # first weights of the body, the same for every encoder: pictures (the start: a SimCLR training on the shop's own pictures, for a small
    # backbone has no ImageNet weights) | imagenet (torchvision's download) | random | a file of weights for the backbone
    weights: str = "pictures"
    start_pictures: int = 400_000  # pictures encoded in the training of the start; read only with --weights pictures
    # first weights of the linear head: given (the head that comes with the body's weights, or a new one, as in the paper) | whitened
    # (principal components of the pictures' features)
    head: str = "given"
    head_common: float = 4.0  # courier: length of a part that all first embeddings share, in their average distance from it; 0: none
    centre: bool = True  # take the part that all embeddings share out of them before they are compared, in validation and features
    image_size: int = 32  # pixels a side that the backbone sees
    store_size: int = 48  # pixels a side of the stored pictures; at least 1.5 x image_size, so that random crops are fair
    dim: int = 64  # length of an embedding
    pictures: int = 300_000  # pictures encoded in the whole training, the same for every encoder
    checkpoints: int = 10  # how often it is validated and may be chosen, evenly spaced
    batch_size: int = 4096  # page views of a courier step, over all ranks
    batch_pictures: int = 1024  # pictures of a step of methods that look at pictures alone (simclr: two views of each)
    learning_rate: float = 3e-3  # Adam's, at its height
    head_rate: float = 10.0  # courier: the linear head learns at this many times --learning-rate
    # courier: the body learns at this many times --learning-rate: little, for clicks teach a body less than its first weights know, and
    # Adam moves all weights alike: at the head's rate the body would forget before the head has turned
    body_rate: float = 0.1
    beta2: float = 0.95  # decay of Adam's second moment; trainings of a few hundred steps need it to forget their first ones
    warmup: float = 0.1  # share of the training in which the rate rises from 0; it then falls along a cosine
    head_first: float = 0.06  # share of the training in which only linear heads learn, before the body follows
    weight_decay: float = 1e-6  # Adam's
    page_items: int = 5  # courier: items kept of a page view, the clicked ones first (the paper's l_pv)
    history_items: int = 5  # courier: newest clicks that a clicked picture is rebuilt from (the paper's l_click)
    temperature: float = 0.05  # courier: divides the cosine; > 0
    scale_attention: bool = True  # courier: divide the attention's dot product by sqrt(dim) (Eq. 1)
    # leave the target's own item out of courier's negatives and of the SimScore that validation watches: needed in a small catalogue
    mask_same_item: bool = True
    # whose pictures compete in a contrast: batch (all) | category (those of the picture's own category: the paper pre-trains on one
    # category alone, so that telling categories apart earns nothing there; a shop without categories is one)
    negatives: str = "category"
    crop: float = 0.9  # courier: smallest share of the picture that a random crop keeps; 1 = the whole picture
    simclr_temperature: float = 0.2  # simclr: divides the cosine; > 0
    simclr_strength: float = 0.5  # simclr: strength of the colour distortion (Chen et al. use 1 at 224 pixels and 0.5 on small pictures)
    simclr_crop: float = 0.2  # simclr: smallest share of the picture that a random crop keeps
    simclr_blur: bool = False  # simclr: Gaussian blur half of the time (Chen et al. leave it out on small pictures)
    valid_history: int = 50  # newest clicks whose cosines make the SimScore that validation watches
    precision: str = "32-true"  # Lightning Fabric's names: 32-true | bf16-mixed | 16-mixed
    checkpoint_seconds: float = 30.0  # how often the state is saved, for a run that is killed

    def __post_init__(self):
        for name in (
            "image_size", "dim", "pictures", "start_pictures", "checkpoints", "batch_size", "batch_pictures", "learning_rate",
            "head_rate", "body_rate", "page_items", "history_items",
            "temperature", "simclr_temperature", "valid_history", "checkpoint_seconds",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        one_of("backbone", self.backbone, ("small_cnn", "resnet18", "swin_t"))
        one_of("head", self.head, ("given", "whitened"))
        for name in ("head_common", "weight_decay"):
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "give 0 or more")
        if self.store_size < 1.5 * self.image_size:
            raise SettingError("store_size", self.store_size, f"give at least 1.5 x image_size = {-(-3 * self.image_size // 2)}")
        for name in ("crop", "simclr_crop"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(name, getattr(self, name), "give a share above 0 and up to 1")
        one_of("negatives", self.negatives, ("batch", "category"))
        one_of("precision", self.precision, ("32-true", "bf16-mixed", "16-mixed"))
        for name in ("warmup", "head_first", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "give a share from 0 up to but not 1")
        if self.warmup + self.head_first >= 1:
            raise SettingError("head_first", self.head_first, f"warmup {self.warmup} and head_first together must stay below 1")


def start_config(config: PretrainConfig) -> PretrainConfig:
    """Settings of the SimCLR training whose weights all encoders begin with (`weights` "pictures")."""
    return replace(config, weights="random", head="whitened", pictures=config.start_pictures)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "pictures": 24_000, "start_pictures": 12_000, "checkpoints": 3, "batch_size": 256, "batch_pictures": 256, "image_size": 24,
        "store_size": 36, "dim": 32,
    },
    "small": {},
    "paper": {
        "backbone": "swin_t", "weights": "imagenet", "head_common": 0.0, "centre": False, "image_size": 224, "store_size": 336, "dim": 256,
        "checkpoints": 20,
        "pictures": 300_000_000, "batch_size": 3072, "batch_pictures": 30_720, "learning_rate": 1e-4, "head_rate": 1.0, "body_rate": 1.0,
        "beta2": 0.999, "warmup": 0.01, "head_first": 0.0, "mask_same_item": False, "negatives": "batch", "crop": 0.6,
        "simclr_strength": 1.0, "simclr_crop": 0.08, "simclr_blur": True, "precision": "16-mixed",
    },
}  # fmt: skip
