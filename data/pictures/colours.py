"""The pixels of a decoded picture as people see them: every PNG, JPEG and WebP colour type as RGB, transparency over white."""

from __future__ import annotations

import numpy as np
from PIL import Image

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes with 16 bits per grey pixel


def to_rgb(picture: Image.Image, *, png_bits: int = 8) -> Image.Image:
    """A loaded picture in mode RGB; of 16 bits per channel, the upper 8 are used.

    Args:
        png_bits: bits per channel of a PNG file: Pillow converts them to 8, but leaves the transparent colour as it is in the file.

    Raises:
        ValueError: it cannot be known which pixels are transparent.
    """
    if picture.mode in _DEEP:
        return _deep_grey(picture)
    if png_bits == 16 and picture.mode == "RGB" and "transparency" in picture.info:
        _refuse_transparent_colour(picture)
        return picture
    if png_bits in (2, 4) and picture.mode == "L" and "transparency" in picture.info:
        most = 2**png_bits - 1
        picture.info["transparency"] = (picture.info["transparency"] & most) * (255 // most)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _deep_grey(picture: Image.Image) -> Image.Image:
    """16 bits per grey pixel, one value of which may be transparent."""
    grey = np.asarray(picture).astype(np.int64).clip(0, 65535)
    shown = grey >> 8
    if "transparency" in picture.info:
        shown[grey == picture.info["transparency"]] = 255
    return Image.fromarray(shown.astype(np.uint8)).convert("RGB")


def _refuse_transparent_colour(picture: Image.Image) -> None:
    """Pillow keeps 3 x 8 bits of a transparent colour of 3 x 16 bits; it is known only if no pixel has those 3 x 8."""
    key = np.array(picture.info["transparency"]) >> 8
    if (np.asarray(picture) == key).all(axis=2).any():
        raise ValueError("16 bits per channel with a transparent colour are not supported; save it with 8 bits or an alpha channel")
