"""An embeddings folder: `vectors.npy` (N, D), `items.parquet` (item_id, row), `meta.json`.

`features.cluster` adds `clusters.parquet` (item_id, cluster) and `centres.npz` (centres (C, D), common (D,)), which nothing here reads.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pretrain.similarity import normalise
from run.errors import DataError, UserError
from run.files import read_json, write_atomic, write_json


def write_embeddings(folder: Path, item_id: pl.Series, vectors: np.ndarray, meta: dict[str, Any]) -> None:
    """Write embeddings of items, in the order of `item_id`; `meta.json` comes last.

    Args:
        item_id: (N,) ids as in items.parquet.
        vectors: (N, D) float32, zero rows where an item has no picture.
        meta: encoder, hash and whether the rows have unit length (`normalised`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    array, table = io.BytesIO(), io.BytesIO()
    np.save(array, np.ascontiguousarray(vectors, dtype=np.float32))
    pl.DataFrame({"item_id": item_id, "row": np.arange(len(vectors), dtype=np.int64)}).write_parquet(table)
    for stale in ("clusters.parquet", "centres.npz"):  # features.cluster's, of the embeddings before these
        (folder / stale).unlink(missing_ok=True)
    write_atomic(folder / "vectors.npy", array.getvalue())
    write_atomic(folder / "items.parquet", table.getvalue())
    write_json(folder / "meta.json", {**meta, "items": len(vectors), "dim": int(vectors.shape[1])})


def embedded_items(folder: Path) -> pl.Series:
    """The ids of the items that an embeddings folder holds.

    Raises:
        UserError: `items.parquet` is missing or unreadable.
    """
    path = folder / "items.parquet"
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the folder that features.embed wrote")
    try:
        return pl.read_parquet(path, columns=["item_id"])["item_id"]
    except Exception as error:  # polars raises many kinds for a broken file
        raise UserError(f"{path}: not readable ({type(error).__name__})") from None


def warn_of_missing(source: Path, found: np.ndarray) -> None:
    """Say on stderr how many of the shop's items have no row in the embeddings of `source`.

    Args:
        found: (N,) bool, the item has one.
    """
    if not found.all():
        lacking = f"{np.count_nonzero(~found):,} of the shop's {len(found):,} items"
        print(f"warning: {source}: {lacking} have no row and count as without a picture", file=sys.stderr)


def read_embeddings(folder: Path, item_id: pl.Series) -> np.ndarray:
    """(N, D) float32 unit rows in the order of `item_id`; zero rows for items the folder does not hold, whose number is told on stderr.

    Raises:
        UserError: a file is missing or unreadable, shapes disagree, ids are of another type, a value is not finite, no item is found.
    """
    for name in ("vectors.npy", "items.parquet", "meta.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; an embeddings folder holds vectors.npy, items.parquet and meta.json")
    read_json(folder / "meta.json")
    try:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        table = pl.read_parquet(folder / "items.parquet", columns=["item_id", "row"])
        table = table.with_columns(pl.col("row").cast(pl.Int64))
    except Exception as error:  # numpy and polars raise many kinds for a broken file
        raise UserError(f"{folder}: not readable as embeddings ({type(error).__name__}: {error})") from None
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(folder / "vectors.npy", value=f"{vectors.dtype} {vectors.shape}", fix="give a float array of shape (N, D)")
    wanted = item_id if item_id.dtype == pl.String else item_id.cast(pl.Int64)
    held = table["item_id"]
    if (held.dtype == pl.String) != (wanted.dtype == pl.String):
        raise DataError(
            folder / "items.parquet",
            column="item_id",
            value=held.dtype,
            fix=f"the shop's ids are {wanted.dtype}; give embeddings of this shop",
        )
    table = table.with_columns(item_id=held.cast(wanted.dtype), row=pl.col("row")).unique("item_id", keep="first")
    rows = pl.DataFrame({"item_id": wanted}).join(table, on="item_id", how="left", maintain_order="left")["row"].to_numpy()
    found = ~np.isnan(rows)
    if not found.any():
        raise DataError(folder / "items.parquet", column="item_id", fix="holds none of the shop's items; embed them with features.embed")
    warn_of_missing(folder, found)
    places = rows[found].astype(np.int64)
    if places.min() < 0 or places.max() >= len(vectors):
        raise DataError(folder / "items.parquet", column="row", value=int(places.max()), fix=f"vectors.npy has {len(vectors)} rows")
    out = np.zeros((len(wanted), vectors.shape[1]), dtype=np.float32)
    out[found] = vectors[places]
    bad = np.flatnonzero(~np.isfinite(out).all(1))
    if len(bad):
        raise DataError(folder / "vectors.npy", row=int(rows[bad[0]]), fix=f"not a finite number (item {wanted[int(bad[0])]!r})")
    return normalise(out)
