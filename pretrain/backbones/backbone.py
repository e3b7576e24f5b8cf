"""Image backbones by name: pictures -> embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.backbones.weights import FixedBatchNorm, first_state, fit, has_batch_norm
from run.randomness import integer_seed, normal

_HEAD_SCALE = 0.5  # initial deviation of an embedding dimension


def backbone(name: str, *, dim: int, seed: int, weights: str = "random") -> nn.Module:
    """A backbone with a new linear head: (P, 3, H, W) normalised pictures -> (P, dim) embeddings.

    Args:
        name: small_cnn (for CPUs), resnet18 (group norm, or batch norm for weights trained with it: see weights.py)
            or swin_t (the paper's).
        dim: length of an embedding.
        seed: of the random weights, the same for all encoders of one seed.
        weights: "random", "imagenet" (torchvision's download, body only) or a file with the backbone's state, torchvision's or one
            trained here; "pictures" is random here: the caller gives a file once the initial encoder is trained.

    Raises:
        UserError: the weights cannot be obtained, or do not fit.
    """
    state = first_state(name, weights)
    resnet18 = functools.partial(_resnet18, norm=FixedBatchNorm if has_batch_norm(state) else group_norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "backbone", name))
        net = {"small_cnn": _small_cnn, "resnet18": resnet18, "swin_t": _swin_t}[name](dim)
    if state is not None:
        fit(net, state, name=name, source="ImageNet weights" if weights == "imagenet" else weights)
    return net.to(memory_format=torch.channels_last)


@torch.no_grad()
def whiten_head(net: nn.Module, pictures: Tensor) -> None:
    """Set the linear head from pictures: whitened principal components of the body's features.

    From random weights, all embeddings are nearly one direction plus noise; these are the directions in which pictures differ most (a
    data-dependent start: Kraehenbuehl et al. 2016, arXiv:1511.06856).

    Args:
        pictures: (P, 3, H, W) normalised, more of them than the head has outputs.
    """
    head = linear_head(net)
    features: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
    _outputs(net, pictures)
    hook.remove()
    features_PF = torch.cat(features)
    variance, directions = torch.linalg.eigh(torch.cov(features_PF.T))
    kept = min(head.out_features, head.in_features)
    weight = torch.zeros_like(head.weight)
    weight[:kept] = (directions[:, -kept:] / variance[-kept:].clamp(min=1e-6 * variance[-1]).sqrt()).T * _HEAD_SCALE
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ features_PF.mean(0))


@torch.no_grad()
def add_common(net: nn.Module, pictures: Tensor, *, common: float, seed: int) -> None:
    """Make the linear head give embeddings of a known size, centred on one common vector.

    If the loss of random embeddings is above chance level, contrastive training at a low temperature first removes the differences
    between pictures. Adam has then seen large gradients and hardly moves: the encoder stays collapsed. The common vector keeps cosines so
    close that the loss begins near the log of the number of candidates, where every gradient is signal.

    Args:
        pictures: (P, 3, H, W) normalised.
        common: length of the common vector, as a multiple of the embeddings' average distance from it.
        seed: of its direction.
    """
    head = linear_head(net)
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


def linear_head(net: nn.Module) -> nn.Linear:
    """The last linear layer."""
    return [part for part in net.modules() if isinstance(part, nn.Linear)][-1]


def feature_map(net: nn.Module, pictures: Tensor) -> Tensor:
    """(P, 3, H, W) normalised -> (P, C, h, w): the features that a backbone pools; 1/32 of a side (small_cnn: 1/16)."""
    from torchvision.models import ResNet, SwinTransformer

    net = getattr(net, "_orig_mod", net)  # what torch.compile wraps
    if isinstance(net, ResNet):
        stem = net.maxpool(net.relu(net.bn1(net.conv1(pictures))))
        return net.layer4(net.layer3(net.layer2(net.layer1(stem))))
    if isinstance(net, SwinTransformer):
        return net.norm(net.features(pictures)).permute(0, 3, 1, 2)
    assert isinstance(net, nn.Sequential)
    return net[:-3](pictures)  # all except pooling, flattening and the linear head


def recompute_blocks(net: nn.Module) -> None:
    """Recompute each block's activations in the backward pass, which trades time for memory (Chen et al. 2016, arXiv:1604.06174).

    The blocks are a Swin's attentions, as in the paper, and a ResNet's residual blocks; a small CNN has none.
    """
    from torch.utils.checkpoint import checkpoint
    from torchvision.models.resnet import BasicBlock
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    for part in net.modules():
        if isinstance(part, BasicBlock | ShiftedWindowAttention):
            part.forward = functools.partial(checkpoint, part.forward, use_reentrant=False)


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation that is independent of other pictures: groups of 16 channels."""
    return nn.GroupNorm(max(1, channels // 16), channels)


def _small_cnn(dim: int, width: int = 16) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for out in (width, 2 * width, 4 * width, 8 * width):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), group_norm(out), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, dim))


def _resnet18(dim: int, norm: Callable[[int], nn.Module]) -> nn.Module:
    from torchvision.models import resnet18

    net = resnet18(norm_layer=norm)
    net.fc = nn.Linear(net.fc.in_features, dim)
    return net


def _swin_t(dim: int) -> nn.Module:
    from torchvision.models import swin_t

    net = swin_t()
    net.head = nn.Linear(net.head.in_features, dim)
    return net
