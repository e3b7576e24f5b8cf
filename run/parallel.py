"""Fan work out over processes of this machine."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from run.errors import UserError

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed run leaves nobody writing in its folder."""
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_all(work: Callable[..., Any], calls: Iterable[tuple], *, jobs: int) -> list[Any]:
    """`work(*call)` for every call, at most `jobs` at once, results in order; the first error stops the rest.

    With one job all runs in this process.
    """
    calls = list(calls)
    if jobs <= 1 or len(calls) <= 1:
        return [work(*call) for call in calls]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(calls)), mp_context=spawn, initializer=die_with_parent) as pool:
        futures = [pool.submit(work, *call) for call in calls]
        wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((f for f in futures if f.done() and f.exception() is not None), None)
        if failed is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(failed.exception(), BrokenProcessPool):
                raise UserError("a worker process was killed (out of memory?); the same command goes on from here, --jobs 1 needs less")
        return [future.result() for future in ([failed] if failed else futures)]
