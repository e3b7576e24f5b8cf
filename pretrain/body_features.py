"""The stages of a frozen body's features: computed once for a shop, and shared by every method and seed that reads them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.source import SourceConfig
from pretrain.methods.table import method_of, weights_read
from pretrain.methods.two_views import DistortionConfig
from pretrain.settings import CommonConfig
from run.folder import Stage
from run.source_code import code_hash
from run.versions import installed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pretrain.backbones.feature_store import Features

_CODE = ("pretrain.backbones.backbone", "pretrain.backbones.feature_store", "pretrain.views", "data.pictures.store", "data.pictures.reader")
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")


def feature_stages(root: Path, source: SourceConfig, encoder: str, config: CommonConfig, seed: int, *, weights: str = "") -> list[Stage]:
    """The stage of the features of full pictures, and that of distorted views for an encoder that compares them; made or not.

    Args:
        seed: matters only for random weights.
        weights: what tells the body's weights from others; empty: what `config.weights` says.
    """
    names = ("backbone", "features", "image_size", "store_size")
    key = source.key(root) | {name: getattr(config, name) for name in names} | {"weights": weights or weights_read(config)}
    key |= {
        "code": code_hash("pretrain.body_features", *_CODE, without=("pretrain.methods.table", "data.source")),
        "versions": installed(*_LIBRARIES),
    }
    if config.weights == "random":
        key["seed"] = seed
    name = config.backbone.replace(":", "-")
    stages = [Stage(root, f"features/{name}", key)]
    if method_of(encoder).frozen_views == "distorted":
        views = {"views": config.cached_views, **asdict(config.part(DistortionConfig))}
        stages.append(Stage(root, f"features/{name}-distorted", key | {"distorted": views}))
    return stages


def frozen_features(
    root: Path, source: SourceConfig, encoder: str, config: CommonConfig, seed: int, *, jobs: int, threads: int = 0, weights: str = ""
) -> Features:
    """The features that an encoder with a frozen body learns from, computed where they are missing.

    Args:
        root: run folder: the stages are kept here.
        config: its weights are not "pictures", but the initial encoder's file.
        jobs: threads that decode pictures.
        threads: CPU threads of the body; 0: torch's choice.
        weights: as `feature_stages`'.
    """
    from pretrain.backbones.feature_store import open_features

    stages = feature_stages(root, source, encoder, config, seed, weights=weights)
    for stage, distorted in zip(stages, (False, True), strict=False):
        if not stage.done:
            stage.finish(_make(stage.folder, root, source, config, seed, distorted=distorted, jobs=jobs, threads=threads))
    return open_features(*(stage.folder for stage in stages))


def _make(
    folder: Path, root: Path, source: SourceConfig, config: CommonConfig, seed: int, *, distorted: bool, jobs: int, threads: int
) -> dict:
    """Compute one stage's features; what its result holds."""
    import numpy as np

    from pretrain.backbones.backbone import backbone_of
    from pretrain.backbones.feature_store import write_features
    from pretrain.embedding import default_batch
    from pretrain.page_views import pretraining_items
    from run.devices import set_up

    device = set_up(threads, "32-true").device
    pictures = source.pictures(root, size=config.store_size, jobs=jobs)
    body = backbone_of(config, seed).body.to(device)
    items = pretraining_items(source.shop(root), pictures.present) if distorted else np.flatnonzero(pictures.present)
    views = [partial(_distorted, number, config) for number in range(config.cached_views)] if distorted else [partial(_full, config)]
    batch = default_batch(device.type, config.image_size)
    return {"pictures": write_features(folder, body, pictures, items, views, batch=batch)}


def _full(config: CommonConfig, pixels: Tensor, items: np.ndarray) -> Tensor:
    from pretrain.views import resized

    return resized(pixels, config.image_size)


def _distorted(number: int, config: CommonConfig, pixels: Tensor, items: np.ndarray) -> Tensor:
    """View `number` of each picture, the same for every seed and method."""
    from pretrain.methods.two_views import distorted_view

    return distorted_view(pixels, (0, "cached view", number, items), config.image_size, config.part(DistortionConfig))
