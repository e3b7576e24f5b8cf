"""The picture store: every picture of a shop decoded once, as one memory-mapped array of equal squares.

A store folder holds `pixels.npy`, `state.npy` (one byte per item), `bad_pictures.csv` and `store.json` (its sources). It is built in
`NAME.partial` next to it, where the same call resumes after a kill or a full disk, and renamed once complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.identity import picture_hashes
from data.pictures.bad import BadPicture, read_bad, refuse_too_many, write_bad
from data.pictures.files import PictureError, read_picture
from data.pictures.resize import cover
from data.pictures.zeros import zeros_on_disk
from run.errors import UserError
from run.files import naming, read_json, replacing_folder, write_json
from run.folder import locked
from run.progress import Progress
from run.source_code import code_hash

if TYPE_CHECKING:
    from data.log.shop_folder import Shop

CHUNK = 512  # pictures between two flushes: lost at most by a kill
_TODO, _PRESENT, _NONE, _BAD = 0, 1, 2, 3


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
        """() int64: none; unreadable pictures were reported when the store was built, and are not `present`."""
        return np.zeros(0, dtype=np.int64)


def build_store(shop: Shop, folder: Path, *, size: int, workers: int, max_bad_images: float = 0.01) -> PictureStore:
    """Decode all pictures of `shop` into `folder`, or resume where an earlier call was killed.

    A picture is cropped to its central square and resized to `size` with antialiasing. A finished store of files with the same paths and
    content is opened as it is, unless the code that decodes has changed. The result depends neither on `workers` nor on kills.

    Args:
        folder: the store's own folder; another store in it is replaced once the new one is complete.
        size: side S of the stored squares, in pixels.
        workers: threads that decode.
        max_bad_images: the largest share of unreadable pictures among items that name one.

    Raises:
        DataError: the share of unreadable pictures is above `max_bad_images`; `folder/bad_pictures.csv` lists them all.
        UserError: another process is building this store, or `folder` holds other files.
    """
    images = images_of(shop)
    key = decoding_key(shop.folder, images) | {"size": size}
    store = _open_matching(folder, key)
    if store is None:
        _build(shop.folder, images, folder, key, workers)
        store = open_store(folder)
    refuse_too_many(store.bad, images, folder, max_bad_images)
    return store


def images_of(shop: Shop) -> list[str | None]:
    """(N,) each item's path under `images/`, None where it has no picture."""
    return shop.items["image"].to_list() if "image" in shop.items.columns else [None] * shop.items.height


def decoding_key(folder: Path, images: Sequence[str | None]) -> dict[str, Any]:
    """What the decoded pixels of each row depend on: the files by path and content, and what decodes them."""
    digest = hashlib.sha256()
    for image, content in zip(images, picture_hashes(folder, images), strict=True):
        digest.update(json.dumps([image, content]).encode())
    libraries = {name: version(name) for name in ("pillow", "torch")}
    return {"files": digest.hexdigest(), "code": code_hash("data.pictures.files", "data.pictures.resize"), "libraries": libraries}


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
        bad = read_bad(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a readable picture store ({error}); delete it and build it again") from None
    if pixels.ndim != 4 or state.shape != pixels.shape[:1]:
        raise UserError(f"{folder}: files of two different picture stores; delete it and build it again")
    return PictureStore(pixels=pixels, present=state == _PRESENT, bad=bad)


def _open_matching(folder: Path, key: dict[str, Any]) -> PictureStore | None:
    """The store under `key`, if it is complete and sound."""
    try:
        return open_store(folder) if read_json(folder / "store.json") == key else None
    except UserError:
        return None


def _build(shop_folder: Path, images: Sequence[str | None], folder: Path, key: dict[str, Any], workers: int) -> None:
    """Build the store next to `folder` and give it that name; an older store stays until then."""
    if folder.exists() and any(folder.iterdir()) and not ((folder / "store.json").exists() or (folder / "key.json").exists()):
        raise UserError(f"{folder}: holds other files, which a picture store would replace; give another --out")
    partial = folder.with_name(f"{folder.name}.partial")
    with locked(partial):
        pixels, state = _resumed(partial, key, len(images)) or _started(partial, key, len(images))
        write_bad(partial, _fill(shop_folder, images, pixels, state, workers))
        with naming(partial / "pixels.npy"):
            _flush(pixels)
        with replacing_folder(folder) as complete:
            (partial / ".lock").unlink(missing_ok=True)
            os.rename(partial, complete)  # in place of the empty folder


def _resumed(partial: Path, key: dict[str, Any], items: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The two arrays as an earlier call left them; None: there are none under `key`."""
    try:
        if read_json(partial / "store.json") != key:
            return None
        pixels = np.lib.format.open_memmap(partial / "pixels.npy", mode="r+")
        state = np.lib.format.open_memmap(partial / "state.npy", mode="r+")
    except (UserError, OSError, ValueError):
        return None
    return (pixels, state) if pixels.shape == (items, key["size"], key["size"], 3) and state.shape == (items,) else None


def _started(partial: Path, key: dict[str, Any], items: int) -> tuple[np.ndarray, np.ndarray]:
    """Two new arrays, with room for them on the disk; if there is none, nothing is left behind."""
    for left in partial.iterdir():
        if left.name != ".lock":
            left.unlink()
    try:
        pixels = zeros_on_disk(partial / "pixels.npy", (items, key["size"], key["size"], 3), np.uint8)
        state = zeros_on_disk(partial / "state.npy", (items,), np.uint8)
        write_json(partial / "store.json", key)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return pixels, state


def _fill(folder: Path, images: Sequence[str | None], pixels: np.ndarray, state: np.ndarray, workers: int) -> list[BadPicture]:
    """Decode what is still to do, by chunks: the pixels reach the disk before they are marked as done."""
    size = pixels.shape[1]
    state[state == _BAD] = _TODO  # read again, because their reasons were lost with the killed process
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
        warnings.simplefilter("ignore")  # the reason given for an unreadable picture replaces warnings
        for chunk in _chunks(todo):
            results = list(pool.map(decode, chunk.tolist()))
            _flush(pixels)
            state[chunk] = [done for done, _ in results]
            _flush(state)
            bad += [picture for _, picture in results if picture is not None]
            progress.advance(len(chunk))
    return bad


def _chunks(todo: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(todo), CHUNK):
        yield todo[start : start + CHUNK]


def _flush(array: np.ndarray) -> None:
    if isinstance(array, np.memmap):
        array.flush()
