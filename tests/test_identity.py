"""A data set is its content: copies are the same data set, and any change to what a run reads makes another."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path
from unicodedata import normalize

import polars as pl
import pytest

from data import hash_cache
from data.hash_cache import content_hashes
from data.identity import shop_fingerprint
from data.source import SourceConfig
from run.source_code import modules_of
from tests.shops import write_pictures, write_shop

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "_in_process", {})
    return tmp_path / "cache" / "courier-toolkit" / "file-hashes"


@pytest.fixture
def hashed(monkeypatch):
    """The files that are read in order to hash them."""
    files = []
    real = hash_cache._hash
    monkeypatch.setattr(hash_cache, "_hash", lambda file: files.append(file) or real(file))
    return files


def new_process(monkeypatch) -> None:
    """Forget what this process has cached in memory, but not on disk."""
    monkeypatch.setattr(hash_cache, "_in_process", {})
    time.sleep(0.06)  # older than a tick of the disk's clock


def test_a_copied_folder_is_the_same_data_set_wherever_and_however_it_was_copied(shop_folder, tmp_path, monkeypatch):
    wanted = shop_fingerprint(shop_folder)
    shutil.copytree(shop_folder, tmp_path / "by-cp", copy_function=shutil.copyfile)
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:  # keeps times to the second
        tar.add(shop_folder, "by [tar]")
    with tarfile.open(tmp_path / "s.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "link").symlink_to(shop_folder)
    monkeypatch.chdir(shop_folder.parent)
    for folder in (tmp_path / "by-cp", tmp_path / "by [tar]", tmp_path / "link", Path("shop"), f"{shop_folder}/"):
        assert shop_fingerprint(Path(folder)) == wanted
    for file in shop_folder.rglob("*"):
        os.utime(file)
    assert shop_fingerprint(shop_folder) == wanted


def test_composed_and_decomposed_file_names_are_one_data_set(tmp_path):
    name = "café.png"
    for folder, form in (("linux", "NFC"), ("mac", "NFD")):
        write_shop(tmp_path / folder, items_frame=lambda items: items.with_columns(image=pl.lit(normalize("NFC", name))), pictures=False)
        write_pictures(tmp_path / folder / "images", [normalize(form, name)])
    assert shop_fingerprint(tmp_path / "linux") == shop_fingerprint(tmp_path / "mac")
    (tmp_path / "mac" / "images" / normalize("NFD", name)).write_bytes(b"another picture")
    assert shop_fingerprint(tmp_path / "linux") != shop_fingerprint(tmp_path / "mac")


def test_what_no_run_reads_does_not_count(shop_folder):
    wanted = shop_fingerprint(shop_folder)
    for stray in ("truth/items.parquet", "images/.DS_Store", "images/not-named.png", "bad_pictures.csv", "notes.parquet"):
        (shop_folder / stray).parent.mkdir(exist_ok=True)
        (shop_folder / stray).write_bytes(b"x")
    assert shop_fingerprint(shop_folder) == wanted


@pytest.mark.parametrize("name", ["world.json", "origin.json"])
def test_simulated_clicks_and_sampled_impressions_make_another_data_set_whatever_the_file_says(shop_folder, name):
    plain = shop_fingerprint(shop_folder)
    marked = set()
    for text in ("{}", "anything"):
        (shop_folder / name).write_text(text)
        marked.add(shop_fingerprint(shop_folder))
    assert len(marked) == 1
    assert plain not in marked


def change_a_byte(file: Path) -> None:
    """Keep size and mtime."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images/0003.png", change_a_byte),
        ("images/0003.png", Path.unlink),
        ("images/0003.png", lambda file: shutil.copyfile(file.with_name("0004.png"), file)),
        ("items.parquet", change_a_byte),
        ("impressions.parquet", change_a_byte),
        ("events.parquet", Path.unlink),
        ("users.parquet", lambda file: shutil.copyfile(file.with_name("events.parquet"), file)),
        ("vectors.npy", lambda file: file.write_bytes(b"vectors")),
        ("world.json", lambda file: file.write_text("{}")),
    ],
)
def test_any_change_of_what_a_run_reads_is_another_data_set(shop_folder, monkeypatch, name, change):
    before = shop_fingerprint(shop_folder)
    new_process(monkeypatch)
    assert shop_fingerprint(shop_folder) == before
    change(shop_folder / name)
    assert shop_fingerprint(shop_folder) != before


def test_an_unreadable_folder_has_a_fingerprint_too(tmp_path, shop_folder):
    (shop_folder / "items.parquet").write_bytes(b"no table")
    assert len(shop_fingerprint(shop_folder)) == len(shop_fingerprint(tmp_path / "absent")) == 16


