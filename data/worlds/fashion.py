"""The `fashion` world: real photos of shop articles and simulated clicks.

The photos are Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747). Tastes concern properties measured on the pixels
and standardised within each class, so neither the class name nor any other column reveals them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from data.hash_cache import cache_folder
from data.readers.idx import read_idx
from data.worlds.click_rule import WorldCatalogue, draw_market
from data.worlds.simulator import write_behaviour
from run.errors import DataError, SettingError, UserError
from run.progress import Progress

INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # by Debian's package dataset-fashion-mnist
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
LATE_CLASS = "bag"
_PARTS = (("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
_TAILS = ("for every day", "new arrival", "shop selection", "small batch", "with care card", "members' choice")
_PRICES = (19.0, 39.0, 35.0, 49.0, 89.0, 45.0, 29.0, 69.0, 59.0, 95.0)  # medians, in the order of CLASSES

# How much each measured property counts in the squared distance between two articles.
TASTE_WEIGHTS = {
    "brightness": 1.5,  # mean grey of the article: the counterpart of colour
    "contrast": 1.0,  # spread of grey within it: plain or printed
    "texture": 1.25,  # mean change of grey from pixel to pixel: smooth, knitted, checked
    "width": 1.0,  # how far it spreads sideways: slim or wide
    "height": 0.5,
    "balance": 0.75,  # how low its weight lies
    "asymmetry": 0.5,  # how much it differs from its mirror image
}


def write_world(folder: Path, *, users: int, items: int, sessions: int, seed: int, fashion_dir: Path | None = None) -> dict[str, int]:
    """Write the complete world into the new folder `folder`; returns its counts of impressions and clicks.

    Raises:
        UserError: the photos are neither in `fashion_dir` nor installed, and cannot be downloaded.
        DataError: one of their files is damaged.
    """
    pixels, label = read_fashion(fashion_dir)
    if items > len(pixels):
        raise SettingError("items", items, f"there are {len(pixels):,} photos")
    chosen = np.random.default_rng([seed, 20]).choice(len(pixels), items, replace=False)
    pixels, category = pixels[chosen], label[chosen].astype(np.int64)
    rng = np.random.default_rng([seed, 21])
    price_level = rng.normal(0, 1, items)
    names = [f"{index // 1000:03d}/{index:06d}.png" for index in range(items)]
    class_name = pl.Series(CLASSES).gather(category)
    table = pl.DataFrame(
        {
            "item_id": 500_000 + np.arange(items, dtype=np.int64),
            "image": names,
            "title": class_name + " " + pl.Series(_TAILS).gather(rng.integers(len(_TAILS), size=items)),
            "category": class_name,
            "price": np.round(np.array(_PRICES)[category] * np.exp(0.45 * price_level), 2),
        }
    )
    quality, popularity, launch = draw_market(category, CLASSES.index(LATE_CLASS), np.random.default_rng([seed, 22]))
    # a few thousand at a time: as floats all 70,000 would take gigabytes
    blocks = [measure(pixels[start : start + 4096]) for start in range(0, items, 4096)]
    measured = {name: np.concatenate([block[name] for block in blocks]) for name in TASTE_WEIGHTS}
    catalogue = WorldCatalogue(
        item_id=table["item_id"].to_numpy(),
        category=category,
        category_names=list(CLASSES),
        taste=taste_points(measured, category),
        price_level=price_level.astype(np.float32),
        quality=quality,
        popularity=popularity,
        launch=launch,
        query_words=[[name] for name in CLASSES],
        terms=np.zeros((items, 0), dtype=np.int64),
        term_names=[],
    )
    table.write_parquet(folder / "items.parquet")
    (folder / "truth").mkdir()
    hidden = {"quality": quality, "popularity": popularity, "launch": launch, "taste": pl.Series(catalogue.taste)}
    pl.DataFrame({"item_id": catalogue.item_id, **measured, **hidden}).write_parquet(folder / "truth" / "items.parquet")
    _write_pictures(folder / "images", names, pixels)
    return write_behaviour(folder, catalogue, users=users, sessions=sessions, seed=seed)


def read_fashion(fashion_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """All photos (70000, 28, 28) uint8 and their classes (70000,) uint8.

    They come from `fashion_dir` if given, else from the system's package, else from the network.
    """
    folder = _find(fashion_dir)
    pictures, labels = [], []
    for picture_name, label_name in _PARTS:
        picture_file, label_file = _file(folder, picture_name), _file(folder, label_name)
        picture, label = read_idx(picture_file, axes=3), read_idx(label_file, axes=1)
        if picture.shape[1:] != (28, 28):
            raise DataError(picture_file, value=picture.shape, fix="photos are 28 x 28; is this Fashion-MNIST?")
        if len(picture) != len(label):
            fix = f"number of labels, but {picture_file.name} has {len(picture):,} photos; take both from one source"
            raise DataError(label_file, value=len(label), fix=fix)
        if len(label) and label.max() >= len(CLASSES):
            raise DataError(label_file, row=int(label.argmax()), value=int(label.max()), fix="classes are 0 to 9")
        pictures.append(picture)
        labels.append(label)
    return np.concatenate(pictures), np.concatenate(labels)


def measure(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 28, 28) uint8 grey on black -> (N,) each property of TASTE_WEIGHTS, not yet standardised."""
    light = pixels.astype(np.float32) / 255
    inside = light > 0.08
    area = np.maximum(inside.sum(axis=(1, 2)), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * inside).sum(axis=(1, 2)) / area

    brightness = mean(light)
    place = np.arange(28, dtype=np.float32)
    x, y = mean(np.broadcast_to(place, light.shape)), mean(np.broadcast_to(place[:, None], light.shape))
    across = np.abs(np.diff(light, axis=2, prepend=0)) * np.roll(inside, 1, axis=2)
    down = np.abs(np.diff(light, axis=1, prepend=0)) * np.roll(inside, 1, axis=1)
    return {
        "brightness": brightness,
        "contrast": np.sqrt(mean((light - brightness[:, None, None]) ** 2)),
        "texture": mean(across + down),
        "width": np.sqrt(mean((place - x[:, None, None]) ** 2)),
        "height": np.sqrt(mean((place[:, None] - y[:, None, None]) ** 2)),
        "balance": y,
        "asymmetry": np.abs(light - light[:, :, ::-1]).mean(axis=(1, 2)) / np.maximum(light.mean(axis=(1, 2)), 1e-6),
    }


