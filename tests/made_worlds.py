"""Built-in worlds for tests: small ones, substitutes for Fashion-MNIST's files, tables with their truth."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import polars as pl

SIZES = {"users": 150, "items": 240, "sessions": 4000}


def write_idx(path: Path, values: np.ndarray) -> None:
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_photos(folder: Path) -> Path:
    """Files in Fashion-MNIST's format, with 700 grey rectangles as photos."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", 600), ("t10k", 100)):
        pictures = np.zeros((count, 28, 28), dtype=np.uint8)
        for picture in pictures:
            width, height, grey = rng.integers(4, 14), rng.integers(4, 14), rng.integers(60, 256)
            picture[14 - height : 14 + height, 14 - width : 14 + width] = grey
            picture[14 - height : 14 + height : 3, 14 - width : 14 + width] //= int(rng.integers(1, 4))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return folder


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def log_with_truth(folder: Path) -> pl.DataFrame:
    """Impressions with their click probability and their item's launch."""
    truth = table(folder, "truth/items").select("item_id", "launch")
    log = table(folder, "impressions").hstack(table(folder, "truth/impressions"))
    return log.join(truth, on="item_id", how="left", maintain_order="left")
