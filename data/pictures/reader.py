"""Pictures decoded from their files whenever they are asked for: for a catalogue that is read once, or whose store no disk would hold.

The pixels are those that a picture store holds, so that nothing depends on which of the two is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from data.pictures.files import PictureError, read_header, read_picture
from data.pictures.store import BadPicture, cover, files_of_rows, images_of, refuse_too_many, write_bad
from run.errors import UserError
from run.files import read_json, write_json
from run.progress import Progress

if TYPE_CHECKING:
    from data.log.shop_folder import Shop

_CHUNK = 4096  # headers between two words of progress


class Pictures(Protocol):
    """What pictures are read from: a `PictureStore` or `PictureFiles`."""

    @property
    def present(self) -> np.ndarray:
        """(N,) bool: the item has a picture, as far as is known before it is read."""
        ...

    @property
    def bad(self) -> list[BadPicture]:
        """The pictures found unreadable so far."""
        ...

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, S, S, 3) uint8."""
        ...

    def unreadable(self) -> np.ndarray:
        """() int64: items whose pictures proved unreadable when they were read."""
        ...


class PictureFiles:
    """All pictures of a shop, decoded by threads at each reading, S x S pixels each.

    A picture that proves unreadable is black, and remembered: `bad` lists it.

    Args:
        folder: the shop folder.
        images: (N,) each item's path under `images/`, None where it has no picture.
        size: side S of the squares, in pixels.
        workers: threads that decode.
        report: folder of `bad_pictures.csv`.
        max_bad_images: the largest share of unreadable pictures among items that name one.
        known_bad: items found to be unreadable before; they are not `present`.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[str | None],
        *,
        size: int,
        workers: int,
        report: Path,
        max_bad_images: float = 0.01,
        known_bad: dict[int, BadPicture] | None = None,
    ):
        self.folder, self.images, self.size = folder, images, size
        self.report, self.max_bad_images = report, max_bad_images
        self.trouble = dict(known_bad or {})
        self.present = np.array([image is not None and item not in self.trouble for item, image in enumerate(images)], dtype=bool)
        # what a picture's oddities are, its reason says; to catch warnings around each reading is not safe among threads
        warnings.filterwarnings("ignore", module=r"PIL\.")
        # decoding and resizing run outside Python's lock, so threads are enough and nothing is pickled
        self.pool = ThreadPoolExecutor(max(1, workers))

    @property
    def bad(self) -> list[BadPicture]:
        """The pictures found unreadable so far, in item order."""
        return [trouble for _, trouble in sorted(self.trouble.items())]

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, S, S, 3) uint8, in memory; an item that stands there twice is decoded once."""
        distinct, first, which = np.unique(items, return_index=True, return_inverse=True)
        pixels = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)

        def decode(row: int, item: int) -> None:
            image = self.images[item]
            if image is None or item in self.trouble:
                return
            try:
                pixels[row] = cover(read_picture(self.folder, image, at_least=2 * self.size), self.size)
            except PictureError as error:
                self.trouble[item] = BadPicture(file=image, reason=error.reason)

        list(self.pool.map(decode, first.tolist(), distinct.tolist()))
        source = first[which]
        again = np.flatnonzero(source != np.arange(len(items)))
        pixels[again] = pixels[source[again]]
        return pixels

    def unreadable(self) -> np.ndarray:
        """() int64: items whose pictures proved unreadable in this process; all are listed in `report`.

        To be asked after a pass over the catalogue, for which the share of unreadable pictures counts.

        Raises:
            DataError: the share is above `max_bad_images`.
        """
        self.list_bad()
        return np.array(sorted(self.trouble), dtype=np.int64)

    def list_bad(self) -> None:
        """Write `bad_pictures.csv`, and stop where it lists too many (DataError)."""
        write_bad(self.report, self.bad)
        refuse_too_many(self.bad, self.images, self.report, self.max_bad_images)


def picture_files(shop: Shop, report: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureFiles:
    """The shop's pictures as they are named, none of them looked at yet: for one pass, after which `unreadable` tells the bad ones."""
    return PictureFiles(shop.folder, images_of(shop), size=size, workers=workers, report=report, max_bad_images=max_bad_images)


def checked_files(shop: Shop, folder: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureFiles:
    """The shop's pictures with those left out that are missing or whose header is unreadable: for training, which draws from `present`.

    Headers are read by threads, once for the same files (by path, bytes and time of change): `folder` keeps what was found.

    Raises:
        DataError: the share of unreadable pictures is above `max_bad_images`; `folder/bad_pictures.csv` lists them all.
    """
    images = images_of(shop)
    key = {"files": files_of_rows(shop.folder, images)}
    bad = _found(folder, key)
    if bad is None:
        bad = _check(shop.folder, images, workers)
        write_json(folder / "checked.json", key | {"bad": [[item, trouble.file, trouble.reason] for item, trouble in bad.items()]})
    options = {"size": size, "workers": workers, "report": folder, "max_bad_images": max_bad_images}
    files = PictureFiles(shop.folder, images, known_bad=bad, **options)
    files.list_bad()
    return files


def _check(folder: Path, images: Sequence[str | None], workers: int) -> dict[int, BadPicture]:
    """The items whose pictures are missing or have no readable header."""

    def look(item: int) -> BadPicture | None:
        image = images[item]
        if image is None:
            return None
        try:
            read_header(folder, image)
        except PictureError as error:
            return BadPicture(file=image, reason=error.reason)
        return None

    bad: dict[int, BadPicture] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool, Progress("checking pictures", total=len(images), unit="pictures") as progress:
        for start in range(0, len(images), _CHUNK):
            items = range(start, min(start + _CHUNK, len(images)))
            found = zip(items, pool.map(look, items), strict=True)
            bad |= {item: trouble for item, trouble in found if trouble is not None}
            progress.advance(len(items))
    return bad


def _found(folder: Path, key: dict[str, str]) -> dict[int, BadPicture] | None:
    """What an earlier check of the very same files found; None: there was none."""
    if not (folder / "checked.json").exists():
        return None
    try:
        saved = read_json(folder / "checked.json")
        if {name: saved[name] for name in key} != key:
            return None
        return {item: BadPicture(file=file, reason=reason) for item, file, reason in saved["bad"]}
    except (UserError, KeyError, TypeError, ValueError):
        return None  # not what was written here: look again
