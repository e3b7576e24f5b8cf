"""Shared by all benchmarks: ours and the peer's timed alternately in one run, a table, and one line of JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any


def in_turn(ours: Callable[[], Any], peer: Callable[[], Any], *, rounds: int) -> tuple[float, float]:
    """Median seconds of each, run alternately after one unmeasured round: a noisy machine affects both equally."""
    ours()
    peer()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, job in zip(seconds, (ours, peer), strict=True):
            began = time.perf_counter()
            job()
            side.append(time.perf_counter() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def step_by_step(ours: Callable[[], Any], peer: Callable[[], Any], *, pairs: int) -> tuple[float, float]:
    """Seconds per step: the peer's median, and for ours that median times the median ratio within pairs of steps.

    Steps are taken in pairs with alternating order, after one unmeasured pair. For ratios near 1: a machine whose speed drifts would hide
    them if one side ran for long before the other. Neither side may leave work that runs during the other's step.
    """
    ours()
    peer()
    seconds: list[dict[Callable[[], Any], float]] = []
    for pair in range(pairs):
        taken = {}
        for job in (ours, peer) if pair % 2 else (peer, ours):
            began = time.perf_counter()
            job()
            taken[job] = time.perf_counter() - began
        seconds.append(taken)
    of_peer = statistics.median(taken[peer] for taken in seconds)
    return of_peer * statistics.median(taken[ours] / taken[peer] for taken in seconds), of_peer


def line(what: str, ours: float, peer: float, unit: str, *, higher_is_better: bool) -> dict[str, Any]:
    """One comparison; a ratio above 1 means ours is better."""
    ratio = ours / peer if higher_is_better else peer / ours
    return {"what": what, "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ratio, 3), "unit": unit}


def show(lines: list[dict[str, Any]]) -> None:
    """Print the table and, last, the JSON."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "ours", "peer", "ratio", "unit", box=None)
    for entry in lines:
        table.add_row(*(str(value) for value in entry.values()))
    Console().print(table)
    print(json.dumps(lines))
