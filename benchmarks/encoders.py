"""Encoders: our SimCLR loop and Lightly's, loops and the bare network, COURIER with each picture encoded once or at every occurrence.

python benchmarks/encoders.py [--quick]

Pictures are counted once, not per view. All sides have the same network, threads and pictures, and read their loss after each step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from data.log.shop_folder import Shop
    from data.pictures.reader import Pictures
    from data.pictures.store import PictureStore
    from pretrain.backbones.feature_store import Features
    from pretrain.config import PretrainConfig
    from pretrain.methods.method import Method
    from pretrain.training import Training

SIDE = 64  # pixels of SimCLR's views
BATCH = 128  # its pictures per step
DIM = 128  # of its embeddings

Take = Callable[[int], None]  # runs this many steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and pictures: within 5 minutes on 2 cores")
    quick = parser.parse_args().quick

    from benchmarks.side_by_side import show
    from pretrain.config import PretrainConfig
    from run.devices import set_up

    fabric = set_up()
    swin = PretrainConfig(backbone="swin_t", weights="random", image_size=224, store_size=336, dim=256)
    rounds, pairs = (3, 10) if quick else (5, 60)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        lines = [
            *simclr(fabric, root, steps=3 if quick else 8, rounds=rounds, pairs=pairs),
            embedding(fabric, root, "embed vs bare forward", swin, picture_side=480, pairs=pairs),
            courier(fabric, root, rows=512 if quick else 1024, rounds=rounds),
            views(fabric, rounds=rounds),
        ]
    show(lines)


def simclr(fabric: Fabric, root: Path, *, steps: int, rounds: int, pairs: int) -> list[dict[str, Any]]:
    """SimCLR at ResNet-18: our loop from a picture store and from JPEG files, Lightly's from the same files, and the bare step."""
    from benchmarks.side_by_side import line, step_by_step
    from data.pictures.reader import checked_files
    from data.pictures.store import build_store
    from run.devices import default_jobs

    shop = write_shop(root / "shop", items=4 * BATCH, sessions=400, picture_side=256)
    options = {"size": 3 * SIDE // 2, "workers": default_jobs()}
    store = build_store(shop, root / "store", **options)
    sides = {
        "ours": lambda: our_loop(simclr_training(shop, fabric), store),
        "files": lambda: our_loop(simclr_training(shop, fabric), checked_files(shop, root / "files", **options)),
        "lightly": lambda: lightly_loop(sorted((shop.folder / "images").iterdir()), fabric),
    }
    rate = {name: BATCH / seconds for name, seconds in by_turns(sides, steps=steps, rounds=rounds).items()}
    # our loop reads its next pictures during its own step, so the two can be timed step by step
    with our_loop(simclr_training(shop, fabric), store) as take, bare_steps(simclr_training(shop, fabric), store) as take_bare:
        loop, bare = step_by_step(lambda: take(1), lambda: take_bare(1), pairs=pairs)
    return [
        line("simclr vs lightly", rate["ours"], rate["lightly"], "pictures/s", higher_is_better=True),
        line("simclr from files vs lightly", rate["files"], rate["lightly"], "pictures/s", higher_is_better=True),
        line("simclr loop vs bare step", BATCH / loop, BATCH / bare, "pictures/s", higher_is_better=True),
    ]


def by_turns(sides: dict[str, Callable[[], Any]], *, steps: int, rounds: int) -> dict[str, float]:
    """Median seconds per step of each side, alternately.

    A turn sets a side up, takes one unmeasured step (after which prefetching in threads or worker processes keeps pace with the steps),
    takes `steps` more, and shuts everything down: nothing of one side runs in another's turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, set_up_side in sides.items():
            with set_up_side() as take:
                take(1)
                began = time.perf_counter()
                take(steps)
                seconds[name].append((time.perf_counter() - began) / steps)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def simclr_training(shop: Shop, fabric: Fabric) -> Training:
    """Ours, with Lightly's distortions: full strength, crops from 8 % of the area, blur."""
    from pretrain.backbones.backbone import backbone
    from pretrain.config import PretrainConfig
    from pretrain.methods.simclr import SimClr
    from pretrain.methods.two_views import DistortionConfig
    from pretrain.training import prepare

    config = PretrainConfig(
        backbone="resnet18", weights="random", image_size=SIDE, store_size=3 * SIDE // 2, dim=DIM, batch_pictures=BATCH, negatives="batch",
        distortion=DistortionConfig(strength=1.0, crop=0.08, blur=True),
    )  # fmt: skip
    method = SimClr(np.arange(len(shop.items)), config, 0)
    net = backbone("resnet18", dim=DIM, seed=0).to(fabric.device)
    return prepare("simclr", net, method, shop, config, seed=0, fabric=fabric)


@contextmanager
def our_loop(run: Training, pictures: Pictures | Features) -> Iterator[Take]:
    """The loop of `train_encoder`, between two checkpoints."""
    from pretrain.feed import feed
    from pretrain.loop import take_step
    from run.prefetch import prefetch

    with prefetch(feed(run.method, pictures, first=run.state.step, rank=0, ranks=1, chunk=0)) as pieces:

        def take(steps: int) -> None:
            for _ in range(steps):
                take_step(run, pieces, Path())

        yield take


@contextmanager
def bare_steps(run: Training, store: PictureStore) -> Iterator[Take]:
    """Forward, loss, backward and optimizer on prepared views."""
    import torch

    step = run.method.step(0)
    pixels = torch.from_numpy(store.read(step.items)).to(run.fabric.device)
    ready = run.method.view(pixels, (0, "view", 0, step.items, step.view), SIDE)
    run.parts.train()

    def take(steps: int) -> None:
        for _ in range(steps):
            run.optimizer.zero_grad(set_to_none=True)
            loss = run.method.loss(run.method.encode(run.encoder, ready, step), step)[0]
            run.fabric.backward(loss)
            run.optimizer.step()
            loss.item()

    yield take


@contextmanager
def lightly_loop(files: list[Path], fabric: Fabric) -> Iterator[Take]:
    """SimCLR as Lightly's own examples train it: transform in two worker processes, projection head, NT-Xent, Adam."""
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"  # otherwise it contacts its maker's server on import
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead
    from lightly.transforms.simclr_transform import SimCLRTransform
    from torch.utils.data import DataLoader, Dataset

    from pretrain.backbones.backbone import backbone

    class Files(Dataset):
        transform = SimCLRTransform(input_size=SIDE)

        def __len__(self) -> int:
            return 1000 * BATCH  # an endless epoch over the same files

        def __getitem__(self, row: int) -> Any:
            from PIL import Image

            with Image.open(files[row % len(files)]) as picture:
                return self.transform(picture.convert("RGB"))

    net = torch.nn.Sequential(backbone("resnet18", dim=DIM, seed=0), SimCLRProjectionHead(DIM, DIM, DIM)).to(fabric.device).train()
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    batches: Any = iter(DataLoader(Files(), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True))

    def take(steps: int) -> None:
        for _ in range(steps):
            first, second = (view.to(fabric.device) for view in next(batches))
            loss = criterion(net(first), net(second))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    yield take
    batches._shutdown_workers()


def embedding(
    fabric: Fabric, root: Path, what: str, config: PretrainConfig, *, pairs: int, picture_side: int | None = None
) -> dict[str, Any]:
    """A catalogue through a network, compared with the network alone on prepared tensors, batch by batch.

    Args:
        picture_side: of JPEG files, decoded as they are needed; None: pictures come decoded, from a store.
    """
    import torch

    from benchmarks.side_by_side import line, step_by_step
    from data.pictures.reader import picture_files
    from data.pictures.store import PictureStore
    from pretrain.backbones.backbone import backbone_of
    from pretrain.embedding import default_batch, embedded
    from run.devices import default_jobs

    batch = default_batch(fabric.device.type, config.image_size)
    items = batch * (pairs + 2)
    pictures: Pictures
    if picture_side is None:
        shape = (items, config.store_size, config.store_size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        pictures = PictureStore(pixels=pixels, present=np.ones(items, dtype=bool), bad=[])
    else:
        shop = write_shop(root / "catalogue", items=items, sessions=40, picture_side=picture_side)
        pictures = picture_files(shop, root / "bad", size=config.store_size, workers=default_jobs())
    net = backbone_of(config, 0).to(fabric.device).eval()
    ready = torch.rand(batch, 3, config.image_size, config.image_size).to(fabric.device)
    batches = embedded(net, pictures, np.arange(items), config, batch=batch)

    def bare() -> None:
        with torch.no_grad():
            net(ready).cpu()

    fast, slow = step_by_step(lambda: next(batches), bare, pairs=pairs)
    return line(what, batch / fast, batch / slow, "pictures/s", higher_is_better=True)


def courier(fabric: Fabric, root: Path, *, rows: int, rounds: int) -> dict[str, Any]:
    """Steps of COURIER on a log whose items are shown in proportion to 1 / rank; the peer encodes every occurrence separately."""
    import torch

    from benchmarks.side_by_side import line
    from data.pictures.store import PictureStore
    from pretrain.backbones.backbone import backbone
    from pretrain.config import PretrainConfig
    from pretrain.methods.courier import Courier, CourierConfig
    from pretrain.methods.method import Step
    from pretrain.page_views import page_views
    from pretrain.training import prepare

    class EveryOccurrence(Courier):
        """COURIER without deduplication: one picture per occurrence."""

        def step(self, number: int) -> Step:
            once = super().step(number)
            filled = {name: once.places[name] >= 0 for name in ("page", "history")}
            items = np.concatenate([once.items[once.places[name][filled[name]]] for name in filled])
            places, start = {"clicked": once.places["clicked"]}, 0
            for name, where in filled.items():
                places[name] = np.full(where.shape, -1)
                places[name][where] = np.arange(start, start + where.sum())
                start += where.sum()
            return Step(number=number, items=items, view=np.zeros(len(items), dtype=np.int64), places=places)

    shop = write_shop(root / "log", items=10_000, sessions=10 * rows)
    config = PretrainConfig(weights="random", negatives="batch", mask_same_item=False, courier=CourierConfig(batch_size=rows))
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, config.store_size, config.store_size, 3), dtype=np.uint8)
    store = PictureStore(pixels=pixels, present=np.ones(10_000, dtype=bool), bad=[])
    options = config.courier
    seen = page_views(shop, page_items=options.page_items, history_items=options.history_items, has_picture=store.present)

    def training(method: Method) -> Training:
        net = backbone(config.backbone, dim=config.dim, seed=0).to(fabric.device)
        return prepare("courier", net, method, shop, config, seed=0, fabric=fabric)

    def first_loss(method: Method) -> float:
        step = method.step(0)
        pictures = method.view(torch.from_numpy(store.read(step.items)), (0, "view", 0, step.items, step.view), config.image_size)
        with torch.no_grad():
            return method.loss(method.encode(backbone(config.backbone, dim=config.dim, seed=0), pictures, step), step)[0].item()

    once, every = first_loss(Courier(seen, config, 0)), first_loss(EveryOccurrence(seen, config, 0))
    if abs(once - every) > 1e-3 * abs(every):
        sys.exit(f"the two disagree: {once} and {every}")
    sides = {
        "once": lambda: our_loop(training(Courier(seen, config, 0)), store),
        "every": lambda: our_loop(training(EveryOccurrence(seen, config, 0)), store),
    }
    rate = {name: rows / seconds for name, seconds in by_turns(sides, steps=3, rounds=rounds).items()}
    return line("courier dedup vs none", rate["once"], rate["every"], "page views/s", higher_is_better=True)


