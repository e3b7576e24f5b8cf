"""Pictures that could not be read: their list on disk, and the share above which a run stops."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.pictures.files import fix_for
from run.errors import DataError
from run.files import write_atomic

FILE = "bad_pictures.csv"


@dataclass(frozen=True, kw_only=True)
class BadPicture:
    """A picture that could not be read; its item counts as one without a picture."""

    file: str  # as in the items' `image` column
    reason: str


def write_bad(folder: Path, bad: Sequence[BadPicture]) -> None:
    """List unreadable pictures in `folder/bad_pictures.csv`."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "reason"])
    rows.writerows([picture.file, picture.reason] for picture in bad)
    write_atomic(folder / FILE, text.getvalue().encode("utf-8", errors="surrogateescape"))


def read_bad(folder: Path) -> list[BadPicture]:
    """What `write_bad` listed.

    Raises:
        OSError, ValueError, KeyError: there is no such list.
    """
    with open(folder / FILE, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [BadPicture(file=row["file"], reason=row["reason"]) for row in csv.DictReader(file)]


def refuse_too_many(bad: Sequence[BadPicture], images: Sequence[str | None], folder: Path, max_bad_images: float) -> None:
    """Stop where too large a share of the pictures that items name is unreadable.

    Raises:
        DataError: the share is above `max_bad_images`; it points at `folder/bad_pictures.csv`, which lists them.
    """
    named = sum(image is not None for image in images)
    if len(bad) > max_bad_images * named:
        examples = "; ".join(f"row {images.index(picture.file)}, images/{picture.file}: {picture.reason}" for picture in bad[:3])
        share = f"{len(bad):,} of {named:,} pictures are unreadable ({examples})"
        fix = fix_for([(picture.file, picture.reason) for picture in bad])
        raise DataError("items.parquet", column="image", fix=f"{share}; all are listed in {folder / FILE}: {fix}")
