"""Checkpoints: the newest are kept, a broken one is named and skipped, and no kill changes the result."""

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

import ctr.training.loop
from ctr.inputs.encode import encode
from ctr.training.checkpoint import prune, what_is_broken
from ctr.training.weights import read_weights, save_weights
from run.errors import UserError
from run.files import naming
from tests.ctr_ranks import CONFIG, Stop, train
from tests.ctr_shop import make_shop, pictures
from tests.full_disk import room_for
from tests.ranks import ROOT

SETTINGS = {"checkpoint_seconds": 0, "epochs": 1}


def steps(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that died after 12 steps without saving."""
    folder = tmp_path_factory.mktemp("begun")
    train(folder, stop_at=12, **SETTINGS)
    return folder


@pytest.fixture
def broken(interrupted, tmp_path):
    """A copy of `interrupted` to damage."""
    return shutil.copytree(interrupted, tmp_path / "run")


def predictions(folder):
    return pl.read_parquet(folder / "predictions.parquet")


def test_only_the_newest_checkpoints_are_kept(interrupted):
    assert steps(interrupted) == ["step-00000011", "step-00000012"]
    assert all(what_is_broken(path) == "" for path in (interrupted / "checkpoints").iterdir())


def test_the_checkpoint_of_the_best_weights_is_kept_too(tmp_path):
    for step, best in ((3, 3), (4, 3), (5, 3), (6, 3)):
        path = tmp_path / "checkpoints" / f"step-{step:08d}"
        path.mkdir(parents=True)
        (path / "state.json").write_text(json.dumps({"state": {"best_step": best}}))
    prune(tmp_path, 2)
    assert steps(tmp_path) == ["step-00000003", "step-00000005", "step-00000006"]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, os.remove])
@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "state.json", "sums.json"])
def test_whatever_is_damaged_in_a_checkpoint_is_named(broken, harm, file):
    harm(broken / "checkpoints/step-00000012" / file)
    message = what_is_broken(broken / "checkpoints/step-00000012")
    assert ("step-00000012/" if file == "sums.json" else f"step-00000012/{file}") in message  # wrong sums accuse another file


@pytest.mark.parametrize(("file", "harm"), [("__0_0.distcp", flip), (".metadata", cut), ("sums.json", os.remove)])
def test_a_broken_checkpoint_is_named_and_the_one_before_it_ends_with_the_same_predictions(broken, undisturbed, capsys, harm, file):
    harm(broken / "checkpoints/step-00000012" / file)
    train(broken, **SETTINGS)
    message = capsys.readouterr().err
    assert f"step-00000012/{file}" in message
    assert "the checkpoint before it is used" in message
    assert "ctr cluster_id seed 0: resuming from step 11, " in message
    assert predictions(broken).equals(predictions(undisturbed))


def test_if_no_checkpoint_is_complete_the_error_names_them_and_the_fix(broken):
    for path in (broken / "checkpoints").iterdir():
        cut(path / "__0_0.distcp")
    with pytest.raises(UserError, match=r"none of its checkpoints is complete \(step-00000012, step-00000011\); delete it to start over"):
        train(broken, **SETTINGS)


def test_a_finished_run_is_neither_trained_again_nor_replaced_by_one_with_other_settings(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "best.safetensors").unlink()  # training would write it
    assert train(folder, **SETTINGS) == json.loads((undisturbed / "result.json").read_text())
    assert not (folder / "best.safetensors").exists()
    with pytest.raises(UserError, match=r"run: started with other settings \(width: 16 then, 24 now.*delete it or give another --out"):
        train(folder, **SETTINGS, width=24)


def test_a_checkpoint_whose_best_weights_are_broken_is_not_complete(tmp_path, monkeypatch):
    train(tmp_path, stop_at=20, **SETTINGS, validations_per_epoch=2)
    assert steps(tmp_path) == ["step-00000016", "step-00000019", "step-00000020"]
    cut(tmp_path / "checkpoints/step-00000016/__0_0.distcp")
    assert what_is_broken(tmp_path / "checkpoints/step-00000020").endswith(
        "step-00000016/__0_0.distcp: cut off or changed since it was written"
    )


def test_a_crash_while_a_checkpoint_is_written_leaves_only_the_earlier_ones(broken, undisturbed, monkeypatch):
    def dies(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("ctr.training.checkpoint.gather_sums", dies)
        with pytest.raises(Stop):
            ctr_again(broken)
    assert steps(broken) == ["step-00000011", "step-00000012"]
    train(broken, **SETTINGS)
    assert predictions(broken).equals(predictions(undisturbed))


def ctr_again(folder):
    from ctr.training.loop import train_ctr
    from tests.ctr_ranks import SESSIONS, make_shop, pictures

    shop, style = make_shop(sessions=SESSIONS)
    train_ctr(shop, pictures(style, "cluster_id"), dataclasses.replace(CONFIG, **SETTINGS), seed=0, folder=folder)


def process(folder):
    words = json.dumps([{"folder": str(folder), **SETTINGS, "epochs": 2}])
    return subprocess.Popen([sys.executable, "-W", "ignore", "-m", "tests.ctr_ranks", words], cwd=ROOT)


def until(folder, step):
    """Wait for the checkpoint of `step` or a later one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = sorted(folder.glob("checkpoints/step-*"))
        if found and int(found[-1].name.removeprefix("step-")) >= step:
            return
        time.sleep(0.01)


def test_a_run_killed_repeatedly_ends_with_the_metrics_of_an_undisturbed_one(tmp_path):
    train(tmp_path / "undisturbed", checkpoint_seconds=1000, epochs=2)
    for kill in range(2):
        run = process(tmp_path / "killed")
        until(tmp_path / "killed", 20 * kill + random.Random(kill).randrange(5, 15))
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    train(tmp_path / "killed", **(SETTINGS | {"epochs": 2}))
    results = [json.loads((tmp_path / name / "result.json").read_text()) | {"seconds": 0} for name in ("killed", "undisturbed")]
    assert results[0] == results[1]
    assert predictions(tmp_path / "killed").equals(predictions(tmp_path / "undisturbed"))
    weights, wanted = (read_weights(tmp_path / name / "best.safetensors")[0] for name in ("killed", "undisturbed"))
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_sigterm_saves_a_checkpoint_and_says_so(tmp_path, monkeypatch, undisturbed):
    take_step = ctr.training.loop.take_step

    def asked(run, share):
        if run.state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(run, share)

    monkeypatch.setattr(ctr.training.loop, "take_step", asked)
    with pytest.raises(UserError, match="stopped at step 8, as requested; the same command resumes from here"):
        train(tmp_path, **(SETTINGS | {"checkpoint_seconds": 1000}))
    assert steps(tmp_path) == ["step-00000008"]
    monkeypatch.undo()
    train(tmp_path, **SETTINGS)
    assert predictions(tmp_path).equals(predictions(undisturbed))


def test_a_checkpoint_on_a_full_disk_leaves_earlier_ones_and_the_run_resumes_to_the_same_bits(broken, undisturbed, monkeypatch):
    save = ctr.training.loop.save

    def save_without_room(*words):
        with room_for(5_000):
            save(*words)

    with monkeypatch.context() as patch:
        patch.setattr("ctr.training.loop.save", save_without_room)
        with pytest.raises(OSError, match="written in part") as caught:
            ctr_again(broken)
    assert "checkpoints" in str(caught.value.filename)
    assert steps(broken) == ["step-00000011", "step-00000012"]
    train(broken, **SETTINGS)
    assert predictions(broken).equals(predictions(undisturbed))


def test_weights_on_a_full_disk_leave_the_old_ones_and_name_the_file(tmp_path):
    shop, style = make_shop(sessions=60)
    inputs = encode(shop, pictures(style, "none"), CONFIG)
    save_weights(tmp_path / "best.safetensors", {"w": torch.zeros(4)}, inputs)
    before = (tmp_path / "best.safetensors").read_bytes()
    with room_for(5_000), pytest.raises(OSError, match="File too large") as caught:
        save_weights(tmp_path / "best.safetensors", {"w": torch.zeros(4000)}, inputs)
    assert caught.value.filename == str(tmp_path / "best.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert (tmp_path / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize("words", ["unexpected pos 704 vs 598", "Error while serializing: IoError(No space left on device (os error 28))"])
def test_torchs_message_for_a_full_disk_becomes_the_systems_own(words):
    with pytest.raises(OSError, match=r"No space left on device|is the disk full\?") as caught, naming(Path("run/file")):
        raise RuntimeError(words)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "run/file")


def test_a_finished_run_of_other_code_is_reported_with_a_note(undisturbed, tmp_path, capsys):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    train(folder, **SETTINGS)
    assert "other code" not in capsys.readouterr().err
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"code": "0123"}))
    train(folder, **SETTINGS)
    assert "run: trained by other code than this; delete it to train again" in capsys.readouterr().err
