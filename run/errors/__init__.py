"""Errors that a user can fix: one line with the place, the problem and the fix; never a traceback."""

from run.errors.command import entry
from run.errors.kinds import DataError, SettingError, Stopped, UserError, one_process

__all__ = ["DataError", "SettingError", "Stopped", "UserError", "entry", "one_process"]
