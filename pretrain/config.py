"""Settings of encoder training: those that all encoders share, and those of each method in the table."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from typing import Annotated, Any

import tyro

from pretrain.methods.table import settings_classes
from pretrain.settings import CommonConfig

# a field for each method's settings; its name is the class's name below, by which tyro finds the comments used as help texts
_WithMethods: Any = make_dataclass(
    "PretrainConfig",
    [
        (kind.part, Annotated[kind, tyro.conf.arg(name="")] if kind.plain_flags else kind, field(default_factory=kind))
        for kind in settings_classes()
    ],
    bases=(CommonConfig,), frozen=True, kw_only=True, namespace={"__module__": __name__},
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(_WithMethods):
    """How an encoder is trained. Every encoder of a comparison gets the same backbone, pictures and checkpoints."""

    # config.part(ClipConfig) gives a method's settings with their type; config.clip is the same


def initial_config(config: PretrainConfig) -> PretrainConfig:
    """Settings of the training of the initial encoder, whose weights all others start from (`weights` "pictures")."""
    return replace(config, weights="random", head="whitened", body="tuned", pictures=config.start_pictures)


_COMMON: dict[str, dict[str, Any]] = {
    "tiny": {
        "pictures": 24_000, "start_pictures": 12_000, "checkpoints": 3, "batch_pictures": 256,
        "image_size": 24, "store_size": 36, "dim": 32,
    },
    # docs/log.md, 30 November and 1 December 2026, has what was tried, by validation
    "small": {
        "backbone": "timm:tf_efficientnet_lite0", "weights": "registry", "body": "frozen", "features": "stages",
        "head": "components", "image_size": 128, "store_size": 192, "learning_rate": 3e-4,
    },
    "paper": {
        "backbone": "swin_t", "weights": "imagenet", "centre": False, "image_size": 224, "store_size": 336, "dim": 256, "checkpoints": 20,
        "pictures": 300_000_000, "batch_pictures": 30_720, "learning_rate": 1e-4, "beta2": 0.999, "warmup": 0.01, "head_first": 0.0,
        "mask_same_item": False, "negatives": "batch", "precision": "16-mixed", "recompute": True, "chunk": 512,
    },
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    name: common | {kind.part: dict(kind.presets[name]) for kind in settings_classes() if name in kind.presets}
    for name, common in _COMMON.items()
}
