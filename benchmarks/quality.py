"""How well our CTR model without pictures ranks, compared with FuxiCTR's DIN and BST and with LightGBM, on the same impressions.

python benchmarks/quality.py [--quick] [--fuxictr DIR] [--data DIR ...] [--users N]

All models are trained on the train split of each log and read the same columns and histories (the newest 50 clicks, 20 purchases, 10 of the
cart); only ours reads titles. Settings and epochs are chosen on the valid split, from the grids below; BST's variants take the settings
chosen for BST, which is slow. The test split chooses nothing. "with our numbers" adds what our model computes from the log (statistics,
co-occurrence, match with the history); LightGBM always has it, and reads no IDs. No model reads
own_score. Errors are standard errors over users (bootstrap).

--fuxictr takes a checkout of FuxiCTR (https://github.com/reczoo/FuxiCTR), which needs requirements/peers.txt. Peers that are missing are
left out. The clicks of the built-in log are simulated: it says little about real ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from ctr.inputs.encode import Inputs
    from data.log.shop_folder import Shop
    from metrics.intervals import Draws

OURS = "ours"
EPOCHS = 5  # of FuxiCTR's models, at most; ours has its own default
QUICK_USERS = 200
OUR_GRID: tuple[dict[str, Any], ...] = ({}, {"learning_rate": 5e-4}, {"table_learning_rate": 1e-2})
TREE_GRID: tuple[dict[str, Any], ...] = ({}, {"num_leaves": 15, "min_data_in_leaf": 100}, {"num_leaves": 63, "learning_rate": 0.03})
PEER_GRID: tuple[dict[str, Any], ...] = (
    {"learning_rate": 1e-3, "size": 16, "regularizer": 0.0},
    {"learning_rate": 1e-3, "size": 16, "regularizer": 1e-5},
    {"learning_rate": 2e-3, "size": 32, "regularizer": 1e-6},
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One model with one choice of settings."""

    settings: dict[str, Any]
    valid_gauc: float
    passes: str  # what validation chose besides: epochs, trees
    test: np.ndarray  # (n,) scores of the test impressions, in the order of `Log.rows`


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log, what our model reads of it, and the impressions of each split."""

    name: str
    shop: Shop
    inputs: Inputs
    rows: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to be tuned."""

    name: str
    train: Callable[[dict[str, Any]], Trained]  # with one point of the grid
    grid: tuple[dict[str, Any], ...] = ()  # empty: the settings chosen for `like`
    like: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_USERS} users, one epoch, no tuning: within 5 minutes on 2 cores")
    parser.add_argument("--fuxictr", type=Path, metavar="DIR", help="a checkout of FuxiCTR 2.3.10")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="DIR", help="shop folders (docs/shop-folder.md); default: the built-in shop"
    )
    parser.add_argument("--users", type=int, help="sample this many users, with all of their impressions; default: all")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    users = arguments.users or (QUICK_USERS if arguments.quick else None)
    entries = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, folder in enumerate(arguments.data or [built_in(Path(scratch) / "shop")]):
            log = load(folder, users, Path(scratch) / str(number))
            found: dict[str, Trained] = {}
            for model in models(log, arguments):
                grid = model.grid or (found[model.like].settings,)
                found[model.name] = tuned(log, model, grid[:1] if arguments.quick else grid)
            entries += report(log, found)
    print(json.dumps(entries))


def built_in(folder: Path) -> Path:
    """The built-in world `shop`, in its default size."""
    from data.worlds.build import make_world
    from data.worlds.defaults import ITEMS, SEED, SESSIONS, USERS

    make_world("shop", folder, users=USERS, items=ITEMS, sessions=SESSIONS, seed=SEED)
    return folder


def load(folder: Path, users: int | None, scratch: Path) -> Log:
    """A shop folder's log, or that of some of its users."""
    from ctr.config import CtrConfig
    from ctr.inputs.encode import encode
    from data.log.shop_folder import load_shop
    from features.image_feature import no_image

    shop = load_shop(folder if users is None else sampled(folder, users, scratch))
    inputs = encode(shop, no_image(len(shop.items)), CtrConfig(own_score=False))
    rows = {split: np.sort(shop.rows(split)) for split in ("train", "valid", "test")}
    return Log(name=folder.resolve().name, shop=shop, inputs=inputs, rows=rows)


