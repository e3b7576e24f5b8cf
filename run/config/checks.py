"""Checks that a config's `__post_init__` makes of its values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from run.errors.kinds import SettingError


def positive(setting: str, value: float) -> None:
    """Refuse a value that is not above 0."""
    if not value > 0:
        raise SettingError(setting, value, "give a number above 0")


def one_of(setting: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not among `known`, suggesting the nearest one."""
    options = list(known)
    if value not in options:
        raise SettingError(setting, value, closest(value, options))


def names(setting: str, value: str, known: Iterable[str] | None = None) -> list[str]:
    """A comma-separated flag as a list without repeats, each name known."""
    found = [part.strip() for part in value.split(",") if part.strip()]
    if not found:
        raise SettingError(setting, value, "give at least one name")
    if known is not None:
        options = list(known)
        for name in found:
            one_of(setting, name, options)
    return list(dict.fromkeys(found))


def closest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name nearest to `name`, or all of them."""
    options = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, options, n=1)
    return f"did you mean '{near[0]}'?" if near else "there are: " + ", ".join(options)


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds(setting: str, value: str) -> int:
    """The seconds that a text such as 30m, 12h or 1d means.

    >>> seconds("lag", "1d"), seconds("lag", "90s"), seconds("lag", "0")
    (86400, 90, 0)
    """
    number, unit = (value[:-1], value[-1:]) if value[-1:] in _UNITS else (value, "s")
    if not number.isdecimal() or int(number) > 10**9:
        raise SettingError(setting, value, "give a whole number and s, m, h, d or w, as in 12h or 1d")
    return int(number) * _UNITS[unit]
