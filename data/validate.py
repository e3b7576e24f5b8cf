"""Check a shop folder and say what is in it: `python -m data.validate DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from data.source import SourceConfig
from run.errors import DataError, SettingError, entry

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from data.log.histories import History
    from data.log.shop_folder import Shop

ABOUT = """Check a shop folder: print what it holds, what looks wrong in it (warning), and what a comparison would stop at (problem).

Exit code 0: a comparison can use it, whatever the warnings; 1: it can be read, but has problems; 2: it is refused, or a flag is wrong."""
SHOWN_BAD = 20  # unreadable pictures listed by name; the rest are counted
CHUNK = 1024  # pictures handed to the threads at a time


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

    from data import readiness
    from data.log.shop_folder import load_shop

    shop = load_shop(config.folder, fractions=config.split_fractions, allow_unordered_split=config.allow_unordered_split)
    console = Console(highlight=False)
    table = Table("What", "Value", title=Text(str(config.folder)), title_justify="left")
    for what, value in summary(shop):
        table.add_row(Text(what), Text(value))
    console.print(table)
    for warning in readiness.warnings(shop):
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    problems = list(readiness.problems(shop))
    for problem in problems:
        console.print(f"problem: {problem}", markup=False, soft_wrap=True)
    if config.images:
        _check_pictures(shop, config, console)
    if problems:
        console.print("not ok: the folder can be read, but a comparison cannot use it until the problems above are fixed", soft_wrap=True)
        return 1
    console.print("ok: the folder can be used")
    return 0


def summary(shop: Shop) -> Iterator[tuple[str, str]]:
    """What a shop holds, as lines of (what, value)."""
    import numpy as np

    from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
    from data.log.histories import cart_history, click_history, purchase_history
    from data.log.shop_folder import ACTIONS, SPLITS

    items, impressions, sessions = shop.items.height, shop.impressions.height, len(shop.session_time)
    yield "items", _number(items)
    yield "items without picture", _part(shop.items["image"].null_count(), items)
    if "title" in shop.items.columns:
        yield "titles missing", _part(shop.items["title"].null_count(), items)
    else:
        yield "titles missing", "no column 'title'"
    yield "categories", _number(len(shop.category_names))
    yield "users", _number(shop.users.height)
    yield "impressions", f"{_number(impressions)} from {_day(shop.impressions['timestamp'].min())} on"
    yield "last impression", _day(shop.impressions["timestamp"].max())
    yield "click rate", f"{shop.click.mean():.4f}"
    yield "sessions", f"{_number(sessions)}, {impressions / sessions:.1f} impressions each"
    yield "one-class sessions", f"{_part(one_class_sessions(shop), sessions)}: they cannot count in GAUC"
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(shop.session_split == code)
        if len(members):
            first, last = shop.session_time[members].min(), shop.session_time[members].max()
            yield f"split {name}", f"{_part(len(shop.rows(name)), impressions)}, {_day(first)} to {_day(last)}"
        else:
            yield f"split {name}", "none"
    if not shop.split_is_ordered:
        yield "splits in time order", "no: allowed by --allow-unordered-split"
    for name, log in zip(ACTIONS, shop.events.logs, strict=True):
        yield f"{name} events", _number(len(log))
    yield "click history from", _click_source(shop)
    longest = max(1, len(shop.events))
    yield "clicks before a session", _lengths(click_history(shop, max_items=longest))
    if shop.item_category is not None and shop.session_category is not None:
        yield "clicks in its category", _lengths(click_history(shop, max_items=longest, scope="category"))
    yield "purchases before", _lengths(purchase_history(shop, max_items=longest))
    yield "cart events before", _lengths(cart_history(shop, max_items=longest))
    for name, frame, reserved in (
        ("item", shop.items, ITEM_RESERVED),
        ("user", shop.users, USER_RESERVED),
        ("context", shop.impressions, IMPRESSION_RESERVED),
    ):
        found = feature_columns(frame, reserved=reserved)
        yield f"{name} features", f"categorical {_list(found.categorical)}; numeric {_list(found.numeric)}"


def _click_source(shop: Shop) -> str:
    from data.log.events import CLICK
    from data.log.shop_folder import IMPRESSIONS

    if shop.clicks_from == IMPRESSIONS:
        there = (shop.folder / "events.parquet").exists()
        return f"{IMPRESSIONS}: {'events.parquet holds no click' if there else 'there is no events.parquet'}"
    clicks, clicked = len(shop.events.logs[CLICK]), int(shop.click.sum())
    return f"{shop.clicks_from}: {_number(clicks)} in place of the {_number(clicked)} of {IMPRESSIONS}"


def one_class_sessions(shop: Shop) -> int:
    """Sessions in which nothing, or everything, was clicked."""
    import numpy as np

    shown = np.bincount(shop.session, minlength=len(shop.session_time))
    clicked = np.bincount(shop.session, weights=shop.click, minlength=len(shop.session_time))
    return int(((clicked == 0) | (clicked == shown)).sum())


def _check_pictures(shop: Shop, config: ValidateConfig, console: Console) -> None:
    """Read every picture, list those that cannot be read, and refuse the folder when their share is too large."""
    from data.pictures.files import fix_for

    items = shop.items["image"].drop_nulls()
    names = items.unique(maintain_order=True).to_list()
    bad = dict(_unreadable(shop.folder, names, config.workers))
    affected = int(items.is_in(list(bad)).sum())
    for name, reason in list(bad.items())[:SHOWN_BAD]:
        row = shop.items["image"].index_of(name)
        console.print(f"unreadable: items.parquet row {row}: images/{name}: {reason}", markup=False, soft_wrap=True)
    if len(bad) > SHOWN_BAD:
        console.print(f"unreadable: {_number(len(bad) - SHOWN_BAD)} more")
    console.print(f"pictures: {_number(len(names))} files read, {_number(len(bad))} unreadable")
    if affected > config.max_bad_images * len(items):
        name, reason = next(iter(bad.items()))
        share = f"{_part(affected, len(items))} of the items with a picture have an unreadable one, first images/{name} ({reason})"
        fix = f"{share}; {fix_for(list(bad.items()))}"
        raise DataError("items.parquet", row=shop.items["image"].index_of(name), column="image", value=name, fix=fix)


def _unreadable(folder: Path, names: list[str], workers: int) -> Iterator[tuple[str, str]]:
    import warnings
    from concurrent.futures import ThreadPoolExecutor

    from data.pictures.store import PictureError, read_picture
    from run.progress import Progress

    def trouble(name: str) -> str | None:
        try:
            read_picture(folder, name)
        except PictureError as error:
            return error.reason
        return None

    title = Progress("reading pictures", total=len(names), unit="pictures")
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool, title as bar:
        warnings.simplefilter("ignore")  # what a picture's oddities are, its reason says
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            yield from ((name, reason) for name, reason in zip(chunk, pool.map(trouble, chunk), strict=True) if reason)
            bar.advance(len(chunk))


def _lengths(history: History) -> str:
    import numpy as np

    lengths: np.ndarray = history.lengths()
    none = _part(int((lengths == 0).sum()), len(lengths))
    return f"median {np.median(lengths):,.0f}, p90 {np.quantile(lengths, 0.9):,.0f}, none {none}"


def _number(count: int) -> str:
    return f"{count:,}"


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({100 * count / max(whole, 1):.1f} %)"


def _day(seconds: object) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M")  # type: ignore[call-overload]


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


if __name__ == "__main__":
    raise SystemExit(main())
