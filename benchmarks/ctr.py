"""The CTR model: training steps compared with FuxiCTR's BST, share of the processor's peak, cost of a large vocabulary, memory.

python benchmarks/ctr.py [--quick] [--fuxictr DIR]

DIR is a checkout of FuxiCTR, because its package lacks the model_zoo. Without DIR, only the lines that need no peer are shown.

Both sides have one history of full length, items drawn at random from a million, item embeddings of 32 numbers, attention of
width 64 with 2 heads, an MLP of 1024-512-256-128-64, about 128 impressions per step, from data in memory. BST's 64 are 32 of the item and
32 of its position in the history; ours has no positions, and projects 32 to 64. BST has a feed-forward layer after the attention, ours an
output projection of the pooled history. Ours assembles its batches within the measured time; BST's are ready. No peer computes SimScore:
its lines are compared with the same BST.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from ctr.config import CtrConfig
    from ctr.inputs.batches import Batch
    from ctr.inputs.encode import Inputs

MILLION = 1_000_000
LENGTHS = (50, 200, 1000)
BATCH = 128  # impressions per step
ITEM, WIDTH, HEADS, HIDDEN = 32, 64, 2, (1024, 512, 256, 128, 64)
VECTOR = 256  # numbers in a picture's embedding, as in the paper
COLUMNS, STATISTICS = 6, 47  # an item's id and five categorical columns, and what statistics and co-occurrence say of those
POOL = 8  # batches made of different sessions

Job = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: within 5 minutes on 2 cores")
    parser.add_argument("--fuxictr", type=Path, metavar="DIR", help="a checkout of FuxiCTR 2.3.10")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # run in a separate process, to measure its memory
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(peak_memory(arguments.peak_of, arguments.fuxictr))
        return

    from benchmarks.side_by_side import show

    lines = []
    for length in LENGTHS:
        lines += training(length, arguments.fuxictr, rounds=(1 if length == max(LENGTHS) else 3) if arguments.quick else 5)
    lines += log_numbers(rounds=2 if arguments.quick else 5)
    lines.append(vocabulary(rounds=3 if arguments.quick else 7))
    lines += memory(arguments.fuxictr, quick=arguments.quick)
    show(lines)


def training(length: int, checkout: Path | None, *, rounds: int) -> list[dict[str, Any]]:
    """Samples per second of both sides; at the greatest length also SimScore and the share of the peak."""
    from benchmarks.side_by_side import line

    steps = max(1, 1000 // length)
    longest = length == max(LENGTHS)
    shared = Ours(length, 10)
    ours = {f"train L={length}, 10 a session": shared, f"train L={length}, 1 a session": Ours(length, 1)}
    if longest:
        ours[f"train L={length}, sim_score"] = Ours(length, 10, form="sim_score")
        ours[f"train L={length}, sim_score after"] = Ours(length, 10, form="sim_score", score_place="after")
        ours[f"train L={length}, sim_score, 50 retrieved"] = Ours(length, 10, form="sim_score", retrieve=50)
        ours |= {
            f"train L={length}, {form}": Ours(length, 10, form=form) for form in ("vector", "sim_tier", "semantic_id", "sim_attention")
        }
    jobs: dict[str, Job] = {what: lambda side=side: side.take(steps) for what, side in ours.items()}
    jobs["peak"] = matmul
    if checkout is not None:
        jobs["peer"] = bst(checkout, length)
    seconds = in_rounds(jobs, rounds=rounds)
    peak = 2 * MATMUL**3 / seconds["peak"]
    lines = []
    for what, side in ours.items():
        rate = steps * side.impressions / seconds[what]
        print(f"{what}: {rate:.1f} samples/s", file=sys.stderr)
        if checkout is not None:
            lines.append(line(what, rate, BATCH / seconds["peer"], "samples/s", higher_is_better=True))
    if longest:
        rate = steps * operations(shared.batch(0), length) / seconds["train L=1000, 10 a session"]
        lines.append(line(f"train L={length}, share of peak", rate / 1e9, peak / 1e9, "GFLOP/s", higher_is_better=True))
    return lines


def log_numbers(*, rounds: int) -> list[dict[str, Any]]:
    """Samples per second with match and statistics, and with everything that presets for small logs add, compared with neither."""
    from benchmarks.side_by_side import line

    lines = []
    for length in (min(LENGTHS), max(LENGTHS)):
        steps = max(1, 1000 // length)
        sides = {
            "plain": Ours(length, 10),
            f"train L={length}, match and statistics": Ours(length, 10, numbers=True),
            f"train L={length}, with order and windows too": Ours(length, 10, numbers=True, order="position", windows=(10, 3)),
        }
        seconds = in_rounds({what: lambda side=side, steps=steps: side.take(steps) for what, side in sides.items()}, rounds=rounds)
        rates = {what: steps * side.impressions / seconds[what] for what, side in sides.items()}
        plain = rates.pop("plain")
        lines += [line(what, rate, plain, "samples/s", higher_is_better=True) for what, rate in rates.items()]
    return lines


def vocabulary(*, rounds: int) -> dict[str, Any]:
    """Steps per second with twenty million items, compared with a million."""
    from benchmarks.side_by_side import line

    steps = 10
    sides = {size: Ours(50, 10, items=size) for size in (20 * MILLION, MILLION)}
    seconds = in_rounds({str(size): lambda side=side: side.take(steps) for size, side in sides.items()}, rounds=rounds)
    many, few = (steps / seconds[str(size)] for size in sides)
    return line("vocabulary 20M vs 1M", many, few, "steps/s", higher_is_better=True)


def memory(checkout: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    """Peak resident memory of a process that takes two steps; also with twenty million items, unless `quick`."""
    from benchmarks.side_by_side import line

    kinds = {"L=1000, 10 a session": "1000 10 1", "L=1000, 1 a session": "1000 1 1"}
    if not quick:
        kinds["vocabulary 20M"] = "50 10 20"
    lines = []
    for what, kind in kinds.items():
        peaks = []
        for side in ("ours", "peer") if checkout is not None else ("ours",):
            command = [sys.executable, "-W", "ignore", __file__, "--peak-of", f"{side} {kind}"]
            done = subprocess.run([*command, *(["--fuxictr", str(checkout)] if checkout else [])], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"the process that measures memory failed:\n{done.stderr}")
            peaks.append(float(done.stdout.split()[-1]))
            print(f"memory {what}: {side} {peaks[-1]:.2f} GB", file=sys.stderr)
        if len(peaks) == 2:
            lines.append(line(f"memory {what}", peaks[0], peaks[1], "GB", higher_is_better=False))
    return lines


def peak_memory(what: str, checkout: Path | None) -> float:
    """Peak GB of this process, after two steps of "ours|peer LENGTH PER_SESSION MILLIONS"."""
    side, *numbers = what.split()
    length, per_session, millions = map(int, numbers)
    if side == "ours":
        Ours(length, per_session, items=millions * MILLION).take(2)
    else:
        assert checkout is not None
        step = bst(checkout, length, items=millions * MILLION)
        step()
        step()
    # the kernel's own count: getrusage includes the parent process's peak
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(held.split()[1]) * 1024 / 1e9


def in_rounds(jobs: dict[str, Job], *, rounds: int) -> dict[str, float]:
    """Median seconds of each job; every round runs all of them in turn, and the first round is not measured."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


