"""Helpers for tests of several encoders: one step's gradients, and an interrupted training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from data.log.shop_folder import Shop
from data.pictures.store import PictureStore
from pretrain.backbones.backbone import backbone
from pretrain.config import PretrainConfig
from pretrain.feed import feed
from pretrain.gradient_cache import loss_of_step
from pretrain.loop import train_encoder
from pretrain.methods.method import Method
from pretrain.methods.table import make_method
from pretrain.training import prepare
from run.checkpoint import load_checkpoint
from run.devices import set_up


def one_step(encoder: str, shop: Shop, store: PictureStore, config: PretrainConfig) -> tuple[float, dict[str, Tensor]]:
    """The first step's loss, and its gradient in each weight of backbone and heads, by name; in float64, where sums in
    another order agree to many digits."""
    method = make_method(encoder, shop, store.present, config, 0)
    assert method is not None
    net = backbone(config.backbone, dim=config.dim, seed=0)
    run = prepare(encoder, net, method, shop, config, seed=0, fabric=set_up(1, config.precision))
    run.parts.double().train()
    _, loss, _, _ = loss_of_step(run, feed(method, store, first=0, rank=0, ranks=1, chunk=config.chunk))
    return loss.item(), {name: weight.grad for name, weight in run.parts.named_parameters() if weight.grad is not None}


def train_with_a_stop(
    encoder: str, kind: type[Method], at: int, shop: Shop, store: PictureStore, config: PretrainConfig, folder: Path
) -> dict[str, Any]:
    """Interrupt a training when it draws its `at`-th step and resume it; returns what `train_encoder` does.

    Args:
        kind: the encoder's class, whose `step` is replaced temporarily.
    """
    drawn = 0
    draw = kind.step

    def dies(self, number):
        nonlocal drawn
        drawn += 1
        if drawn == at:
            raise KeyboardInterrupt
        return draw(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(encoder, shop, store, config, seed=1, folder=folder, threads=1)
    saved = load_checkpoint(folder / "last.pt")
    assert saved is not None
    assert saved["state"]["step"] > 0
    return train_encoder(encoder, shop, store, config, seed=1, folder=folder, threads=1)
