"""Pretrained encoders: a frozen body against a tuned one, embedding against the bare network, COURIER on a log against on `shop`.

python benchmarks/pretrained.py [--quick] [--data DIR ...]

The network is EfficientNet-Lite0 with the weights of its package; where both sides train, they train on the same page views.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from data.log.shop_folder import Shop
    from data.pictures.reader import Pictures
    from pretrain.backbones.feature_store import Features
    from pretrain.config import PretrainConfig
    from pretrain.training import Training

BACKBONE: dict[str, Any] = {"backbone": "timm:tf_efficientnet_lite0", "weights": "registry"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and pictures: within 5 minutes on 2 cores")
    parser.add_argument("--data", action="append", default=[], help="shop folder whose COURIER training is compared with that on `shop`")
    given = parser.parse_args()

    from benchmarks.encoders import embedding
    from benchmarks.side_by_side import show
    from pretrain.config import PretrainConfig
    from run.devices import set_up

    fabric, lite = set_up(), PretrainConfig(**BACKBONE, image_size=128, store_size=192)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        lines = [
            frozen(fabric, root, rounds=2 if given.quick else 5),
            embedding(fabric, root, "embed at 128 px from a store vs bare forward", lite, pairs=10 if given.quick else 60),
            embedding(fabric, root, "embed at 128 px from JPEG vs bare forward", lite, pairs=10 if given.quick else 60, picture_side=256),
        ]
        lines += [on_data(fabric, root, data, steps=3 if given.quick else 10, rounds=2 if given.quick else 5) for data in given.data]
    show(lines)


def frozen(fabric: Fabric, root: Path, *, rounds: int) -> dict[str, Any]:
    """Page views per second of COURIER's training at 64 pixels: the head alone on stored features, and the body too."""
    from benchmarks.encoders import by_turns, our_loop, write_shop
    from benchmarks.side_by_side import line
    from data.pictures.store import PictureStore
    from pretrain.backbones.backbone import backbone_of
    from pretrain.backbones.feature_store import open_features, write_features
    from pretrain.config import PretrainConfig
    from pretrain.embedding import default_batch
    from pretrain.methods.courier import CourierConfig
    from pretrain.views import resized

    items, rows = 2000, 1024
    shop = write_shop(root / "log", items=items, sessions=20 * rows)
    config = PretrainConfig(
        **BACKBONE,
        head="components",
        image_size=64,
        store_size=96,
        courier=CourierConfig(batch_size=rows, pv_weight=0, ucs_weight=0, page_weight=1, page_items=10),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (items, 96, 96, 3), dtype=np.uint8)
    store = PictureStore(pixels=pixels, present=np.ones(items, dtype=bool), bad=[])
    body = backbone_of(config, 0).body.to(fabric.device)
    views = [lambda read, _: resized(read, config.image_size)]
    write_features(root / "features", body, store, np.arange(items), views, batch=default_batch(fabric.device.type, 64))
    features = open_features(root / "features")
    sides = {
        "frozen": lambda: our_loop(training(fabric, shop, features, replace(config, body="frozen")), features),
        "tuned": lambda: our_loop(training(fabric, shop, store, config), store),
    }
    rate = {name: rows / seconds for name, seconds in by_turns(sides, steps=3, rounds=rounds).items()}
    return line("frozen vs tuned at 64 px", rate["frozen"], rate["tuned"], "page views/s", higher_is_better=True)


def training(fabric: Fabric, shop: Shop, store: Pictures | Features, config: PretrainConfig) -> Training:
    """COURIER at its first step, as `train_encoder` begins it."""
    from pretrain.loop import first_weights
    from pretrain.methods.table import make_method
    from pretrain.training import prepare

    method = make_method("courier", shop, store.present, config, 0)
    assert method is not None
    net = first_weights(method.head_common, shop, store, config, seed=0).to(fabric.device)
    return prepare("courier", net, method, shop, config, seed=0, fabric=fabric)


def on_data(fabric: Fabric, root: Path, data: str, *, steps: int, rounds: int) -> dict[str, Any]:
    """Pictures per second of COURIER's training on a log and on `shop`: the paper's loss, a small network at 32 pixels from scratch."""
    from statistics import median

    from benchmarks.encoders import our_loop
    from benchmarks.side_by_side import line
    from data.source import SourceConfig
    from pretrain.config import PretrainConfig
    from run.devices import default_jobs

    config = PretrainConfig(backbone="small_cnn", weights="random", head="whitened", body="tuned", image_size=32, store_size=48)

    def rate(source: SourceConfig) -> float:
        shop, store = source.shop(root), source.pictures(root, size=config.store_size, jobs=default_jobs())
        run = training(fabric, shop, store, config)
        with our_loop(run, store) as take:
            take(1)
            before, began = run.state.pictures, time.perf_counter()
            take(steps)
            return (run.state.pictures - before) / (time.perf_counter() - began)

    rates = [(rate(SourceConfig(data=data)), rate(SourceConfig())) for _ in range(rounds)]
    of_data, of_shop = (median(side) for side in zip(*rates, strict=True))
    return line(f"courier on {Path(data).name} vs shop", of_data, of_shop, "pictures/s", higher_is_better=True)


if __name__ == "__main__":
    main()
