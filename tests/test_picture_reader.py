"""Pictures decoded from files whenever they are read: the pixels of the store, and the same rules for unreadable ones."""

from __future__ import annotations

import csv

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import data.pictures.reader as reader
from data.log.shop_folder import load_shop
from data.pictures.reader import checked_files, picture_files
from data.pictures.store import build_store
from data.source import SourceConfig
from features.embed import main as embed_command
from pretrain.backbones.backbone import backbone
from pretrain.config import PretrainConfig
from pretrain.embedding import embed
from pretrain.train import main as train
from run.errors import DataError, SettingError
from tests.shops import write_pictures, write_shop

SIZE = 24
CONFIG = PretrainConfig(image_size=16, store_size=SIZE, dim=8)
KINDS = ("jpg", "png", "webp")


def with_kinds(items: pl.DataFrame) -> pl.DataFrame:
    """Pictures of all kinds, chosen by number."""
    names = [name and name.replace("png", KINDS[row % 3]) for row, name in enumerate(items["image"].to_list())]
    return items.with_columns(pl.Series("image", names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 items: pictures of three kinds, larger than the store's, some rotated by EXIF or partly transparent; the last item has none."""
    folder = write_shop(tmp_path_factory.mktemp("shop"), sessions=300, items_frame=with_kinds, pictures=False)
    names = pl.read_parquet(folder / "items.parquet")["image"].drop_nulls().to_list()
    write_pictures(folder / "images", names, size=120)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(folder / "images" / names[0]).save(folder / "images" / names[0], exif=turned)
    Image.open(folder / "images" / names[1]).convert("RGBA").rotate(30).save(folder / "images" / names[1])
    return folder


@pytest.fixture(scope="module")
def shop(folder):
    return load_shop(folder)


@pytest.fixture
def damaged(tmp_path):
    """A shop of 20 items: row 3 has no file, row 5 a file that is not a picture, row 7 a picture with truncated pixels."""
    folder = write_shop(tmp_path / "shop", items=20, items_frame=with_kinds, pictures=False)
    names = pl.read_parquet(folder / "items.parquet")["image"].to_list()
    write_pictures(folder / "images", [name for name in names if name], size=60)
    (folder / "images" / names[3]).unlink()
    (folder / "images" / names[5]).write_bytes(b"no picture")
    content = (folder / "images" / names[7]).read_bytes()
    (folder / "images" / names[7]).write_bytes(content[: len(content) * 3 // 4])
    return load_shop(folder)


def listed(folder):
    with open(folder / "bad_pictures.csv", newline="") as file:
        return [row["file"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def both(shop, tmp_path_factory):
    root = tmp_path_factory.mktemp("both")
    return build_store(shop, root / "store", size=SIZE, workers=1), picture_files(shop, root / "files", size=SIZE, workers=2)


@settings(max_examples=25, deadline=None)
@given(items=st.lists(st.integers(0, 39), max_size=12))
def test_files_have_the_pixels_of_the_store_in_any_order_and_with_repeats(both, items):
    store, files = both
    items = np.array(items, dtype=np.int64)
    np.testing.assert_array_equal(files.read(items), store.read(items))


def test_a_picture_requested_twice_is_decoded_once(shop, tmp_path, monkeypatch):
    decoded = []
    real = reader.read_picture
    monkeypatch.setattr(reader, "read_picture", lambda folder, image, **options: decoded.append(image) or real(folder, image, **options))
    picture_files(shop, tmp_path, size=SIZE, workers=2).read(np.array([4, 2, 4, 4, 2]))
    assert sorted(decoded) == sorted(shop.items["image"][row] for row in (2, 4))


@pytest.mark.parametrize("open_files", [picture_files, checked_files])
def test_embeddings_do_not_depend_on_where_pictures_are_read_from(shop, both, tmp_path, open_files):
    net = backbone("small_cnn", dim=8, seed=0)
    files = open_files(shop, tmp_path, size=SIZE, workers=2)
    np.testing.assert_array_equal(files.present, both[0].present)
    np.testing.assert_array_equal(embed(net, files, CONFIG, batch=7), embed(net, both[0], CONFIG, batch=7))


def test_unreadable_pictures_of_a_catalogue_are_zero_rows_and_listed(damaged, tmp_path):
    net = backbone("small_cnn", dim=8, seed=0)
    files = picture_files(damaged, tmp_path / "files", size=SIZE, workers=2, max_bad_images=0.2)
    store = build_store(damaged, tmp_path / "store", size=SIZE, workers=1, max_bad_images=0.2)
    vectors = embed(net, files, CONFIG, batch=4)
    np.testing.assert_array_equal(vectors.any(1), store.present)
    assert np.flatnonzero(~store.present).tolist() == [3, 5, 7, 19]
    assert listed(tmp_path / "files") == listed(tmp_path / "store")
    assert files.bad == store.bad


def test_too_many_unreadable_pictures_are_refused_once_all_are_read(damaged, tmp_path):
    files = picture_files(damaged, tmp_path, size=SIZE, workers=2, max_bad_images=0.1)
    with pytest.raises(DataError, match=r"3 of 19 pictures are unreadable .*raise --max-bad-images"):
        embed(backbone("small_cnn", dim=8, seed=0), files, CONFIG, batch=4)
    assert len(listed(tmp_path)) == 3


def test_training_draws_from_pictures_with_readable_headers(damaged, tmp_path):
    files = checked_files(damaged, tmp_path, size=SIZE, workers=2, max_bad_images=0.2)
    assert np.flatnonzero(~files.present).tolist() == [3, 5, 19]  # row 7 is damaged after its header
    assert not files.read(np.array([7])).any()
    assert files.unreadable().tolist() == [3, 5, 7]
    assert files.present[7]  # a resumed run, which has not read it yet, draws the same
    with pytest.raises(DataError, match="2 of 19 pictures are unreadable"):
        checked_files(damaged, tmp_path, size=SIZE, workers=2, max_bad_images=0.1)


def test_headers_are_read_once_for_the_same_files(damaged, tmp_path, monkeypatch):
    looked = []
    real = reader.read_header
    monkeypatch.setattr(reader, "read_header", lambda folder, image: looked.append(image) or real(folder, image))
    options = {"size": SIZE, "workers": 2, "max_bad_images": 1.0}
    first = checked_files(damaged, tmp_path, **options)
    assert len(looked) == 19
    again = checked_files(damaged, tmp_path, **options)
    assert len(looked) == 19
    assert again.bad == first.bad
    write_pictures(damaged.folder / "images", [damaged.items["image"][3]])  # fixed
    assert checked_files(damaged, tmp_path, **options).present[3]
    assert len(looked) == 2 * 19


def test_training_from_files_equals_training_from_the_store_and_stores_no_pixels(folder, tmp_path):
    words = (  # noqa: SIM905 - as one types it
        "--encoder simclr --weights random --image-size 16 --store-size 24 --dim 8 --pictures 200 --batch-pictures 32 --checkpoints 1"
    ).split()
    for place in ("store", "files"):
        assert train([*words, "--data", str(folder), "--pictures-from", place, "--out", str(tmp_path / place)]) == 0
    weights = [(tmp_path / place / "best.safetensors").read_bytes() for place in ("store", "files")]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "files").rglob("pixels.npy"))

    for run, place in (("store", "auto"), ("store", "files"), ("files", "auto")):
        out = tmp_path / f"embedded-{run}-{place}"
        assert embed_command(["--run", str(tmp_path / run), "--out", str(out), "--pictures-from", place]) == 0
        assert (out / "bad_pictures.csv").exists() == (run == "files" or place == "files")
    vectors = [np.load(path) for path in sorted(tmp_path.glob("embedded-*/vectors.npy"))]
    assert len(vectors) == 3
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert len(list(tmp_path.rglob("pixels.npy"))) == 1


def test_too_many_unreadable_pictures_leave_no_embeddings(folder, damaged, tmp_path):
    words = "--encoder random --image-size 16 --store-size 24 --dim 8 --pictures-from files".split()  # noqa: SIM905
    assert train([*words, "--data", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert embed_command(["--run", str(tmp_path / "run"), "--data", str(damaged.folder), "--out", str(tmp_path / "out")]) != 0
    assert not (tmp_path / "out/vectors.npy").exists()
    assert len(listed(tmp_path / "out")) == 3


def test_an_unknown_place_to_read_from_is_refused():
    with pytest.raises(SettingError, match="pictures_from"):
        SourceConfig(pictures_from="disk")
