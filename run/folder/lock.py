"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from run.errors.kinds import UserError
from run.files import naming


@contextmanager
def locked(folder: Path, *, flag: str = "--out", wait: bool = False) -> Iterator[None]:
    """Lock a run folder for this process; the kernel releases the lock when the process ends, however it ends.

    Args:
        flag: what named the folder, for errors.
        wait: for a process that holds the folder, rather than refuse.

    Raises:
        UserError: another process holds the folder, or it cannot be made or written to.
        OSError: from the block, naming the folder if it named no file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed below, after the block)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used as a run folder ({error.strerror}); give another {flag}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
            if held and not wait:
                raise UserError(f"{folder}: another run is using this folder; wait for it or give another {flag}") from None
            if held:
                print(f"waiting for another run that is using {folder}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                print(
                    f"note: {folder}: this disk has no locks ({error.strerror}); do not start a second run in this folder", file=sys.stderr
                )
        with naming(folder):
            yield
