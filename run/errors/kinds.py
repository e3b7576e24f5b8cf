"""The kinds of errors that a user can fix."""

from __future__ import annotations

import os


class UserError(Exception):
    """Something outside the program is wrong and the user can fix it."""

    def __reduce__(self):
        return UserError, (str(self),)  # an error from a worker process arrives as its message


class Stopped(UserError):
    """SIGTERM was received, and the work done so far is saved."""

    def __reduce__(self):
        return Stopped, (str(self),)


class DataError(UserError):
    """A file holds something invalid: names file, row, column, value and the fix.

    Args:
        file: the file's name as the user knows it.
        row: row number in the file, from 0; None: the fault is not in a single row.
        column: the column's name, or None.
        value: the offending value; not mentioned if not given.
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
    """A setting has an invalid value."""

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
        raise UserError(f"{command} runs in one process for now; start it without torchrun")
