"""The built-in worlds by name: whole shop folders with simulated clicks, and beside them the truth no stage reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.source import SourceConfig
from run.errors import SettingError, UserError
from run.files import read_json, write_json

VERSION = 1  # of the worlds' rules: counts up when the same settings give another log


@dataclass(frozen=True, kw_only=True)
class World:
    """A kind of world."""

    write: Callable[..., dict[str, int]]
    about: str  # one sentence, shown wherever a result is


def _shop(folder: Path, *, fashion_dir: Path | None, **sizes: int) -> dict[str, int]:
    from data.worlds.shop import write_shop_world

    return write_shop_world(folder, **sizes)


def _fashion(folder: Path, *, fashion_dir: Path | None, **sizes: int) -> dict[str, int]:
    from data.worlds.fashion import write_fashion_world

    return write_fashion_world(folder, fashion_dir=fashion_dir, **sizes)


WORLDS: dict[str, World] = {
    "shop": World(write=_shop, about="Clicks are simulated and pictures are rendered: a built-in world, no real shop."),
    "fashion": World(write=_fashion, about="Clicks are simulated; the pictures are real photos (Fashion-MNIST)."),
}


def make_world(
    name: str,
    folder: Path,
    *,
    users: int = SourceConfig.users,
    items: int = SourceConfig.items,
    sessions: int = SourceConfig.sessions,
    seed: int = SourceConfig.world_seed,
    fashion_dir: Path | None = None,
) -> Path:
    """Write a world as a shop folder with `truth/` and `world.json`; what is left out is as in a comparison's own world.

    The folder appears when it is whole. One that is there already with the same name, sizes and seed is left as it is.

    Args:
        fashion_dir: where the files of Fashion-MNIST lie, if not where the system's package puts them.

    Returns:
        The folder.

    Raises:
        SettingError: an unknown name or a size that cannot be.
        UserError: the folder holds something else, or the photos of `fashion` cannot be had.
    """
    if name not in WORLDS:
        raise SettingError("name", name, f"there are: {', '.join(WORLDS)}")
    world, folder = WORLDS[name], Path(folder)
    sizes = {"users": users, "items": items, "sessions": sessions, "seed": seed}
    settings: dict[str, Any] = {"name": name, "version": VERSION, **sizes}
    for setting, least in (("users", 1), ("items", 40), ("sessions", 1), ("seed", 0)):
        if settings[setting] < least:
            raise SettingError(setting, settings[setting], f"give at least {least}")
    if _is_there(folder, settings):
        return folder
    beside = _empty_beside(folder)
    try:
        counts = world.write(beside, fashion_dir=fashion_dir, **sizes)
        write_json(beside / "world.json", {**settings, **counts, "simulated": True, "about": world.about})
        try:
            os.rename(beside, folder)
        except OSError:
            if not _is_there(folder, settings):  # else another process was quicker with the same world
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _is_there(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the very world is there already.

    Raises:
        UserError: something else is.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = read_json(folder / "world.json") if (folder / "world.json").is_file() else None
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in settings.items()):
        raise UserError(f"{folder}: holds something else already; give another --out or delete it")
    return True


def _empty_beside(folder: Path) -> Path:
    """An empty folder in the same place, named for this process; what killed processes left is swept away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = f".{folder.name}.making-"
    for left in folder.parent.glob(f"{mark}*"):
        if not Path(f"/proc/{left.name.removeprefix(mark)}").exists():
            shutil.rmtree(left, ignore_errors=True)
    beside = folder.with_name(f"{mark}{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    return beside
