"""SHA-256 of files, remembered on disk between processes: a file is read again only when its path, size, times or inode change.

The user's cache folder holds one JSON file for each data folder. A lost, damaged or read-only cache costs time, never a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from run.errors import UserError
from run.files import read_json, write_atomic
from run.progress import Progress

Stamp = list[int]  # what changes whenever a file does: size, mtime and ctime in ns, inode, device
Entries = dict[str, tuple[Stamp, str]]  # file's path -> stamp and SHA-256

_THREADS = 8  # hashing runs outside Python's lock, and a network disk answers many reads at once
_CHUNK = 1024  # files between two updates of the progress
_MOST_FOLDERS, _MOST_BYTES = 100, 256 * 2**20  # of the cache; the folders used longest ago are dropped
_SPARE = 1000  # most entries of files that no longer exist, per folder
# A file written again within one tick of the disk's clock keeps its stamp, so files changed just now are not remembered.
_FINE_TICK, _COARSE_TICK = 50_000_000, 3_000_000_000  # ns; coarse where a time has no fraction of a second

_in_process: dict[Path, Entries] = {}


def content_hashes(folder: Path, files: Iterable[str]) -> dict[str, str | None]:
    """The SHA-256 of each file's content, in hexadecimal digits; None where there is no readable plain file.

    Args:
        folder: the data folder that the files belong to; it names the cache file.
        files: absolute paths.
    """
    files = list(dict.fromkeys(files))
    known = _in_process.setdefault(folder, {})
    known = known or _load(folder)
    stamps = {file: stamp for file in files if (stamp := _stamp(file)) is not None}
    old = {file: known[file][1] for file, stamp in stamps.items() if file in known and known[file][0] == stamp}
    new = _hash_all([file for file in stamps if file not in old])
    lasting = {file: (stamps[file], digest) for file, (digest, lasts) in new.items() if lasts}
    if lasting:
        known = _merged(_load(folder), known | lasting, files)
        _save(folder, known)
    _in_process[folder] = known
    return {file: old[file] if file in old else new.get(file, (None, False))[0] for file in files}


def cache_folder() -> Path:
    """Where this user's caches are kept: `$XDG_CACHE_HOME/courier-toolkit`, else `~/.cache/courier-toolkit`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "courier-toolkit"


def _hash_all(files: list[str]) -> dict[str, tuple[str, bool]]:
    """The hash of each file that can be read, and whether its stamp was old enough to identify the content."""
    found: dict[str, tuple[str, bool]] = {}
    if not files:
        return found
    with ThreadPoolExecutor(_THREADS) as pool, Progress("hashing files", total=len(files), unit="files") as progress:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            found |= {file: result for file, result in zip(chunk, pool.map(_hash, chunk), strict=True) if result is not None}
            progress.advance(len(chunk))
    return found


def _hash(file: str) -> tuple[str, bool] | None:
    try:
        before, now = _stamp(file), time.time_ns()
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None
    if before is None:
        return None
    tick = _FINE_TICK if before[2] % 1_000_000_000 else _COARSE_TICK
    return digest, _stamp(file) == before and now - before[2] > tick


def _stamp(file: str) -> Stamp | None:
    """None: not a plain file. The time of the last change of the inode (ctime) also moves where a program restores the file's mtime."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _cache_file(folder: Path) -> Path:
    return cache_folder() / "file-hashes" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.json"


def _load(folder: Path) -> Entries:
    """What earlier processes found; nothing if the cache cannot be read or holds something else."""
    try:
        saved = read_json(_cache_file(folder))
        return {file: (stamp, digest) for file, (stamp, digest) in saved.items() if len(digest) == 64 and len(stamp) == 5}
    except (UserError, OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return {}


def _merged(on_disk: Entries, mine: Entries, files: list[str]) -> Entries:
    """Entries of this process over those of others; files that were not requested are dropped when there are too many."""
    merged = on_disk | mine
    if len(merged) > 2 * len(files) + _SPARE:
        merged = {file: merged[file] for file in files if file in merged}
    return merged


def _save(folder: Path, entries: Entries) -> None:
    with suppress(OSError, RuntimeError, ValueError):
        content = json.dumps(entries, separators=(",", ":")).encode()
        if len(content) <= _MOST_BYTES:
            write_atomic(_cache_file(folder), content)
            _drop_oldest(_cache_file(folder).parent)


def _drop_oldest(place: Path) -> None:
    """Keep the cache within its bounds."""
    found = sorted(((file.stat(), file) for file in place.iterdir() if file.suffix == ".json"), key=lambda each: -each[0].st_mtime)
    total = 0
    for count, (status, file) in enumerate(found, start=1):
        total += status.st_size
        if count > _MOST_FOLDERS or total > _MOST_BYTES:
            file.unlink(missing_ok=True)
