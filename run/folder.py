"""A run's folder on disk: atomic files, cached stages, the metrics log.

A stage is a folder named by what it depends on. It is there once `stage.json` is: until then whatever it holds is a start to go on from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from run.errors import UserError
from run.files import read_json, write_atomic, write_json


def file_hash(path: Path | str | None) -> str | None:
    """A hash of a file's content; None where there is no such file."""
    if path is None or not Path(path).is_file():
        return None
    return sha256(Path(path))[:16]


def folder_hash(folder: Path) -> str:
    """A hash of the names and contents of a folder's files, wherever it stands; a folder that is not there has that of an empty one."""
    return hash_of_files((file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*")) if file.is_file())


def hash_of_files(named: Iterable[tuple[str, Path]]) -> str:
    """A hash of files' names, as given, and contents; those are read again where size or time of change differ from the last time."""
    digest = hashlib.sha256()
    for name, file in named:
        digest.update(f"{name}\0{_known_sha256(file, file.stat().st_size, file.stat().st_mtime_ns)}\0".encode())
    return digest.hexdigest()[:16]


@cache
def _known_sha256(file: Path, size: int, changed: int) -> str:
    return sha256(file)


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class Stage:
    """One cached step of a run: `root/name-<hash of key>/`.

    Args:
        root: the run's folder.
        name: what the step makes, for people; it may hold slashes.
        key: everything the result depends on, as plain values; the same key names the same folder.
    """

    def __init__(self, root: Path, name: str, key: Mapping[str, Any]):
        text = json.dumps(key, sort_keys=True, default=str)
        self.key = dict(key)
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = Path(root) / f"{name}-{self.hash}"

    @property
    def done(self) -> bool:
        return (self.folder / "stage.json").exists()

    @property
    def result(self) -> dict[str, Any]:
        """What `finish` was told."""
        return read_json(self.folder / "stage.json")["result"]

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the stage as there; `result` holds its small numbers (seconds, scores)."""
        key = json.loads(json.dumps(self.key, default=str))
        write_json(self.folder / "stage.json", {"key": key, "result": dict(result), "commit": commit()})


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of one training run.

    Args:
        folder: where both are written.
        resume_step: keep lines up to this step and drop later ones (a resumed run writes them again); None starts anew.
        unit: the key that counts progress in each line.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None, unit: str = "step"):
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.unit = folder / "metrics.jsonl", unit
        kept = [line for line in read_metrics(self.path) if resume_step is not None and line[unit] <= resume_step]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.board = SummaryWriter(str(folder), purge_step=resume_step)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; its numbers also go to TensorBoard."""
        with open(self.path, "a") as file:
            file.write(json.dumps(dict(line)) + "\n")
        for name, value in line.items():
            if name != self.unit and isinstance(value, (int, float)):
                self.board.add_scalar(name, value, int(line[self.unit]))

    def close(self) -> None:
        self.board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line cut off by a kill is left out."""
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process alone; the lock goes with the process, however it ends.

    Raises:
        UserError: another process is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another run is at work here; wait for it or give another --out") from None
        yield


def commit() -> str:
    """The commit this code stands at, with '+changes' where the tree differs; 'unknown' outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
