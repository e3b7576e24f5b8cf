"""The store that a shop's pictures are decoded into: complete or resumed, rebuilt only if something changed, bad pictures listed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import load_shop
from data.pictures.files import read_picture
from data.pictures.resize import cover
from data.pictures.store import build_store, open_store
from run.errors import DataError, UserError
from run.folder import locked
from tests.drawn_pictures import HOSTILE, encoded, folder_with, picture
from tests.shops import write_shop

ROOT = Path(__file__).parent.parent


def shop_of(folder: Path, images: list[str | None]) -> SimpleNamespace:
    """What the store needs from a shop."""
    return SimpleNamespace(folder=folder, items=pl.DataFrame({"image": pl.Series(images, dtype=pl.String)}))


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
