"""A table that stays on disk and is read a column or a stretch of rows at a time, where a pl.DataFrame would not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

STRETCH = 1 << 20  # rows read at a time


def _read(scan: pl.LazyFrame) -> pl.DataFrame:
    return scan.collect()


@dataclass(frozen=True, kw_only=True)
class StoredFrame:
    """What a shop's readers ask of a pl.DataFrame; each column is read anew whenever it is asked for."""

    scan: pl.LazyFrame
    schema: pl.Schema
    height: int
    stretch: int = STRETCH
    read: Callable[[pl.LazyFrame], pl.DataFrame] = _read  # `collect`, with errors of the file's kind

    @property
    def columns(self) -> list[str]:
        return self.schema.names()

    def __len__(self) -> int:
        return self.height

    def __getitem__(self, column: str) -> pl.Series:
        return self.read(self.scan.select(column))[column]

    def select(self, *columns: str) -> pl.DataFrame:
        return self.read(self.scan.select(columns))


Frame = pl.DataFrame | StoredFrame


def stretches(frame: Frame, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Some columns of a table, stretch by stretch, each with the number of its first row; of one in memory, all at once."""
    if isinstance(frame, pl.DataFrame):
        yield 0, frame.select(columns)
        return
    for first in range(0, frame.height, frame.stretch):
        yield first, frame.read(frame.scan.select(columns).slice(first, frame.stretch))


def write_stretches(folder: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write a table as uncompressed Arrow files, a stretch each, that `open_frame` reads as one."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        frame.write_ipc(folder / f"{number:06d}.arrow", compression="uncompressed")


def open_frame(folder: Path, stretch: int = STRETCH) -> StoredFrame:
    """The table that `write_stretches` left in a folder."""
    scan = pl.scan_ipc(sorted(folder.glob("*.arrow")), glob=False)
    return StoredFrame(scan=scan, schema=scan.collect_schema(), height=scan.select(pl.len()).collect().item(), stretch=stretch)
