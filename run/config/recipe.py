"""Settings as TOML: recipes that users write, and the config.toml of every run folder, which is a recipe too."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run.config.layers import as_dict
from run.config.values import NONE
from run.errors.kinds import UserError
from run.files import write_atomic


def to_toml(settings: Mapping[str, Any]) -> str:
    """Nested settings as TOML that `--recipe` reads back to the same values; settings that are None are left out."""
    import tomli_w

    return tomli_w.dumps(_without_none(settings))


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        UserError: it is missing, or it is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not readable as TOML: {error}") from None


def write_config(folder: Path, config: Any) -> None:
    """Write `config.toml` into a run folder, with absolute paths: it may be read from another working directory."""
    write_atomic(folder / "config.toml", to_toml(as_dict(config, absolute=True)).encode())


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [NONE if part is None else _without_none(part) for part in value]
    return value
