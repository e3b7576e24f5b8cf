"""Every colour type of a picture file against the pixels it was written from."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.pictures.files import PictureError, decode_picture

RANDOM = np.random.default_rng(0)
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # of a PNG header


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(values: np.ndarray, bits: int, kind: int, *chunks: bytes) -> bytes:
    """A PNG of (H, W, C) numbers, written with the given number of bits each."""
    height, width = values.shape[:2]
    rows = b""
    for row in values.reshape(height, -1):
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def numbers(bits: int, channels: int) -> np.ndarray:
    """(6, 7, C) random numbers, the smallest and the largest included."""
    values = RANDOM.integers(0, 2**bits, (6, 7, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Both in [0, 1] -> (6, 7, 3) in [0, 255]."""
    return np.broadcast_to(colour * alpha + 1 - alpha, (6, 7, 3)) * 255


def assert_shows(content: bytes, wanted: np.ndarray, within: float = 1) -> None:
    shown = decode_picture(content, "x").astype(float)
    assert np.abs(shown - wanted).max() <= within


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_with_and_without_a_transparent_value(bits):
    values, most = numbers(bits, 1), 2**bits - 1
    assert_shows(png(values, bits, GREY), np.repeat(values / most * 255, 3, axis=2))
    for key in {0, 1, most, int(values[3, 3, 0])}:
        content = png(values, bits, GREY, chunk(b"tRNS", struct.pack(">H", key)))
        assert_shows(content, over_white(values / most, values != key))


def test_a_deep_grey_is_transparent_at_one_value_of_65536():
    values = np.full((6, 7, 1), 1000)
    values[2:4] = 1001
    content = png(values, 16, GREY, chunk(b"tRNS", struct.pack(">H", 1001)))
    assert_shows(content, over_white(values / 65535, values != 1001))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_an_alpha_for_each_or_for_the_first_colours(bits):
    palette, values = RANDOM.integers(0, 256, (2**bits, 3)), numbers(bits, 1)
    colours = chunk(b"PLTE", bytes(palette.ravel().tolist()))
    assert_shows(png(values, bits, PALETTE, colours), palette[values[..., 0]])
    for given in (1, 2**bits):
        alpha = np.full((2**bits, 1), 255)
        alpha[:given, 0] = RANDOM.integers(0, 256, given)
        content = png(values, bits, PALETTE, colours, chunk(b"tRNS", bytes(alpha[:given, 0].tolist())))
        assert_shows(content, over_white(palette[values[..., 0]] / 255, alpha[values[..., 0]] / 255))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("kind", "channels"), [(GREY_ALPHA, 2), (COLOUR_ALPHA, 4), (COLOUR, 3)])
def test_colours_and_alpha_of_8_and_of_16_bits(bits, kind, channels):
    values = numbers(bits, channels)
    part = values / (2**bits - 1)
    wanted = over_white(part[..., :-1], part[..., -1:]) if kind != COLOUR else part * 255
    assert_shows(png(values, bits, kind), wanted, within=1.5)  # only the upper 8 of 16 bits count, in colour and in alpha


def test_a_transparent_colour_is_shown_white_or_refused_where_16_bits_leave_it_open():
    values = numbers(8, 3)
    key = values[2, 2]
    wanted = over_white(values / 255, (values != key).any(axis=2, keepdims=True))
    assert_shows(png(values, 8, COLOUR, chunk(b"tRNS", struct.pack(">HHH", *key))), wanted)
    deep = values * 257
    absent = chunk(b"tRNS", struct.pack(">HHH", 1, 65535, 256))
    assert_shows(png(deep, 16, COLOUR, absent), values)
    with pytest.raises(PictureError, match="16 bits per channel with a transparent colour"):
        decode_picture(png(deep, 16, COLOUR, chunk(b"tRNS", struct.pack(">HHH", *(key * 257)))), "x")


def adobe_jpeg(stored: np.ndarray) -> bytearray:
    """A JPEG of four channels with Adobe's marker, colour transform 0. Pillow writes 255 minus the values it is given."""
    file = io.BytesIO()
    Image.fromarray(255 - stored, "CMYK").save(file, "JPEG", quality=98, subsampling=0)
    return bytearray(file.getvalue())


def printed(kind: str, ink: np.ndarray) -> bytes:
    """A JPEG of (H, W, 4) inks as Photoshop writes it: inverted, and as CMYK or as YCCK."""
    if kind == "CMYK":
        return bytes(adobe_jpeg(255 - ink))
    ycc = np.asarray(Image.fromarray(ink[..., :3]).convert("YCbCr"))
    content = adobe_jpeg(np.concatenate([ycc, 255 - ink[..., 3:]], axis=2))
    content[content.index(b"Adobe") + 11] = 2  # the colour transform
    return bytes(content)


@pytest.mark.parametrize("kind", ["CMYK", "YCCK"])
def test_a_printers_jpeg_shows_what_its_inks_leave_of_white(kind):
    ink = np.zeros((32, 32, 4), dtype=np.uint8)
    ink[:16, :, 0], ink[16:, :, 1], ink[:, 16:, 3] = 200, 150, 60
    left = (255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:].astype(float)) / 255
    assert_shows(printed(kind, ink), left, within=6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_read_as_its_first_frame(kind):
    frames = [Image.new("RGB", (12, 10), colour) for colour in ((250, 10, 10), (10, 250, 10))]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    assert_shows(file.getvalue(), np.full((10, 12, 3), (250, 10, 10)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_orientation_is_read_in_every_format(kind):
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees, counter-clockwise
    file = io.BytesIO()
    Image.fromarray(np.rot90(upright).copy()).save(file, kind, exif=exif, quality=95, **({"lossless": True} if kind == "WEBP" else {}))
    assert_shows(file.getvalue(), upright, within=8 if kind == "JPEG" else 0)
