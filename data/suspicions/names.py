"""Names that were probably meant to be others: columns, categories, files and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from data.arrays.stored_frame import Frame
from data.log.checks import folded, lookalike
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED
from data.log.events import COLUMNS as EVENT_COLUMNS
from data.log.shop_folder import Shop
from data.log.tables import EVENTS, IMPRESSIONS, ITEMS, TABLES, USERS

MEANINGS = {
    ITEMS: (*ITEM_RESERVED, "category"),
    USERS: USER_RESERVED,
    IMPRESSIONS: (*IMPRESSION_RESERVED, "category"),
    EVENTS: EVENT_COLUMNS,
}  # the columns of a table that are not plain features
NATURAL = ("category", "item_id", "user_id")  # these make sense as features of other tables


def warnings(shop: Shop) -> Iterator[str]:
    """The warnings of this module."""
    for file, frame in ((ITEMS, shop.items), (USERS, shop.users), (IMPRESSIONS, shop.impressions)):
        yield from (f"{file}, column {name!r}: {trouble}" for name, trouble in column_names(file, frame))
    yield from _categories(shop)
    for path in sorted(shop.folder.iterdir()):
        if any(path.stem == Path(table).stem and not (shop.folder / table).exists() for table in TABLES):
            yield f"{path.name} is not read: write it as {path.stem}.parquet, or move it away"


def column_names(file: str, frame: Frame) -> Iterator[tuple[str, str]]:
    """Columns read as features though their names suggest something else, each with what to do."""
    meant = MEANINGS[file]
    elsewhere = {name: table for table, columns in MEANINGS.items() for name in columns if name not in (*meant, *NATURAL)}
    for number, name in enumerate(frame.columns):
        if name in meant:
            continue
        before = pl.Series(frame.columns[:number], dtype=pl.String)
        near = lookalike(name, pl.Series(meant))
        if near is not None:
            yield name, f"read as a feature; rename it if {near!r} was meant"
        elif (same := lookalike(name, before)) is not None:
            yield (
                name,
                f"a feature like column {same!r}, from which it differs only by case, spaces or Unicode form; drop one if not intended",
            )
        elif name in elsewhere:
            yield name, f"read as a feature here; it has its meaning only in {elsewhere[name]}. Rename it to make that clear, or drop it"


def _categories(shop: Shop) -> Iterator[str]:
    names = pl.DataFrame({"name": pl.Series(shop.category_names, dtype=pl.String)}).with_columns(
        key=folded(pl.Series(shop.category_names, dtype=pl.String))
    )
    alike = names.filter(pl.col("key").is_duplicated()).sort("key", "name")
    if len(alike):
        yield (
            f"column 'category': {len(alike):,} categories differ from another only by case, spaces or Unicode form, such as "
            f"{alike['name'][0]!r} and {alike['name'][1]!r}; they count as different, write them alike if they are the same"
        )


def picture_hint(folder: Path, name: str) -> str | None:
    """The path of a picture under images/ that differs from `name`, which is missing, only by case, spaces or Unicode form."""
    here, found = folder / "images", []
    for part in name.split("/"):
        if not here.is_dir():
            return None
        listed = pl.Series([path.name for path in here.iterdir()], dtype=pl.String)
        match = part if (listed == part).any() else lookalike(part, listed)
        if match is None:
            return None
        found.append(match)
        here = here / match
    near = "/".join(found)
    return near if near != name and here.is_file() else None
