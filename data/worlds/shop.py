"""The `shop` world: rendered things whose style, which users care about most, shows only in their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from data.worlds.click_rule import WorldCatalogue, draw_market
from data.worlds.shop_pictures import Scene, draw_scenes, render
from data.worlds.shop_style import PATTERNS, Style, draw_styles, taste_points
from data.worlds.shop_words import BRANDS, LATE_THING, TAILS, THINGS
from data.worlds.simulator import write_behaviour
from run.progress import Progress

NO_PICTURE, NO_TITLE = 0.01, 0.005  # shares of items
_PRICE_SPREAD = 0.45  # standard deviation of the log price within a category
_BATCH = 16  # pictures drawn at once: few enough to stay in the CPU cache


def write_world(folder: Path, *, users: int, items: int, sessions: int, seed: int, fashion_dir: Path | None = None) -> dict[str, int]:
    """Write the complete world into the new folder `folder`; returns its counts of impressions and clicks. It needs no photos."""
    del fashion_dir
    # categories of about equal size: each has things to show
    category = np.random.default_rng([seed, 10]).permutation(np.arange(items) % len(THINGS))
    style = draw_styles(items, np.random.default_rng([seed, 11]))
    scene = draw_scenes(items, np.random.default_rng([seed, 12]))
    names = [f"{index // 1000:03d}/{index:06d}.jpg" for index in range(items)]
    shown = np.random.default_rng([seed, 13]).random(items) >= NO_PICTURE
    table, terms, price_level = _table(category, names, shown, np.random.default_rng([seed, 14]))
    quality, popularity, launch = draw_market(category, list(THINGS).index(LATE_THING), np.random.default_rng([seed, 15]))
    catalogue = WorldCatalogue(
        item_id=table["item_id"].to_numpy(),
        category=category,
        category_names=list(THINGS),
        taste=taste_points(style),
        price_level=price_level,
        quality=quality,
        popularity=popularity,
        launch=launch,
        query_words=[list(thing.names) for thing in THINGS.values()],
        terms=terms,
        term_names=list(BRANDS) + _materials(),
    )
    table.write_parquet(folder / "items.parquet")
    _write_truth(folder, catalogue, style)
    _write_pictures(folder / "images", names, shown, category, style, scene, seed)
    return write_behaviour(folder, catalogue, users=users, sessions=sessions, seed=seed)


def _materials() -> list[str]:
    return list(dict.fromkeys(material for thing in THINGS.values() for material in thing.materials))


def _table(
    category: np.ndarray, names: list[str], shown: np.ndarray, rng: np.random.Generator
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """items.parquet, each item's brand and material as indices of terms (N, 2), and its price level (N,)."""
    n, things, materials = len(category), list(THINGS.values()), _materials()
    brands = np.cumsum(rng.dirichlet(np.full(len(BRANDS), 0.8), len(things)), axis=1)
    brand = np.minimum((brands[category] < rng.random((n, 1))).sum(axis=1), len(BRANDS) - 1)

    def pick(choices: list[list[int]]) -> np.ndarray:
        width = np.array([len(row) for row in choices])
        padded = np.array([row + [0] * (width.max() - len(row)) for row in choices])
        return padded[category, rng.integers(0, width[category])]

    material = pick([[materials.index(name) for name in thing.materials] for thing in things])
    nouns = list(dict.fromkeys(name for thing in things for name in thing.names))
    noun = pick([[nouns.index(name) for name in thing.names] for thing in things])
    price_level = rng.normal(0, 1, n)
    price = np.array([thing.price for thing in things])[category] * np.exp(_PRICE_SPREAD * price_level)
    words = (
        pl.Series(BRANDS).gather(brand),
        pl.Series(materials).gather(material),
        pl.Series(nouns).gather(noun),
        pl.Series(TAILS).gather(rng.integers(len(TAILS), size=n)),
    )
    title = words[0] + " " + words[1] + " " + words[2] + " " + words[3]
    table = pl.DataFrame(
        {
            "item_id": 500_000 + np.arange(n, dtype=np.int64),
            "image": pl.Series(names).set(pl.Series(~shown), None),
            "title": title.set(pl.Series(rng.random(n) < NO_TITLE), None),
            "category": pl.Series(list(THINGS)).gather(category),
            "brand": words[0],
            "price": np.maximum(np.round(price, 2), 0.5),
        }
    )
    return table, np.stack([brand, len(BRANDS) + material], axis=1), price_level.astype(np.float32)


def _write_truth(folder: Path, catalogue: WorldCatalogue, style: Style) -> None:
    (folder / "truth").mkdir()
    columns = {name: values for name, values in vars(style).items() if name != "pattern"}
    hidden = {"quality": catalogue.quality, "popularity": catalogue.popularity, "launch": catalogue.launch}
    pl.DataFrame(
        {
            "item_id": catalogue.item_id,
            "pattern": pl.Series(PATTERNS).gather(style.pattern),
            **columns,
            **hidden,
            "taste": pl.Series(catalogue.taste),
        }
    ).write_parquet(folder / "truth" / "items.parquet")


def _write_pictures(folder: Path, names: list[str], shown: np.ndarray, category: np.ndarray, style: Style, scene: Scene, seed: int) -> None:
    for parent in sorted({name.split("/")[0] for name in names}):
        (folder / parent).mkdir(parents=True)

    def draw(batch: tuple[int, str, np.ndarray]) -> int:
        number, thing, rows = batch
        pictures = render(thing, style.take(rows), scene.take(rows), np.random.default_rng([seed, 16, number]))
        for row, picture in zip(rows, pictures, strict=True):
            Image.fromarray(picture).save(folder / names[row], quality=92, subsampling=0)
        return len(rows)

    # NumPy runs outside Python's lock; each batch has its own noise, so the number of threads changes nothing
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        Progress("drawing pictures", total=int(shown.sum()), unit="pictures") as bar,
    ):
        for done in pool.map(draw, _batches(shown, category)):
            bar.advance(done)


def _batches(shown: np.ndarray, category: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
    number = 0
    for index, thing in enumerate(THINGS):
        rows = np.flatnonzero(shown & (category == index))
        for start in range(0, len(rows), _BATCH):
            yield number, thing, rows[start : start + _BATCH]
            number += 1
