"""Pictures from untrusted files: upright RGB pixels, or one line that names the file and says why; nothing outside images/ is read."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.pictures.files import PictureError, read_picture
from tests.drawn_pictures import HOSTILE, encoded, folder_with, picture, png_header_only


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_that_names_it(tmp_path, name):
    folder = folder_with(tmp_path, {name: HOSTILE[name]})
    with pytest.raises(PictureError) as refusal:
        read_picture(folder, name)
    assert str(refusal.value).startswith(f"images/{name}: ")
    assert "\n" not in str(refusal.value)


def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(tmp_path):
    folder = folder_with(tmp_path, {"wide.png": png_header_only(8000, 8000)})
    with pytest.raises(PictureError, match="8000 x 8000 pixels; the limit is 40,000,000"):
        read_picture(folder, "wide.png")


@pytest.mark.parametrize("image", ["../secret.png", "a/../../secret.png", "link.png", "folder_link/secret.png", "", "."])
def test_nothing_outside_images_is_read(tmp_path, image):
    folder = folder_with(tmp_path, {"a/good.png": encoded(picture())})
    outside = tmp_path / "shop" / "secret.png"
    outside.write_bytes(encoded(picture()))
    (folder / "images" / "link.png").symlink_to(outside)
    (folder / "images" / "folder_link").symlink_to(tmp_path / "shop")
    with pytest.raises(PictureError):
        read_picture(folder, image)
    with pytest.raises(PictureError, match="not a path under images/"):
        read_picture(folder, str(outside))


def test_links_within_images_and_a_linked_images_folder_are_followed(tmp_path):
    store = folder_with(tmp_path, {"deep/good.png": encoded(picture())}) / "images"
    (store / "link.png").symlink_to("deep/good.png")
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(store)
    assert read_picture(other, "link.png").shape == (30, 40, 3)


def test_pipes_folders_and_odd_paths_are_refused_without_waiting(tmp_path):
    folder = folder_with(tmp_path, {"inside/good.png": encoded(picture())})
    os.mkfifo(folder / "images" / "pipe.png")
    for image, reason in [
        ("pipe.png", "not a plain file"),
        ("inside", "not a plain file"),
        ("missing.png", "no such file"),
        ("nul\0.png", "null"),
        ("x" * 5000 + ".png", "too long"),
    ]:
        with pytest.raises(PictureError, match=reason):
            read_picture(folder, image)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_any_damage_gives_pixels_or_a_reason(tmp_path_factory, kind, data):
    content = bytearray(encoded(picture(), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(1, len(content)))
    folder = folder_with(tmp_path_factory.mktemp("damage"), {"x": bytes(content[:kept])})
    with contextlib.suppress(PictureError):
        pixels = read_picture(folder, "x")
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_format_is_known_by_content_not_by_name(tmp_path, kind):
    folder = folder_with(tmp_path, {"name.txt": encoded(Image.new("RGB", (8, 8), (200, 40, 60)), kind)})
    assert np.abs(read_picture(folder, "name.txt").astype(int) - (200, 40, 60)).max() <= 6


def test_every_pixel_format_becomes_the_same_rgb(tmp_path):
    grey = Image.new("L", (8, 8), 200)
    files = {
        "grey": encoded(grey),
        "palette": encoded(grey.convert("P")),
        "bits": encoded(Image.new("1", (8, 8), 1)),
        "sixteen": encoded(Image.fromarray(np.full((8, 8), 200 * 257, dtype=np.uint16))),
        "rgb": encoded(grey.convert("RGB")),
        "cmyk": encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 55)), "JPEG", quality=95),
        "grey_jpeg": encoded(grey, "JPEG"),
    }
    folder = folder_with(tmp_path, files)
    for name in files:
        expected = 255 if name == "bits" else 200
        assert np.abs(read_picture(folder, name).astype(int) - expected).max() <= 1, name


def test_transparent_pixels_show_white(tmp_path):
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    folder = folder_with(
        tmp_path,
        {
            "clear": encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))),
            "grey_clear": encoded(Image.new("LA", (8, 8), (0, 0))),
            "palette_clear": encoded(palette, transparency=0),
            "colour_key": encoded(Image.new("RGB", (8, 8), (10, 20, 30)), transparency=(10, 20, 30)),
            "half": encoded(half),
            "webp": encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP"),
        },
    )
    for name in ("clear", "grey_clear", "palette_clear", "colour_key", "webp"):
        assert (read_picture(folder, name) == 255).all(), name
    # red at 128/255 over white: the other colours keep 255 * (1 - 128/255) = 127
    assert np.abs(read_picture(folder, "half")[0, 0].astype(int) - (255, 127, 127)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_shown_upright(tmp_path, orientation):
    upright = np.zeros((20, 30, 3), dtype=np.uint8)
    upright[:10, :15] = 255  # white in the upper left corner
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    folder = folder_with(tmp_path, {"turned.png": encoded(stored, exif=exif)})
    assert (read_picture(folder, "turned.png") == upright).all()


COMPOSED, DECOMPOSED = "caf\u00e9.png", "cafe\u0301.png"


@pytest.mark.parametrize(("named", "on_disk"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_name_is_found_in_either_unicode_form(tmp_path, named, on_disk):
    folder = folder_with(tmp_path, {f"sous/{on_disk}": encoded(picture())})
    assert read_picture(folder, f"sous/{named}").shape == (30, 40, 3)
    both = folder_with(tmp_path, {f"sous/{named}": encoded(picture(20, 20))})
    assert read_picture(both, f"sous/{named}").shape == (20, 20, 3)  # an exact match wins


def test_no_unicode_form_leads_out_of_images(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    (folder / "images" / DECOMPOSED).symlink_to(tmp_path)
    with pytest.raises(PictureError, match="leads out of images/"):
        read_picture(folder, f"{COMPOSED}/secret.png")


def test_for_a_missing_file_one_of_nearly_the_same_name_is_suggested(tmp_path):
    folder = folder_with(tmp_path, {"a/Shoe.PNG": encoded(picture())})
    for image, reason in [
        ("a/shoe.png", "no such file; there is 'Shoe.PNG': upper and lower case differ"),
        ("a\\Shoe.PNG", "no such file; separate folders with / instead of \\: 'a/Shoe.PNG' is there"),
        ("..\\shop\\images\\a\\Shoe.PNG", "no such file; separate folders with / instead of \\"),
        ("a/boot.png", "no such file"),
    ]:
        with pytest.raises(PictureError) as refusal:
            read_picture(folder, image)
        assert refusal.value.reason == reason
