"""`python -m data.make_world NAME --out DIR`: write a built-in world as a shop folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.source import SourceConfig
from run.config import parse
from run.errors import entry
from run.files import read_json


@dataclass(frozen=True, kw_only=True)
class MakeWorldConfig:
    """Settings of `make_world`."""

    name: Annotated[Literal["shop", "fashion"], tyro.conf.Positional]  # shop: rendered things; fashion: real photos
    users: int = SourceConfig.users  # how many people
    items: int = SourceConfig.items  # how many things; fashion has 70,000 at most
    sessions: int = SourceConfig.sessions  # how many searches, of about ten impressions each
    seed: int = SourceConfig.world_seed  # another number is another world
    out: Path  # the folder to write
    fashion_dir: Path | None = None  # where the four files of Fashion-MNIST lie


@entry
def main(argv: list[str] | None = None) -> int:
    config = parse(
        MakeWorldConfig,
        argv,
        prog="python -m data.make_world",
        description="Write a built-in world as a shop folder: real or rendered pictures, simulated clicks. "
        "Without sizes and seed it is the world that eval.compare --data NAME makes for itself (presets small and paper).",
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
