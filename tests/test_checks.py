"""Whatever can be known before the first training is refused before it."""

import numpy as np
import polars as pl
import pytest

from eval import tasks
from eval.compare import main as compare
from tests.shops import write_shop

TINY = ("--preset", "tiny", "--jobs", "1", "--encoders", "none")


@pytest.fixture
def no_training(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a training started")

    monkeypatch.setattr(tasks, "run_tasks", fail)


@pytest.fixture
def refused(tmp_path, no_training, capsys):
    """Run eval.compare and return its one-line error. Nothing may have been trained."""

    def run(*words, out=None):
        assert compare([*TINY, "--out", str(out or tmp_path / "run"), *map(str, words)]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("sound") / "shop", pictures=False)


def test_a_sound_shop_reaches_training(sound, tmp_path, no_training):
    with pytest.raises(AssertionError, match="a training started"):
        compare([*TINY, "--out", str(tmp_path), "--data", str(sound)])


def clicks(split, value):
    """A change to impressions: every click in the first or last tenths of the log gets this value."""

    def change(frame):
        rows = pl.int_range(frame.height) / frame.height
        inside = {"train": (rows >= 0.35) & (rows < 0.85), "valid": (rows >= 0.75) & (rows < 0.95), "test": rows >= 0.85}[split]
        return frame.with_columns(click=pl.when(inside).then(pl.lit(value, pl.Int8)).otherwise(pl.col("click")))

    return change


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_split_of_one_class_is_refused(refused, tmp_path, split, value):
    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=clicks(split, value))
    line = refused("--data", folder)
    assert str(folder) in line
    assert split in line


def test_test_impressions_of_one_user_are_refused(refused, tmp_path):
    def one_user(frame):
        late = pl.int_range(frame.height) >= 0.85 * frame.height
        return frame.with_columns(user_id=pl.when(late).then(pl.col("user_id").first()).otherwise(pl.col("user_id")))

    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=one_user)
    line = refused("--data", folder)
    assert str(folder) in line
    assert "of one" in line
    assert "user" in line


@pytest.mark.parametrize("encoder", ["clip", "maskclip"])
def test_an_encoder_that_reads_titles_needs_them(refused, tmp_path, encoder):
    folder = write_shop(tmp_path / "shop", pictures=False, items_frame=lambda frame: frame.drop("title"))
    assert "title" in refused("--data", folder, "--encoders", f"simclr,{encoder}")


def test_settings_that_contradict_each_other_are_refused(refused, sound, tmp_path):
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"")
    assert "ctr.init_from" in refused("--data", sound, "--start", "warm", "--ctr.init-from", weights)


def test_missing_files_of_weights_are_refused(refused, sound, tmp_path):
    assert "no such file" in refused("--data", sound, "--start", "cold", "--ctr.init-from", tmp_path / "nothing.safetensors")
    assert "no such file" in refused("--data", sound, "--start", "cold", "--ctr.init-from", tmp_path)  # a folder without best.safetensors
    assert "no such file" in refused("--data", sound, "--encoders", "simclr", "--pretrain.weights", tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--encoders", "simclr,courier, simclr", "'simclr' is given twice"),
        ("--image-features", "vector,vector", "'vector' is given twice"),
        ("--seeds", "1001", "give at most 1000"),
        ("--encoders", "file:/no/such/vectors.npy", "/no/such/vectors.npy"),
    ],
)
def test_wrong_names_and_numbers_are_refused(refused, sound, flag, value, expected):
    assert expected in refused("--data", sound, flag, value)


def test_a_path_that_cannot_be_a_run_folder_is_refused(refused, sound, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in refused("--data", sound, out=tmp_path / "file")


@pytest.mark.parametrize("words", [["--seeds", "2"], ["--data", "elsewhere"], ["--ctr.epochs", "9"]])
def test_settings_that_merging_would_ignore_are_refused(tmp_path, no_training, capsys, words):
    assert compare(["--from", "a.json,b.json", "--out", str(tmp_path), *words]) == 2
    assert "takes no other setting than --out" in capsys.readouterr().err


def test_unreadable_embeddings_are_refused_before_any_picture_is_decoded(sound, tmp_path, capsys):
    path = tmp_path / "vectors.npy"
    np.save(path, np.ones((7, 4), np.float32))  # the shop has 40 items
    assert compare([*TINY, "--out", str(tmp_path / "run"), "--data", str(sound), "--encoders", f"simclr,file:{path}"]) == 2
    assert f"error: {path}: value '7 rows'; items.parquet has 40 rows" in capsys.readouterr().err
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [".lock", "config.toml"]
