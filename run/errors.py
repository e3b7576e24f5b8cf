"""Errors a user can fix: one line that says where, what and the fix; never a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something outside the program is wrong and the user can fix it."""

    def __reduce__(self):
        return UserError, (str(self),)  # from a worker to its parent, an error travels as its words


class Stopped(UserError):
    """The process was asked to end (SIGTERM), and what it had done is saved."""

    def __reduce__(self):
        return Stopped, (str(self),)


class DataError(UserError):
    """A file holds something it must not: names file, row, column, value and the fix.

    Args:
        file: the file's name as the user knows it.
        row: row number in the file, from 0; None where the trouble is not in one row.
        column: the column's name, or None.
        value: the offending value; left out of the message when not given.
        fix: what to do about it.
    """

    _ABSENT = object()

    def __init__(
        self,
        file: object,
        *,
        fix: str,
        row: int | None = None,
        column: str | None = None,
        value: object = _ABSENT,
    ):
        where = [f"row {row}"] if row is not None else []
        where += [f"column {column!r}"] if column is not None else []
        what = "" if value is self._ABSENT else f"value {_shown(value)}; "
        place = ", ".join(where)
        super().__init__(f"{file}: {place + ': ' if place else ''}{what}{fix}")


class SettingError(UserError):
    """A setting has a value it must not have."""

    def __init__(self, setting: str, value: object, fix: str):
        super().__init__(f"setting '{setting}': value {_shown(value)}; {fix}")


def _shown(value: object, longest: int = 120) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def one_process(command: str) -> None:
    """Refuse to run under torchrun with several ranks.

    Raises:
        UserError: names the command.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{command} works in one process for now; start it without torchrun")


def entry(main: Callable[..., int | None]) -> Callable[..., int]:
    """Make a command of `main(argv)`: a `UserError` becomes one line on stderr and exit code 2, SIGTERM 143."""

    @functools.wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return 143
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            return 1
        except OSError as error:
            print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130

    return guarded
