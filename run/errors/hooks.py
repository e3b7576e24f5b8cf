"""Errors that no caller can catch, in destructors and in threads: those of the operating system print a line, not a traceback."""

from __future__ import annotations

import sys
import threading
from typing import Any

from run.errors.system import one_line, system_error

_reported = False


def report(line: str) -> None:
    """Print an error that ends the command. Reports of destructors after it (a file that cannot be closed on a full disk) are dropped."""
    global _reported
    _reported = True
    print(line, file=sys.stderr)


def guard_hooks() -> None:
    """Take over Python's own hooks for such errors; hooks set by others are left alone."""
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _in_thread


def _unraisable(failure: Any) -> None:
    refused = None if failure.exc_value is None else system_error(failure.exc_value)
    if refused is None:
        sys.__unraisablehook__(failure)
    elif not _reported:
        print(f"note: {one_line(refused)}", file=sys.stderr)


def _in_thread(failure: Any) -> None:
    refused = None if failure.exc_value is None else system_error(failure.exc_value)
    if refused is None:
        threading.__excepthook__(failure)
    else:
        print(f"error: {one_line(refused)}", file=sys.stderr)