def views(fabric: Fabric, *, rounds: int) -> dict[str, Any]:
    """SimCLR's views computed for a full batch at once, compared with the same code picture by picture."""
    import torch

    from benchmarks.side_by_side import in_turn, line
    from pretrain.methods.two_views import DistortionConfig, distorted_view

    pixels = torch.randint(0, 256, (2 * BATCH, 3 * SIDE // 2, 3 * SIDE // 2, 3), dtype=torch.uint8).to(fabric.device)
    items = np.arange(len(pixels))
    config = DistortionConfig(strength=1.0, crop=0.08, blur=True)

    def made(rows: np.ndarray) -> float:
        return distorted_view(pixels[rows], (0, "view", 0, rows), SIDE, config)[-1, -1, -1, -1].item()

    together, alone = in_turn(lambda: made(items), lambda: [made(items[row : row + 1]) for row in items], rounds=rounds)
    return line("views batched vs one by one", len(items) / together, len(items) / alone, "views/s", higher_is_better=True)


def write_shop(folder: Path, *, items: int, sessions: int, picture_side: int = 0) -> Shop:
    """A shop whose items are shown in proportion to 1 / rank, ten per session, two of them clicked.

    Args:
        picture_side: side of its pictures (JPEG files) in pixels; 0: none are written.
    """
    import polars as pl
    from PIL import Image

    from data.log.shop_folder import load_shop

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, items + 1)
    shown = rng.choice(items, (sessions, 10), p=share / share.sum())
    folder.mkdir(parents=True)
    names = [f"{item}.jpg" for item in range(items)]
    pl.DataFrame({"item_id": np.arange(items), "image": names}).write_parquet(folder / "items.parquet")
    session = np.repeat(np.arange(sessions), 10)
    log = {
        "session_id": session,
        "user_id": session % max(1, sessions // 20),
        "item_id": shown.ravel(),
        "timestamp": 1_700_000_000 + session,
    }
    log["click"] = (np.tile(np.arange(10), sessions) < 2).astype(np.int8)
    pl.DataFrame(log).write_parquet(folder / "impressions.parquet")
    if picture_side:
        (folder / "images").mkdir()
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
                (picture_side, picture_side), Image.Resampling.BICUBIC
            )
            grain = rng.integers(-8, 9, (picture_side, picture_side, 1))
            Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(folder / "images" / name, quality=90)
    return load_shop(folder)


if __name__ == "__main__":
    main()
