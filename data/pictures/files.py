"""Reading one untrusted picture file: RGB pixels or a one-line reason, within bounded memory."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.picture_paths import MISSING, images_root, real_path, why_missing
from data.pictures.colours import to_rgb
from run.errors import UserError

MAX_BYTES = 64 * 2**20  # of one file, which is read into memory before it is parsed
MAX_PIXELS = 40_000_000  # width x height in the header, refused before decoding (a bomb is a small file)
PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG
_ORIENTATION = 0x0112  # EXIF tag: how to turn the stored pixels upright


class PictureError(UserError):
    """A picture file is missing, unreadable or not allowed to be read.

    Args:
        file: the path as the shop folder's `image` column gives it.
        reason: what is wrong, in a few words.
    """

    def __init__(self, file: str, reason: str):
        super().__init__(f"images/{file}: {reason}")
        self.file, self.reason = file, reason


def read_picture(folder: Path, image: str, *, at_least: int | None = None) -> np.ndarray:
    """Decode `folder/images/<image>` as people see it: EXIF orientation applied, transparency over white.

    A file's first bytes decide its format, never its name. An animation is its first frame. Colour profiles are not applied.

    Args:
        folder: the shop folder.
        image: path under `images/`, in any Unicode form; links are followed, but the file they lead to must lie under `images/` too.
        at_least: a large JPEG may be decoded at a half, quarter or eighth as long as both sides keep this many pixels
            (much faster); None: full size.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PictureError: missing, outside `images/`, not a plain file, too large, not PNG/JPEG/WebP, or damaged.
    """
    return decode_picture(_read_file(folder, image), image, at_least=at_least)


def decode_picture(content: bytes, name: str, *, at_least: int | None = None) -> np.ndarray:
    """`read_picture` of a file's bytes; `name` is its name in errors.

    Raises:
        PictureError: too large, not PNG/JPEG/WebP, or damaged.
    """
    if len(content) > MAX_BYTES:
        raise PictureError(name, f"{len(content):,} bytes; the limit is {MAX_BYTES:,}")
    with _opened(content, name) as picture:
        if at_least is not None:
            picture.draft(None, (at_least, at_least))
        picture.load()
        return np.asarray(to_rgb(_upright(picture), png_bits=_png_bits(content)))


def read_any_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture file anywhere on disk, if it is a plain file within the size limit.

    Raises:
        PictureError: missing, not a plain file, too large.
    """
    try:
        return _read_plain(str(path), os.path.realpath(path))
    except FileNotFoundError:
        raise PictureError(str(path), MISSING) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PictureError(str(path), _one_line(error)) from None


def read_header(folder: Path, image: str) -> tuple[int, int]:
    """(width, height) from the file's header; refuses what `read_picture` refuses, except damage in the pixels.

    Raises:
        PictureError: as `read_picture`.
    """
    with _opened(_read_file(folder, image), image) as picture:
        return picture.size


def fix_for(bad: Sequence[tuple[str, str]]) -> str:
    """How to fix unreadable pictures, given as (path in the `image` column, reason)."""
    doubled = [file for file, reason in bad if reason.startswith(MISSING) and file.startswith("images/")]
    if 2 * len(doubled) > len(bad):
        return f"image is a path inside images/: drop the folder's name, {doubled[0].removeprefix('images/')!r} instead of {doubled[0]!r}"
    return "fix them, set their image to null, or raise --max-bad-images"


@contextmanager
def _opened(content: bytes, image: str) -> Iterator[Image.Image]:
    """The picture with its header read; whatever goes wrong within the block is a `PictureError`."""
    # hostile bytes make a decoder raise almost anything, which means a bad picture, not a bug here
    try:
        with Image.open(io.BytesIO(content), formats=(_format(content),)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels; the limit is {MAX_PIXELS:,}")
            yield picture
    except MemoryError:
        raise PictureError(image, "does not fit in memory") from None
    except Exception as error:
        raise PictureError(image, _one_line(error)) from None


def _read_file(folder: Path, image: str) -> bytes:
    """The file's bytes, if it is a plain file within the size limit that really lies under `images/`."""
    root = ""
    try:
        root = images_root(folder)
        content = _read_plain(image, real_path(root, image))
    except FileNotFoundError:
        raise PictureError(image, why_missing(root, image)) from None
    except (OSError, ValueError) as error:  # ValueError: outside images/, or a NUL in the path
        raise PictureError(image, _one_line(error)) from None
    if not content:
        raise PictureError(image, "empty file")
    return content


def _read_plain(image: str, path: str) -> bytes:
    # O_NONBLOCK, because a named pipe would never answer; the checks apply to the very file opened
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(image, "not a plain file")
        if status.st_size > MAX_BYTES:
            raise PictureError(image, f"{status.st_size:,} bytes; the limit is {MAX_BYTES:,}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _format(content: bytes) -> str:
    if content.startswith(PNG):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    raise ValueError("not a PNG, JPEG or WebP picture")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turned = picture.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return picture
    return ImageOps.exif_transpose(picture) if turned else picture


def _png_bits(content: bytes) -> int:
    """Bits per channel of a PNG file, which Pillow does not report; 8 for other formats."""
    return content[24] if content.startswith(PNG) and len(content) > 24 else 8  # the header chunk comes first, always at the same place


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