class Ours:
    """One of our models and the sessions it trains on.

    Args:
        length: of every click history; there are no purchases and no cart.
        per_session: impressions in a session.
        items: in the vocabulary.
        numbers: read match with COLUMNS columns, and STATISTICS statistics of each impression.
        order, windows: `history_order` and `windows` of CtrConfig.
    """

    def __init__(
        self, length: int, per_session: int, *, items: int = MILLION, form: str = "none", score_place: str = "before", retrieve: int = 0,
        numbers: bool = False, order: str = "none", windows: tuple[int, ...] = (),
    ):  # fmt: skip
        from ctr.config import CtrConfig
        from ctr.inputs.sampler import SplitSessions

        config = CtrConfig(
            click_items=length, id_size=ITEM, width=WIDTH, heads=HEADS, hidden=HIDDEN, ema=0, score_place=score_place, retrieve=retrieve,
            table_optimizer="rowwise_adagrad", match=numbers, history_order=order, windows=windows,
        )  # fmt: skip
        self.sessions = -(-BATCH // per_session)
        self.impressions = self.sessions * per_session
        self.inputs = made_up(length, per_session, items, form, sessions=POOL * self.sessions, numbers=numbers)
        number = np.arange(POOL * self.sessions)
        count = np.full_like(number, per_session)
        self.part = SplitSessions(rows=np.arange(count.sum()), sessions=number, start=number * per_session, count=count)
        self.step = stepper(self.inputs, config)
        self.taken = 0

    def batch(self, number: int) -> Batch:
        from ctr.inputs.batches import assemble

        at = number % POOL * self.sessions
        return assemble(self.inputs, self.part, np.arange(at, at + self.sessions))

    def take(self, steps: int) -> None:
        for _ in range(steps):
            self.step(self.batch(self.taken))
            self.taken += 1


def stepper(inputs: Inputs, config: CtrConfig) -> Callable[[Batch], float]:
    """The real training step: forward, backward with the tables' optimizer in it, AdamW for the network."""
    from ctr.inputs.feed import Share
    from ctr.training.training import prepare, take_step
    from run.devices import set_up

    run = prepare(inputs, config, seed=0, steps=1_000_000, fabric=set_up(), settings={})
    return lambda batch: take_step(run, Share(batch, real=True, impressions=len(batch.click)))


def made_up(length: int, per_session: int, items: int, form: str, *, sessions: int, numbers: bool = False) -> Inputs:
    """A log in memory: items drawn uniformly for histories of `length` clicks and for sessions; half of the impressions are clicked."""
    import polars as pl

    from ctr.inputs.encode import EncodedColumns, Inputs, Layout, image_layouts, image_tables
    from ctr.inputs.rules import Table
    from data.log.histories import History
    from data.log.shop_folder import SPLITS, Shop
    from features.forms.table import NO_FORM
    from features.image_feature import learned_rule, no_image

    rng = np.random.default_rng(0)
    impressions = sessions * per_session
    session = np.repeat(np.arange(sessions, dtype=np.int32), per_session)
    nothing = np.zeros(0, np.int32)
    shop = Shop(
        folder=Path("made up"), items=pl.DataFrame(), users=pl.DataFrame(), impressions=pl.DataFrame(),
        item=rng.integers(items, size=impressions, dtype=np.int32), user=session, session=session,
        time=np.arange(sessions).repeat(per_session),
        click=rng.integers(2, size=impressions, dtype=np.int8), session_user=np.arange(sessions, dtype=np.int32),
        session_time=np.arange(sessions), session_split=np.full(sessions, SPLITS.index("train"), np.int8), session_category=None,
        item_category=None, category_names=[], split_is_ordered=True,
        events=None,  # type: ignore[arg-type]  # not read: the histories are built here
    )  # fmt: skip
    start, none = np.arange(sessions) * length, np.zeros(sessions, np.int64)
    no_time = np.zeros(0, np.int64)
    clicked = rng.integers(items, size=sessions * length, dtype=np.int32)
    histories = (
        History(name="clicks", item=clicked, time=np.repeat(np.arange(sessions), length) - 1, start=start, end=start + length, gone=None),
        History(name="purchases", item=nothing, time=no_time, start=none, end=none, gone=None),
        History(name="cart", item=nothing, time=no_time, start=none, end=none, gone=None),
    )
    feature = no_image(items)
    if form != NO_FORM:
        unit = rng.random((items, VECTOR), dtype=np.float32) - 0.5
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        feature = learned_rule(form, unit[:5000], seed=0).feature(unit)
    tables = (Table(name="item", size=items, dim=ITEM), *image_tables(feature, 16))
    layout = Layout(
        item=tables, user=(), context=(), item_numeric=0, user_numeric=0, context_numeric=0, words=0, titles=False, queries=False,
        form=form, images=image_layouts(feature), group=-1,
        matched=COLUMNS if numbers else 0, log_numbers=STATISTICS if numbers else 0, distances=(),
        own_score=False,
        own_line=(1.0, 0.0),
    )  # fmt: skip

    def columns(tables: tuple[Table, ...], rows: np.ndarray, lines: int) -> EncodedColumns:
        return EncodedColumns(tables=tables, rows=rows, numeric=np.zeros((lines, 0), np.float32))

    return Inputs(
        layout=layout, items=columns(tables, np.concatenate([np.arange(items)[None], feature.rows.T]).astype(np.int32), items),
        users=columns((), np.zeros((0, sessions), np.int32), sessions),
        context=columns((), np.zeros((0, impressions), np.int32), impressions), titles=None, queries=None,
        query=np.zeros(impressions, np.int64), histories=histories, each_impression=False, vectors=feature.numbers,
        unit=feature.unit, present=np.ones(items, bool), shop=shop,
        codes=rng.integers(1, 50, size=(items, COLUMNS), dtype=np.int32),
        log_numbers=rng.random((impressions, STATISTICS if numbers else 0), dtype=np.float32),
        own_logit=None,
        log_features=None,  # type: ignore[arg-type]  # likewise
        feature=feature, vocabularies=None,  # type: ignore[arg-type]  # not read in training
    )  # fmt: skip


def bst(checkout: Path, length: int, *, items: int = MILLION) -> Job:
    """A step of FuxiCTR's training of its BST, on a prepared batch."""
    if not (checkout / "model_zoo" / "BST").is_dir():
        sys.exit(f"{checkout}: no model_zoo/BST; give --fuxictr a checkout of https://github.com/reczoo/FuxiCTR")
    import logging
    import tempfile

    import torch

    sys.path.insert(0, str(checkout))  # before an installed package of the same name, which may be another version
    from fuxictr.features import FeatureMap
    from model_zoo.BST.src import BST

    logging.disable(logging.INFO)
    features = FeatureMap("made_up", tempfile.gettempdir())
    features.features["item"] = {"type": "categorical", "source": "", "vocab_size": items + 1, "padding_idx": 0}
    features.features["clicks"] = {
        "type": "sequence", "source": "", "vocab_size": items + 1, "padding_idx": 0, "max_len": length, "share_embedding": "item",
    }  # fmt: skip
    features.labels, features.num_fields, features.default_emb_dim = ["click"], 2, ITEM
    model = BST(
        features, gpu=-1, dnn_hidden_units=list(HIDDEN), dnn_activations="relu", num_heads=HEADS, stacked_transformer_layers=1,
        learning_rate=1e-3, embedding_dim=ITEM, bst_target_field="item", bst_sequence_field="clicks", optimizer="adam",
        loss="binary_crossentropy", metrics=["AUC"], verbose=0, model_root=tempfile.gettempdir(), task="binary_classification",
    )  # fmt: skip
    model.train()
    model._max_gradient_norm = 10.0  # its default, which `fit` sets
    rng = np.random.default_rng(0)
    batches = [
        {
            "item": torch.from_numpy(rng.integers(1, items + 1, BATCH)),
            "clicks": torch.from_numpy(rng.integers(1, items + 1, (BATCH, length))),
            "click": torch.from_numpy(rng.integers(0, 2, BATCH)),
        }
        for _ in range(POOL)
    ]
    turn = iter(range(1 << 30))
    return lambda: model.train_step(batches[next(turn) % POOL]).item()


MATMUL = 2048


def matmul() -> None:
    """One product of square matrices: the processor's peak within reach of a program."""
    import torch

    torch.mm(torch.ones(MATMUL, MATMUL), torch.ones(MATMUL, MATMUL))


def operations(batch: Batch, length: int) -> int:
    """Multiplications and additions that a step needs: matrix products forward, and twice as many backward.

    Projection and queries, keys and values once per distinct item, attention and its output once per position. Optimizers, norms and
    softmax are left out.
    """
    history = batch.histories[0]
    distinct, sessions, impressions = len(history.item), len(batch.grid), len(batch.target)
    network = [ITEM + 3 * WIDTH, *HIDDEN, 1]
    products = (
        distinct * (ITEM * WIDTH + 3 * WIDTH**2)
        + sessions * length * (2 * length * WIDTH + WIDTH**2)
        + sessions * WIDTH**2
        + impressions * sum(a * b for a, b in pairwise(network))
    )
    return 3 * 2 * products


if __name__ == "__main__":
    main()
