"""An embeddings folder: `vectors.npy` (N, D), `items.parquet` (item_id, row), `meta.json`.

`features.cluster` adds `clusters.parquet` (item_id, cluster) and `centres.npz` (centres (C, D), common (D,)), or `semantic_ids.parquet` and
`semantic_ids.npz`, which nothing here reads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.log.checks import ids
from pretrain.similarity import as_float32, normalise
from run.errors import DataError, UserError
from run.files import read_json, replacing, write_json


def write_embeddings(folder: Path, item_id: pl.Series, vectors: np.ndarray, meta: dict[str, Any]) -> None:
    """Write embeddings of items, in the order of `item_id`; `meta.json` comes last.

    Args:
        item_id: (N,) ids as in items.parquet.
        vectors: (N, D) float32, zero rows where an item has no picture.
        meta: encoder, hash and whether the rows have unit length (`normalised`).
    """
    table = pl.DataFrame({"item_id": item_id, "row": np.arange(len(vectors), dtype=np.int64)})
    with replacing(folder / "vectors.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(as_float32(vectors)))
    with replacing(folder / "items.parquet") as temporary, open(temporary, "wb") as file:
        table.write_parquet(file)
    # features.cluster's, for the replaced embeddings
    for stale in ("clusters.parquet", "centres.npz", "semantic_ids.parquet", "semantic_ids.npz"):
        (folder / stale).unlink(missing_ok=True)
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
        return pl.read_parquet(path, columns=["item_id"], glob=False)["item_id"]
    except Exception as error:  # polars raises many kinds of errors for a broken file
        raise UserError(f"{path}: not readable ({type(error).__name__})") from None


def warn_of_missing(source: Path, found: np.ndarray) -> None:
    """Report on stderr how many of the shop's items have no row in the embeddings of `source`.

    Args:
        found: (N,) bool, the item has one.
    """
    if not found.all():
        lacking = f"{np.count_nonzero(~found):,} of the shop's {len(found):,} items"
        print(f"warning: {source}: {lacking} have no row and count as having no picture", file=sys.stderr)


def read_embeddings(folder: Path, item_id: pl.Series) -> np.ndarray:
    """(N, D) float32 unit rows in the order of `item_id`; zero rows for items the folder does not hold, whose number is reported on stderr.

    Raises:
        UserError: a file is missing or unreadable, shapes disagree, a value is not finite, or as `rows_of`.
    """
    for name in ("vectors.npy", "items.parquet", "meta.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; an embeddings folder holds vectors.npy, items.parquet and meta.json")
    read_json(folder / "meta.json")
    try:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        table = pl.read_parquet(folder / "items.parquet", columns=["item_id", "row"], glob=False)
    except Exception as error:  # numpy and polars raise many kinds of errors for a broken file
        raise UserError(f"{folder}: not readable as embeddings ({type(error).__name__}: {error})") from None
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(folder / "vectors.npy", value=f"{vectors.dtype} {vectors.shape}", fix="give a float array of shape (N, D)")
    rows = _vector_rows(folder / "items.parquet", table["row"], len(vectors))
    places = rows_of(folder / "items.parquet", table["item_id"], item_id)
    found = places >= 0
    warn_of_missing(folder, found)
    places[found] = rows[places[found]]
    out = np.zeros((len(item_id), vectors.shape[1]), dtype=np.float32)
    out[found] = as_float32(vectors[places[found]])
    bad = np.flatnonzero(~np.isfinite(out).all(1))
    if len(bad):
        raise DataError(folder / "vectors.npy", row=int(places[bad[0]]), fix=f"not a finite number (item {item_id[int(bad[0])]!r})")
    return normalise(out)


def rows_of(file: Path, held: pl.Series, wanted: pl.Series) -> np.ndarray:
    """(N,) the row of each wanted item in a file that holds the ids `held` (M,); -1 if it has none.

    Args:
        file: the file that holds the ids.
        wanted: the shop's ids: integers or text.

    Raises:
        DataError: an id is null, of another type than the shop's, beyond 64 bits or duplicated, or none is the shop's.
    """
    wanted = wanted if wanted.dtype == pl.String else wanted.cast(pl.Int64)
    held = ids(str(file), held.alias("item_id"))
    if held.dtype == pl.String and wanted.dtype == pl.Int64 and held.str.strip_chars().str.contains(r"^-?[0-9]+$").all():
        held = held.str.strip_chars()  # a text file's ids have no type
        numbers = held.cast(pl.Int64, strict=False)
        if numbers.null_count():
            row = int(numbers.is_null().arg_max() or 0)
            raise DataError(file, row=row, column="item_id", value=held[row], fix="does not fit 64 bits with sign, as the shop's ids do")
        held = numbers
    elif held.dtype != wanted.dtype:
        raise DataError(file, column="item_id", value=held.dtype, fix=f"the shop's ids are {wanted.dtype}; give embeddings of this shop")
    twice = held.is_duplicated()
    if twice.any():
        row = int(twice.arg_max() or 0)
        raise DataError(file, row=row, column="item_id", value=held[row], fix="occurs more than once; give each item one row")
    table = pl.DataFrame({"item_id": held, "row": np.arange(len(held), dtype=np.int64)})
    rows = pl.DataFrame({"item_id": wanted}).join(table, on="item_id", how="left", maintain_order="left")["row"].fill_null(-1).to_numpy()
    if (rows < 0).all():
        like = f"; its ids are like {held[0]!r}, the shop's like {wanted[0]!r}" if len(held) else ""
        raise DataError(file, column="item_id", fix=f"holds none of the shop's items{like}")
    return rows.copy()


def _vector_rows(file: Path, rows: pl.Series, vectors: int) -> np.ndarray:
    """The column `row` of an embeddings folder's items.parquet, each a row of vectors.npy.

    Raises:
        DataError: it holds anything else.
    """
    wrong = pl.Series([True]) if not rows.dtype.is_integer() else rows.is_null() | (rows < 0) | (rows >= vectors)
    if len(rows) and wrong.any():
        place = int(wrong.arg_max() or 0)
        raise DataError(file, row=place, column="row", value=rows[place], fix=f"give a row of vectors.npy, which has {vectors:,}")
    return rows.cast(pl.Int64).to_numpy()
