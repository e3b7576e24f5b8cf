"""Reading one parquet table of a shop folder, or explaining in one line why it cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from data.arrays.stored_frame import STRETCH, StoredFrame
from run.errors import DataError, UserError

TABLES = ITEMS, USERS, IMPRESSIONS, EVENTS = ("items.parquet", "users.parquet", "impressions.parquet", "events.parquet")


def check_folder(folder: Path) -> None:
    """Refuse a folder that is missing, is a file, or holds data in a reserved form that is not supported yet."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; give the folder that holds items.parquet and impressions.parquet")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the folder that holds items.parquet and impressions.parquet")
    for name in ("vectors.npy", "vectors.parquet"):
        if (folder / name).exists():
            raise UserError(f"{name}: vectors in place of images/ are not supported yet; give pictures and move the file away")


def read_table(folder: Path, name: str, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The complete table `name`, or only `columns` of it, in file order.

    Raises:
        DataError: the file is missing, not parquet, damaged, has no rows, or lacks one of `columns`.
    """
    scan = _scan(folder, name, columns)
    frame = _read(name, scan)
    _require_rows(name, frame.height)
    return frame


def scan_table(folder: Path, name: str, *, columns: Sequence[str] | None = None, stretch: int = STRETCH) -> StoredFrame:
    """The table of `read_table`, left on disk; only its number of rows is read.

    Raises:
        DataError: as `read_table`, except that damaged data may show only when they are read.
    """
    scan = _scan(folder, name, columns)
    height = _read(name, scan.select(pl.len())).item()
    schema = _read(name, scan.head(0)).schema
    _require_rows(name, height)
    return StoredFrame(scan=scan, schema=schema, height=height, read=partial(_read, name), stretch=stretch)


def _scan(folder: Path, name: str, columns: Sequence[str] | None) -> pl.LazyFrame:
    path = folder / name
    if not path.exists():
        raise DataError(name, fix=f"no such file in {folder}; {_likely(name, _files(folder))}")
    if not path.is_file():
        raise DataError(name, fix="is not a file; write the table as one parquet file")
    with _parquet(name):
        # no globbing, and no columns from folder names: a folder may have any name
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        if columns is None:
            return scan
        have = scan.collect_schema().names()
    require_columns(name, have, columns)
    return scan.select(columns)


def _read(name: str, scan: pl.LazyFrame) -> pl.DataFrame:
    with _parquet(name):
        return scan.collect()


@contextmanager
def _parquet(name: str) -> Iterator[None]:
    """Report which table cannot be read and why, in place of polars' own error."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(name, fix=f"not readable as parquet ({reason}); write the file again") from None


def _require_rows(name: str, rows: int) -> None:
    if rows == 0:
        optional = name in (USERS, EVENTS)
        raise DataError(name, fix="has no rows; " + ("delete the file or fill it" if optional else "fill it"))


def require_columns(file: str, have: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a table without one of the `needed` columns, naming the nearest one that it has."""
    for name in needed:
        if name not in have:
            raise DataError(file, column=name, fix=f"no such column; {_nearest(name, list(have))}")


def index_of(values: pl.Series, known: pl.Series) -> np.ndarray:
    """(len(values),) int32: the position of each value in `known` (unique, same dtype); -1 if it is not there."""
    numbered = pl.DataFrame({"value": known, "index": np.arange(len(known), dtype=np.int32)})
    found = pl.DataFrame({"value": values}).join(numbered, on="value", how="left", maintain_order="left")
    return found["index"].fill_null(-1).to_numpy()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _likely(name: str, files: list[str]) -> str:
    """Which of `files` may be the missing table: the same name in another format or a misspelt one, never another table."""
    for file in files:
        if Path(file).stem == Path(name).stem:
            return f"there is {file!r}: write it as parquet"
    return _nearest(name, files, never=TABLES)


def _nearest(name: str, options: list[str], *, never: Sequence[str] = ()) -> str:
    """The option that `name` was probably meant to be, `never` excluded; or a list of them all."""
    near = difflib.get_close_matches(name, [option for option in options if option not in never], n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    shown = [name if name.isprintable() else repr(name) for name in options[:12]] + ["..."] * (len(options) > 12)
    return f"there are: {', '.join(shown)}" if options else "there are none"
