"""Image backbones by name: pictures -> embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.backbones.body import Body, SmallCnn
from pretrain.backbones.names import is_timm, model_of
from pretrain.backbones.weights import fit, read_state, torchvision_state
from run.errors import UserError
from run.randomness import integer_seed, normal

_HEAD_SCALE = 0.5  # initial deviation of an embedding dimension
_RANDOM = ("random", "pictures")  # values of `weights` that load nothing


class Backbone(nn.Module):
    """(P, 3, H, W) RGB in [0, 1] -> (P, D) embeddings: a body, and a linear head on its features."""

    def __init__(self, body: Body, dim: int):
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.size, dim)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures))

    def feature_map(self, pictures: Tensor) -> Tensor:
        """(P, C, h, w): see `Body.feature_map`."""
        return self.body.feature_map(pictures)


def backbone(name: str, *, dim: int, seed: int, image_size: int = 224, weights: str = "random") -> Backbone:
    """A backbone with a new linear head, unless the weights are of one trained here.

    Args:
        name: small_cnn (for CPUs), timm:NAME, or a torchvision classifier, such as swin_t (the paper's).
        dim: length of an embedding.
        seed: of the random weights, the same for all encoders of one seed.
        image_size: side of the pictures in pixels, for networks with a fixed grid of patches.
        weights: "random", "imagenet" (the library's download, body only), "registry" (of an installed package, body only) or a file with
            the library's state or that of a backbone trained here; "pictures" is random here: the caller gives a file once the initial
            encoder is trained.

    Raises:
        UserError: the weights cannot be obtained, or do not fit.
    """
    state = None if weights in (*_RANDOM, "imagenet", "registry") else read_state(Path(weights))
    ours = state is not None and all(key.startswith(("body.", "head.")) for key in state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "backbone", name))
        net = Backbone(_body(name, image_size, "random" if ours else weights, state), dim)
    if ours and state is not None:
        fit(net, state, name=name, source=weights, head=("head.",))
    return net.to(memory_format=torch.channels_last)


def _body(name: str, image_size: int, weights: str, state: Mapping[str, Tensor] | None) -> Body:
    """The body, with its weights.

    Args:
        weights: as `backbone`'s, "random" if `state` is of a backbone trained here.
        state: of the file, if there is one.
    """
    if name == "small_cnn":
        if weights not in _RANDOM:
            raise UserError(f"small_cnn has no weights of {weights}; give a file of one trained here, or --weights random")
        return SmallCnn()
    return (_timm if is_timm(name) else _torchvision)(name, image_size, weights, state)


def _timm(name: str, image_size: int, weights: str, state: Mapping[str, Tensor] | None) -> Body:
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
    return TimmBody(net)


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


@torch.no_grad()
def whiten_head(net: Backbone, pictures: Tensor) -> None:
    """Set the linear head from pictures: whitened principal components of the body's features.

    From random weights, all embeddings are nearly one direction plus noise; these are the directions in which pictures differ most (a
    data-dependent start: Kraehenbuehl et al. 2016, arXiv:1511.06856).

    Args:
        pictures: (P, 3, H, W) normalised, more of them than the head has outputs.
    """
    head, features_PF = net.head, _outputs(net.body, pictures)
    variance, directions = torch.linalg.eigh(torch.cov(features_PF.T))
    kept = min(head.out_features, head.in_features)
    weight = torch.zeros_like(head.weight)
    weight[:kept] = (directions[:, -kept:] / variance[-kept:].clamp(min=1e-6 * variance[-1]).sqrt()).T * _HEAD_SCALE
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ features_PF.mean(0))


@torch.no_grad()
def add_common(net: Backbone, pictures: Tensor, *, common: float, seed: int) -> None:
    """Make the linear head give embeddings of a known size, centred on one common vector.

    If the loss of random embeddings is above chance level, contrastive training at a low temperature first removes the differences
    between pictures. Adam has then seen large gradients and hardly moves: the encoder stays collapsed. The common vector keeps cosines so
    close that the loss begins near the log of the number of candidates, where every gradient is signal.

    Args:
        pictures: (P, 3, H, W) normalised.
        common: length of the common vector, as a multiple of the embeddings' average distance from it.
        seed: of its direction.
    """
    head = net.head
    embeddings_PD = _outputs(net, pictures)
    mean_D = embeddings_PD.mean(0)
    length = _HEAD_SCALE * head.out_features**0.5
    scale = length / (embeddings_PD - mean_D).norm(dim=1).mean()
    direction = torch.from_numpy(normal(seed, "common", np.arange(head.out_features))).to(head.weight)
    head.weight.mul_(scale)
    head.bias.sub_(mean_D).mul_(scale).add_(direction / direction.norm() * common * length)


def _outputs(net: nn.Module, pictures: Tensor) -> Tensor:
    net.eval()
    return torch.cat([net(part).float() for part in pictures.split(512)])
