"""The features that a frozen body gives for every picture: computed once, mapped from disk, and read by every method and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from run.files import read_json, write_json
from run.prefetch import prefetch
from run.progress import Progress
from run.randomness import uniform

if TYPE_CHECKING:
    from data.pictures.reader import Pictures
    from pretrain.backbones.body import Body

_PART = 256  # pictures between two notes of what is done: at most these are computed again after a kill


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of all items' pictures, in place of the pictures themselves."""

    present: np.ndarray  # (N,) bool: the item has a picture, and it could be read
    full: np.ndarray  # (N, F) float32 of full pictures; zero rows where there is none
    distorted: np.ndarray | None = None  # (V, N, F) float32 of V distorted views of each; None: not needed

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, F) float32, in memory."""
        return self.full[items]

    def read_views(self, items: np.ndarray, view: np.ndarray, keys: tuple) -> np.ndarray:
        """(P, F) float32 of the views that a step shows: the full picture, or one of the V, another for each `view` of an item.

        Args:
            items: (P,) item indices.
            view: (P,) which view of the item.
            keys: of the draw, numbers.
        """
        if self.distorted is None:
            return self.full[items]
        views = len(self.distorted)
        first = (views * uniform(*keys, items, "first cached view")).astype(np.int64)
        step = 1 + ((views - 1) * uniform(*keys, items, "next cached view")).astype(np.int64)
        return self.distorted[(first + view * step) % views, items]

    def unreadable(self) -> np.ndarray:
        """(0,) int64: items whose pictures turned out to be unreadable are not `present`."""
        return np.zeros(0, dtype=np.int64)


def open_features(full: Path, distorted: Path | None = None) -> Features:
    """The features that `write_features` left in one folder, and those of distorted views in another."""
    arrays = {"full": _mapped(full)[0]} | ({} if distorted is None else {"distorted": _mapped(distorted)})
    return Features(present=np.load(full / "present.npy", allow_pickle=False), **arrays)


def _mapped(folder: Path) -> np.ndarray:
    return np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)


@torch.no_grad()
def write_features(
    folder: Path, body: Body, pictures: Pictures, items: np.ndarray, views: list[Callable[[Tensor, np.ndarray], Tensor]], *, batch: int
) -> int:
    """Compute the features of some items' pictures into `folder`; a killed call is resumed with the same bits.

    Args:
        items: (M,) ascending; others get zero rows.
        views: each makes (P, 3, H, W) in [0, 1] of (P, S, S, 3) uint8 and the items' indices.
        batch: pictures that go through the body at once.

    Returns:
        How many pictures were read.
    """
    body.eval()
    device, done = next(body.parameters()).device, folder / "parts.json"
    folder.mkdir(parents=True, exist_ok=True)
    saved = read_json(done) if done.exists() else {"pictures": 0, "unreadable": []}
    shape = (len(views), len(pictures.present), body.size)
    mode = "r+" if saved["pictures"] else "w+"
    array = np.lib.format.open_memmap(
        folder / "features.npy", mode=mode, **({} if saved["pictures"] else {"dtype": np.float32, "shape": shape})
    )
    unreadable = set(saved["unreadable"])
    parts = [items[start : start + _PART] for start in range(saved["pictures"], len(items), _PART)]
    progress = Progress("features", total=len(items), unit="pictures", start=saved["pictures"])
    with prefetch((part, torch.from_numpy(pictures.read(part))) for part in parts) as read, progress as bar:
        for part, pixels in read:
            for number, view in enumerate(views):
                found = [body(view(rows.to(device), some)).float().cpu() for some, rows in _batches(part, pixels, batch)]
                array[number, part] = torch.cat(found).numpy()
            array.flush()
            saved["pictures"] += len(part)
            unreadable |= set(pictures.unreadable().tolist())
            write_json(done, saved | {"unreadable": sorted(unreadable)})
            bar.advance(len(part))
    present = np.zeros(len(pictures.present), dtype=bool)
    present[items] = True
    lost = np.array(sorted(unreadable), dtype=np.int64)
    present[lost] = False
    array[:, lost] = 0
    array.flush()
    np.save(folder / "present.npy", present)
    return int(present.sum())


def _batches(items: np.ndarray, pixels: Tensor, batch: int) -> list[tuple[np.ndarray, Tensor]]:
    return [(items[start : start + batch], pixels[start : start + batch]) for start in range(0, len(items), batch)]
