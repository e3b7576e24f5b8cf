"""Check a shop folder and summarise it: `python -m data.validate DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from data.source import SourceConfig
from run.errors import DataError, SettingError, entry

if TYPE_CHECKING:
    from rich.console import Console

    from data.log.shop_folder import Shop

ABOUT = """Check a shop folder: print what it holds, what looks wrong in it (warnings), and what would stop a comparison (problems).

Exit code 0: a comparison can use it, whatever the warnings; 1: it can be read but has problems; 2: it is refused, or a flag is wrong."""
SHOWN_BAD = 20  # unreadable pictures listed by name; the others are counted
CHUNK = 1024  # pictures given to the threads at a time


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What to check."""

    folder: Annotated[Path, Positional]
    """the shop folder"""
    split_fractions: tuple[float, float, float, float] = SourceConfig.split_fractions  # of impressions: pretrain, train, valid, test
    allow_unordered_split: bool = False  # accept a `split` column that goes back in time
    max_bad_images: float = 0.01  # share of unreadable pictures above which the folder is refused
    images: bool = True  # read every picture
    workers: int = 2  # threads that read pictures

    def __post_init__(self):
        if not 0 <= self.max_bad_images <= 1:
            raise SettingError("max_bad_images", self.max_bad_images, "give a share from 0 to 1")
        if self.workers < 1:
            raise SettingError("workers", self.workers, "give a number of at least 1")


@entry
def main(argv: list[str] | None = None) -> int:
    """Print a summary, warnings and problems; an error in the folder ends with one line on stderr and exit code 2, problems with 1."""
    from run.config import parse

    config = parse(ValidateConfig, argv, prog="python -m data.validate", description=ABOUT)

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from data.log.shop_folder import load_shop
    from data.readiness import problems as comparison_problems
    from data.summary import summary
    from data.suspicions.warnings import warnings

    shop = load_shop(config.folder, fractions=config.split_fractions, allow_unordered_split=config.allow_unordered_split)
    console = Console(highlight=False)
    table = Table("What", "Value", title=Text(str(config.folder)), title_justify="left")
    for what, value in summary(shop):
        table.add_row(Text(what), Text(value))
    console.print(table)
    for warning in warnings(shop):
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    problems = list(comparison_problems(shop))
    for problem in problems:
        console.print(f"problem: {problem}", markup=False, soft_wrap=True)
    if config.images:
        _check_pictures(shop, config, console)
    if problems:
        console.print("not ok: the folder can be read, but a comparison cannot use it until the problems above are fixed", soft_wrap=True)
        return 1
    console.print("ok: the folder can be used")
    return 0


def _check_pictures(shop: Shop, config: ValidateConfig, console: Console) -> None:
    """Read every picture, list those that cannot be read, and refuse the folder when their share is too large."""
    from data.pictures.files import fix_for
    from data.summary import number, part
    from data.suspicions.names import picture_hint

    items = shop.items["image"].drop_nulls()
    names = items.unique(maintain_order=True).to_list()
    bad = dict(_unreadable(shop.folder, names, config.workers))
    affected = int(items.is_in(list(bad)).sum())
    for name, reason in list(bad.items())[:SHOWN_BAD]:
        row = shop.items["image"].index_of(name)
        near = picture_hint(shop.folder, name)
        hint = f"; there is {near!r}: names must agree in every character" if near else ""
        console.print(f"unreadable: items.parquet row {row}: images/{name}: {reason}{hint}", markup=False, soft_wrap=True)
    if len(bad) > SHOWN_BAD:
        console.print(f"unreadable: {number(len(bad) - SHOWN_BAD)} more")
    counted = " (they count as missing; replace them if you can)" if bad else ""
    console.print(f"pictures: {number(len(names))} files read, {number(len(bad))} unreadable{counted}")
    if affected > config.max_bad_images * len(items):
        name, reason = next(iter(bad.items()))
        share = f"{part(affected, len(items))} of the items with a picture have an unreadable one, first images/{name} ({reason})"
        fix = f"{share}; {fix_for(list(bad.items()))}"
        raise DataError("items.parquet", row=shop.items["image"].index_of(name), column="image", value=name, fix=fix)


def _unreadable(folder: Path, names: list[str], workers: int) -> Iterator[tuple[str, str]]:
    from concurrent.futures import ThreadPoolExecutor
    from warnings import catch_warnings, simplefilter

    from data.pictures.store import PictureError, read_picture
    from run.progress import Progress

    def trouble(name: str) -> str | None:
        try:
            read_picture(folder, name)
        except PictureError as error:
            return error.reason
        return None

    title = Progress("reading pictures", total=len(names), unit="pictures")
    with catch_warnings(), ThreadPoolExecutor(workers) as pool, title as bar:
        simplefilter("ignore")  # the reason given for a picture replaces them
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            yield from ((name, reason) for name, reason in zip(chunk, pool.map(trouble, chunk), strict=True) if reason)
            bar.advance(len(chunk))


if __name__ == "__main__":
    raise SystemExit(main())
