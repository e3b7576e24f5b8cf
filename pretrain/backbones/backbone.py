"""Image backbones by name: pictures -> embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pretrain.backbones.body import Body, SmallCnn
from pretrain.backbones.heads import new_head
from pretrain.backbones.names import NAMED_WEIGHTS, is_timm, model_of
from pretrain.backbones.weights import fit, read_state, torchvision_state
from run.errors import UserError
from run.randomness import integer_seed

_RANDOM = ("random", "pictures")  # values of `weights` that load nothing


class Settings(Protocol):
    """What of an encoder's settings makes its backbone; see `pretrain.settings.CommonConfig`."""

    @property
    def backbone(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def head_shape(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def features(self) -> str: ...


class Backbone(nn.Module):
    """(P, 3, H, W) RGB in [0, 1] -> (P, D) embeddings: a body, and a head on its features."""

    def __init__(self, body: Body, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures))

    def feature_map(self, pictures: Tensor) -> Tensor:
        """(P, C, h, w): see `Body.feature_map`."""
        return self.body.feature_map(pictures)


def backbone(
    name: str, *, dim: int, seed: int, image_size: int = 224, weights: str = "random", head: str = "linear",
    features: str = "last",
) -> Backbone:  # fmt: skip
    """A backbone with a new head, unless the weights are of one trained here.

    Args:
        name: small_cnn (for CPUs), timm:NAME, or a torchvision classifier, such as swin_t (the paper's).
        dim: length of an embedding.
        seed: of the random weights, the same for all encoders of one seed.
        image_size: side of the pictures in pixels, for networks with a fixed grid of patches.
        weights: "random", "imagenet" (the library's download, body only), "registry" (of an installed package, body only) or a file with
            the library's state or that of a backbone trained here; "pictures" is random here: the caller gives a file once the initial
            encoder is trained.
        head: its shape (pretrain/backbones/heads.py).
        features: last | stages: what of the body the head is given (pretrain/backbones/timm_body.py).

    Raises:
        UserError: the weights cannot be obtained, or do not fit.
    """
    state = None if weights in NAMED_WEIGHTS else read_state(Path(weights))
    ours = state is not None and all(key.startswith(("body.", "head.")) for key in state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "backbone", name))
        body = _body(name, image_size, "random" if ours else weights, state, stages=features == "stages")
        net = Backbone(body, new_head(head, body.size, dim))
    if ours and state is not None:
        fit(net, state, name=name, source=weights, head=("head.",))
    return net.to(memory_format=torch.channels_last)


def backbone_of(config: Settings, seed: int, weights: Path | None = None) -> Backbone:
    """The backbone of these settings, with its initial weights or those of a file."""
    return backbone(
        config.backbone, dim=config.dim, seed=seed, image_size=config.image_size, head=config.head_shape, features=config.features,
        weights=config.weights if weights is None else str(weights),
    )  # fmt: skip


def _body(name: str, image_size: int, weights: str, state: Mapping[str, Tensor] | None, *, stages: bool) -> Body:
    """The body, with its weights.

    Args:
        weights: as `backbone`'s, "random" if `state` is of a backbone trained here.
        state: of the file, if there is one.
    """
    if name == "small_cnn":
        if weights not in _RANDOM:
            raise UserError(f"small_cnn has no weights of {weights}; give a file of one trained here, or --weights random")
        return SmallCnn()
    if is_timm(name):
        return _timm(name, image_size, weights, state, stages=stages)
    return _torchvision(name, image_size, weights, state)


def _timm(name: str, image_size: int, weights: str, state: Mapping[str, Tensor] | None, *, stages: bool) -> Body:
    from pretrain.backbones.registry import registry_state
    from pretrain.backbones.timm_body import TimmBody, timm_network

    if weights == "registry":
        state = registry_state(name)
    given = None if weights in _RANDOM else state
    try:
        net = timm_network(model_of(name), image_size=image_size, pretrained=weights == "imagenet", state=given)
    except Exception as error:  # timm fails in many ways
        reason = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:200]}"
        if given is not None:
            raise UserError(f"{weights}: not weights of {name} ({reason}); give timm's state_dict of it") from None
        if weights != "imagenet":
            raise UserError(f"{name}: timm could not make it for pictures of {image_size} pixels ({reason})") from None
        raise UserError(
            f"{name}: its weights could not be downloaded ({reason}); run the same command once on a machine with internet and copy its "
            "cache (HF_HOME), or give --weights FILE (eval.compare: --pretrain.weights FILE)"
        ) from None
    return TimmBody(net, stages=stages)


def _torchvision(name: str, image_size: int, weights: str, state: Mapping[str, Tensor] | None) -> Body:
    from pretrain.backbones.registry import registry_file
    from pretrain.backbones.torchvision_body import TorchvisionBody, load_state, torchvision_network

    if weights == "registry":
        registry_file(name)  # raises: packages hold timm's networks only
    if weights == "imagenet":
        state = torchvision_state(name)
    net = torchvision_network(name, image_size=image_size, state=state)
    if state is not None and weights not in _RANDOM:
        load_state(net, state, name=name, source="ImageNet weights" if weights == "imagenet" else weights)
    return TorchvisionBody(name, net)
