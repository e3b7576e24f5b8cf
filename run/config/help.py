"""A command's help in one screen: the settings that most runs need, one line each if possible."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
import warnings
from collections.abc import Collection
from typing import Any

_LINES = 2  # at most, for one setting's help
_COLUMN = 24  # width of the flags


def short_help(config_class: type, default: Any, *, prog: str, description: str, basic: Collection[str]) -> str:
    """Usage, description and the basic settings with their defaults.

    Args:
        basic: flags without dashes; none: all of the command's.

    Raises:
        ValueError: there is no such flag.
    """
    import tyro

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro offers no other way to its help texts; its version is pinned
        parser = tyro.extras.get_parser(config_class, default=default)
    settings = {_name(action): action for action in parser._actions if action.dest != "help"}
    wanted = [name.replace("_", "-") for name in basic] or list(settings)
    if unknown := [name for name in wanted if name not in {*settings, "recipe"}]:
        raise ValueError(f"{prog}: basic settings {unknown} are not flags")
    width = min(shutil.get_terminal_size().columns, 120)
    required = "".join(f" {_metavar(action)}" for action in settings.values() if not action.option_strings)
    lines = [f"usage: {prog}{required} [--SETTING VALUE ...]", ""]
    for paragraph in description.splitlines():
        lines += textwrap.wrap(paragraph, width, subsequent_indent=_indent_of(paragraph)) or [""]
    lines += ["", "Settings, with their defaults in brackets:"]
    for name in wanted:
        lines += (
            _entry("--recipe FILE", "read settings from a TOML file; flags override it", "", width)
            if name == "recipe"
            else _of(settings[name], width)
        )
    if "recipe" not in wanted:
        lines += _entry("--recipe FILE", "read settings from a TOML file; flags override it", "", width)
    more = len(settings) - len([name for name in wanted if name != "recipe"])
    return "\n".join(
        [
            *lines,
            "",
            f"--help-all shows all settings ({more} more) with their complete help." if more else "--help-all shows their complete help.",
        ]
    )


def _name(action: argparse.Action) -> str:
    return action.option_strings[0].lstrip("-") if action.option_strings else action.dest.replace("_", "-")


def _metavar(action: argparse.Action) -> str:
    shown = action.metavar or ""
    return (shown if isinstance(shown, str) else " ".join(shown)).removeprefix("{None}|")


def _of(action: argparse.Action, width: int) -> list[str]:
    options = action.option_strings
    flag = f"--[no-]{_name(action)}" if len(options) > 1 else "".join(options)
    text, _, default = (action.help or "").rpartition(" (default: ") if "(default: " in (action.help or "") else (action.help or "", "", "")
    default = default.removesuffix(")")
    default = "" if default in ("None", "''") else default
    return _entry(f"{flag} {_metavar(action)}".strip(), " ".join(text.split()), default, width)


def _entry(flag: str, text: str, default: str, width: int) -> list[str]:
    """A flag and its help in at most `_LINES` lines, cut where a clause ends."""
    room, tail = width - _COLUMN - 3, f" [{default}]" if default else ""
    wrapped: list[str] = []
    for cut in _cuts(text):
        wrapped = textwrap.wrap(cut + tail, room, break_on_hyphens=False)
        if len(wrapped) <= _LINES:
            break
    head = f"  {flag:<{_COLUMN}} "
    if len(flag) > _COLUMN:
        return [f"  {flag}", *(" " * (_COLUMN + 3) + line for line in wrapped)]
    return [head + wrapped[0], *(" " * (_COLUMN + 3) + line for line in wrapped[1:])] if wrapped else [head.rstrip()]


def _cuts(text: str) -> list[str]:
    """A help text, then the same text cut at the end of each clause, the longest first."""
    ends = [match.start() for match in re.finditer(r"; |: | \(|, ", text)]
    return [text, *(text[:end] + (" ..." if text[end] != ";" else "") for end in reversed(ends) if _closed(text[:end]))]


def _closed(text: str) -> bool:
    return text.count("(") == text.count(")")


def _indent_of(line: str) -> str:
    """The indent of a wrapped line's continuation: its second column, if it has two."""
    start = re.match(r"\s*(\S+( \S+)*\s{2,})?", line)
    return " " * (start.end() if start else 0)
