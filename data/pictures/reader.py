"""Pictures decoded from their files every time they are read: for a catalogue that is read once, or too large for a store.

The pixels are those of a picture store: no result depends on which of the two is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data.pictures.bad import BadPicture, refuse_too_many, write_bad
from data.pictures.files import PictureError, read_header, read_picture
from data.pictures.resize import cover
from data.pictures.store import decoding_key, images_of
from run.errors import UserError
from run.files import read_json, write_json
from run.progress import Progress

if TYPE_CHECKING:
    from data.log.shop_folder import Shop

_CHUNK = 4096  # headers between two updates of the progress


class Pictures(Protocol):
    """A source of pictures: a `PictureStore` or `PictureFiles`."""

    @property
    def present(self) -> np.ndarray:
        """(N,) bool: the item has a picture, as far as known before it is read."""
        ...

    @property
    def bad(self) -> list[BadPicture]:
        """The pictures found unreadable so far."""
        ...

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, S, S, 3) uint8."""
        ...

    def unreadable(self) -> np.ndarray:
        """() int64: items whose pictures turned out to be unreadable."""
        ...


class PictureFiles:
    """All pictures of a shop, decoded by threads whenever they are read, S x S pixels each.

    A picture that turns out to be unreadable is black, and `bad` lists it.

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
        self.bad_items = dict(known_bad or {})
        self.present = np.array([image is not None and item not in self.bad_items for item, image in enumerate(images)], dtype=bool)
        # the reason given for an unreadable picture replaces warnings; catching them around each read is not thread-safe
        warnings.filterwarnings("ignore", module=r"PIL\.")
        # decoding and resizing run outside Python's lock, so threads are enough and nothing is pickled
        self.pool = ThreadPoolExecutor(max(1, workers))

    @property
    def bad(self) -> list[BadPicture]:
        """The pictures found unreadable so far, in item order."""
        return [picture for _, picture in sorted(self.bad_items.items())]

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, S, S, 3) uint8, in memory; an item given twice is decoded once."""
        distinct, first, which = np.unique(items, return_index=True, return_inverse=True)
        pixels = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)

        def decode(row: int, item: int) -> None:
            image = self.images[item]
            if image is None or item in self.bad_items:
                return
            try:
                pixels[row] = cover(read_picture(self.folder, image, at_least=2 * self.size), self.size)
            except PictureError as error:
                self.bad_items[item] = BadPicture(file=image, reason=error.reason)

        list(self.pool.map(decode, first.tolist(), distinct.tolist()))
        source = first[which]
        again = np.flatnonzero(source != np.arange(len(items)))
        pixels[again] = pixels[source[again]]
        return pixels

    def unreadable(self) -> np.ndarray:
        """() int64: items whose pictures turned out to be unreadable in this process; all are listed in `report`.

        Call it after a pass over the catalogue, to which `max_bad_images` applies.

        Raises:
            DataError: the share is above `max_bad_images`.
        """
        self.list_bad()
        return np.array(sorted(self.bad_items), dtype=np.int64)

    def list_bad(self) -> None:
        """Write `bad_pictures.csv`, and stop where it lists too many (DataError)."""
        write_bad(self.report, self.bad)
        refuse_too_many(self.bad, self.images, self.report, self.max_bad_images)


def picture_files(shop: Shop, report: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureFiles:
    """The shop's pictures, none of them read yet: for one pass, after which `unreadable` gives the bad ones."""
    return PictureFiles(shop.folder, images_of(shop), size=size, workers=workers, report=report, max_bad_images=max_bad_images)


def checked_files(shop: Shop, folder: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureFiles:
    """The shop's pictures except those that are missing or have an unreadable header: for training, which draws from `present`.

    Headers are read by threads, once for files with the same paths and content: `folder` caches the result.

    Raises:
        DataError: the share of unreadable pictures is above `max_bad_images`; `folder/bad_pictures.csv` lists them all.
    """
    images = images_of(shop)
    key = decoding_key(shop.folder, images)
    bad = _found(folder, key)
    if bad is None:
        bad = _check(shop.folder, images, workers)
        write_json(folder / "checked.json", key | {"bad": [[item, picture.file, picture.reason] for item, picture in bad.items()]})
    options = {"size": size, "workers": workers, "report": folder, "max_bad_images": max_bad_images}
    files = PictureFiles(shop.folder, images, known_bad=bad, **options)
    files.list_bad()
    return files


def _check(folder: Path, images: Sequence[str | None], workers: int) -> dict[int, BadPicture]:
    """The items whose pictures are missing or have no readable header."""

    def check(item: int) -> BadPicture | None:
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
            found = zip(items, pool.map(check, items), strict=True)
            bad |= {item: picture for item, picture in found if picture is not None}
            progress.advance(len(items))
    return bad


def _found(folder: Path, key: dict[str, Any]) -> dict[int, BadPicture] | None:
    """What an earlier check of the same files found; None: there was none."""
    if not (folder / "checked.json").exists():
        return None
    try:
        saved = read_json(folder / "checked.json")
        if {name: saved[name] for name in key} != key:
            return None
        return {item: BadPicture(file=file, reason=reason) for item, file, reason in saved["bad"]}
    except (UserError, KeyError, TypeError, ValueError):
        return None  # not what was written here: check again
