"""MovieLens (latest, 20M, 25M, 32M as .csv; 1M and 10M as .dat): ratings at or above a limit are likes.

Posters, which MovieLens itself does not have, are `<movieId>.jpg` (or .png, .webp).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from data.log.tables import index_of
from data.readers.interactions import Interactions, in_order, numbered
from data.readers.raw_table import RawTable, find_file, integer, number, second, text, unique
from run.errors import UserError

NEEDS = "ratings.csv and movies.csv, or ratings.dat and movies.dat"
_NO_GENRE = "(no genres listed)"
_GENRES = ("category", "genre_2", "genre_3")  # columns of a film's first genres


def read(source: Path, *, min_rating: float, skip: float) -> Interactions:
    """Read a folder of MovieLens files.

    Args:
        min_rating: a rating at or above it is a like; others are left out.
        skip: largest share of bad rows that are left out.

    Raises:
        UserError: a file is missing; DataError: a bad row.
    """
    films, ratings = _tables(source, skip)
    items = films.read(unique("movieId"))
    known = items["movieId"]

    def unknown(block: pl.DataFrame) -> tuple[pl.Series, str, str]:
        return pl.Series(index_of(block["movieId"], known) < 0), "movieId", f"unknown to {films.path.name}; add the film, or drop the row"

    users, item, time = [], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for block in ratings.blocks(unknown):
        liked = block.filter(pl.col("rating") >= min_rating)
        users.append(liked["userId"])
        item.append(index_of(liked["movieId"], known))
        time.append(liked["timestamp"].to_numpy())
    user_ids, user = numbered(users)
    if not len(user_ids):
        raise UserError(f"{ratings.path.name}: no rating of {min_rating:g} or more; give a lower --min-rating")
    found = in_order(user, np.concatenate(item), np.concatenate(time))
    return Interactions(
        items=_features(items), users=pl.DataFrame({"user_id": user_ids}), user=found[0], item=found[1], time=found[2], days_only=False,
        picture_names=lambda item_id: [f"{item_id}.{suffix}" for suffix in ("jpg", "jpeg", "png", "webp")],
        rows={table.path.name: table.rows for table in (films, ratings)}, refused={t.path.name: t.refused for t in (films, ratings)},
    )  # fmt: skip


def _tables(source: Path, skip: float) -> tuple[RawTable, RawTable]:
    """Films and ratings, in either layout."""
    path = find_file(source, ("ratings.csv", "ratings.dat"), NEEDS)
    film_columns = (integer("movieId"), text("title"), text("genres", optional=True))
    columns = (integer("userId"), integer("movieId"), number("rating", 0.5, 5), second("timestamp"))
    if path.suffix == ".csv":
        films = find_file(source, ("movies.csv",), NEEDS)
        return RawTable(path=films, columns=film_columns, skip=skip), RawTable(path=path, columns=columns, skip=skip, in_blocks=True)
    films = find_file(source, ("movies.dat",), NEEDS)
    more = {"separator": "::", "quote": None, "encoding": _encoding(films), "skip": skip}
    return (
        RawTable(path=films, columns=film_columns, header=("movieId", "title", "genres"), **more),
        RawTable(path=path, columns=columns, header=("userId", "movieId", "rating", "timestamp"), in_blocks=True, **more),
    )


def _encoding(films: Path) -> str:
    """10M is UTF-8; 1M is Latin-1, whose accented titles are not valid UTF-8."""
    try:
        films.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _features(films: pl.DataFrame) -> pl.DataFrame:
    """item_id, title, those of the first three genres that some film has, and the year at the end of the title."""
    genres = pl.col("genres").replace(_NO_GENRE, None).str.split("|")
    first = [genres.list.get(place, null_on_oob=True).replace("", None).alias(name) for place, name in enumerate(_GENRES)]
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Float64)
    found = films.select(pl.col("movieId").alias("item_id"), "title", *first, year.alias("year"))
    return found.drop(name for name in _GENRES if found[name].null_count() == len(found))
