"""Files and folders are complete or absent, whatever a full disk, a kill or another process does."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from run.checkpoint import save_checkpoint, write_weights
from run.errors import UserError
from run.files import allocate, naming, replacing, replacing_folder, sweep, write_atomic, write_json, write_with
from run.folder import MetricsLog, locked, read_metrics

ROOT = Path(__file__).parent.parent
LARGE = 200_000  # bytes; more than the limit below


@pytest.fixture
def full_disk():
    """No file may grow beyond 50 kB: to a writer, this looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed(code, *words):
    """Run code in another process until it prints "ready", and kill it."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(os.listdir(folder))


def test_an_atomic_write_replaces_the_complete_file(tmp_path):
    write_atomic(tmp_path / "a.json", b"1" * 1000)
    write_atomic(tmp_path / "a.json", b"[]")
    assert (tmp_path / "a.json").read_bytes() == b"[]"
    assert names(tmp_path) == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "lock", b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with suppress(KeyError), replacing(tmp_path / "lock") as temporary:
        temporary.write_bytes(b"new")
        raise KeyError
    with suppress(KeyError), replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "new").touch()
        raise KeyError
    assert (tmp_path / "lock").read_bytes() == b"old"
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder", "lock"]


def test_a_folder_replaces_the_one_before_it(tmp_path):
    for name in ("first", "second"):
        with replacing_folder(tmp_path / "world [v1]") as temporary:
            (temporary / name).write_text(name)
            assert names(tmp_path / "world [v1]") == ["first"] if name == "second" else not (tmp_path / "world [v1]").exists()
    assert names(tmp_path / "world [v1]") == ["second"]
    assert names(tmp_path) == ["world [v1]"]


@pytest.mark.parametrize("writer", ["replacing", "replacing_folder"])
def test_the_next_write_removes_what_a_killed_writer_left_but_not_what_a_running_one_is_writing(tmp_path, writer):
    code = (
        f"import sys, time; from pathlib import Path; from run.files import {writer}\n"
        f"with {writer}(Path(sys.argv[1])) as place: place.touch(); print('ready', flush=True); time.sleep(60)"
    )
    killed(code, tmp_path / "target")
    assert len(names(tmp_path)) == 1
    with replacing(tmp_path / "target") as mine:
        sweep(tmp_path / "target")
        mine.write_text("mine")
        assert names(tmp_path) == [mine.parent.parent.name]
        write_atomic(tmp_path / "other", b"")
    assert (tmp_path / "target").read_text() == "mine"


def test_a_folder_whose_lock_is_held_is_left_alone_whatever_its_process_id(tmp_path):
    """The lock decides: a writer on another host has a process id that means nothing here."""
    code = (
        "import sys, time; from pathlib import Path; from run.files import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as place: print('ready', flush=True); sys.stdin.read(); (place / 'made').touch()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "world")]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        sweep(tmp_path / "world")
        assert len(names(tmp_path)) == 1
        other.communicate("")
    assert names(tmp_path / "world") == ["made"]


def test_on_a_disk_without_locks_nothing_counts_as_abandoned(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with replacing_folder(tmp_path / "world") as place:
        sweep(tmp_path / "world")
        (place / "made").touch()
    assert names(tmp_path / "world") == ["made"]
    with locked(tmp_path):
        pass


def test_a_kill_between_the_two_renames_is_repaired_by_the_next_sweep(tmp_path, monkeypatch):
    code = (
        "import os, sys, time; from pathlib import Path; from run.files import replacing_folder\n"
        "rename = os.rename\n"
        "def last(*paths): rename(*paths); print('ready', flush=True); time.sleep(60)\n"
        "with replacing_folder(Path(sys.argv[1])) as place: (place / 'new').touch(); os.rename = last"
    )
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "old").touch()
    killed(code, tmp_path / "world")
    assert not (tmp_path / "world").exists()
    sweep(tmp_path / "world")
    assert names(tmp_path / "world") == ["new"]
    assert names(tmp_path) == ["world"]


WRITERS = {
    "bytes": lambda path: write_atomic(path, bytes(LARGE)),
    "JSON": lambda path: write_json(path, [1] * LARGE),
    "buffer": lambda path: write_with(path, lambda file: file.write(bytes(LARGE))),
    "checkpoint": lambda path: save_checkpoint(path, {"weights": torch.rand(LARGE)}),
    "weights": lambda path: write_weights(path, {"weights": torch.rand(LARGE)}, {}),
    "allocate": lambda path: allocate(path, LARGE),
    "numpy": lambda path: within(path, save_array),
    "torch": lambda path: within(path, lambda new: torch.save({"a": torch.rand(LARGE)}, new)),
    "polars": lambda path: within(path, lambda new: pl.DataFrame({"a": np.random.default_rng(0).random(LARGE)}).write_parquet(new)),
}


def within(path, write):
    with replacing(path) as temporary:
        write(temporary)


def save_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(LARGE))


@pytest.mark.parametrize("writer", WRITERS)
def test_on_a_full_disk_every_writer_names_the_file_and_leaves_the_old_one(tmp_path, full_disk, writer):
    path = tmp_path / "weights.bin"
    if writer != "allocate":
        write_atomic(path, b"before")
    with pytest.raises(OSError) as error:
        WRITERS[writer](path)
    assert error.value.filename == str(path)
    assert error.value.strerror
    assert names(tmp_path) == ([] if writer == "allocate" else ["weights.bin"])
    assert writer == "allocate" or path.read_bytes() == b"before"


def test_a_distributed_checkpoint_on_a_full_disk_ends_in_an_error_that_names_its_folder(tmp_path, full_disk):
    from torch.distributed import checkpoint

    with pytest.raises(OSError) as error, naming(tmp_path / "step-1"):
        checkpoint.save({"a": torch.rand(LARGE)}, storage_writer=checkpoint.FileSystemWriter(tmp_path / "step-1"), no_dist=True)
    assert error.value.filename == str(tmp_path / "step-1")


def test_on_a_full_disk_the_old_file_stays_and_the_same_write_succeeds_once_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        write_atomic(disk / "weights.bin", b"before")
        for write in (lambda: write_atomic(disk / "weights.bin", bytes(LARGE)), lambda: allocate(disk / "map.npy", LARGE)):
            with pytest.raises(OSError) as error:
                write()
            assert error.value.errno == errno.ENOSPC
            assert names(disk) == ["weights.bin"]
        assert (disk / "weights.bin").read_bytes() == b"before"
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        write_atomic(disk / "weights.bin", bytes(LARGE))
        assert (disk / "weights.bin").stat().st_size == LARGE
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(UserError, match=f"{disk}: cannot be used as a run folder \\(Read-only file system\\)"), locked(disk):
            pass
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_naming_leaves_other_errors_and_the_names_of_other_files_alone(tmp_path):
    with pytest.raises(ZeroDivisionError), naming(tmp_path):
        _ = 1 / 0
    with pytest.raises(FileNotFoundError, match="elsewhere"), naming(tmp_path):
        (tmp_path / "elsewhere").read_bytes()


def test_a_metrics_log_on_a_full_disk_ends_with_a_complete_line_and_continues_once_there_is_room(tmp_path, full_disk):
    log = MetricsLog(tmp_path)
    log.write({"step": 1, "loss": 1.0})
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        log.write({"step": 2, "note": "x" * LARGE})
    assert not log.path.read_bytes().endswith(b"\n")
    log.write({"step": 3, "loss": 3.0})
    log.close()
    assert [line["step"] for line in read_metrics(log.path)] == [1, 3]


def test_tensorboard_events_that_cannot_be_written_only_cause_a_note(tmp_path, capsys, monkeypatch):
    log = MetricsLog(tmp_path)
    assert log.board is not None
    log.board.path = Path("/dev/full")
    for step in (1, 2):
        log.write({"step": step, "loss": 1.0})
    assert log.board is None
    assert capsys.readouterr().err.count("no more TensorBoard events") == 1
    assert len(read_metrics(log.path)) == 2


def test_tensorboard_reads_the_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 4})
    log.close()
    time.sleep(1.1)  # files of one second are read in no order
    log = MetricsLog(tmp_path, resume_step=2)
    log.write({"step": 3, "loss": 9.0, "name": "text"})
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.25), (2, 0.5), (3, 9.0)]


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """The library changes the order of metadata from call to call."""
    metadata = {key: key + "ä" for key in "zyxwvu"}
    for name in ("first", *range(9)):
        write_weights(tmp_path / str(name), {"b": torch.arange(3.0), "a": torch.zeros(2)}, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    from safetensors import safe_open

    with safe_open(tmp_path / "first", framework="pt") as file:
        assert file.metadata() == metadata
        assert file.get_tensor("b").tolist() == [0.0, 1.0, 2.0]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "first").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_path_that_cannot_be_a_run_folder_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"{folder}: cannot be used as a run folder"), locked(folder):
            pass


def test_an_error_without_a_file_names_the_run_folder(tmp_path):
    with pytest.raises(OSError) as error, locked(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    assert error.value.filename == str(tmp_path)
