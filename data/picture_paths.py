"""Where a picture named in `items.parquet` is on disk; nothing outside `images/` is ever found."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

MISSING = "no such file"


class OutsideImages(ValueError):
    """A path that does not lie under `images/`."""


def images_root(folder: Path) -> str:
    """The real path of a shop folder's `images/`."""
    return os.path.realpath(folder / "images")


def real_path(root: str, image: str, real: Callable[[str], str] = os.path.realpath) -> str:
    """The real path of the picture `image`, in whichever Unicode form the disk has its name (macOS and its tar write NFD).

    Args:
        root: `images_root`.
        image: a path under `images/`; links are followed, but what they lead to must lie under `images/` too.
        real: as `os.path.realpath`.

    Raises:
        OutsideImages: it is not under `images/`.
        FileNotFoundError: there is no such file.
        OSError, ValueError: it cannot be looked up.
    """
    if not image or os.path.isabs(image) or ".." in image.split("/"):
        raise OutsideImages("not a path under images/")
    for spelling in spellings(image):
        path = real(os.path.join(root, spelling))
        if path != root and not path.startswith(root.rstrip("/") + "/"):
            raise OutsideImages("leads out of images/")
        try:
            os.lstat(path)
        except FileNotFoundError:
            continue
        return path
    raise FileNotFoundError(image)


def real_paths(folder: Path, images: Sequence[str | None]) -> list[str | None]:
    """`real_path` of many pictures, None for those that are not found: folders are looked up once."""
    root, folders = images_root(folder), dict[str, str]()

    def real(path: str) -> str:
        parent, name = os.path.split(path)
        if parent not in folders:
            folders[parent] = os.path.realpath(parent)
        path = os.path.join(folders[parent], name)
        return os.path.realpath(path) if os.path.islink(path) else path

    def found(image: str | None) -> str | None:
        try:
            return None if image is None else real_path(root, image, real)
        except (OSError, ValueError):
            return None

    return [found(image) for image in images]


def spellings(image: str) -> tuple[str, ...]:
    """A name as given, then composed (NFC) and decomposed (NFD) where that is another name."""
    return (image,) if image.isascii() else tuple(dict.fromkeys((image, normalize("NFC", image), normalize("NFD", image))))


def why_missing(root: str, image: str) -> str:
    """`MISSING`, with a hint where a file of nearly the same name is there."""
    if "\\" in image:
        hint = f"{MISSING}; separate folders with / instead of \\"
        with suppress(OSError, ValueError):
            real_path(root, slashed := image.replace("\\", "/"))
            hint += f": {slashed!r} is there"
        return hint
    parent, name = os.path.split(image)
    other = _by_folded_name(os.path.join(root, parent)).get(name.casefold())
    return MISSING if other is None else f"{MISSING}; there is {other!r}: upper and lower case differ"


@lru_cache(maxsize=8)
def _by_folded_name(folder: str) -> dict[str, str]:
    """File names of a folder by their lower-case form; read once for all files missing from it."""
    try:
        return {name.casefold(): name for name in sorted(os.listdir(folder))}
    except (OSError, ValueError):
        return {}
