"""Files and folders that are complete or absent: whatever is written here appears under its name once all of it is on the disk.

Every writer goes through this file, so that a full disk, a lost connection or a kill costs one line of an error and never a broken file.

A file or folder is made in a *workplace*, a folder `.NAME.<12 hex digits>.partial` next to where it goes. The process that makes it holds
a lock (flock) on the file `lock` in there. The kernel releases the lock when that process ends, however it ends and on whichever host of a
shared disk, so that a workplace whose lock is free is abandoned. Where a disk has no locks, nothing is ever taken for abandoned.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from run.errors import UserError
from run.errors.system import system_error

_WORKPLACE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.partial", re.DOTALL)
_LOCK, _NEW, _OLD = "lock", "new", "old"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path of the same name, on the same disk, that becomes `path` once the block has written it; removed if the block fails.

    Raises:
        OSError: with the name of `path`, whatever the writing library left out of the error.
    """
    path = Path(path)
    with naming(path), _workplace(path) as workplace:
        temporary = workplace / _NEW / path.name
        temporary.parent.mkdir()
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """`replacing` for a folder: an empty one that becomes `path` when the block ends; the folder it replaces is deleted after that.

    A kill between the two renames leaves both folders in the workplace; the next `sweep` puts the new one in its place.
    """
    path = Path(path)
    with naming(path), _workplace(path) as workplace:
        new, old = workplace / _NEW, workplace / _OLD
        new.mkdir()
        yield new
        replaced = os.path.lexists(path)
        if replaced:
            os.rename(path, old)
        try:
            os.rename(new, path)
        except BaseException:
            if replaced:
                os.rename(old, path)
            raise


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left next to it; what a living one is making, on any host, stays."""
    for place, target in _workplaces(path.parent):
        if target.name == path.name:
            _remove_abandoned(place, target)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let every OSError of the block name `path`, also one that a library wraps or quotes, and one about a temporary of `path`."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        found = system_error(error)
        if found is None:
            raise
        elsewhere = found.filename is not None and not _is_temporary(found.filename, path)
        if elsewhere and found is error:
            raise
        if elsewhere:
            raise found from None
        raise OSError(found.errno, found.strerror or str(found), str(path)) from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a run killed meanwhile, sees the old content or the new, never a part."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_with(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """`write_atomic` of what `write` puts into a binary buffer, for libraries that write to a file object."""
    buffer = io.BytesIO()
    write(buffer)
    write_atomic(path, buffer.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None


def allocate(path: Path, size: int) -> None:
    """Make a file of `size` zero bytes whose blocks exist: a memory map of it can be written to without a bus error on a full disk.

    Raises:
        OSError: the disk has no room; the file is removed.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "wb") as file:
                if size:
                    os.posix_fallocate(file.fileno(), 0, size)
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A locked workplace for `path`; it is removed when the block ends, with whatever is left in it."""
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


def _made_and_locked(place: Path) -> int | None:
    """The descriptor of a new workplace's lock; None where another process has just swept the workplace away."""
    place.mkdir()
    try:
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except FileNotFoundError:
        return None
    except BaseException:
        _remove(place)
        raise
    with suppress(OSError):  # held by a sweep, which the next line notices, or a disk without locks, where nobody sweeps
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), os.stat(place / _LOCK)):
            return lock
    os.close(lock)
    return None


def _workplaces(folder: Path) -> list[tuple[Path, Path]]:
    """The workplaces in a folder, each with what was to be made in it."""
    try:
        found = [(name, _WORKPLACE.fullmatch(name)) for name in os.listdir(folder)]
    except OSError:
        return []
    return [(folder / name, folder / match["name"]) for name, match in found if match]


@cache
def _sweep_once(folder: str) -> None:
    """Sweep a folder the first time that this process writes into it: what is killed later is another process's to sweep."""
    for place, target in _workplaces(Path(folder)):
        _remove_abandoned(place, target)


def _remove_abandoned(place: Path, target: Path) -> None:
    """Remove a workplace if nobody holds its lock; a folder that was about to replace `target` does so first."""
    try:
        lock = os.open(place / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        with suppress(OSError):
            place.rmdir()  # succeeds where it is empty: killed, or swept, just after it was made
        return
    except OSError:
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(place / _OLD) and not os.path.lexists(target):
                os.rename(place / (_NEW if (place / _NEW).exists() else _OLD), target)
            _remove(place)
    finally:
        os.close(lock)


def _remove(place: Path) -> None:
    """Delete a workplace, its lock last, so that a kill meanwhile leaves one that the next sweep can tell is abandoned."""
    with suppress(OSError):
        for entry in place.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    with suppress(OSError):
        (place / _LOCK).unlink(missing_ok=True)
        place.rmdir()


def _is_temporary(name: object, path: Path) -> bool:
    """Whether an error's file name is `path` or lies in a workplace of it."""
    if isinstance(name, int) or name is None:
        return True
    parts = Path(os.fsdecode(name)).parts  # type: ignore[arg-type]
    return any(match is not None and match["name"] == path.name for match in map(_WORKPLACE.fullmatch, parts))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
