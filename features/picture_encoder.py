"""Embeddings of pictures that the catalogue does not hold: the trained encoder as a self-contained folder.

The folder holds `weights.safetensors` and `encoder.json` (backbone, sizes, a hash of the weights).
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.pictures.files import PictureError, decode_picture, read_any_file
from data.pictures.store import cover
from run.errors import UserError
from run.files import read_json, replacing, write_json
from run.folder import file_hash

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig

Picture = bytes | str | os.PathLike[str]  # a file's bytes, or its path
_SIZES = ("backbone", "dim", "image_size", "store_size", "head_shape")


def write_encoder(folder: Path, weights: Path, config: PretrainConfig) -> None:
    """Copy trained weights and record the network they belong to."""
    with replacing(folder / "weights.safetensors") as temporary:
        shutil.copyfile(weights, temporary)
    sizes = {name: getattr(config, name) for name in _SIZES}
    write_json(folder / "encoder.json", sizes | {"hash": file_hash(weights)})


class PictureEncoder:
    """A trained encoder on the CPU.

    Args:
        folder: what `write_encoder` wrote.

    Raises:
        UserError: a file is missing, or the weights have changed since.
    """

    def __init__(self, folder: Path):
        from pretrain.backbones.backbone import backbone

        self.sizes = read_json(folder / "encoder.json")
        weights = folder / "weights.safetensors"
        if file_hash(weights) != self.sizes["hash"]:
            raise UserError(f"{weights}: missing, or not the weights that were exported; export the model again")
        self.dim = self.sizes["dim"]
        self.net = backbone(
            self.sizes["backbone"], dim=self.dim, seed=0, image_size=self.sizes["image_size"], weights=str(weights),
            head=self.sizes["head_shape"],
        ).eval()  # fmt: skip

    def embed(self, pictures: Sequence[Picture]) -> tuple[np.ndarray, list[str]]:
        """(P, D) float32 unit embeddings as `pretrain.embedding.embed` gives them, and for each picture why it has none.

        Returns:
            The embeddings, zero rows for pictures that cannot be read; and reasons, "" for those that can.
        """
        import torch

        from pretrain.embedding import default_batch, unit
        from pretrain.views import resized

        size = self.sizes["store_size"]
        pixels = np.zeros((len(pictures), size, size, 3), dtype=np.uint8)
        reasons = [""] * len(pictures)
        for place, picture in enumerate(pictures):
            try:
                pixels[place] = _pixels(picture, size)
            except PictureError as error:
                reasons[place] = error.reason
        readable = np.array([not reason for reason in reasons], dtype=bool)
        vectors = np.zeros((len(pictures), self.dim), dtype=np.float32)
        batch = default_batch("cpu", self.sizes["image_size"])
        with torch.no_grad():
            for part in torch.from_numpy(np.flatnonzero(readable)).split(batch):
                if len(part):
                    out = self.net(resized(torch.from_numpy(pixels)[part], self.sizes["image_size"])).float()
                    vectors[part.numpy()] = unit(out)
        return vectors, reasons


def _pixels(picture: Picture, size: int) -> np.ndarray:
    """(size, size, 3) uint8 as a picture store holds them."""
    content, name = (picture, "a picture") if isinstance(picture, bytes) else (read_any_file(picture), str(picture))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason given for a picture replaces warnings
        return cover(decode_picture(content, name, at_least=2 * size), size)
