"""The world of real photos: measured properties, sources of the files, damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from data.readers.idx import read_idx
from data.worlds import build as worlds
from data.worlds import fashion as fashion_world
from data.worlds.fashion import CLASSES, measure, taste_points
from run.errors import DataError, SettingError, UserError
from tests.made_worlds import write_idx


def test_measured_properties_are_distributed_alike_in_every_class(photos):
    pixels, label = fashion_world.read_fashion(photos)
    places = taste_points(measure(pixels), label.astype(int))
    for index in range(len(CLASSES)):
        assert np.abs(places[label == index].mean(axis=0)).max() < 0.1


def test_a_plain_centred_square_measures_as_one():
    square = np.zeros((2, 28, 28), dtype=np.uint8)
    square[0, 9:19, 9:19] = 204
    square[1, 9:19, 4:24] = 102
    found = measure(square)
    assert found["brightness"] == pytest.approx([204 / 255, 102 / 255])
    assert found["contrast"] == pytest.approx([0, 0], abs=1e-6)
    assert found["asymmetry"] == pytest.approx([0, 0], abs=1e-6)
    assert found["balance"] == pytest.approx([13.5, 13.5])
    # the spread of n equally likely places is sqrt((n^2 - 1) / 12)
    assert found["width"] == pytest.approx([np.sqrt(99 / 12), np.sqrt(399 / 12)])
    assert found["height"] == pytest.approx([np.sqrt(99 / 12)] * 2)


@pytest.mark.parametrize("name", ["plain", "zipped.gz"])
def test_idx_files_round_trip(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / name, values)
    assert (read_idx(tmp_path / name, axes=3) == values).all()


IDX = bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\1\2\3\4"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "magic number"),
        (IDX[:6], "within its header"),
        (IDX[:-1], "3 bytes of content, but its header claims 4"),
        (IDX + b"\5", "longer than the 4 bytes"),
        (bytes([0, 0, 13, 1]) + IDX[4:], "value '00000d01'; not the magic number 00000801"),
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "magic number"),
        (IDX[:4] + struct.pack(">I", 2**32 - 1), "claims 4,294,967,295 bytes"),
        (gzip.compress(IDX, mtime=0)[:-6], "damaged or cut off"),
        (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), "damaged or cut off"),
        (b"\x1f\x8b" + bytes(20), "damaged or cut off"),
        (gzip.compress(b"<html>moved</html>", mtime=0), "magic number"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as refusal:
        read_idx(path, axes=1)
    assert str(path) in str(refusal.value)
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "absent", axes=1)


def test_photos_that_do_not_fit_their_labels_are_refused(tmp_path, photos):
    for file in photos.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(99, dtype=np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels.*value 99"):
        fashion_world.read_fashion(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(100, 10, dtype=np.uint8))
    with pytest.raises(DataError, match="classes are 0 to 9"):
        fashion_world.read_fashion(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((100, 32, 32), dtype=np.uint8))
    with pytest.raises(DataError, match="photos are 28 x 28"):
        fashion_world.read_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"holds no train-labels-idx1-ubyte\.gz"):
        fashion_world.read_fashion(tmp_path)


def test_more_items_than_photos_are_refused(tmp_path, photos):
    with pytest.raises(SettingError, match="there are 700 photos"):
        worlds.make_world("fashion", tmp_path / "fashion", items=701, fashion_dir=photos)


def test_missing_photos_are_refused_with_all_three_ways_to_get_them(tmp_path, monkeypatch):
    def no_network(cache: Path) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(fashion_world, "INSTALLED", tmp_path / "absent")
    monkeypatch.setattr(fashion_world, "_download", no_network)
    with pytest.raises(UserError) as refusal:
        worlds.make_world("fashion", tmp_path / "fashion")
    for way in ("apt-get install dataset-fashion-mnist", "--fashion-dir DIR", "network is unreachable"):
        assert way in str(refusal.value)


def test_a_downloaded_copy_is_used_if_none_is_installed(tmp_path, monkeypatch, photos):
    monkeypatch.setattr(fashion_world, "INSTALLED", tmp_path / "absent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def download(cache: Path) -> None:
        (cache / "FashionMNIST").mkdir(parents=True)
        (cache / "FashionMNIST" / "raw").symlink_to(photos)

    monkeypatch.setattr(fashion_world, "_download", download)
    assert len(fashion_world.read_fashion(None)[0]) == 700
