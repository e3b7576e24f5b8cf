"""How a command handles errors and the streams it prints to: one line, no traceback, and never a lost result."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from run.errors import DataError, SettingError, Stopped, UserError, entry, one_process
from run.errors.system import one_line, system_error

ROOT = Path(__file__).parent.parent
# a command that prints, then writes its result
COMMAND = """
import sys
from pathlib import Path
from run.errors import entry

@entry
def main(argv=None):
    for _ in range(3000):
        print("caf\\u00e9 \\udcff " * 10)
    print("caf\\u00e9 \\udcff", file=sys.stderr)
    Path(sys.argv[1]).write_text("complete")

raise SystemExit(main())
"""


def run(tmp_path, shell, **environment):
    """Run a shell line in which $COMMAND is the command; returns its result file, exit code and output."""
    (tmp_path / "command.py").write_text(COMMAND)
    words = os.environ | {"COMMAND": f"{sys.executable} {tmp_path / 'command.py'} {tmp_path / 'result'}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, env=words | environment)
    return (tmp_path / "result").exists(), done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("shell", "environment"),
    [
        ("$COMMAND | head -1", {}),
        ("$COMMAND >&-", {}),
        ("$COMMAND 2>&-", {}),
        ("$COMMAND >&- 2>&- <&-", {}),
        ("$COMMAND", {"PYTHONIOENCODING": "ascii"}),
        ("$COMMAND", {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
        ("$COMMAND 2> >(exec 0<&-; sleep 0.1)", {}),
    ],
)
def test_output_that_is_closed_or_cannot_be_encoded_costs_nothing(tmp_path, shell, environment):
    complete, code, out, err = run(tmp_path, "set -o pipefail; " + shell, **environment)
    assert complete
    assert code == 0
    assert set(err.splitlines()) <= {"café \\udcff", "caf\\xe9 \\udcff"}
    assert len(out.splitlines()) in (0, 1, 3000)


def test_output_on_a_full_disk_is_reported_once_the_result_is_complete(tmp_path):
    complete, code, _, err = run(tmp_path, "$COMMAND > /dev/full")
    assert complete
    assert code == 2
    assert err.splitlines()[-1] == "error: standard output: No space left on device"
    assert "Traceback" not in err


def test_an_error_names_file_row_column_value_and_fix(capsys):
    error = DataError("impressions.parquet", row=812, column="click", value=2, fix="clicks are 0 or 1")
    assert str(error) == "impressions.parquet: row 812, column 'click': value 2; clicks are 0 or 1"
    assert ended(error, capsys) == (2, f"error: {error}\n")


def ended(error, capsys):
    @entry
    def main(argv):
        raise error

    return main([]), capsys.readouterr().err


class CheckpointError(BaseException):
    """Like torch.distributed.checkpoint's: not an Exception, with the errors of all ranks."""

    def __init__(self, *errors):
        super().__init__("ranks failed")
        self.failures = {rank: (error, None) for rank, error in enumerate(errors)}


def raised_from(error, cause):
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "/runs/a.npy")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "/runs/a.npy: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "Permission denied", b"/runs/b"), "/runs/b: Permission denied"),
        (OSError("No space left on device (os error 28)"), "No space left on device"),
        (OSError("No such file or directory (os error 2): /runs/x.parquet"), "/runs/x.parquet: No such file or directory"),
        (OSError("100000 requested and 609 written"), "could only be written in part (is the disk full?)"),
        (OSError("cannot identify image file 'a.png'"), "cannot identify image file 'a.png'"),
        (RuntimeError("parquet: underlying IO error: Disk quota exceeded (os error 122)"), "Disk quota exceeded"),
        (RuntimeError('IoError(Os { code: 30, kind: ReadOnlyFilesystem, message: "Read-only file system" })'), "Read-only file system"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
            "could only be written in part (is the disk full?)",
        ),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            "could only be written in part (is the disk full?)",
        ),
        (raised_from(RuntimeError("could not save"), FULL), "/runs/a.npy: No space left on device"),
        (CheckpointError(FULL), "/runs/a.npy: No space left on device"),
        (CheckpointError(RuntimeError("unexpected pos 704 vs 598")), "could only be written in part (is the disk full?)"),
    ],
)
def test_whatever_the_system_refuses_is_reported_in_one_line(capsys, error, line):
    assert ended(error, capsys) == (2, f"error: {line}\n")


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ"), CheckpointError(KeyError("x")), SystemExit(3)])
def test_a_bug_keeps_its_traceback(error, capsys):
    assert system_error(error) is None
    with pytest.raises(type(error)):
        ended(error, capsys)


def test_signals_have_exit_codes_of_their_own(capsys):
    assert ended(Stopped("saved at step 3"), capsys) == (143, "saved at step 3\n")
    assert ended(KeyboardInterrupt(), capsys) == (130, "stopped; the same command resumes from here\n")


DESTRUCTOR = """
import sys, threading
from run.errors import entry

class Unclosable:
    def __del__(self):
        raise OSError(28, "No space left on device", "late")

def fail():
    raise OSError(28, "No space left on device", "thread")

@entry
def main(argv=None):
    if "thread" in sys.argv:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    kept = Unclosable()
    if "main" in sys.argv:
        raise OSError(28, "No space left on device", "early")

raise SystemExit(main())
"""


@pytest.mark.parametrize(
    ("word", "lines"),
    [
        ("main", ["error: early: No space left on device"]),
        ("destructor", ["note: late: No space left on device"]),
        ("thread", ["error: thread: No space left on device", "note: late: No space left on device"]),
    ],
)
def test_destructors_and_threads_on_a_full_disk_print_no_traceback(word, lines):
    done = subprocess.run([sys.executable, "-c", DESTRUCTOR, word], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines() == lines


def test_a_failing_descriptor_is_named_by_its_number():
    assert one_line(OSError(errno.EIO, "Input/output error", 5)) == "file descriptor 5: Input/output error"


def test_a_single_process_command_refuses_several_ranks(monkeypatch):
    one_process("x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="x runs in one process"):
        one_process("x")


def test_a_setting_error_abbreviates_a_long_value():
    assert len(str(SettingError("data", "x" * 1000, "give another"))) < 200
