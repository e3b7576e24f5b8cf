"""Layers of settings: plain nested values laid over a config, and a config as plain nested values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from run.config.checks import closest
from run.config.values import NONE, UnfitError, fitting
from run.errors.kinds import UserError

Config = TypeVar("Config")


def with_settings(config: Config, settings: Mapping[str, Any], *, source: str) -> Config:
    """`config` with `settings` (tables for nested ones) laid over it.

    A setting may be written as its field (`image_size`, `from_`) or as its flag (`image-size`, `from`); those of a part whose flags have no
    prefix may be written with or without the part's name (`[source]` before `data`).

    Raises:
        UserError: names the source, the setting and what is expected; for an unknown setting, the nearest known one.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    given = _by_field(config, hints, settings, source)
    changes: dict[str, Any] = {}
    for name, value in given.items():
        current = getattr(config, name)
        where = f"{source}: {name}"
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: value {value!r}; give a table of settings")
            changes[name] = with_settings(current, value, source=where if name in settings else source)  # type: ignore[type-var]
            continue
        try:
            changes[name] = fitting(hints[name], value)
        except UnfitError as fit:
            raise UserError(f"{where}: value {value!r}; give {fit}") from None
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def as_dict(config: Any, *, absolute: bool = False) -> dict[str, Any]:
    """A config as plain nested values, for `config.toml`; `with_settings` restores it from them over any config of its class.

    Args:
        absolute: make paths absolute: every field of type Path, and whatever a part's own method `resolved()` makes absolute.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = value.resolved() if absolute and hasattr(value, "resolved") else value  # type: ignore[attr-defined]
            return {field.name: _none_given(field, plain(getattr(value, field.name))) for field in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        if isinstance(value, Path):
            return str(value.absolute() if absolute else value)
        return value

    return plain(config)


def changed_settings(config: Any, default: Any) -> dict[str, Any]:
    """The settings in which a config differs from another of its class, as flags without dashes ("ctr.retrieve-by") -> values."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, other = getattr(config, field.name), getattr(default, field.name)
        named = _flag_name(hints[field.name])
        flag = (field.name if named is None else named).replace("_", "-")
        if dataclasses.is_dataclass(value):
            changed |= {f"{flag}.{name}" if flag else name: part for name, part in changed_settings(value, other).items()}
        elif value != other:
            changed[flag] = str(value) if isinstance(value, Path) else value
    return changed


def _none_given(field: dataclasses.Field, value: Any) -> Any:
    """None as a word if the field's default is another value: left out, it would be read back as the default."""
    return NONE if value is None and field.default is not None else value


def _by_field(config: Any, hints: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings under their fields' names; those of parts whose flags have no prefix, in the part's table."""
    fields = {name: name for name in hints} | {_flag_name(hint): name for name, hint in hints.items() if _flag_name(hint)}
    parts = _unprefixed(config)
    given: dict[str, Any] = {}
    for written, value in settings.items():
        name = written.replace("-", "_")
        if name in fields:
            found = {fields[name]: value}
        elif name in parts:
            found = {parts[name]: {name: value}}
        else:
            raise UserError(f"{source}: no setting '{written}'; {closest(name, [*map(str, fields), *parts])}")
        _merge(given, found, source)
    return given


def _merge(given: dict[str, Any], more: Mapping[str, Any], source: str) -> None:
    for name, value in more.items():
        if name not in given:
            given[name] = {part.replace("-", "_"): one for part, one in value.items()} if isinstance(value, Mapping) else value
        elif isinstance(value, Mapping) and isinstance(given[name], dict):
            _merge(given[name], {part.replace("-", "_"): one for part, one in value.items()}, source)
        else:
            raise UserError(f"{source}: setting '{name}' is given twice")


def _unprefixed(config: Any) -> dict[str, str]:
    """setting -> the part of `config` that holds it, however deep, if its flag has no prefix (tyro's name "")."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    found: dict[str, str] = {}
    for name, hint in hints.items():
        if _flag_name(hint) == "":
            part = getattr(config, name)
            inner = typing.get_type_hints(type(part), include_extras=True)
            found |= dict.fromkeys([*inner, *(flag for flag in map(_flag_name, inner.values()) if flag), *_unprefixed(part)], name)
    return found


def _flag_name(hint: Any) -> str | None:
    """The name that tyro gives a field's flag; None if it is the field's own."""
    names = [name for mark in getattr(hint, "__metadata__", ()) if isinstance(name := getattr(mark, "name", None), str)]
    return names[0].replace("-", "_") if names else None
