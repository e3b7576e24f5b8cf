"""Files that are complete or absent: whatever is written here appears under its name once all of it is on the disk.

Every writer goes through this file, so that a full disk, a lost connection or a kill costs one line of an error and never a broken file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from run.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, on the same disk, that takes its name once the block has written it; removed if the block fails.

    Raises:
        OSError: with the name of `path`, whatever the writer left out of the error.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let every OSError of the block name `path`: writing to an open file says what happened, not where."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None


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
def replacing_folder(path: Path) -> Iterator[Path]:
    """`replacing` for a folder: made empty next to `path`, renamed when the block ends; a folder that is there is removed just before."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    with naming(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.is_dir():
                shutil.rmtree(path)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