def sampled(folder: Path, users: int, scratch: Path) -> Path:
    """A copy of a shop folder with some of its users, drawn evenly, without pictures; all items remain."""
    from data.origin import ORIGIN

    scratch.mkdir(parents=True)
    if (folder / ORIGIN).exists():  # says that negatives were sampled, which statistics leave out
        shutil.copyfile(folder / ORIGIN, scratch / ORIGIN)
    every = pl.read_parquet(folder / "impressions.parquet", columns=["user_id"])["user_id"].unique().sort()
    chosen = every.sample(min(users, len(every)), seed=0)
    for name in ("items", "users", "impressions", "events"):
        if (folder / f"{name}.parquet").exists():
            table = pl.read_parquet(folder / f"{name}.parquet")
            table = table.filter(pl.col("user_id").is_in(chosen.implode())) if name != "items" else table
            table.write_parquet(scratch / f"{name}.parquet")
    return scratch


def models(log: Log, arguments: argparse.Namespace) -> Iterator[Model]:
    """Every model that can be trained here, ours first; a line on stderr for those that cannot."""
    from eval.rows import has_lightgbm

    yield Model(name=OURS, train=lambda settings: train_ours(log, settings, quick=arguments.quick), grid=OUR_GRID)
    if has_lightgbm():
        yield Model(name="LightGBM", train=tree_training(log), grid=TREE_GRID)
    else:
        print("LightGBM left out: it is not installed; pip install '.[lightgbm]'", file=sys.stderr)
    if arguments.fuxictr is None:
        print("FuxiCTR's DIN and BST left out: give a checkout by --fuxictr", file=sys.stderr)
        return
    from benchmarks.fuxictr_models import NotUsable, features_of, load_models

    try:
        kinds = load_models(arguments.fuxictr)
    except NotUsable as error:
        print(f"FuxiCTR's DIN and BST left out: {error}", file=sys.stderr)
        return
    epochs, plain = 1 if arguments.quick else EPOCHS, features_of(log.inputs, None)
    with_numbers = features_of(log.inputs, our_numbers(log))
    din, bst = kinds["DIN"], kinds["BST"]
    yield Model(name="FuxiCTR's DIN", train=peer_training(log, din, plain, epochs=epochs), grid=PEER_GRID)
    yield Model(name="FuxiCTR's DIN with our numbers", train=peer_training(log, din, with_numbers, epochs=epochs), grid=PEER_GRID)
    yield Model(name="FuxiCTR's BST", train=peer_training(log, bst, plain, epochs=epochs), grid=PEER_GRID)
    without = peer_training(log, bst, plain, epochs=epochs, use_position_emb=False)
    yield Model(name="FuxiCTR's BST without positions", train=without, like="FuxiCTR's BST")
    yield Model(name="FuxiCTR's BST with our numbers", train=peer_training(log, bst, with_numbers, epochs=epochs), like="FuxiCTR's BST")


