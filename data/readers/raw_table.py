"""A table of a public data set, read block by block as text and checked column by column; a bad row is named, or counted and left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.log.checks import LATEST_SECOND
from run.errors import DataError, UserError
from run.progress import Progress

BLOCK = 1 << 25  # bytes read at a time; a quarter as many rows of a parquet file's
_PARQUET_ROWS = 1 << 19
# of a typed block, besides its columns' own checks: which rows are bad, the column at fault, and the fix
Check = Callable[[pl.DataFrame], tuple[pl.Series, str, str]]
_BETWEEN = "\x1f"  # in place of a separator of several characters; occurs in no text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a raw table: what it is called, how a text becomes a value, and what a good one is."""

    name: str
    parse: Callable[[pl.Expr], pl.Expr]  # of a text; null where it is not valid
    fix: str  # for a value that is not valid
    optional: bool = False  # an empty field is null


def integer(name: str, fix: str = "give an integer", **more: Any) -> Column:
    """Integers of 64 bits."""
    return Column(name=name, parse=lambda text: text.cast(pl.Int64, strict=False), fix=fix, **more)


def number(name: str, low: float, high: float, **more: Any) -> Column:
    """Finite numbers from `low` to `high`."""

    def parse(text: pl.Expr) -> pl.Expr:
        value = text.cast(pl.Float64, strict=False)
        return pl.when(value.is_between(low, high)).then(value)

    return Column(name=name, parse=parse, fix=f"give a number from {low:g} to {high:g}", **more)


def second(name: str) -> Column:
    """Unix seconds."""

    def parse(text: pl.Expr) -> pl.Expr:
        value = text.cast(pl.Int64, strict=False)
        return pl.when(value.is_between(0, LATEST_SECOND)).then(value)

    return Column(name=name, parse=parse, fix="give Unix seconds as an integer, not milliseconds")


def day(name: str) -> Column:
    """Days as Unix seconds of their midnight."""

    def parse(text: pl.Expr) -> pl.Expr:
        date = text.str.head(10).str.to_date("%Y-%m-%d", strict=False)
        return pl.when(date >= pl.date(1970, 1, 1)).then(date.cast(pl.Datetime("ms")).dt.epoch("s"))

    return Column(name=name, parse=parse, fix="give a date from 1970 on as YYYY-MM-DD")


def text(name: str, **more: Any) -> Column:
    """Text."""
    return Column(name=name, parse=lambda value: value, fix="every row needs one", **more)


def unique(column: str) -> Check:
    """A check that no value of a column comes twice, in all blocks together."""
    earlier: list[pl.Series] = []

    def repeated(block: pl.DataFrame) -> tuple[pl.Series, str, str]:
        values = block[column]
        again = ~values.is_first_distinct()
        for known in earlier:
            again |= values.is_in(known.implode())
        earlier.append(values)
        return again, column, "is in an earlier row too; keep one"

    return repeated


