"""Settings, folders, checkpoints and keyed randomness."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from run.checkpoint import load_checkpoint, save_checkpoint
from run.devices import scales_losses, set_up
from run.errors import UserError
from run.folder import MetricsLog, Stage, folder_hash, locked, read_metrics
from run.folder.version import _commit_of
from run.randomness import keyed_init, normal, permutation, uniform


def test_keyed_numbers_depend_on_their_keys_alone_and_are_uniform():
    numbers = uniform(3, "view", np.arange(100_000))
    assert uniform(3, "view", 77) == numbers[77]
    assert uniform(4, "view", 77) != numbers[77]
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(np.histogram(numbers, 10, (0, 1))[0] / 10_000 - 1).max() < 0.05
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(normal(0, np.arange(100_000)).std() - 1) < 0.01
    assert (np.sort(permutation(50, 1, "epoch", 2)) == np.arange(50)).all()


def test_parts_of_the_same_name_get_the_same_initial_weights_in_any_model():
    from torch import nn

    small = nn.ModuleDict({"head": nn.Linear(4, 3)})
    large = nn.ModuleDict({"other": nn.Linear(9, 9), "head": nn.Linear(4, 3)})
    keyed_init(small, 5)
    keyed_init(large, 5)
    assert (small["head"].weight == large["head"].weight).all()
    keyed_init(large, 6)
    assert (small["head"].weight != large["head"].weight).any()


def test_a_checkpoint_is_read_back_and_a_broken_one_is_refused_by_name(tmp_path):
    import torch

    path = tmp_path / "last.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"weights": torch.arange(5), "step": 3})
    assert load_checkpoint(path)["step"] == 3
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"last\.pt: not a readable checkpoint"):
        load_checkpoint(path)


def test_a_pickle_is_never_unpickled(tmp_path):
    import pickle

    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "last.pt"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_stage_is_done_only_once_it_is_finished(tmp_path):
    stage = Stage(tmp_path, "encoders/x", {"a": 1})
    assert not stage.done
    stage.finish({"seconds": 2})
    again = Stage(tmp_path, "encoders/x", {"a": 1})
    assert again.done
    assert again.result == {"seconds": 2}
    assert not Stage(tmp_path, "encoders/x", {"a": 2}).done


def test_a_resumed_log_drops_the_lines_after_its_step(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": float(step)})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    log = MetricsLog(tmp_path, resume_step=2)
    log.write({"step": 3, "loss": 9.0})
    log.close()
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 9.0]


def test_two_runs_cannot_share_a_folder_at_once(tmp_path):
    code = f"from run.folder import locked\nfrom pathlib import Path\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another run is using this folder" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folders_hash_depends_on_names_and_contents_not_on_its_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "deep" / "weights").write_text("1 2")
    first = folder_hash(tmp_path / "a")
    assert first == folder_hash(tmp_path / "b")
    (tmp_path / "b" / "deep" / "weights").write_text("1 3 ")
    assert first != folder_hash(tmp_path / "b")
    (tmp_path / "a" / "config.json").rename(tmp_path / "a" / "other.json")
    assert first != folder_hash(tmp_path / "a")


def test_half_precision_without_a_gpu_is_full_precision_with_a_note(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = set_up(precision="16-mixed")
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not scales_losses(fabric)
    assert "32-true in place of 16-mixed" in capsys.readouterr().err


def test_an_installed_copy_inside_another_repository_does_not_report_its_commit(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    copy = tmp_path / "site-packages" / "run" / "version.py"
    copy.parent.mkdir(parents=True)
    copy.touch()
    (tmp_path / "own.py").touch()
    git("init")
    git("add", "own.py")
    git("commit", "-m", "first")
    assert _commit_of(copy) == "unknown"
    assert _commit_of(tmp_path / "own.py").endswith("+changes")
    git("add", ".")
    git("commit", "-m", "second")
    assert len(_commit_of(copy)) == 40


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert _commit_of(Path(__file__)) == "unknown"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_blocks_are_kept_for_the_next_step():
    """In a process of its own: the second of two equal blocks costs no page faults."""
    code = (
        "import resource, numpy as np\n"
        "from run.devices import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "def faults(): np.ones(100 * 2**20, np.uint8); return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "begun = faults(); print(faults() - begun)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 50  # hundreds where the block was given back, even with huge pages
