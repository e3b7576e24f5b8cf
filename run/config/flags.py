"""A command's flags, over its recipe, over its preset, over its defaults."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from run.config.checks import closest
from run.config.layers import as_dict, with_settings
from run.config.recipe import read_recipe
from run.errors.kinds import SettingError, UserError

Config = TypeVar("Config")
Presets = Mapping[str, Mapping[str, Any]]
_RECIPE = "--recipe FILE.toml reads settings from a file; relative paths in it are relative to the working directory; flags override it."


def parse(
    config_class: type[Config],
    argv: list[str] | None,
    *,
    prog: str,
    description: str,
    presets: Presets | None = None,
    default_preset: str = "small",
    basic: Collection[str] = (),
) -> Config:
    """Read flags into `config_class`.

    Args:
        argv: the words after the command's name; None: those of the process.
        presets: name -> (nested) settings; chosen by `--preset`, otherwise by the recipe, and overridden by recipe and flags.
        basic: the settings that `--help` shows, as flags without dashes ("data", "pretrain.image_size"); none: all. `--help-all` shows all.

    Raises:
        UserError: an unknown preset, a recipe that is missing, unreadable, or has an unknown setting, text that is not Unicode.
        SystemExit: after `--help` (0), or raised by tyro for a flag that does not parse (2).
    """
    import tyro

    argv = list(sys.argv[1:] if argv is None else argv)
    recipe, argv = _take(argv, "--recipe")
    settings: dict[str, Any] = read_recipe(Path(recipe)) if recipe else {}
    default = _blank(config_class)
    if presets is not None:
        name = _peek(argv, "--preset") or settings.get("preset", default_preset)
        if not isinstance(name, str) or name not in presets:
            raise UserError(f"no preset {name!r}; {closest(str(name), presets)}")
        default = with_settings(default, {**presets[name], "preset": name}, source=f"preset {name}")
    if recipe:
        default = with_settings(default, settings, source=Path(recipe).name)
    if "-h" in argv or "--help" in argv:
        from run.config.help import short_help

        print(short_help(config_class, default, prog=prog, description=description, basic=basic))
        raise SystemExit(0)
    argv = ["--help" if word == "--help-all" else word for word in argv]
    given: Any = config_class
    config = tyro.cli(given, default=default, args=argv, prog=prog, description=f"{description}\n\n{_RECIPE}")
    _require_unicode(config)
    return config


def _require_unicode(config: Any) -> None:
    """Refuse text that no file can hold: command-line arguments that are not UTF-8."""
    for name, value in _texts(as_dict(config)):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SettingError(name, value, "not valid UTF-8; rename it") from None


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)


def _blank(config_class: type[Config]) -> Any:
    """The class's defaults, or its MISSING form if a field has none (a positional)."""
    import tyro

    fields = dataclasses.fields(config_class)  # type: ignore[arg-type]
    needed = [f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return config_class(**{field.name: tyro.MISSING for field in needed})


def _take(argv: list[str], flag: str) -> tuple[str | None, list[str]]:
    """A flag's value, and the words without it."""
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
    """A flag's value: the last one if it is repeated, as with every flag."""
    found = None
    for place, word in enumerate(argv):
        if word == flag:
            if place + 1 == len(argv):
                raise UserError(f"{flag} needs a value")
            found = argv[place + 1]
        elif word.startswith(flag + "="):
            found = word.split("=", 1)[1]
    return found
