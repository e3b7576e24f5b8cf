"""A table that stays on disk and is read one column or one stretch of rows at a time, for logs that do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from run.files import naming

STRETCH = 1 << 20  # rows read at a time


def _read(scan: pl.LazyFrame) -> pl.DataFrame:
    return scan.collect()


@dataclass(frozen=True, kw_only=True)
class StoredFrame:
    """The part of a pl.DataFrame's interface that a shop's readers use; a column is read from disk at every access."""

    scan: pl.LazyFrame
    schema: pl.Schema
    height: int
    stretch: int = STRETCH
    read: Callable[[pl.LazyFrame], pl.DataFrame] = _read  # `collect`, with errors that name the file

    @property
    def columns(self) -> list[str]:
        return self.schema.names()

    def __len__(self) -> int:
        return self.height

    def __getitem__(self, column: str) -> pl.Series:
        return self.read(self.scan.select(named(column)))[column]

    def select(self, *columns: str) -> pl.DataFrame:
        return self.read(self.scan.select(named(*columns)))


Frame = pl.DataFrame | StoredFrame


def named(*columns: str) -> pl.Expr:
    """These columns and no others: `pl.col` would read a column's name like `*` or `^a.*$` as a pattern."""
    return cs.by_name(*columns)


def stretches(frame: Frame, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Some columns of a table, stretch by stretch, each with the number of its first row; a table in memory is one stretch."""
    if isinstance(frame, pl.DataFrame):
        yield 0, frame.select(named(*columns))
        return
    for first in range(0, frame.height, frame.stretch):
        yield first, frame.read(frame.scan.select(named(*columns)).slice(first, frame.stretch))


def write_stretches(folder: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write a table as uncompressed Arrow files, one per stretch, that `open_frame` reads as one."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        write_arrow(folder / f"{number:06d}.arrow", frame)


def write_arrow(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as one uncompressed Arrow file.

    Raises:
        OSError: naming the file.
    """
    content = frame.write_ipc(None, compression="uncompressed")  # errors of polars' own writer have neither number nor file name
    with naming(path), open(path, "wb") as file:
        file.write(content.getbuffer())


def read_arrow(path: Path) -> pl.DataFrame:
    """The table that `write_arrow` wrote; `pl.read_ipc` would read brackets in a path as a pattern."""
    return pl.scan_ipc(path, glob=False).collect()


def open_frame(folder: Path, stretch: int = STRETCH) -> StoredFrame:
    """The table that `write_stretches` left in a folder."""
    scan = pl.scan_ipc(sorted(path for path in folder.iterdir() if path.suffix == ".arrow"), glob=False)
    return StoredFrame(scan=scan, schema=scan.collect_schema(), height=scan.select(pl.len()).collect().item(), stretch=stretch)
