"""A log too large for memory: ingested to disk, trained from there; seconds, peak memory, and samples/s compared with arrays in memory.

python benchmarks/big_log.py [--impressions 20000000] [--events 200000000] [--steps 300] [--out DIR] [--quick]

Each part runs in its own process, so its peak resident memory is that of this part only. Mapped pages count as resident once they have
been read, but the system can reclaim them; memory that is not mapped files (`own`) is therefore shown next to the peak.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    import polars as pl

    from ctr.inputs.encode import Inputs

PAGE = 10  # impressions of a session
STEP = 1_000_000  # rows written at a time, and of a row group
FIRST, DAYS = 1_700_000_000, 30  # the log's first second; events begin DAYS days earlier
ACTIONS, RATES = ("click", "purchase", "cart", "uncart"), (0.8, 0.06, 0.1, 0.04)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=20_000_000)
    parser.add_argument("--events", type=int, default=200_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--history", type=int, default=50, help="newest clicks of a history; a fifth as many purchases and cart items")
    parser.add_argument("--out", type=Path, help="folder for the log and its arrays; default: a temporary folder")
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything, 20 steps")
    parser.add_argument("--part", choices=("write", "ingest", "train", "compare"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.impressions, given.events, given.items, given.users, given.steps = 200_000, 2_000_000, 10_000, 10_000, 20
    if given.part:
        print(json.dumps({"write": write_log, "ingest": ingested, "train": trained, "compare": compared}[given.part](given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.out = given.out or Path(folder)
        found = {part: in_own_process(part, given) for part in ("write", "ingest", "train", "compare")}
    per = found["ingest"]["seconds"] / (given.events / 1e7)
    print(f"{given.impressions:,} impressions, {given.events:,} events, {given.items:,} items, {given.users:,} users")
    print(f"ingest: {found['ingest']['seconds']:.0f} s, {per:.1f} s per 10^7 events, {memory(found['ingest'])}")
    print(f"training: {found['train']['steps']} steps, {found['train']['samples_per_s']:,.0f} samples/s, {memory(found['train'])}")
    mapped, in_memory = found["compare"]["mapped"], found["compare"]["in_memory"]
    print(f"samples/s from mapped files against in memory: {mapped:,.0f} / {in_memory:,.0f} = {mapped / in_memory:.3f}")
    print(json.dumps(found))


def in_own_process(part: str, given: argparse.Namespace) -> dict[str, Any]:
    flags = [f"--{name}={getattr(given, name)}" for name in ("impressions", "events", "items", "users", "steps", "history", "out")]
    command = [sys.executable, __file__, "--part", part, *flags]
    print(f"{part} ...", file=sys.stderr, flush=True)
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


# the log


def write_log(given: argparse.Namespace) -> dict[str, Any]:
    """Write the shop folder: sessions in time order, events unsorted; popularity of items falls as 1 / rank."""
    import polars as pl

    began = time.perf_counter()
    folder = given.out / "shop"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    category = pl.Series([f"c{number:03d}" for number in range(200)])
    items = pl.DataFrame({"item_id": np.arange(given.items) * 7 + 100, "image": pl.Series([None] * given.items, dtype=pl.String)})
    items = items.with_columns(category=category.gather(np.arange(given.items) % 200), price=pl.Series(rng.lognormal(size=given.items)))
    items.write_parquet(folder / "items.parquet")
    users = pl.DataFrame({"user_id": rng.permutation(given.users) * 3 + 7, "age_band": rng.integers(0, 8, given.users)})
    users.write_parquet(folder / "users.parquet")
    for name, rows, frame in (("impressions", given.impressions, shown), ("events", given.events, done)):
        write_chunks(folder / f"{name}.parquet", (frame(items, users, first, rows) for first in range(0, rows, STEP)))
    return {"seconds": time.perf_counter() - began}


def shown(items: pl.DataFrame, users: pl.DataFrame, first: int, rows: int) -> pl.DataFrame:
    """Impressions from row `first` on: a session is a search in a category."""
    import polars as pl

    rng = np.random.default_rng([1, first])
    count = min(STEP, rows - first)
    session = (first + np.arange(count)) // PAGE
    searched = np.random.default_rng([2, first]).integers(0, 200, count // PAGE + 2)[session - session[0]]
    user = np.random.default_rng([3, first]).integers(0, len(users), count // PAGE + 2)[session - session[0]]
    item = zipf(rng, count, len(items) // 200) * 200 + searched
    return pl.DataFrame(
        {
            "session_id": session,
            "user_id": users["user_id"].gather(user),
            "item_id": items["item_id"].gather(item),
            "timestamp": FIRST + session * DAYS * 86_400 // max(1, rows // PAGE),
            "click": (rng.random(count) < 0.04 + 0.1 * (item % 7 == user % 7)).astype(np.int8),
            "query": pl.Series([f"word{n} c{n % 200:03d}" for n in range(2000)]).gather(searched + 200 * rng.integers(0, 10, count)),
            "category": pl.Series([f"c{n:03d}" for n in range(200)]).gather(searched),
            "position": np.arange(count, dtype=np.int8) % PAGE,
        }
    )


def done(items: pl.DataFrame, users: pl.DataFrame, first: int, rows: int) -> pl.DataFrame:
    """Events from row `first` on, over twice as many days."""
    import polars as pl

    rng = np.random.default_rng([4, first])
    count = min(STEP, rows - first)
    return pl.DataFrame(
        {
            "user_id": users["user_id"].gather(rng.integers(0, len(users), count)),
            "item_id": items["item_id"].gather(zipf(rng, count, len(items))),
            "timestamp": FIRST + rng.integers(-DAYS * 86_400, DAYS * 86_400, count),
            "action": pl.Series(ACTIONS).gather(rng.choice(4, count, p=RATES)),
        }
    )


def zipf(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """(count,) int64 below `most`; n has a probability proportional to about 1 / (n + 1)."""
    return np.minimum(np.exp(rng.random(count) * np.log(most + 1)).astype(np.int64) - 1, most - 1)


def write_chunks(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """A parquet file with one row group per frame and one frame in memory at a time."""
    from polars.io.plugins import register_io_source

    first = next(frames)

    def source(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        for frame in itertools.chain([first], frames):
            yield frame if columns is None else frame.select(columns)

    register_io_source(source, schema=first.schema).sink_parquet(path, row_group_size=STEP, compression="lz4", maintain_order=True)


# measurements


def ingested(given: argparse.Namespace) -> dict[str, Any]:
    from data.log.ingest import ingest

    folder = given.out / "log"
    shutil.rmtree(folder, ignore_errors=True)
    with Memory() as memory:
        began = time.perf_counter()
        ingest(given.out / "shop", folder)
        seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"seconds": seconds, "disk_gb": size / 1e9, **memory.found}


def trained(given: argparse.Namespace) -> dict[str, Any]:
    """Steps on the mapped log, after dropping its pages; building the inputs is included in memory, but not in the rate."""
    forget(given.out / "log")
    with Memory() as memory:
        began = time.perf_counter()
        inputs = inputs_of(given)
        encoded = time.perf_counter() - began
        after_encode = memory.peaks()
        step = stepper(inputs)
        step(0)
        began = time.perf_counter()
        samples = sum(step(number) for number in range(1, given.steps + 1))
        seconds = time.perf_counter() - began
    found = {"steps": given.steps, "samples_per_s": samples / seconds, "encode_seconds": encoded, **memory.found}
    return found | {f"encode_{name}": value for name, value in after_encode.items()}


def compared(given: argparse.Namespace) -> dict[str, Any]:
    """Samples/s of the same steps from mapped files and from copies in memory, alternately."""
    from benchmarks.side_by_side import in_turn

    mapped = inputs_of(given)
    take = {"mapped": stepper(mapped), "in_memory": stepper(copied(mapped))}
    steps = max(5, given.steps // 10)
    samples = sum(take["mapped"](number) for number in range(steps))
    seconds = in_turn(*([lambda of=of: [of(number) for number in range(steps)] for of in take.values()]), rounds=5)
    return dict(zip(take, (samples / each for each in seconds), strict=True))


def inputs_of(given: argparse.Namespace) -> Inputs:
    from ctr.inputs.encode import encode
    from data.log.ingest import open_log
    from features.image_feature import no_image

    shop = open_log(given.out / "log", given.out / "shop")
    return encode(shop, no_image(len(shop.items)), config_of(given.history))


def config_of(history: int) -> Any:
    from ctr.config import CtrConfig

    return CtrConfig(click_items=history, purchase_items=history // 5, cart_items=history // 5)


def stepper(inputs: Inputs) -> Callable[[int], int]:
    """A function that takes step `number` of a training and returns how many impressions it had."""
    from dataclasses import replace

    from ctr.inputs.feed import share_of
    from ctr.inputs.sampler import shuffled, split_sessions
    from ctr.training.training import prepare, take_step
    from run.devices import set_up

    fabric = set_up(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    config = replace(config_of(0), ema_tables=False, table_optimizer="rowwise_adagrad")
    part = split_sessions(inputs.shop, "train")
    batches = shuffled(part, config.batch_sessions, seed=0, epoch=0)
    run = prepare(inputs, config, seed=0, steps=1_000_000, fabric=fabric, settings={})

    def step(number: int) -> int:
        share = share_of(inputs, part, batches[number % len(batches)], rank=0, ranks=1)
        take_step(run, share)
        return share.impressions

    return step


def copied(inputs: Inputs) -> Inputs:
    """The same inputs with copies in memory of every array that a batch is gathered from."""
    from dataclasses import fields, is_dataclass, replace

    def in_memory(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, tuple):
            return tuple(in_memory(part) for part in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: in_memory(getattr(value, field.name)) for field in fields(value)})
        return value

    return in_memory(inputs)


def forget(folder: Path) -> None:
    """Ask the system to drop a folder's pages: later reads come from disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


class Memory:
    """Peak resident memory of this process (VmHWM), and the peak of its unmapped part (RssAnon), sampled twenty times a second."""

    def __enter__(self) -> Memory:
        self.own, self.over = 0.0, threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.05):
            self.own = max(self.own, _status("RssAnon"))

    def peaks(self) -> dict[str, float]:
        return {"peak_gb": _status("VmHWM"), "own_gb": max(self.own, _status("RssAnon"))}

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watch.join()
        self.found = self.peaks()


def _status(name: str) -> float:
    """The value, in GB, of a line of this process's status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e9


def memory(found: dict[str, float]) -> str:
    return f"peak resident memory {found['peak_gb']:.2f} GB ({found['own_gb']:.2f} GB its own)"


if __name__ == "__main__":
    main()
