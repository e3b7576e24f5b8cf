"""Weights of a network: from a file or torchvision's download; nothing is unpickled, and what does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from run.errors import UserError


def torchvision_state(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of a network, the first that it offers; downloaded once, into torch's own cache.

    Raises:
        UserError: they cannot be obtained.
    """
    from torchvision import models

    return download(next(iter(models.get_model_weights(name))), name, fix="--weights FILE (eval.compare: --pretrain.weights FILE)")


def download(entry: Any, name: str, *, fix: str) -> dict[str, Tensor]:
    """The state behind one of torchvision's weights, from torch's cache or by download.

    Args:
        entry: a member of one of torchvision's tables of weights.
        name: the network they belong to.
        fix: how to give a file instead of the download.

    Raises:
        UserError: neither works; the message says where to get the file and how to give it.
    """
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # every kind of network trouble
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"ImageNet weights of {name} could not be downloaded ({type(error).__name__}); on a machine with internet fetch {entry.url}, "
            f"then put the file into {cache} or give {fix}. Random weights are only used on request"
        ) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file: safetensors, or tensors and plain values written by torch.save. Nothing is unpickled.

    A state nested under "state_dict" or "model" is extracted; a wrapper's prefix "module." on all keys is dropped.

    Raises:
        UserError: no such file, or it cannot be read in this way.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; give a safetensors or torch file, imagenet, or random")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file fails in many ways
        raise UserError(
            f"{path}: not readable as weights ({type(error).__name__}); give safetensors, or a state_dict that torch.save wrote "
            "(only tensors and plain values: nothing else is unpickled)"
        ) from None
    for inner in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(inner), dict):
            found = found[inner]
    tensors = isinstance(found, dict) and bool(found) and all(isinstance(value, Tensor) for value in found.values())
    if not tensors:
        raise UserError(f"{path}: holds no state_dict (names with tensors); give net.state_dict(), saved by torch.save or safetensors")
    if all(key.startswith("module.") for key in found):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return found


def fit(net: nn.Module, state: Mapping[str, Tensor], *, name: str, source: str, head: tuple[str, ...] = ("head.", "fc.")) -> None:
    """Load a state into a network, including its entire body; a head that is missing or of another shape stays as it is.

    Keys that the network lacks are refused too: a resnet18 is a part of a resnet34, and a Swin-T of a Swin-S.

    Args:
        net: the network, with its new head.
        state: its keys and tensors.
        name: what the network is called.
        source: where the state comes from.
        head: prefix of a head's keys.

    Raises:
        UserError: names the first key that is missing, unknown, of another shape or not finite.
    """
    own = net.state_dict()
    heads = {key for key in (*own, *state) if key.startswith(head)}
    body = {key: value for key, value in state.items() if key not in heads or (key in own and value.shape == own[key].shape)}
    counters = {key for key in own if key.endswith(".num_batches_tracked")}  # older files lack them, and nothing reads them
    faults = {
        "is missing": set(own) - set(body) - heads - counters,
        "is not one of its weights": set(body) - set(own),
        "is of another shape": {key for key in body if key in own and body[key].shape != own[key].shape},
        "is not finite": {key for key, value in body.items() if value.is_floating_point() and not bool(value.isfinite().all())},
    }
    for fault, keys in faults.items():
        if keys:
            raise UserError(f"{source}: not weights of {name}: '{min(keys)}' {fault}; give the state of a {name}")
    net.load_state_dict({**own, **body})
