"""Convert a public data set to a shop folder: `python -m data.convert movielens SOURCE --out DIR`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.readers.table import FOLDERS_OF_PICTURES, READERS
from run.config import one_of, parse, positive, seconds
from run.errors import SettingError, UserError, entry

ABOUT = (
    "Convert a public data set to a shop folder (docs/data-sets.md). Logs without impressions get sampled negatives, which origin.json "
    "records and every result says.\n\n" + "\n\n".join(f"{name}: {about}" for name, about in READERS.items())
)
FEW_MISSING = 0.1  # share of negatives not found above which it is worth a warning
BASIC = (
    "name", "source", "out", "pictures", "picture_size", "negatives", "negatives_by", "negatives_window", "sessions", "session_size",
    "session_gap", "repeats", "since", "users", "min_clicks", "only_with_pictures", "min_rating",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of a conversion."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]  # the data set
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]  # folder of its files
    out: Path | None = None  # the shop folder to write; only --describe goes without
    pictures: Path | None = None  # folder of its pictures; None: images/ or posters/ of SOURCE, where there is one
    picture_size: int = 192  # pixels of a picture's shorter side; smaller pictures stay as they are
    negatives: int = 9  # sampled for each positive, where a log has no impressions; never an item that the user ever took
    negatives_by: Literal["popularity", "uniform"] = "popularity"  # popularity: as often as items are taken at about that time
    negatives_window: str = "14d"  # ... at most this long before or after
    sessions: Literal["auto", "count", "gap", "day"] = "auto"  # auto: day where only days are known, else count
    session_size: int = 3  # positives of a session, with --sessions count
    session_gap: str = "30m"  # silence that ends a session, with --sessions gap
    repeats: bool = False  # keep a user's later interactions with an item; sampled negatives never repeat, so these can only be clicks
    since: str = ""  # leave out what is earlier, as YYYY-MM-DD
    users: int = 0  # a random sample of users; 0: all
    min_clicks: int = 1  # leave out users with fewer positives
    only_with_pictures: bool = False  # leave out items without a picture
    min_rating: float = 4.0  # ratings from it on are positives
    skip_bad_rows: float = 0.0  # largest share of a table's rows that may be bad and are left out, counted; 0: the first one stops
    seed: int = 0  # of negatives and samples
    workers: int = 2  # threads that read pictures
    describe: bool = False  # only print what SOURCE holds

    def __post_init__(self):
        if isinstance(self.name, str):  # no name yet while flags are parsed
            one_of("name", self.name, READERS)
        for setting in ("negatives", "session_size", "picture_size", "min_clicks", "workers"):
            positive(setting, getattr(self, setting))
        for setting in ("negatives_window", "session_gap"):
            seconds(setting, getattr(self, setting))
        if self.users < 0:
            raise SettingError("users", self.users, "give 0 or more")
        if not 0 <= self.skip_bad_rows < 1:
            raise SettingError("skip_bad_rows", self.skip_bad_rows, "give a share from 0 to below 1")
        if self.since:
            self.first_second()

    def first_second(self) -> int | None:
        """Unix s of `since`; None where it is not given."""
        try:
            return int(datetime.strptime(self.since, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) if self.since else None
        except ValueError:
            raise SettingError("since", self.since, "give a date as YYYY-MM-DD") from None


@entry
def main(argv: list[str] | None = None) -> int:
    """Parse flags, read, write the shop folder."""
    config = parse(ConvertConfig, argv, prog="python -m data.convert", description=ABOUT, basic=BASIC)
    from data.readers.shop_writer import ShopOptions, refuse_existing, write_shop
    from data.readers.table import reader

    if config.out is None and not config.describe:
        raise UserError("--out is missing; name the shop folder to write, or give --describe to see what the source holds")
    if config.out is not None and not config.describe:
        refuse_existing(config.out)  # before a source is read, which takes minutes
    pictures = config.pictures or next((config.source / name for name in FOLDERS_OF_PICTURES if (config.source / name).is_dir()), None)
    if config.pictures is not None and not config.pictures.is_dir():
        raise UserError(f"--pictures {config.pictures}: no such folder")
    found = reader(config.name).read(config.source, min_rating=config.min_rating, skip=config.skip_bad_rows)
    print(
        f"{config.source}: {len(found.user):,} positives of {len(found.users):,} users on {len(found.items):,} items, {_span(found.time)}"
    )
    if config.out is None or config.describe:
        for file, rows in found.rows.items():
            print(f"  {file}: {rows:,} rows, {found.refused[file]:,} bad")
        print(f"  columns of items: {', '.join(found.items.columns)}; of users: {', '.join(found.users.columns)}")
        return 0
    by = config.sessions if config.sessions != "auto" else "day" if found.days_only else "count"
    if found.days_only and by == "gap":
        raise SettingError("sessions", by, f"{config.name} has days only; give day or count")
    options = ShopOptions(
        negatives=config.negatives, negatives_by=config.negatives_by,
        negatives_window=seconds("negatives_window", config.negatives_window), sessions=by, session_size=config.session_size,
        session_gap=seconds("session_gap", config.session_gap), repeats=config.repeats, since=config.first_second(),
        users=config.users, min_clicks=config.min_clicks, only_with_pictures=config.only_with_pictures, picture_size=config.picture_size,
        seed=config.seed, workers=config.workers,
    )  # fmt: skip
    about = {"source": config.name, "min_rating": None if found.days_only else config.min_rating}
    origin = write_shop(found, config.out, pictures, options, about)
    print(_said(config.out, origin))
    for warning in _warnings(config, pictures, origin):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _span(time) -> str:
    days = [datetime.fromtimestamp(int(moment), UTC).date().isoformat() for moment in (time[0], time[-1])]
    return f"{days[0]} to {days[1]}"


def _said(out: Path, origin: dict) -> str:
    refused = sum(origin["rows_refused"].values())
    pictures, negatives = origin["pictures"], origin["negatives"]
    text = f"{out}: {origin['sessions']['count']:,} sessions, {origin['interactions']:,} clicks, "
    text += f"{negatives['per_positive']} sampled negatives each"
    text += f" ({negatives['missing']:,} not found); {pictures['items_with']:,} items with a picture, {pictures['items_without']:,} without"
    text += f", {pictures['items_unreadable']:,} unreadable" * bool(pictures["items_unreadable"])
    return text + f"; {refused:,} bad row{'s' * (refused != 1)} left out" * bool(refused)


def _warnings(config: ConvertConfig, pictures: Path | None, origin: dict) -> Iterator[str]:
    """What a comparison of pictures would miss in what was written."""
    if pictures is None:
        places = " nor ".join(str(config.source / name) for name in FOLDERS_OF_PICTURES)
        yield f"no item has a picture: there is neither {places}; give the folder of pictures as --pictures"
    missing, wanted = origin["negatives"]["missing"], origin["negatives"]["per_positive"] * origin["interactions"]
    if missing > FEW_MISSING * wanted:
        fix = "give a lower --negatives, a longer --negatives-window or --negatives-by uniform"
        yield f"{missing:,} of {wanted:,} negatives were not found: too few other items that their users did not take; {fix}"


if __name__ == "__main__":
    sys.exit(main())
