"""Image backbones by name: pictures -> embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from run.errors import UserError
from run.randomness import integer_seed


def backbone(name: str, *, dim: int, seed: int, weights: str = "random") -> nn.Module:
    """A backbone with a new linear head: (P, 3, H, W) normalised pictures -> (P, dim) embeddings.

    Args:
        name: small_cnn (for CPUs), resnet18 (group norm) or swin_t (the paper's).
        dim: length of an embedding.
        seed: of the random weights; all encoders of one seed start from the same.
        weights: "random", "imagenet" (torchvision's download) or a file with the backbone's state.

    Raises:
        UserError: the weights cannot be had, or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "backbone", name))
        net = {"small_cnn": _small_cnn, "resnet18": _resnet18, "swin_t": _swin_t}[name](dim)
    if weights != "random":
        _load(net, name, weights)
    return net.to(memory_format=torch.channels_last)


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation that does not look at other pictures: groups of 16 channels."""
    return nn.GroupNorm(max(1, channels // 16), channels)


def _small_cnn(dim: int, width: int = 32) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for out in (width, 2 * width, 4 * width, 8 * width):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), group_norm(out), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, dim))


def _resnet18(dim: int) -> nn.Module:
    from torchvision.models import resnet18

    net = resnet18(norm_layer=group_norm)
    net.fc = nn.Linear(net.fc.in_features, dim)
    return net


def _swin_t(dim: int) -> nn.Module:
    from torchvision.models import swin_t

    net = swin_t()
    net.head = nn.Linear(net.head.in_features, dim)
    return net


def _load(net: nn.Module, name: str, weights: str) -> None:
    if weights == "imagenet":
        state = _imagenet(name)
    else:
        state = _from_file(Path(weights))
    own = net.state_dict()
    head = {key for key in own if key.startswith(("head.", "fc."))}
    state = {key: value for key, value in state.items() if key not in head or value.shape == own[key].shape}
    missing = set(own) - set(state) - head
    unfit = [key for key in state if key in own and state[key].shape != own[key].shape]
    if missing or unfit:
        example = sorted(missing or unfit)[0]
        raise UserError(f"{weights}: not weights of {name}: '{example}' is {'missing' if missing else 'of another shape'}")
    net.load_state_dict({**own, **{key: value for key, value in state.items() if key in own}})


def _imagenet(name: str) -> dict[str, Tensor]:
    from torchvision import models

    if name != "swin_t":
        raise UserError(f"there are no ImageNet weights for {name}; give --weights FILE or --weights random")
    try:
        return models.Swin_T_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # every kind of network trouble
        raise UserError(
            f"ImageNet weights of {name} could not be downloaded ({type(error).__name__}); "
            "give --weights FILE with torchvision's swin_t state, or ask for --weights random"
        ) from None


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; --weights takes random, imagenet or a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file fails in many ways
        raise UserError(f"{path}: not readable as weights ({type(error).__name__})") from None
