"""Any image network of timm as a body, by timm's own interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.backbones.body import Body


class TimmBody(Body):
    """A timm network without its classifier.

    The last layer of a classifier keeps what tells classes apart, and little of colour and texture, which the maps before it still have;
    their means and deviations over places are what styles are described by (Huang & Belongie 2017, arXiv:1703.06868).

    Args:
        net: made with num_classes 0.
        stages: features are those of the last layer and, of every map that timm calls a feature, each channel's mean and deviation.
    """

    def __init__(self, net: Any, *, stages: bool = False):
        from timm.data.config import resolve_model_data_config

        trained_on = resolve_model_data_config(net)
        parts = [getattr(net, "head_hidden_size", net.num_features)]
        if stages:
            parts += [2 * one["num_chs"] for one in net.feature_info]
        super().__init__(sum(parts), trained_on["mean"], trained_on["std"], tuple(parts))
        self.net, self.stages = net, stages

    def features(self, pictures: Tensor) -> Tensor:
        if not self.stages:
            return self.net(pictures)
        last, maps = self.net.forward_intermediates(pictures, output_fmt="NCHW")
        pooled = [statistic for one in maps for statistic in (one.mean((2, 3)), one.std((2, 3), correction=0))]
        return torch.cat([self.net.forward_head(last), *pooled], 1)

    def last_map(self, pictures: Tensor) -> Tensor:
        return self.net.forward_intermediates(pictures, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[-1]

    def recompute_blocks(self) -> None:
        self.net.set_grad_checkpointing(True)


def timm_network(
    model: str, *, image_size: int | None = None, pretrained: bool = False, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A timm network without its classifier, with random weights unless others are asked for.

    Args:
        model: timm's name, with or without a tag of weights.
        image_size: side of the pictures in pixels, for networks with a fixed grid of patches; None: timm's.
        pretrained: with timm's own weights, downloaded once into its cache.
        state: weights in place of the download, which timm converts to its own keys.
    """
    import timm
    from timm.models import get_pretrained_cfg

    entry = get_pretrained_cfg(model)
    sizes: dict[str, Any] = {"img_size": image_size} if image_size and entry is not None and entry.fixed_input_size else {}
    if state is None:
        return timm.create_model(model, pretrained=pretrained, num_classes=0, **sizes)
    # without a classifier, timm accepts any state, even if no key fits; so the network is first made with the state's classifier
    named: Any = timm.get_pretrained_cfg_value(model, "classifier")
    classifier = named if isinstance(named, str) or not named else named[0]
    weight = state.get(f"{classifier}.weight")
    classes = 0 if weight is None else len(weight)
    overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0}
    net: Any = timm.create_model(model, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay, **sizes)
    net.reset_classifier(0)
    return net