def tuned(log: Log, model: Model, grid: tuple[dict[str, Any], ...]) -> Trained:
    """The point of the grid with the highest valid GAUC."""
    best = None
    for settings in grid:
        began = time.monotonic()
        found = model.train(settings)
        what = ", ".join([*(f"{key} {value:g}" for key, value in settings.items()), found.passes])
        seconds = time.monotonic() - began
        print(f"{log.name}: {model.name} ({what}): valid GAUC {found.valid_gauc:.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)
        if best is None or found.valid_gauc > best.valid_gauc:
            best = found
    assert best is not None
    return best


def train_ours(log: Log, settings: dict[str, Any], *, quick: bool) -> Trained:
    """Our model without pictures; the epoch is chosen by the valid log loss, as in eval.compare."""
    from ctr.config import CtrConfig
    from ctr.training.loop import train_ctr
    from features.image_feature import no_image

    config = replace(CtrConfig(threads=1, own_score=False), **settings, **({"epochs": 1} if quick else {}))
    with tempfile.TemporaryDirectory() as folder:
        result = train_ctr(log.shop, no_image(len(log.shop.items)), config, seed=0, folder=Path(folder))
        found = pl.read_parquet(Path(folder) / "predictions.parquet").filter(pl.col("split") == "test").sort("row")
    assert np.array_equal(found["row"], log.rows["test"])
    passes = f"step {result['best_step']} of {result['steps']}"
    return Trained(settings=settings, valid_gauc=result["valid_gauc"], passes=passes, test=found["score"].to_numpy())


def tree_training(log: Log) -> Callable[[dict[str, Any]], Trained]:
    """LightGBM on our model's features, as in eval.compare --controls."""
    from ctr.boosted import fit_trees, predicted
    from ctr.impression_numbers import impression_numbers
    from ctr.inputs.sampler import split_sessions
    from ctr.training.predict import measures

    numbers = {split: impression_numbers(log.inputs, split_sessions(log.shop, split)) for split in log.rows}

    def train(settings: dict[str, Any]) -> Trained:
        trees = fit_trees(numbers["train"], numbers["valid"], log.shop.click, seed=0, **settings)
        valid = measures(predicted(trees, numbers["valid"], log.shop), log.shop.session)["gauc"]
        test = predicted(trees, numbers["test"], log.shop)
        return Trained(settings=settings, valid_gauc=valid or 0.0, passes=f"{trees.best_iteration} trees", test=test.logit)

    return train


def peer_training(log: Log, kind: Any, features: Any, *, epochs: int, **more: Any) -> Callable[[dict[str, Any]], Trained]:
    """One of FuxiCTR's models; the epoch is chosen by the valid GAUC."""
    from benchmarks.fuxictr_models import build, train

    def run(settings: dict[str, Any]) -> Trained:
        test, best = train(build(kind, features, seed=0, **settings, **more), features, log.rows, epochs=epochs, seed=0)
        return Trained(settings=settings, valid_gauc=best["valid_gauc"], passes=f"{best['epoch']} epochs", test=test)

    return run


def our_numbers(log: Log) -> np.ndarray:
    """(I, K) float32 numbers that our model computes from the log; zeros in the pretrain split, which no model is trained on."""
    from ctr.model.dense_features import dense_features, dense_names

    numbers = np.zeros((len(log.shop.item), len(dense_names(log.inputs))), np.float32)
    for split in log.rows:
        _, rows, values = dense_features(log.inputs, split)
        numbers[rows] = values
    return numbers


def report(log: Log, found: dict[str, Trained]) -> list[dict[str, Any]]:
    """Print the table of a log and return its entries: the ratio of GAUC - 1/2, above 1 if ours is better."""
    from rich.console import Console
    from rich.table import Table

    from metrics.intervals import Resamples, auc_draws, difference, gauc_draws

    rows, shop = log.rows["test"], log.shop
    resamples, click, session = Resamples(shop.user[rows]), shop.click[rows], shop.session[rows]
    draws = {name: gauc_draws(click, each.test, session, resamples) for name, each in found.items()}
    sizes = ", ".join(f"{split} {len(of_split):,}" for split, of_split in log.rows.items())
    table = Table("model", "GAUC", "AUC", "ours minus it, pp of GAUC", "chosen", box=None, title=f"{log.name}: impressions {sizes}")
    for name, each in found.items():
        minus = difference(draws[OURS], draws[name])
        apart = "" if name == OURS else f"{100 * minus.mean:+.2f} [{100 * minus.low:+.2f}, {100 * minus.high:+.2f}]"
        chosen = ", ".join([*(f"{key} {value:g}" for key, value in each.settings.items()), each.passes])
        table.add_row(name, with_error(draws[name]), with_error(auc_draws(click, each.test, resamples)), apart, chosen)
    Console(width=180).print(table)
    values = {name: float(of_model.point.mean()) for name, of_model in draws.items()}
    return [
        {"what": f"quality {log.name} vs {name}", "ours": round(values[OURS], 4), "peer": round(value, 4),
         "ratio": round((values[OURS] - 0.5) / (value - 0.5), 3), "unit": "GAUC"}
        for name, value in values.items() if name != OURS
    ]  # fmt: skip


def with_error(draws: Draws) -> str:
    """A metric and its standard error over users."""
    return f"{draws.point.mean():.4f} ± {np.nanstd(draws.drawn):.4f}"


if __name__ == "__main__":
    main()
