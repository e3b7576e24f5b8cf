"""Which data set a shop folder holds, whatever its path, its machine and its files' times.

It covers what a run reads: the tables, the pictures that items name, given vectors, whether the clicks are simulated and whether
impressions without a click were sampled. `truth/`, pictures that no item names and other stray files are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from data.hash_cache import content_hashes
from data.origin import ORIGIN
from data.picture_paths import real_paths

TABLES = ("items.parquet", "users.parquet", "impressions.parquet", "events.parquet", "vectors.parquet", "vectors.npy")


def shop_fingerprint(folder: Path | str) -> str:
    """A hash of a data set's content: 16 hexadecimal digits, the same for every byte-identical copy of the folder.

    A table or picture that is missing or cannot be read counts as absent; loading the shop names it. Of `world.json`, which describes how a
    built-in world was made, and of `origin.json`, which `data.convert` writes, only the existence matters: clicks are simulated, or
    impressions sampled.
    """
    folder = Path(folder).resolve()
    images = _named_images(folder)
    tables = content_hashes(folder, [str(folder / name) for name in TABLES])
    digest = hashlib.sha256(json.dumps(["simulated", (folder / "world.json").exists()]).encode())
    if (folder / ORIGIN).is_file():
        digest.update(json.dumps(["sampled", True]).encode())
    for name in TABLES:
        digest.update(json.dumps([name, tables[str(folder / name)]]).encode())
    for image, content in zip(images, picture_hashes(folder, images), strict=True):
        digest.update(json.dumps(["images", normalize("NFC", image), content]).encode())
    return digest.hexdigest()[:16]


def picture_hashes(folder: Path, images: Sequence[str | None]) -> list[str | None]:
    """The SHA-256 of each picture's file; None where there is no file under `images/` to read.

    Args:
        folder: the shop folder.
        images: paths under `images/`, None for no picture.
    """
    folder = folder.resolve()
    paths = real_paths(folder, images)
    found = content_hashes(folder, [path for path in paths if path is not None])
    return [None if path is None else found[path] for path in paths]


def _named_images(folder: Path) -> list[str]:
    """The paths that items name, each once, sorted; none where the table cannot be read."""
    import polars as pl

    try:
        table = pl.scan_parquet(folder / "items.parquet", glob=False, hive_partitioning=False)
        names = table.select(pl.col("image").cast(pl.String, strict=False)).collect()["image"]
        return sorted(names.drop_nulls().unique().to_list())
    except (pl.exceptions.PolarsError, OSError):
        return []
