"""`python -m data.make_world NAME --out DIR`: write a built-in world as a shop folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data.worlds.defaults import ITEMS, SEED, SESSIONS, USERS, WorldName
from run.config import parse
from run.errors import entry
from run.files import read_json


@dataclass(frozen=True, kw_only=True)
class MakeWorldConfig:
    """Settings of `make_world`."""

    name: Annotated[WorldName, tyro.conf.Positional]  # shop: rendered things; fashion: real photos
    users: int = USERS  # how many users
    items: int = ITEMS  # how many items; fashion has 70,000 at most
    sessions: int = SESSIONS  # how many searches, of about ten impressions each
    seed: int = SEED  # another seed gives another world
    out: Path  # the folder to write
    fashion_dir: Path | None = None  # folder of Fashion-MNIST's four files, if not installed


@entry
def main(argv: list[str] | None = None) -> int:
    config = parse(
        MakeWorldConfig,
        argv,
        prog="python -m data.make_world",
        description="Write a built-in world as a shop folder: real or rendered pictures, simulated clicks. "
        "With the default sizes and seed it is the world of eval.compare --data NAME (presets small and paper).",
    )
    from data.worlds.build import make_world

    folder = make_world(
        config.name,
        config.out,
        users=config.users,
        items=config.items,
        sessions=config.sessions,
        seed=config.seed,
        fashion_dir=config.fashion_dir,
    )
    written = read_json(folder / "world.json")
    print(f"{folder}: " + ", ".join(f"{written[name]:,} {name}" for name in ("users", "items", "sessions", "impressions", "clicks")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
