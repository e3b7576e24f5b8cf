"""Hashes of files' contents, independent of their location."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def file_hash(path: Path | str | None) -> str | None:
    """A hash of a file's content; None if there is no such file."""
    if path is None or not Path(path).is_file():
        return None
    return sha256(Path(path))[:16]


def folder_hash(folder: Path) -> str:
    """A hash of the names and contents of a folder's files, independent of its location; a missing folder counts as an empty one."""
    return hash_of_files((file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*")) if file.is_file())


def hash_of_files(named: Iterable[tuple[str, Path]]) -> str:
    """A hash of files' names, as given, and contents; a file is read again only if its size or modification time has changed."""
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