def test_pictures_outside_images_are_not_read(shop_folder, tmp_path, hashed):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (shop_folder / "images" / "0003.png").unlink()
    (shop_folder / "images" / "0003.png").symlink_to(tmp_path / "secret.png")
    shop_fingerprint(shop_folder)
    assert hashed
    assert not [file for file in hashed if file.endswith("secret.png")]


# the cache


def test_a_file_is_hashed_once_for_all_processes(shop_folder, monkeypatch, hashed, cache):
    new_process(monkeypatch)
    wanted = shop_fingerprint(shop_folder)
    assert len(hashed) == 4 + 39
    new_process(monkeypatch)
    assert shop_fingerprint(shop_folder) == wanted
    code = f"""
        import data.hash_cache, data.identity
        data.hash_cache._hash = None
        print(data.identity.shop_fingerprint({str(shop_folder)!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wanted
    assert len(hashed) == 4 + 39
    write_pictures(shop_folder / "images", ["0003.png"], seed=5)
    assert shop_fingerprint(shop_folder) != wanted
    assert [Path(file).name for file in hashed[43:]] == ["0003.png"]
    assert [file.suffix for file in cache.iterdir()] == [".json"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 1}', '{"x": [[1, 2], "abc"]}', '{"x": [null, null]}'])
def test_a_damaged_cache_is_ignored_and_replaced(shop_folder, monkeypatch, cache, damage):
    new_process(monkeypatch)
    wanted = shop_fingerprint(shop_folder)
    (file,) = cache.iterdir()
    good = file.read_text()
    file.write_text(damage)
    new_process(monkeypatch)
    assert shop_fingerprint(shop_folder) == wanted
    assert file.read_text() == good


@pytest.mark.parametrize("where", ["", "/proc/nowhere", "/dev/null"])
def test_a_run_needs_no_cache(shop_folder, monkeypatch, where):
    wanted = shop_fingerprint(shop_folder)
    new_process(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", where)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert shop_fingerprint(shop_folder) == wanted


def test_a_file_changed_just_now_is_not_remembered(tmp_path, monkeypatch, cache):
    """Changed again within a tick of the disk's clock, it would look unchanged."""
    file = tmp_path / "a"
    file.write_bytes(b"one")
    monkeypatch.setattr(hash_cache.time, "time_ns", lambda: file.stat().st_ctime_ns + 1)
    content_hashes(tmp_path, [str(file)])
    assert not cache.exists()


def test_writers_of_one_cache_keep_what_others_found(tmp_path, monkeypatch, hashed):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    new_process(monkeypatch)
    for name in "ab":  # two processes, each with a file of its own
        content_hashes(tmp_path, [str(tmp_path / name)])
        new_process(monkeypatch)
    content_hashes(tmp_path, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert len(hashed) == 2


def test_the_cache_is_bounded(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(hash_cache, "_MOST_FOLDERS", 3)
    monkeypatch.setattr(hash_cache, "_SPARE", 2)
    for number in range(8):
        (tmp_path / str(number)).write_bytes(b"x")
    new_process(monkeypatch)
    for number in range(5):
        content_hashes(tmp_path / f"folder {number}", [str(tmp_path / "0")])
    assert len(list(cache.iterdir())) == 3
    for number in range(8):  # files that come and go
        content_hashes(tmp_path / "folder 9", [str(tmp_path / str(number))])
    newest = max(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert newest.read_text().count(str(tmp_path)) <= 4


def test_pipes_folders_and_missing_files_have_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    files = [str(tmp_path / name) for name in ("pipe", "absent", "")] + ["nul\0"]
    assert content_hashes(tmp_path, files) == dict.fromkeys(files)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


# what stages depend on


def test_identity_depends_on_no_world_and_no_reader_of_the_log():
    names = modules_of("data.identity")
    assert names <= {"data.identity", "data.hash_cache", "data.picture_paths"}


def test_one_folder_is_loaded_once_however_its_path_is_spelled(shop_folder, monkeypatch):
    monkeypatch.chdir(shop_folder.parent)
    spellings = ("./shop", "./shop/", f"../{shop_folder.parent.name}/shop", str(shop_folder))
    shops = [SourceConfig(data=data, ingest="memory").shop(shop_folder / "run") for data in spellings]
    assert all(shop is shops[0] for shop in shops)


def test_a_relative_path_is_another_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    sizes = {}
    for name, items in (("a", 40), ("b", 20)):
        write_shop(tmp_path / name / "shop", items=items, pictures=False)
        monkeypatch.chdir(tmp_path / name)
        sizes[name] = SourceConfig(data="shop/.").shop(tmp_path / "run").items.height
    assert sizes == {"a": 40, "b": 20}
