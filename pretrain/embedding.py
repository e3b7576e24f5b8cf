"""A backbone's embeddings of the full catalogue, and their validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from data.log.shop_folder import Shop
from data.log.statistics import popularity
from data.pictures.reader import Pictures
from metrics.conditional_logit import conditional_logit
from metrics.gauc import gauc
from pretrain.page_views import pretraining_items
from pretrain.settings import CommonConfig
from pretrain.similarity import centred, collapse, normalise, sim_scores
from pretrain.views import resized
from run.prefetch import prefetch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pretrain.backbones.feature_store import Features


_BATCH = 1024  # most pictures that go through a network at once by default
_PIXELS = {"cpu": 2**20, "cuda": 2**24}  # and most of their pixels: a CPU slows down beyond its caches, a GPU needs large batches


def embed(
    net: nn.Module, pictures: Pictures | Features, config: CommonConfig, *, batch: int = 0, fabric: Fabric | None = None
) -> np.ndarray:
    """(N, D) float32 unit embeddings of every item's picture, undistorted; zero rows where there is none or it is unreadable.

    Args:
        net: a backbone; for features its head.
        batch: pictures encoded at once; 0: a number that suits the device and the pictures' size.
        fabric: gives the precision and shares the work among its ranks (each gets all rows); None: float32, one process.

    Raises:
        DataError: pictures are decoded while embedding, and too many are unreadable.
    """
    vectors = np.zeros((len(pictures.present), config.dim), dtype=np.float32)
    present = np.flatnonzero(pictures.present)
    rank, ranks = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    own = present[len(present) * rank // ranks : len(present) * (rank + 1) // ranks]
    for part, part_vectors in embedded(net, pictures, own, config, batch=batch, fabric=fabric):
        vectors[part] = part_vectors
    vectors[pictures.unreadable()] = 0
    if ranks > 1:
        assert fabric is not None
        vectors = fabric.all_reduce(torch.from_numpy(vectors).to(fabric.device), reduce_op="sum").cpu().numpy()  # type: ignore[union-attr]
    return vectors


@torch.no_grad()
def embedded(
    net: nn.Module, pictures: Pictures | Features, items: np.ndarray, config: CommonConfig, *, batch: int = 0, fabric: Fabric | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of `items`, as indices, with their (P, D) float32 unit embeddings; the next batch's pictures are read meanwhile.

    Args:
        batch, fabric: as `embed`'s.
    """
    device = next(net.parameters()).device
    net.eval()
    batch = batch or default_batch(device.type, config.image_size)
    parts = [items[start : start + batch] for start in range(0, len(items), batch)]
    with prefetch((part, torch.from_numpy(pictures.read(part))) for part in parts) as batches:
        for part, read in batches:
            with torch.autocast(device.type, enabled=False) if fabric is None else fabric.autocast():
                out = net(undistorted(read.to(device), config.image_size)).float()
            yield part, unit(out)


def undistorted(read: Tensor, size: int) -> Tensor:
    """What a network is given of full pictures: (P, 3, size, size) of (P, S, S, 3) pixels; (P, F) features of a frozen body as they are."""
    return read if read.ndim == 2 else resized(read, size)


def unit(out: torch.Tensor) -> np.ndarray:
    """(P, D) outputs of a network -> unit rows, even if a length exceeds float32; a zero row stays zero."""
    found = torch.nn.functional.normalize(out, dim=1).cpu().numpy()
    odd = np.flatnonzero(~(np.linalg.norm(found, axis=1) > 0.5))  # torch gives 0 for an infinite length, and divides by no less than 1e-12
    found[odd] = normalise(out[torch.from_numpy(odd)].cpu().numpy()) if len(odd) else found[odd]
    return found


def default_batch(device: str, image_size: int) -> int:
    """How many pictures go through a network at once on a kind of device ("cpu", "cuda")."""
    return max(1, min(_BATCH, _PIXELS.get(device, _PIXELS["cuda"]) // image_size**2))


def similarity_scores(shop: Shop, vectors: np.ndarray, rows: np.ndarray, config: CommonConfig) -> np.ndarray:
    """(B,) `sim_scores` of impression rows by (N, D) unit embeddings, as in validation: less their common part if `centre` is set."""
    if config.centre:
        vectors = centred(vectors, pretraining_items(shop, np.any(vectors, axis=1)))
    return sim_scores(shop, vectors, rows, history_items=config.valid_history, mask_same_item=config.mask_same_item)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation sessions: V impressions, and what is known of their items without pictures."""

    shop: Shop
    rows: np.ndarray  # (V,) impression rows
    popularity: np.ndarray  # (V, 2) of their items (data/log/statistics.py)

    @classmethod
    def of(cls, shop: Shop) -> Validation:
        rows = shop.rows("valid")
        return cls(shop=shop, rows=rows, popularity=popularity(shop, rows))

    def gauc(
        self, net: nn.Module, pictures: Pictures | Features, config: CommonConfig, fabric: Fabric | None = None
    ) -> tuple[float, float]:
        """(`beside_popularity` of a network's similarities, spread of its unit embeddings): to select a checkpoint, and to see collapse."""
        vectors = embed(net, pictures, config, batch=config.chunk, fabric=fabric)
        return self.beside_popularity(similarity_scores(self.shop, vectors, self.rows, config)), collapse(vectors)

    def beside_popularity(self, *scores: np.ndarray) -> float:
        """GAUC of popularity and scores (V,) together, weighed by conditional logit; of popularity alone where none is given.

        Any CTR model knows what is popular, so an encoder is chosen for what it adds. A picture's similarity to clicks also tells what
        everyone likes: alone, it may rank ever better while it adds ever less (docs/log.md, 1 December 2026).
        """
        mixed = np.column_stack([self.popularity, *scores]) @ self.weights(*scores)
        return gauc(self.shop.click[self.rows], mixed, self.shop.session[self.rows]).value

    def weights(self, *scores: np.ndarray) -> np.ndarray:
        """(2 + n,) of popularity's numbers and of n scores (V,): those under which the validation sessions' clicks are most probable."""
        columns = np.column_stack([self.popularity, *scores])
        return conditional_logit(columns, self.shop.click[self.rows], self.shop.session[self.rows])
