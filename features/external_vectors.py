"""External embeddings, from a file: npy, safetensors, parquet, or an embeddings folder of this project.

Rows are found by item_id if the file holds ids or an id file is next to it; otherwise row n is item n of items.parquet, as in MMRec's
`image_feat.npy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.embeddings import read_embeddings, rows_of, warn_of_missing
from pretrain.similarity import as_float32
from run.errors import DataError, UserError

_FORMATS = "give .npy, .safetensors, .parquet or an embeddings folder"
_IDS = (".ids.txt", ".ids.csv", ".ids.parquet", ".ids.npy")  # of an id file, in place of the suffix


def read_vectors(path: Path, item_id: pl.Series) -> np.ndarray:
    """(N, D) float32 in the order of `item_id`; zero rows for items the file does not hold. Lengths are as given (1 if beyond float32).

    Raises:
        UserError: another format, or unreadable.
        DataError: shape, ids or a value are invalid: names file, row, column, value and the fix.
    """
    if path.is_dir():
        return read_embeddings(path, item_id)
    if not path.is_file():
        raise UserError(f"{path}: no such file of embeddings; {_FORMATS}")
    readers = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UserError(f"{path}: embeddings in an unsupported format; {_FORMATS}")
    vectors, held, columns = readers[path.suffix](path)
    file = path
    if held is None and (found := _adjacent_ids(path, len(vectors))) is not None:
        file, held = found
    if held is None:
        if len(vectors) != len(item_id):
            fix = f"items.parquet has {len(item_id):,} rows; without ids row n is item n: give as many, or ids in {_id_file_names(path)}"
            raise DataError(path, value=f"{len(vectors):,} rows", fix=fix)
        rows = np.arange(len(item_id))
    else:
        rows = rows_of(file, held, item_id)
    found = rows >= 0
    warn_of_missing(path, found)
    out = np.zeros((len(item_id), vectors.shape[1]), dtype=np.float32)
    out[found] = as_float32(vectors[rows[found]])
    bad = np.argwhere(~np.isfinite(out))
    if len(bad):
        item, place = (int(number) for number in bad[0])
        value = vectors[int(rows[item]), place]
        fix = f"item {item_id[item]!r}: give finite numbers; leave out the row of an item without a picture, or give zeros"
        raise DataError(path, row=int(rows[item]), column=columns[place] if columns else str(place), value=value, fix=fix)
    if not out.any():
        raise DataError(path, fix="all embeddings of the shop's items are zero")
    return out


def id_files(path: Path) -> list[Path]:
    """The id files next to a file of embeddings: `image_feat.ids.txt` next to `image_feat.npy`."""
    return [path.with_suffix(ending) for ending in _IDS if path.with_suffix(ending).is_file()]


Read = tuple[np.ndarray, "pl.Series | None", "list[str] | None"]  # (M, D) numbers, (M,) ids, D names of columns


def _npy(path: Path) -> Read:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors for a broken file
        raise UserError(f"{path}: not readable as a NumPy array of numbers ({type(error).__name__}: {error})") from None
    return _matrix(path, vectors), None, None


def _safetensors(path: Path) -> Read:
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except Exception as error:  # a broken file fails in many ways
        raise UserError(f"{path}: not readable as safetensors ({type(error).__name__})") from None
    ids = tensors.pop("item_id", None)
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    if len(matrices) != 1:
        fix = "give one tensor of shape (N, D), and ids as `item_id` (N,) or in a file next to it"
        raise DataError(path, value=", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) or "no tensor", fix=fix)
    tensor = next(iter(matrices.values()))
    narrow = tensor.is_floating_point() and tensor.itemsize < 4  # NumPy has no bfloat16
    vectors = _matrix(path, (tensor.float() if narrow else tensor).numpy())
    if ids is not None and (ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or len(ids) != len(vectors)):
        raise DataError(path, column="item_id", value=f"{ids.dtype} {tuple(ids.shape)}", fix=f"give ({len(vectors)},) integers")
    return vectors, None if ids is None else pl.Series("item_id", ids.numpy()), None


def _parquet(path: Path) -> Read:
    try:
        frame = pl.read_parquet(path, glob=False)
    except Exception as error:  # polars raises many kinds of errors for a broken file
        raise UserError(f"{path}: not readable as parquet ({type(error).__name__})") from None
    if "item_id" not in frame.columns:
        raise DataError(path, column="item_id", fix=f"no such column; there are {', '.join(frame.columns[:8])}")
    rest = frame.drop("item_id")
    lists = [name for name, kind in rest.schema.items() if isinstance(kind, pl.List | pl.Array)]
    floats = [name for name, kind in rest.schema.items() if kind.is_float()]
    if len(lists) == 1:
        return _from_lists(path, frame[lists[0]]), frame["item_id"], None
    if lists or not floats:
        what = ", ".join(f"{name} {kind}" for name, kind in list(rest.schema.items())[:8])
        raise DataError(path, value=what or "item_id alone", fix="give one column of lists, or columns of floats, next to item_id")
    return frame.select(pl.col(floats).cast(pl.Float64)).fill_null(float("nan")).to_numpy(), frame["item_id"], floats


def _from_lists(path: Path, column: pl.Series) -> np.ndarray:
    """A column of lists as a matrix: zeros where a list is null, NaN where a number is."""
    kind: Any = column.dtype
    if not kind.inner.is_numeric():
        raise DataError(path, column=column.name, value=kind, fix="give lists of numbers")
    lists = column.cast(pl.List(pl.Float64))
    length = lists.list.len().fill_null(-1).to_numpy()
    present = np.flatnonzero(length >= 0)
    if not len(present) or not length[present[0]]:
        raise DataError(path, column=column.name, fix="holds no embedding")
    dim = int(length[present[0]])
    other = present[length[present] != dim]
    if len(other):
        fix = f"row {present[0]} has {dim}; give lists of one length (null for an item without a picture)"
        raise DataError(path, row=int(other[0]), column=column.name, value=f"{length[other[0]]} numbers", fix=fix)
    vectors = np.zeros((len(column), dim))
    vectors[present] = lists.drop_nulls().explode().fill_null(float("nan")).to_numpy().reshape(-1, dim)
    return vectors


def _matrix(path: Path, vectors: np.ndarray) -> np.ndarray:
    numbers = np.issubdtype(vectors.dtype, np.floating) or np.issubdtype(vectors.dtype, np.integer)
    if vectors.ndim != 2 or not numbers or 0 in vectors.shape:
        raise DataError(path, value=f"{vectors.dtype} {vectors.shape}", fix="give numbers of shape (N, D): one row per item")
    return vectors


def _id_file_names(path: Path) -> str:
    return " or ".join(path.with_suffix(ending).name for ending in _IDS)


def _adjacent_ids(path: Path, rows: int) -> tuple[Path, pl.Series] | None:
    """The file of ids next to `path`, and its ids, one per row of `path`; None if there is no such file."""
    files = id_files(path)
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{path}: two files of ids next to it, {files[0].name} and {files[1].name}; leave one")
    file = files[0]
    try:
        if file.suffix == ".txt":
            ids = pl.Series("item_id", _lines(file), dtype=pl.String)
        elif file.suffix == ".npy":
            ids = pl.Series("item_id", np.load(file, allow_pickle=False))
        else:
            frame = pl.read_csv(file, infer_schema=False, glob=False) if file.suffix == ".csv" else pl.read_parquet(file, glob=False)
            ids = frame["item_id"]
    except Exception as error:  # a broken file fails in many ways
        raise UserError(f"{file}: not readable as ids ({type(error).__name__}); give one id per row, in a column named item_id") from None
    if len(ids) != rows:
        raise DataError(file, value=f"{len(ids):,} ids", fix=f"{path.name} has {rows:,} rows; give one id for each")
    return file, ids


def _lines(file: Path) -> list[str]:
    """The lines of a text file; an id may hold Unicode's other line breaks."""
    text = file.read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n") if text else []
