"""Files and folders that are complete or absent: whatever is written here appears under its name once all of it is on disk.

Every writer goes through this file: a full disk, a lost connection or a kill ends in a one-line error and never in a broken file.

run/workplace.py describes what a killed writer leaves, and who removes it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from run.errors import UserError
from run.errors.system import system_error
from run.workplace import NEW, OLD, is_temporary, sweep, workplace

__all__ = [
    "allocate", "naming", "read_json", "replacing", "replacing_folder", "sweep", "write_atomic", "write_json", "write_with",
]  # fmt: skip


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path of the same name, on the same disk, that becomes `path` once the block has written it; removed if the block fails.

    Raises:
        OSError: with the name of `path`, even if the writing library left it out.
    """
    path = Path(path)
    with naming(path), workplace(path) as place:
        temporary = place / NEW / path.name
        temporary.parent.mkdir()
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """`replacing` for a folder: an empty one that becomes `path` when the block ends; the folder it replaces is deleted after that.

    A kill between the two renames leaves both folders in the workplace; the next `sweep` moves the new one into place.
    """
    path = Path(path)
    with naming(path), workplace(path) as place:
        new, old = place / NEW, place / OLD
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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make every OSError of the block name `path`, even if a library wraps or quotes it, or it is about a temporary file of `path`."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        found = system_error(error)
        if found is None:
            raise
        elsewhere = found.filename is not None and not is_temporary(found.filename, path)
        if elsewhere and found is error:
            raise
        if elsewhere:
            raise found from None
        raise OSError(found.errno, found.strerror or str(found), str(path)) from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: after a kill, and for readers meanwhile, it has the old content or the new, never a part."""
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
    """Make a file of `size` zero bytes with allocated blocks: a memory map of it can be written to without a bus error on a full disk.

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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
