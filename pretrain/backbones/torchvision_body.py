"""Any classifier of torchvision as a body: its last linear layer is left out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.backbones.body import Body, group_norm
from pretrain.backbones.weights import fit
from run.errors import UserError


class TorchvisionBody(Body):
    """A torchvision network without its classifier's last layer.

    Args:
        name: torchvision's.
        net: with its classifier, which is replaced.
    """

    def __init__(self, name: str, net: nn.Module):
        last, layer = last_linear(net)
        super().__init__(layer.in_features)
        net.set_submodule(last, nn.Identity())
        self.name, self.net = name, net

    def features(self, pictures: Tensor) -> Tensor:
        return self.net(pictures)

    def last_map(self, pictures: Tensor) -> Tensor:
        """What the network pools.

        Raises:
            UserError: it has no pooling layer.
        """
        pools = [part for part in self.net.modules() if isinstance(part, nn.AdaptiveAvgPool2d)]
        if not pools:
            raise UserError(f"torchvision's {self.name} shows no feature map to mask places of; timm's networks do (timm:NAME)")
        pooled: list[Tensor] = []
        hook = pools[-1].register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
        try:
            self.net(pictures)
        finally:
            hook.remove()
        return pooled[0]

    def recompute_blocks(self) -> None:
        """The blocks are what sequences of layers are made of: a ResNet's residual blocks, a Swin's windows, a transformer's layers."""
        for part in blocks(self.net):
            part.forward = functools.partial(torch.utils.checkpoint.checkpoint, part.forward, use_reentrant=False)


def last_linear(net: nn.Module) -> tuple[str, nn.Linear]:
    """The name of the classifier's last layer, and the layer."""
    return [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)][-1]


def blocks(net: nn.Module) -> list[nn.Module]:
    """The outermost parts of sequences that consist of parts themselves."""
    found: list[nn.Module] = []
    for part in net.children():
        plain = type(part) is nn.Sequential
        if plain or type(net) is not nn.Sequential:
            found += blocks(part)
        elif next(part.children(), None) is not None:
            found.append(part)
    return found


def torchvision_network(name: str, *, image_size: int, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A torchvision network with its classifier and random weights; ResNet-18 with group norm, unless a state has batch norm's."""
    from torchvision import models

    options: dict[str, Any] = {"image_size": image_size} if name.startswith("vit_") else {}
    if name == "resnet18" and not any(key.endswith(".running_mean") for key in state or ()):
        options["norm_layer"] = group_norm
    return models.get_model(name, weights=None, **options)


def load_state(net: nn.Module, state: Mapping[str, Tensor], *, name: str, source: str) -> None:
    """Load torchvision's state of a network; its classifier may be missing.

    Raises:
        UserError: names the first key that does not fit.
    """
    fit(net, state, name=name, source=source, head=(f"{last_linear(net)[0]}.",))
