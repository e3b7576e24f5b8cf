"""The picture store: every picture of a shop decoded once, as one memory-mapped array of equal squares.

A store folder holds `pixels.npy`, `state.npy` (one byte an item), `bad_pictures.csv` and `store.json`, written last.
Until it is there, the folder is a start that the same call goes on from.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.pictures.files import PictureError, fix_for, read_picture
from run.errors import DataError, UserError
from run.files import read_json, write_atomic, write_json
from run.progress import Progress

if TYPE_CHECKING:
    from data.log.shop_folder import Shop

CHUNK = 512  # pictures between two flushes: what a kill may cost
_TODO, _PRESENT, _NONE, _BAD = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class BadPicture:
    """A picture that could not be read; its item counts as one without a picture."""

    file: str  # as in the items' `image` column
    reason: str


@dataclass(frozen=True, kw_only=True)
class PictureStore:
    """All pictures of a shop, S x S pixels each."""

    pixels: np.ndarray  # (N, S, S, 3) uint8 memory map, row = item index; zeros where absent
    present: np.ndarray  # (N,) bool: the item has a readable picture
    bad: list[BadPicture]  # in item order

    def read(self, items: np.ndarray) -> np.ndarray:
        """(P,) item indices -> (P, S, S, 3) uint8, in memory."""
        return self.pixels[items]

    def unreadable(self) -> np.ndarray:
        """() int64: no items, for what is unreadable was told when the store was built, and is not `present`."""
        return np.zeros(0, dtype=np.int64)


def build_store(shop: Shop, folder: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureStore:
    """Decode all pictures of `shop` into `folder`, or go on where an earlier call was killed.

    A picture is cropped to its central square and resized to `size` with antialiasing. A finished store of the same
    files (by path, bytes and time of change) is opened as it is. The result does not depend on `workers` nor on kills.

    Args:
        folder: the store's own folder; another store in it is replaced.
        size: side S of the stored squares, in pixels.
        workers: threads that decode.
        max_bad_images: the largest share of unreadable pictures among items that name one.

    Raises:
        DataError: the share of unreadable pictures is above `max_bad_images`; `folder/bad_pictures.csv` lists them all.
    """
    images = images_of(shop)
    key = {"size": size, "resized": "torch, bicubic", "files": files_of_rows(shop.folder, images)}
    pixels, state = _prepare(folder, key, len(images))
    if not (folder / "store.json").exists():
        bad = _fill(shop.folder, images, pixels, state, workers)
        write_bad(folder, bad)
        pixels.flush()
        write_json(folder / "store.json", key)
    store = open_store(folder)
    refuse_too_many(store.bad, images, folder, max_bad_images)
    return store


def images_of(shop: Shop) -> list[str | None]:
    """(N,) each item's path under `images/`, None where it has no picture."""
    return shop.items["image"].to_list() if "image" in shop.items.columns else [None] * shop.items.height


def open_store(folder: Path) -> PictureStore:
    """Open a finished store without reading its pixels.

    Raises:
        UserError: there is no finished store in `folder`, or its files do not belong together.
    """
    if not (folder / "store.json").exists():
        raise UserError(f"{folder}: holds no finished picture store; build it again")
    try:
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        state = np.load(folder / "state.npy", allow_pickle=False)
        with open(folder / "bad_pictures.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            bad = [BadPicture(file=row["file"], reason=row["reason"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a readable picture store ({error}); delete it and build it again") from None
    if pixels.ndim != 4 or state.shape != pixels.shape[:1]:
        raise UserError(f"{folder}: files of two different picture stores; delete it and build it again")
    return PictureStore(pixels=pixels, present=state == _PRESENT, bad=bad)


