"""Picture files for tests: drawn, encoded and put into a shop's folder, hostile ones among them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png_header_only(width: int, height: int) -> bytes:
    """A tiny file whose header claims a huge picture."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def folder_with(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = tmp_path / "shop" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "shop"


HOSTILE = {
    "bomb.png": png_header_only(60_000, 60_000),
    "larger_than_memory.png": png_header_only(2**31 - 1, 2**31 - 1),
    "cut_off.jpg": encoded(picture(), "JPEG")[:-200],
    "header_only.jpg": encoded(picture(), "JPEG")[:100],
    "cut_off.png": encoded(picture())[:-40],
    "gif_called.png": encoded(picture(), "GIF"),
    "bmp_called.jpg": encoded(picture(), "BMP"),
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n",
    "empty.png": b"",
    "words.png": b"no picture at all",
    "signature_only.png": b"\x89PNG\r\n\x1a\n",
    "broken.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 \xff\xff\xff\xff",
}
