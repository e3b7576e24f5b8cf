"""Settings, folders, checkpoints and keyed randomness."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from run.checkpoint import load_checkpoint, save_checkpoint
from run.devices import scales_losses, set_up
from run.errors import DataError, SettingError, UserError, entry
from run.files import write_atomic
from run.folder import MetricsLog, Stage, folder_hash, locked, read_metrics
from run.parallel import run_all
from run.randomness import keyed_init, normal, permutation, uniform


def test_an_error_names_file_row_column_value_and_mend(capsys):
    error = DataError("impressions.parquet", row=812, column="click", value=2, fix="clicks are 0 or 1")
    assert str(error) == "impressions.parquet: row 812, column 'click': value 2; clicks are 0 or 1"

    @entry
    def main(argv):
        raise error

    assert main([]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_keyed_numbers_belong_to_their_keys_and_are_uniform():
    numbers = uniform(3, "view", np.arange(100_000))
    assert uniform(3, "view", 77) == numbers[77]
    assert uniform(4, "view", 77) != numbers[77]
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(np.histogram(numbers, 10, (0, 1))[0] / 10_000 - 1).max() < 0.05
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(normal(0, np.arange(100_000)).std() - 1) < 0.01
    assert (np.sort(permutation(50, 1, "epoch", 2)) == np.arange(50)).all()


def test_parts_of_one_name_start_alike_whatever_stands_beside_them():
    from torch import nn

    small = nn.ModuleDict({"head": nn.Linear(4, 3)})
    large = nn.ModuleDict({"other": nn.Linear(9, 9), "head": nn.Linear(4, 3)})
    keyed_init(small, 5)
    keyed_init(large, 5)
    assert (small["head"].weight == large["head"].weight).all()
    keyed_init(large, 6)
    assert (small["head"].weight != large["head"].weight).any()


def test_a_checkpoint_comes_back_and_a_broken_one_is_refused_by_name(tmp_path):
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


def test_a_stage_is_there_only_once_it_is_finished(tmp_path):
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


def test_an_atomic_write_replaces_the_whole_file(tmp_path):
    write_atomic(tmp_path / "a.json", json.dumps([1] * 1000).encode())
    write_atomic(tmp_path / "a.json", b"[]")
    assert (tmp_path / "a.json").read_bytes() == b"[]"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [UserError("a"), DataError("f", row=1, column="c", value=2, fix="m"), SettingError("s", 1, "m")])
def test_an_error_in_a_worker_comes_through_with_its_words(error):
    with pytest.raises(UserError) as caught:
        run_all(raising, [(error,), (error,)], jobs=2)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_piece_of_work_is_said_as_it_begins_and_none_without_a_title(capfd, jobs):
    assert run_all(divmod, [(7, 2), (9, 4), (5, 5)], jobs=jobs, titles=["first", "", "third"]) == [(3, 1), (2, 1), (1, 0)]
    assert sorted(capfd.readouterr().err.split()) == ["first", "third"]


def raising(error):
    raise error


def test_results_of_parallel_work_come_in_order_and_errors_come_through():
    assert run_all(divmod, [(7, 2), (9, 4), (5, 5)], jobs=2) == [(3, 1), (2, 1), (1, 0)]
    with pytest.raises(ZeroDivisionError):
        run_all(divmod, [(7, 2), (9, 0)], jobs=2)


def test_a_folder_is_known_by_its_files_names_and_contents_wherever_it_stands(tmp_path):
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


def test_half_precision_without_a_gpu_is_full_precision_and_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = set_up(precision="16-mixed")
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not scales_losses(fabric)
    assert "32-true in place of 16-mixed" in capsys.readouterr().err