def cover(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3): the central square, resized with antialiasing (bicubic)."""
    import torch
    from torch.nn.functional import interpolate

    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    # cropped first: resizing first would blow a 1 x 40,000,000 strip up to terabytes
    square = torch.from_numpy(np.array(pixels[top : top + side, left : left + side])).permute(2, 0, 1)[None]
    # torch's rather than Pillow's: four times as fast, and nowhere more than two of 256 levels away
    resized = interpolate(square, size=(size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def _prepare(folder: Path, key: dict, items: int) -> tuple[np.memmap, np.memmap]:
    """The two arrays of the store under `key`: as an earlier call left them, or new."""
    shape = (items, key["size"], key["size"], 3)
    try:
        if read_json(folder / "key.json") == key:
            pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="r+")
            state = np.lib.format.open_memmap(folder / "state.npy", mode="r+")
            if pixels.shape == shape and state.shape == (items,):
                return pixels, state
    except (UserError, OSError, ValueError):
        pass  # no start to go on from
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "key.json").exists():
            raise UserError(f"{folder}: holds other files, which a picture store would replace; give another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(folder / "key.json", key)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    state = np.lib.format.open_memmap(folder / "state.npy", mode="w+", dtype=np.uint8, shape=(items,))
    return pixels, state


def _fill(folder: Path, images: Sequence[str | None], pixels: np.ndarray, state: np.ndarray, workers: int) -> list[BadPicture]:
    """Decode what is still to do, by chunks: first the pixels reach the disk, then the news that they are there."""
    size = pixels.shape[1]
    state[state == _BAD] = _TODO  # read again, for their reasons were lost with the killed process
    todo = np.flatnonzero(np.asarray(state) == _TODO)
    bad: list[BadPicture] = []

    def decode(item: int) -> tuple[int, BadPicture | None]:
        image = images[item]
        if image is None:
            return _NONE, None
        try:
            pixels[item] = cover(read_picture(folder, image, at_least=2 * size), size)
        except PictureError as error:
            return _BAD, BadPicture(file=image, reason=error.reason)
        return _PRESENT, None

    progress = Progress("decoding pictures", total=len(images), unit="pictures", start=len(images) - len(todo))
    # decoding and resizing run outside Python's lock, so threads are enough and nothing is pickled
    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, workers)) as pool, progress:
        warnings.simplefilter("ignore")  # what a picture's oddities are, its reason says
        for chunk in _chunks(todo):
            results = list(pool.map(decode, chunk.tolist()))
            _flush(pixels)
            state[chunk] = [done for done, _ in results]
            _flush(state)
            bad += [trouble for _, trouble in results if trouble is not None]
            progress.advance(len(chunk))
    return bad


def _chunks(todo: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(todo), CHUNK):
        yield todo[start : start + CHUNK]


def _flush(array: np.ndarray) -> None:
    if isinstance(array, np.memmap):
        array.flush()


def write_bad(folder: Path, bad: Sequence[BadPicture]) -> None:
    """List unreadable pictures in `folder/bad_pictures.csv`."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "reason"])
    rows.writerows([trouble.file, trouble.reason] for trouble in bad)
    write_atomic(folder / "bad_pictures.csv", text.getvalue().encode("utf-8", errors="surrogateescape"))


def refuse_too_many(found: Sequence[BadPicture], images: Sequence[str | None], folder: Path, max_bad_images: float) -> None:
    """Stop where too large a share of the pictures that items name is unreadable.

    Raises:
        DataError: the share is above `max_bad_images`; it points at `folder/bad_pictures.csv`, which lists them.
    """
    named = sum(image is not None for image in images)
    if len(found) > max_bad_images * named:
        bad = [(trouble.file, trouble.reason) for trouble in found]
        examples = "; ".join(f"row {images.index(file)}, images/{file}: {reason}" for file, reason in bad[:3])
        share = f"{len(bad):,} of {named:,} pictures are unreadable ({examples})"
        listed = f"all are listed in {folder / 'bad_pictures.csv'}"
        raise DataError("items.parquet", column="image", fix=f"{share}; {listed}: {fix_for(bad)}")


def files_of_rows(folder: Path, images: Sequence[str | None]) -> str:
    """Which file each row is decoded from: a hash over all paths with each file's length and time of change.

    So a fixed picture is noticed, and a store that was killed half-way goes on only with rows of the very same files.
    """
    digest = hashlib.sha256()
    for image in images:
        try:
            status = os.stat(folder / "images" / image) if image is not None else None
            stamp = (status.st_size, status.st_mtime_ns) if status else None
        except (OSError, ValueError):
            stamp = None
        digest.update(json.dumps([image, stamp]).encode())
    return digest.hexdigest()
