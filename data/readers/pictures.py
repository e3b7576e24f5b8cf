"""Pictures of a source, shrunk into a shop folder: an untrusted file is decoded within bounded memory, or listed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from data.pictures.files import PictureError, decode_picture, read_any_file
from data.readers.interactions import Interactions
from run.errors import UserError
from run.files import write_atomic
from run.progress import Progress

QUALITY = 90  # of the JPEG files that are written
_CHUNK = 256  # pictures between two updates of the progress


def found_pictures(found: Interactions, folder: Path) -> list[str | None]:
    """For each item the first of its possible pictures that is a file in `folder`; None where there is none."""
    listed: dict[str, set[str]] = {}

    def there(name: str) -> bool:
        parent, _, file = name.rpartition("/")
        if parent not in listed:
            place = folder / parent
            listed[parent] = {path.name for path in place.iterdir()} if place.is_dir() else set()
        return file in listed[parent]

    return [next(filter(there, found.picture_names(item)), None) for item in found.items["item_id"]]


def shrink_pictures(folder: Path, names: Sequence[str | None], images: Path, *, size: int, workers: int) -> list[str | None]:
    """Write each picture into `images` with its shorter side at most `size` pixels; returns the paths there, None where unreadable.

    A picture that several items share is written once. Unreadable ones are listed in unreadable_pictures.csv next to `images`.
    """
    distinct = sorted({name for name in names if name is not None})
    reasons: dict[str, str] = {}

    def shrink(name: str) -> None:
        try:
            pixels = decode_picture(read_any_file(folder / name), name, at_least=2 * size)
        except (PictureError, UserError) as error:
            reasons[name] = getattr(error, "reason", str(error))
            return
        target = images / _written(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        _smaller(pixels, size).save(content, "JPEG", quality=QUALITY)
        write_atomic(target, content.getvalue())

    images.mkdir(parents=True, exist_ok=True)
    with Progress("shrinking pictures", total=len(distinct), unit="pictures") as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        for first in range(0, len(distinct), _CHUNK):
            part = distinct[first : first + _CHUNK]
            list(pool.map(shrink, part))
            bar.advance(len(part))
    if reasons:
        content = io.StringIO()
        csv.writer(content).writerows([("file", "reason"), *sorted(reasons.items())])
        write_atomic(images.parent / "unreadable_pictures.csv", content.getvalue().encode())
    return [None if name is None or name in reasons else _written(name) for name in names]


def _written(name: str) -> str:
    return str(Path(name).with_suffix(".jpg"))


def _smaller(pixels: np.ndarray, size: int) -> Image.Image:
    """A picture with its shorter side at most `size` pixels; a smaller one as it is."""
    picture, shorter = Image.fromarray(pixels), min(pixels.shape[:2])
    if shorter <= size:
        return picture
    height, width = (max(1, round(side * size / shorter)) for side in pixels.shape[:2])
    return picture.resize((width, height), Image.Resampling.BOX if shorter >= 4 * size else Image.Resampling.LANCZOS)


def with_pictures(items: pl.DataFrame, images: Sequence[str | None]) -> pl.DataFrame:
    """Items with their column `image`, second."""
    return items.insert_column(1, pl.Series("image", images, dtype=pl.String))
