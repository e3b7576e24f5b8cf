"""The readers of public data sets. Light to import: commands read names before any data is touched."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

READERS = {
    "movielens": "MovieLens; likes are ratings of --min-rating and more; posters <movieId>.jpg",
    "hm": "H&M; purchases by day; photos <first 3 of article_id>/<article_id>.jpg",
}  # name (its module in this folder) -> what it reads
FOLDERS_OF_PICTURES = ("images", "posters")  # where a source's own pictures are looked for


def reader(name: str) -> ModuleType:
    """The module of a reader: `read(source, min_rating=, skip=)` gives `Interactions`."""
    return import_module(f"data.readers.{name}")