@dataclass(kw_only=True)
class RawTable:
    """A table on disk.

    Raises:
        UserError, DataError: on reading, where the file, a column or a value is not as expected.
    """

    path: Path
    columns: Sequence[Column]  # those that are read; the file may have others
    header: Sequence[str] | None = None  # of a file without one
    separator: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    in_blocks: bool = False  # of a file without line breaks in quotes: read block by block
    skip: float = 0.0  # largest share of bad rows that are left out; 0: the first one is an error
    rows: int = field(default=0, init=False)  # read so far
    refused: int = field(default=0, init=False)  # of them, left out

    def blocks(self, check: Check | None = None) -> Iterator[pl.DataFrame]:
        """The good rows, typed."""
        with Progress(f"reading {self.path.name}", total=max(1, self.path.stat().st_size), unit="bytes") as bar:
            for raw, size in self._raw():
                typed, bad = self._typed(raw)
                if check is not None:
                    wrong, column, fix = check(typed)
                    bad = self._note(raw, bad, wrong.fill_null(False) & ~bad, column, fix)
                self.rows += raw.height
                self.refused += int(bad.sum())
                yield typed.filter(~bad)
                bar.advance(size)
        if not self.rows:
            raise DataError(self.path.name, fix="has no rows; give the complete file")
        if self.refused > self.skip * self.rows:
            share = f"{self.refused:,} of {self.rows:,} rows are bad"
            raise UserError(f"{self.path.name}: {share}, more than --skip-bad-rows {self.skip:g} allows; check the file, or allow more")

    def read(self, check: Check | None = None) -> pl.DataFrame:
        """All good rows."""
        return pl.concat(list(self.blocks(check)))

    def _typed(self, raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """The columns with their types, and which rows are bad."""
        stripped = raw.select(pl.col(column.name).str.strip_chars().replace("", None) for column in self.columns)
        typed = stripped.select(column.parse(pl.col(column.name)).alias(column.name) for column in self.columns)
        bad = pl.Series(np.zeros(raw.height, bool))
        for column in self.columns:
            wrong = typed[column.name].is_null()
            if column.optional:
                wrong &= stripped[column.name].is_not_null()
            bad = self._note(raw, bad, wrong & ~bad, column.name, column.fix)
        return typed, bad

    def _note(self, raw: pl.DataFrame, bad: pl.Series, wrong: pl.Series, column: str, fix: str) -> pl.Series:
        """`bad` or `wrong`; the first wrong row is an error where none may be left out."""
        if wrong.any() and not self.skip:
            row = int(wrong.arg_true()[0])
            value = raw[column][row]
            if value is None or not value.strip():
                raise DataError(self.path.name, row=self.rows + row, column=column, fix=f"is empty; {fix}")
            raise DataError(self.path.name, row=self.rows + row, column=column, value=value, fix=fix)
        return bad | wrong

    def _raw(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Blocks of the columns as text, and how many bytes each took."""
        if self.path.suffix == ".parquet":
            yield from self._parquet()
            return
        with open(self.path, "rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
                file.seek(0)
            names = self.header or next(csv.reader([self._decoded(file.readline(), 0).rstrip("\r\n")], delimiter=self.separator), [])
            self._require([name.strip() for name in names])
            rest = b""
            while block := file.read(BLOCK if self.in_blocks else -1):
                rest += block
                # the last row waits, with the empty lines after it, which are no rows at the end of the file
                end = rest[: rest.rfind(b"\n") + 1].rstrip(b"\r\n").rfind(b"\n") + 1 if self.in_blocks else 0
                if end:
                    yield self._parsed(rest[:end], names), end
                    rest = rest[end:]
            if body := rest.rstrip(b"\r\n"):
                yield self._parsed(body, names), len(rest)

    def _parquet(self) -> Iterator[tuple[pl.DataFrame, int]]:
        try:
            scan = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
            self._require(scan.collect_schema().names())
            height = scan.select(pl.len()).collect().item()
            names = [column.name for column in self.columns]
            for first in range(0, height, _PARQUET_ROWS):
                part = scan.slice(first, _PARQUET_ROWS).select(pl.col(name).cast(pl.String) for name in names).collect()
                yield part, self.path.stat().st_size * part.height // height
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(self.path.name, fix=f"not readable as parquet ({_line(error)}); give the complete file") from None

    def _parsed(self, block: bytes, names: Sequence[str]) -> pl.DataFrame:
        content, separator = self._decoded(block, self.rows), self.separator
        if len(separator) > 1:
            content, separator = content.replace(separator, _BETWEEN), _BETWEEN
        header = separator.join(f"c{place}" for place in range(len(names)))  # of our own: a first row that is short or empty stays a row
        try:
            frame = pl.read_csv(
                io.BytesIO(f"{header}\n{content}".encode()), separator=separator, quote_char=self.quote, infer_schema=False,
                new_columns=list(names), raise_if_empty=False,
            )  # fmt: skip
        except pl.exceptions.PolarsError as error:
            self._name_ragged(content, separator, len(names))
            raise DataError(self.path.name, fix=f"not readable as a table ({_line(error)}); give the complete file") from None
        return frame.rename({name: name.strip() for name in names})

    def _name_ragged(self, content: str, separator: str, fields: int) -> None:
        """Raise for the first row with more fields than the header."""
        for row, values in enumerate(csv.reader(io.StringIO(content), delimiter=separator, quotechar=self.quote or None)):
            if len(values) > fields:
                raise DataError(self.path.name, row=self.rows + row, fix=f"has {len(values)} fields, the header {fields}; repair the row")

    def _decoded(self, block: bytes, first: int) -> str:
        try:
            return block.decode(self.encoding)
        except UnicodeDecodeError as error:
            row = first + block[: error.start].count(b"\n")
            fix = f"is not {self.encoding} text (byte {block[error.start]:#x}); convert the file to it"
            raise DataError(self.path.name, row=row, fix=fix) from None

    def _require(self, names: Sequence[str]) -> None:
        for column in self.columns:
            if column.name not in names:
                there = ", ".join(names) or "none"
                fix = f"no such column; there are: {there}; give the file as it was published, or rename the column meant"
                raise DataError(self.path.name, column=column.name, fix=fix)


def find_file(source: Path, names: Sequence[str], what: str) -> Path:
    """The first of some files that a folder holds.

    Raises:
        UserError: none of them is there, or `source` is not a folder.
    """
    if not source.is_dir():
        hint = "an archive: unpack it, and give the folder" if source.suffix in (".zip", ".gz", ".tar", ".7z") else "no such folder"
        raise UserError(f"{source}: {hint}")
    for name in names:
        if (source / name).is_file():
            return source / name
    raise UserError(f"{source}: there is no {' or '.join(names)}; give the folder that holds {what}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
