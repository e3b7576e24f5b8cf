"""Small sources in the layouts of public data sets, oddities included."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

GENRES = ("Action", "Comedy", "Drama", "Sci-Fi")


def picture(path: Path, seed: int, size: tuple[int, int] = (150, 200)) -> None:
    """A JPEG of one colour with some noise."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(rng.integers(256, size=3) + rng.integers(-20, 20, size=(*size[::-1], 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_csv(path: Path, rows: list[tuple], *, bom: bool = False, newline: str = "\n") -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=newline).writerows(rows)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())


def movielens(folder: Path, *, films: int = 20, users: int = 12, each: int = 14, seed: int = 0) -> Path:
    """ratings.csv and movies.csv as in MovieLens latest: quoted titles with commas, CRLF, films without a genre, a year or a poster."""
    rng = np.random.default_rng(seed)
    titles = [f"Film {film}, The ({1980 + film})" if film % 3 else f"Film {film} (no year)" for film in range(films)]
    genres = ["|".join(rng.choice(GENRES, size=rng.integers(1, 4), replace=False)) for _ in range(films)]
    genres[1] = "(no genres listed)"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(1 + film * 3, titles[film], genres[film]) for film in range(films)]
    write_csv(folder / "movies.csv", [("movieId", "title", "genres"), *rows], bom=True, newline="\r\n")
    ratings = []
    for user in range(users):
        moment = 1_000_000_000 + 40_000 * user
        for film in rng.permutation(films)[:each]:
            moment += int(rng.integers(0, 3_000))
            ratings.append((user + 7, 1 + int(film) * 3, float(rng.choice([2.5, 4.0, 4.5, 5.0])), moment))
    write_csv(folder / "ratings.csv", [("userId", "movieId", "rating", "timestamp"), *ratings])
    for film in range(films):
        if film != 4:
            picture(folder / "posters" / f"{1 + film * 3}.jpg", film)
    return folder


def movielens_dat(folder: Path, source: Path) -> Path:
    """The same films and likes as in MovieLens 1M: `::` between fields, latin-1, no header."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, old in (("movies", "movies.csv"), ("ratings", "ratings.csv")):
        rows = list(csv.reader(io.StringIO((source / old).read_bytes().decode("utf-8-sig"))))[1:]
        (folder / f"{name}.dat").write_bytes(
            "".join("::".join(row) + "\n" for row in rows).replace("Film 2", "Film dé 2").encode("latin-1")
        )
    return folder


def hm(folder: Path, *, articles: int = 24, customers: int = 30, days: int = 8, seed: int = 0) -> Path:
    """H&M's tables: ids of ten characters with a leading 0, an empty name, an empty age, photos of articles and of products."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{108_775_000 + 1_000 * (number // 3) + number:010d}" for number in range(articles)]
    names = ("product_type_name", "product_group_name", "graphical_appearance_name", "colour_group_name", "perceived_colour_value_name")
    names += ("department_name", "index_name", "section_name", "garment_group_name")
    rows = [
        (article, f"Top, {number}" if number != 2 else "", 253, *(f"{name} {int(rng.integers(3))}" for name in names), "a long text")
        for number, article in enumerate(ids)
    ]
    write_csv(folder / "articles.csv", [("article_id", "prod_name", "product_type_no", *names, "detail_desc"), *rows])
    people = [f"{number:064x}" for number in range(customers)]
    bought = [
        (f"2020-09-{16 + day:02d}", customer, ids[int(rng.integers(articles))], 0.05, 2)
        for day in range(days)
        for customer in people
        for _ in range(int(rng.integers(0, 3)))
    ]
    write_csv(folder / "transactions_train.csv", [("t_dat", "customer_id", "article_id", "price", "sales_channel_id"), *bought])
    header = ("customer_id", "FN", "Active", "club_member_status", "fashion_news_frequency", "age", "postal_code")
    described = [(customer, "", 1.0, "ACTIVE", "NONE", "" if number == 3 else 20 + number, "x") for number, customer in enumerate(people)]
    write_csv(folder / "customers.csv", [header, *described])
    for number, article in enumerate(ids):
        if number % 4 != 1:
            name = article if number % 2 else article[:-3]
            picture(folder / "images" / article[:3] / f"{name}.jpg", number, size=(40, 60))
    return folder
