"""Settings of a command: defaults <- preset <- recipe file (TOML) <- flags, checked at birth.

A command's settings are a frozen keyword-only dataclass. Its fields are the flags (kebab-case), the comment or docstring beside a
field is the help text, and `__post_init__` refuses bad values.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from run.errors import SettingError, UserError

Config = TypeVar("Config")
Presets = Mapping[str, Mapping[str, Any]]


def parse(
    config_class: type[Config],
    argv: list[str] | None,
    *,
    prog: str,
    description: str,
    presets: Presets | None = None,
    default_preset: str = "small",
) -> Config:
    """Read flags into `config_class`.

    Args:
        argv: the words after the command's name; None takes them from the process.
        presets: name -> (nested) settings; chosen by `--preset`, under the recipe and the flags.

    Raises:
        UserError: an unknown preset, a recipe that is missing, unreadable, or has an unknown setting.
        SystemExit: tyro's own answer to `--help` (0) and to a flag that does not parse (2).
    """
    import tyro

    argv = list(sys.argv[1:] if argv is None else argv)
    recipe, argv = _take(argv, "--recipe")
    settings: dict[str, Any] = read_recipe(Path(recipe)) if recipe else {}
    base: Any = config_class
    default = _blank(config_class)
    if presets is not None:
        name = _peek(argv, "--preset") or settings.get("preset", default_preset)
        if not isinstance(name, str) or name not in presets:
            raise UserError(f"no preset {name!r}; {_closest(str(name), presets)}")
        default = with_settings(default, {**presets[name], "preset": name}, source=f"preset {name}")
    if recipe:
        default = with_settings(default, settings, source=Path(recipe).name)
    return tyro.cli(
        base,
        default=default,
        args=argv,
        prog=prog,
        description=description + "\n\n--recipe FILE.toml reads settings from a file; flags given beside it win.",
    )


def with_settings(config: Config, settings: Mapping[str, Any], *, source: str) -> Config:
    """`config` with `settings` (nested by dots as tables) laid over it.

    Raises:
        UserError: names the source, the unknown setting and the nearest known one.
    """
    changes: dict[str, Any] = {}
    known = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    spread = _spread(config)
    for written, value in settings.items():
        name = written.replace("-", "_")
        if name not in known and name in spread:
            part = spread[name]
            changes[part] = with_settings(changes.get(part, getattr(config, part)), {name: value}, source=source)
            continue
        if name not in known:
            raise UserError(f"{source}: no setting '{written}'; {_closest(name, [*known, *spread])}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            changes[name] = with_settings(changes.get(name, current), value, source=f"{source}: {name}")  # type: ignore[type-var]
        else:
            wants_path = current is None and "Path" in str(known[name].type)
            changes[name] = _checked(Path() if wants_path else current, value, f"{source}: {name}")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _spread(config: Any) -> dict[str, str]:
    """setting -> the part of `config` that holds it, for parts whose settings are flags of their own (tyro's name "")."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    parts = [name for name, hint in hints.items() if any(getattr(word, "name", None) == "" for word in getattr(hint, "__metadata__", ()))]
    return {field.name: part for part in parts for field in dataclasses.fields(getattr(config, part))}


def as_dict(config: Any) -> dict[str, Any]:
    """A config as plain nested values, for `config.toml` and for the hash of a stage."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        return str(value) if isinstance(value, Path) else value

    return plain(config)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML that `--recipe` reads back; settings that are None are left out."""
    scalars = {name: value for name, value in settings.items() if value is not None and not isinstance(value, Mapping)}
    lines = [f"{name} = {_toml_value(value)}" for name, value in scalars.items()]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]", to_toml(table)]
    return "\n".join(lines)


def positive(setting: str, value: float) -> None:
    """Refuse a value that is not above 0."""
    if not value > 0:
        raise SettingError(setting, value, "give a number above 0")


def one_of(setting: str, value: str, known: typing.Iterable[str]) -> None:
    """Refuse a value that is not among `known`, with the nearest one."""
    names = list(known)
    if value not in names:
        raise SettingError(setting, value, _closest(value, names))


def names(setting: str, value: str, known: typing.Iterable[str] | None = None) -> list[str]:
    """A comma-separated flag as a list without repeats, each name known."""
    found = [part.strip() for part in value.split(",") if part.strip()]
    if not found:
        raise SettingError(setting, value, "give at least one name")
    if known is not None:
        for name in found:
            one_of(setting, name, known)
    return list(dict.fromkeys(found))


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(part) for part in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in text) + '"'


def _checked(current: Any, value: Any, where: str) -> Any:
    """A recipe's value with the type of the setting it replaces: TOML has no other check."""
    if isinstance(current, bool) or isinstance(value, bool):
        matches = isinstance(value, bool) and isinstance(current, (bool, type(None)))
    elif isinstance(current, float):
        matches, value = isinstance(value, (int, float)), float(value) if isinstance(value, int) else value
    elif isinstance(current, tuple):
        matches = isinstance(value, (list, tuple)) and all(isinstance(part, (int, float)) for part in value)
        value = tuple(value) if matches else value
    elif isinstance(current, Path):
        matches = isinstance(value, (str, Path))
        value = Path(value) if matches else value
    else:
        matches = current is None or isinstance(value, type(current))
    if not matches:
        raise UserError(f"{where}: value {value!r} is not of the kind of {current!r}")
    return value


def _blank(config_class: type[Config]) -> Any:
    """The class's defaults, or its MISSING form where a field has none (a positional)."""
    import tyro

    fields = dataclasses.fields(config_class)  # type: ignore[arg-type]
    needed = [f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return config_class(**{field.name: tyro.MISSING for field in needed})


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        UserError: it is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not readable as TOML: {error}") from None


def _take(argv: list[str], flag: str) -> tuple[str | None, list[str]]:
    value = _peek(argv, flag)
    rest, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word == flag:
            skip = True
        elif not word.startswith(flag + "="):
            rest.append(word)
    return value, rest


def _peek(argv: list[str], flag: str) -> str | None:
    found = None
    for place, word in enumerate(argv):
        if word == flag:
            if place + 1 == len(argv):
                raise UserError(f"{flag} needs a value")
            found = argv[place + 1]
        elif word.startswith(flag + "="):
            found = word.split("=", 1)[1]
    return found


def _closest(name: str, known: typing.Iterable[str]) -> str:
    options = list(known)
    near = difflib.get_close_matches(name, options, n=1)
    return f"did you mean '{near[0]}'?" if near else "there are: " + ", ".join(options)
