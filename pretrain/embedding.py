"""A backbone's embeddings of the whole catalogue, and what validation makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from data.pictures import PictureStore
from data.shop_folder import Shop
from metrics.gauc import gauc
from pretrain.config import PretrainConfig
from pretrain.page_views import pretraining_items
from pretrain.similarity import centred, collapse, sim_scores
from pretrain.views import whole
from run.ahead import ahead

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def embed(net: nn.Module, store: PictureStore, config: PretrainConfig, *, batch: int = 1024, fabric: Fabric | None = None) -> np.ndarray:
    """(N, D) float32 unit embeddings of every item's picture, undistorted; zero rows where there is none.

    Args:
        batch: pictures that go through the network at once.
        fabric: gives the precision, and shares the work among its ranks, each of which gets all rows; None: float32, alone.
    """
    device = next(net.parameters()).device
    net.eval()
    vectors = np.zeros((len(store.present), config.dim), dtype=np.float32)
    present = np.flatnonzero(store.present)
    rank, ranks = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    own = present[len(present) * rank // ranks : len(present) * (rank + 1) // ranks]
    parts = [own[start : start + batch] for start in range(0, len(own), batch)]
    with ahead((part, torch.from_numpy(store.read(part))) for part in parts) as batches:
        for part, pixels in batches:
            with torch.autocast(device.type, enabled=False) if fabric is None else fabric.autocast():
                out = net(whole(pixels.to(device), config.image_size)).float()
            vectors[part] = torch.nn.functional.normalize(out, dim=1).cpu().numpy()
    if ranks > 1:
        assert fabric is not None
        vectors = fabric.all_reduce(torch.from_numpy(vectors).to(device), reduce_op="sum").cpu().numpy()  # type: ignore[union-attr]
    return vectors


def validate(net: nn.Module, shop: Shop, store: PictureStore, config: PretrainConfig, fabric: Fabric | None = None) -> tuple[float, float]:
    """(SimScore's GAUC in validation sessions, spread of the unit embeddings): what a checkpoint is chosen by, and collapse."""
    vectors = embed(net, store, config, batch=config.chunk or 1024, fabric=fabric)
    spread = collapse(vectors)
    if config.centre:
        vectors = centred(vectors, pretraining_items(shop, store.present))
    rows = shop.rows("valid")
    scores = sim_scores(shop, vectors, rows, history_items=config.valid_history, mask_same_item=config.mask_same_item)
    return gauc(shop.click[rows], scores, shop.session[rows]).value, spread
