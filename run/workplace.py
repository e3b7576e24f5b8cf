"""Where files and folders are made before they get their final names, and how the remains of killed processes are removed.

A file or folder is made in a *workplace*, a folder `.NAME.<12 hex digits>.partial` next to where it goes. The process that makes it holds
a lock (flock) on the file `lock` in there. The kernel releases the lock when that process ends, however it ends and on whichever host of a
shared disk, so a workplace whose lock is free is abandoned. On a disk without locks, nothing is ever considered abandoned.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

NEW, OLD = "new", "old"  # what is made, and the folder it replaces, within a workplace
_WORKPLACE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.partial", re.DOTALL)
_LOCK = "lock"


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A locked workplace for `path`; it is removed with all its remaining content when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(str(path.parent.absolute()))
    lock = None
    while lock is None:
        place = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
        lock = _made_and_locked(place)
    try:
        yield place
    finally:
        _remove(place)
        os.close(lock)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left next to it; what a living one is making, on any host, stays."""
    for place, target in _workplaces(path.parent):
        if target.name == path.name:
            _remove_abandoned(place, target)


def is_temporary(name: object, path: Path) -> bool:
    """Whether an error's file name is `path` or lies in a workplace of it."""
    if isinstance(name, int) or name is None:
        return True
    parts = Path(os.fsdecode(name)).parts  # type: ignore[arg-type]
    return any(match is not None and match["name"] == path.name for match in map(_WORKPLACE.fullmatch, parts))


def _made_and_locked(place: Path) -> int | None:
    """The descriptor of a new workplace's lock; None if another process has just swept the workplace away."""
    place.mkdir()
    try:
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except FileNotFoundError:
        return None
    except BaseException:
        _remove(place)
        raise
    with suppress(FileNotFoundError, BlockingIOError):  # swept, or being swept
        _lock(lock)
        if os.path.samestat(os.fstat(lock), os.stat(place / _LOCK)):
            return lock
    os.close(lock)
    return None


def _lock(descriptor: int) -> None:
    """Lock a new workplace; a disk without locks is no problem, because nobody can sweep there either."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _workplaces(folder: Path) -> list[tuple[Path, Path]]:
    """The workplaces in a folder, each with the path that was being made in it."""
    try:
        found = [(name, _WORKPLACE.fullmatch(name)) for name in os.listdir(folder)]
    except OSError:
        return []
    return [(folder / name, folder / match["name"]) for name, match in found if match]


@cache
def _sweep_once(folder: str) -> None:
    """Sweep a folder the first time that this process writes into it: writers killed later are left to other processes."""
    for place, target in _workplaces(Path(folder)):
        _remove_abandoned(place, target)


def _remove_abandoned(place: Path, target: Path) -> None:
    """Remove a workplace if nobody holds its lock; a folder that was about to replace `target` does so first."""
    try:
        lock = os.open(place / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        with suppress(OSError):
            place.rmdir()  # succeeds if it is empty: its maker was killed just after making it, or it was swept
        return
    except OSError:
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(place / OLD) and not os.path.lexists(target):
                os.rename(place / (NEW if (place / NEW).exists() else OLD), target)
            _remove(place)
    finally:
        os.close(lock)


def _remove(place: Path) -> None:
    """Delete a workplace, its lock last: after a kill meanwhile, the next sweep still recognises it as abandoned."""
    with suppress(OSError):
        for entry in place.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    with suppress(OSError):
        (place / _LOCK).unlink(missing_ok=True)
        place.rmdir()
