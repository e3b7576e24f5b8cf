"""The built-in worlds by name: complete shop folders with simulated clicks, and `truth/`, which no training reads."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.worlds.defaults import ITEMS, SEED, SESSIONS, USERS
from run.errors import SettingError, UserError
from run.files import read_json, replacing_folder, write_json
from run.source_code import code_hash


@dataclass(frozen=True, kw_only=True)
class World:
    """A kind of world."""

    module: str  # has `write_world(folder, *, users, items, sessions, seed, fashion_dir)`, which returns counts for world.json
    about: str  # one sentence, shown with every result

    def code(self) -> str:
        """A hash of the code that makes this world, and of no other world's."""
        return code_hash(self.module)


# modules by name, so importing this table does not mean depending on the code of every world
WORLDS: dict[str, World] = {
    "shop": World(module="data.worlds.shop", about="Clicks are simulated and pictures are rendered: a built-in world, no real shop."),
    "fashion": World(module="data.worlds.fashion", about="Clicks are simulated; the pictures are real photos (Fashion-MNIST)."),
}


def make_world(
    name: str,
    folder: Path,
    *,
    users: int = USERS,
    items: int = ITEMS,
    sessions: int = SESSIONS,
    seed: int = SEED,
    fashion_dir: Path | None = None,
) -> Path:
    """Write a world as a shop folder with `truth/` and `world.json`; the default sizes are those of a comparison's own world.

    The folder appears once it is complete. One with the same name, sizes, seed and code is left as it is.

    Args:
        fashion_dir: folder of Fashion-MNIST's files, if they are not where the system's package puts them.

    Returns:
        The folder.

    Raises:
        SettingError: an unknown name, or a size that is too small.
        UserError: the folder holds something else, or the photos of `fashion` are not available.
    """
    if name not in WORLDS:
        raise SettingError("name", name, f"there are: {', '.join(WORLDS)}")
    world, folder = WORLDS[name], Path(folder)
    sizes = {"users": users, "items": items, "sessions": sessions, "seed": seed}
    settings: dict[str, Any] = {"name": name, "code": world.code(), **sizes}
    for setting, least in (("users", 1), ("items", 40), ("sessions", 1), ("seed", 0)):
        if settings[setting] < least:
            raise SettingError(setting, settings[setting], f"give at least {least}")
    if _is_there(folder, settings):
        return folder
    with suppress(_AlreadyThere), replacing_folder(folder.resolve()) as temporary:
        counts = importlib.import_module(world.module).write_world(temporary, fashion_dir=fashion_dir, **sizes)
        write_json(temporary / "world.json", {**settings, **counts, "simulated": True, "about": world.about})
        if _is_there(folder, settings):
            raise _AlreadyThere
    return folder


class _AlreadyThere(Exception):
    """Another process made the same world first."""


def _is_there(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether this very world is there already.

    Raises:
        UserError: something else is.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = read_json(folder / "world.json") if (folder / "world.json").is_file() else None
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in settings.items() if key != "code"):
        raise UserError(f"{folder}: holds something else already; give another --out or delete it")
    if found.get("code") != settings["code"]:
        raise UserError(f"{folder}: holds this world made by other code; give another --out or delete it")
    return True