def taste_points(measured: dict[str, np.ndarray], category: np.ndarray) -> np.ndarray:
    """(N, 7) float32: the properties standardised within each class, clipped at 3 standard deviations, weighted."""
    columns = []
    for name, weight in TASTE_WEIGHTS.items():
        values = measured[name].astype(np.float64)
        count = np.maximum(np.bincount(category), 1)
        centred = values - (np.bincount(category, values) / count)[category]
        spread = np.sqrt(np.bincount(category, centred**2) / count)[category]
        columns.append(np.clip(centred / np.maximum(spread, 1e-6), -3, 3) * np.sqrt(weight))
    return np.stack(columns, axis=1).astype(np.float32)


def _find(fashion_dir: Path | None) -> Path:
    if fashion_dir is not None:
        return Path(fashion_dir)
    if INSTALLED.is_dir():
        return INSTALLED
    try:
        cache = cache_folder()
        _download(cache)
    except Exception as error:  # no network, no torchvision, no home folder, a full disk: the fix is the same
        raise UserError(
            f"Fashion-MNIST is not on this machine and could not be downloaded ({type(error).__name__}: {error}); "
            "install it (apt-get install dataset-fashion-mnist), or give --fashion-dir DIR with its four files, "
            "or try again with a network"
        ) from None
    return cache / "FashionMNIST" / "raw"


def _download(cache: Path) -> None:
    from torchvision.datasets import FashionMNIST

    for train in (True, False):
        FashionMNIST(str(cache), train=train, download=True)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(f"{folder}: holds no {name}.gz; give --fashion-dir the folder with the four files of Fashion-MNIST")


def _write_pictures(folder: Path, names: list[str], pixels: np.ndarray) -> None:
    for parent in sorted({name.split("/")[0] for name in names}):
        (folder / parent).mkdir(parents=True)
    with Progress("writing pictures", total=len(names), unit="pictures") as bar:
        for name, picture in zip(names, pixels, strict=True):
            Image.fromarray(picture).save(folder / name, compress_level=1)
            bar.advance(1)
