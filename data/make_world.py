"""`python -m data.make_world NAME --out DIR`: write a built-in world as a shop folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from run.config import parse
from run.errors import entry


@dataclass(frozen=True, kw_only=True)
class MakeWorldConfig:
    """Settings of `make_world`."""

    name: Annotated[Literal["shop", "fashion"], tyro.conf.Positional]  # shop: rendered things; fashion: real photos
    users: int | None = None  # how many people; None: 3,000
    items: int | None = None  # how many things; None: 3,000 in shop, 4,000 in fashion (of 70,000)
    sessions: int | None = None  # how many searches, of about ten impressions each; None: 60,000
    seed: int = 0  # another number is another world
    out: Path  # the folder to write
    fashion_dir: Path | None = None  # where the four files of Fashion-MNIST lie


@entry
def main(argv: list[str] | None = None) -> int:
    config = parse(
        MakeWorldConfig,
        argv,
        prog="python -m data.make_world",
        description="Write a built-in world as a shop folder: real or rendered pictures, simulated clicks.",
    )
    from data.worlds import make_world

    folder = make_world(
        config.name,
        config.out,
        users=config.users,
        items=config.items,
        sessions=config.sessions,
        seed=config.seed,
        fashion_dir=config.fashion_dir,
    )
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
