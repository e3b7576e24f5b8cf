"""Pictures from untrusted files, and the store they are decoded into."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.log.shop_folder import load_shop
from data.pictures.files import PictureError, read_picture
from data.pictures.resize import cover
from data.pictures.store import build_store, open_store
from run.errors import DataError, UserError
from run.folder import locked
from tests.shops import write_shop

ROOT = Path(__file__).parent.parent


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


def shop_of(folder: Path, images: list[str | None]) -> SimpleNamespace:
    """What the store needs from a shop."""
    return SimpleNamespace(folder=folder, items=pl.DataFrame({"image": pl.Series(images, dtype=pl.String)}))


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


def test_cover_keeps_the_central_square():
    strip = np.zeros((10, 30, 3), dtype=np.uint8)
    strip[:, 10:20] = 255
    assert (cover(strip, 10) == 255).all()
    assert (cover(strip.transpose(1, 0, 2), 10) == 255).all()
    assert cover(np.full((1, 100_000, 3), 7, dtype=np.uint8), 16).tolist() == np.full((16, 16, 3), 7).tolist()


def test_shrinking_averages_instead_of_skipping():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    assert np.abs(cover(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 8).astype(int) - 127.5).max() < 8


def test_the_store_holds_every_picture_and_lists_the_bad_ones(tmp_path):
    files = {f"good_{index}.png": encoded(picture(seed=index)) for index in range(5)}
    folder = folder_with(tmp_path, {**files, **HOSTILE})
    images = [*files, None, *HOSTILE, "../outside.png", "missing.png"]
    store = build_store(shop_of(folder, images), tmp_path / "store", size=16, workers=2, max_bad_images=1.0)
    assert store.pixels.shape == (len(images), 16, 16, 3)
    assert store.present.tolist() == [True] * 5 + [False] * (len(images) - 5)
    assert not store.pixels[5:].any()
    assert (store.pixels[2] == cover(read_picture(folder, "good_2.png"), 16)).all()
    assert [bad.file for bad in store.bad] == [*HOSTILE, "../outside.png", "missing.png"]
    listed = pl.read_csv(tmp_path / "store" / "bad_pictures.csv")
    assert listed["file"].to_list() == [bad.file for bad in store.bad]
    assert all(listed["reason"].to_list())
    again = open_store(tmp_path / "store")
    assert (again.pixels == store.pixels).all()
    assert again.bad == store.bad


def test_too_many_bad_pictures_stop_with_examples_and_the_fix(tmp_path):
    folder = folder_with(tmp_path, {"good.png": encoded(picture()), "words.png": b"words"})
    shop = shop_of(folder, ["good.png", "words.png", None])
    with pytest.raises(
        DataError, match=r"items\.parquet: column 'image': 1 of 2 pictures .*row 1, images/words\.png: not a PNG.*--max-bad-images"
    ):
        build_store(shop, tmp_path / "store", size=8, workers=1)
    assert build_store(shop, tmp_path / "store", size=8, workers=1, max_bad_images=0.5).present.sum() == 1


def test_paths_that_repeat_the_name_of_their_folder_get_the_hint_to_drop_it(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture()), "words.png": b"words"})
    shop = shop_of(folder, ["a.png", "images/a.png", "images/b.png", "words.png"])
    with pytest.raises(DataError, match=r"drop the folder's name, 'a\.png' instead of 'images/a\.png'"):
        build_store(shop, tmp_path / "store", size=8, workers=1)


def test_a_fixed_picture_is_noticed(tmp_path):
    folder = folder_with(tmp_path, {"a.png": b"words"})
    shop = shop_of(folder, ["a.png"])
    assert not build_store(shop, tmp_path / "store", size=8, workers=1, max_bad_images=1.0).present.any()
    folder_with(tmp_path, {"a.png": encoded(picture())})
    assert build_store(shop, tmp_path / "store", size=8, workers=1).present.all()


def test_a_finished_store_is_not_decoded_again(tmp_path, monkeypatch):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    monkeypatch.setattr("data.pictures.store.read_picture", lambda *_, **__: pytest.fail("decoded again"))
    assert build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1).present.all()


def test_a_store_decoded_by_other_code_is_decoded_again_and_the_old_one_stays_until_then(tmp_path, monkeypatch):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    old = build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    written = (tmp_path / "store" / "pixels.npy").read_bytes()
    monkeypatch.setattr("data.pictures.store.code_hash", lambda *_: "other code")

    def full(*_, **__):
        assert (tmp_path / "store" / "pixels.npy").read_bytes() == written
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("data.pictures.store.blank_npy", full)
        with pytest.raises(OSError, match="No space left"):
            build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop", "store"]
    assert (open_store(tmp_path / "store").pixels == old.pixels).all()
    decoded = []
    monkeypatch.setattr("data.pictures.store.read_picture", lambda *args, **options: decoded.append(args) or read_picture(*args, **options))
    build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    assert len(decoded) == 1
    assert (tmp_path / "store" / "pixels.npy").read_bytes() == written


def test_a_store_can_be_moved_with_its_run_and_its_data(tmp_path, monkeypatch):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    shutil.copytree(folder, tmp_path / "there" / "shop", copy_function=shutil.copyfile)
    shutil.copytree(tmp_path / "store", tmp_path / "there" / "store", copy_function=shutil.copyfile)
    monkeypatch.setattr("data.pictures.store.read_picture", lambda *_, **__: pytest.fail("decoded again"))
    assert build_store(shop_of(tmp_path / "there" / "shop", ["a.png"]), tmp_path / "there" / "store", size=8, workers=1).present.all()


def test_two_processes_do_not_build_one_store_at_once(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    with locked(tmp_path / "store.partial"), pytest.raises(UserError, match="another run"):
        build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    assert build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1).present.all()


def test_a_shop_without_items_or_pictures_has_an_empty_store(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    assert build_store(shop_of(folder, []), tmp_path / "none", size=8, workers=1).pixels.shape == (0, 8, 8, 3)
    assert not build_store(shop_of(folder, [None]), tmp_path / "one", size=8, workers=1).present.any()


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


def test_another_size_is_another_store(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    larger = build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=12, workers=1)
    assert larger.pixels.shape == (1, 12, 12, 3)


def test_a_killed_build_resumes_and_ends_with_the_same_bytes(tmp_path):
    files = {f"{index}.png": encoded(picture(seed=index)) for index in range(40)} | {"7.png": b"words"}
    folder = folder_with(tmp_path, files)
    build_store(shop_of(folder, list(files)), tmp_path / "complete", size=8, workers=1, max_bad_images=1.0)
    code = f"""
        import os, signal
        from pathlib import Path
        import polars as pl
        from types import SimpleNamespace
        import data.pictures.store as pictures
        pictures.CHUNK = 10
        read, seen = pictures.read_picture, []
        def slow(*words, **options):
            seen.append(1)
            if len(seen) == 25:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(*words, **options)
        pictures.read_picture = slow
        shop = SimpleNamespace(folder=Path({str(folder)!r}), items=pl.DataFrame({{"image": {list(files)!r}}}))
        pictures.build_store(shop, Path({str(tmp_path / "killed")!r}), size=8, workers=1, max_bad_images=1.0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(UserError, match="holds no finished picture store"):
        open_store(tmp_path / "killed")
    state = np.load(tmp_path / "killed.partial" / "state.npy")
    assert (state != 0).sum() == 20  # two chunks were complete, the third was not
    build_store(shop_of(folder, list(files)), tmp_path / "killed", size=8, workers=3, max_bad_images=1.0)
    for name in ("pixels.npy", "state.npy", "bad_pictures.csv", "store.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "complete" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["complete", "killed", "shop"]


def test_a_full_disk_is_one_error_and_the_same_call_works_once_there_is_room(tmp_path):
    """A limit on file sizes acts like a full disk: the blocks of a file cannot be allocated."""
    files = {f"{index}.png": encoded(picture(seed=index)) for index in range(10)}
    folder = folder_with(tmp_path, files)
    build_store(shop_of(folder, list(files)), tmp_path / "complete", size=32, workers=1)
    code = f"""
        import resource
        from pathlib import Path
        import polars as pl
        from types import SimpleNamespace
        from data.pictures.store import build_store
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        shop = SimpleNamespace(folder=Path({str(folder)!r}), items=pl.DataFrame({{"image": {list(files)!r}}}))
        try:
            build_store(shop, Path({str(tmp_path / "full")!r}), size=32, workers=1)
        except OSError as error:
            print(error.filename, error.strerror)
        print(sorted(path.name for path in Path({str(tmp_path)!r}).iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        build_store(shop, Path({str(tmp_path / "full")!r}), size=32, workers=1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{tmp_path / 'full.partial' / 'pixels.npy'} File too large", "['complete', 'shop']"]
    for name in ("pixels.npy", "state.npy", "bad_pictures.csv", "store.json"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "complete" / name).read_bytes(), name


def test_a_disk_that_fills_up_after_decoding_does_not_repeat_the_decoding(tmp_path, monkeypatch):
    folder = folder_with(tmp_path, {"a.png": encoded(picture()), "b.png": b"words"})
    shop, options = shop_of(folder, ["a.png", "b.png"]), {"size": 8, "workers": 1, "max_bad_images": 1.0}
    complete = build_store(shop, tmp_path / "complete", **options)
    with monkeypatch.context() as full:
        full.setattr("data.pictures.store.write_bad", lambda *_: os.statvfs(tmp_path / "no room"))
        with pytest.raises(OSError, match="no room"):
            build_store(shop, tmp_path / "store", **options)
    read = []
    monkeypatch.setattr("data.pictures.store.read_picture", lambda *args, **words: read.append(args[1]) or read_picture(*args, **words))
    store = build_store(shop, tmp_path / "store", **options)
    assert read == ["b.png"]  # read again to report the reason
    assert (store.pixels == complete.pixels).all()
    assert store.bad == complete.bad


def test_a_large_jpeg_may_be_decoded_small_but_never_below_what_is_needed(tmp_path):
    folder = folder_with(tmp_path, {"large.jpg": encoded(picture(800, 600), "JPEG", quality=95)})
    small = read_picture(folder, "large.jpg", at_least=100)
    assert small.shape == (150, 200, 3)
    full = cover(read_picture(folder, "large.jpg"), 50).astype(int)
    assert np.abs(cover(small, 50) - full).mean() < 1.5


def test_a_damaged_store_is_refused_by_name(tmp_path):
    folder = folder_with(tmp_path, {"a.png": encoded(picture())})
    build_store(shop_of(folder, ["a.png"]), tmp_path / "store", size=8, workers=1)
    (tmp_path / "store" / "pixels.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="delete it and build it again"):
        open_store(tmp_path / "store")


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    shop = load_shop(write_shop(tmp_path / "shop"))
    with pytest.raises(UserError, match="holds other files"):
        build_store(shop, folder, size=8, workers=1)
    assert (folder / "mine.txt").read_text() == "keep"
