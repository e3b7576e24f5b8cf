"""Distribute work over processes of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from run.errors import UserError
from run.errors.hooks import guard_hooks
from run.errors.streams import guard_streams
from run.errors.system import system_error

_PR_SET_PDEATHSIG = 1


class _OwnWorkers(SpawnContext):
    """The spawn start method, which remembers the processes it has started: this process's other children must not be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **options)
        self.started.append(process)
        return process


class Workers:
    """At most `jobs` worker processes, started by the first calls that need them and kept until the `with` block ends.

    A worker takes seconds to import what it needs, and some runs make hundreds of small calls in a few waves. Workers use one thread each,
    so sums do not depend on the number of cores.
    """

    def __init__(self, jobs: int):
        self.jobs = jobs
        self._own = _OwnWorkers()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._own.started:
            if process.pid is not None:
                process.terminate()

    def run(
        self, work: Callable[..., Any], calls: Iterable[tuple], *, titles: Iterable[str] | None = None, here: bool = False
    ) -> list[Any]:
        """`work(*call)` for every call, results in order; the first error, or Ctrl-C, stops the rest.

        Args:
            titles: one per call, printed to stderr as the call begins; "" prints nothing.
            here: in this process, one after another, as with one job or one call.

        Raises:
            UserError: a worker was killed; otherwise what the call raised.
        """
        calls = list(calls)
        titled = list(zip([""] * len(calls) if titles is None else titles, calls, strict=True))
        if here or self.jobs <= 1 or len(calls) <= 1:
            return [_titled(title, work, call) for title, call in titled]
        with _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"):  # of workers, which the first call starts
            try:
                self._pool = self._pool or ProcessPoolExecutor(self.jobs, mp_context=self._own, initializer=_begin, initargs=(os.getpid(),))
                futures = [self._pool.submit(_in_worker, title, work, call) for title, call in titled]
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in sorted(futures, key=_failed, reverse=True):  # failed ones first: the others may not have started
                    future.result()
                return [future.result() for future in futures]
            except BrokenProcessPool:
                raise UserError(
                    "a worker process was killed (out of memory?); the same command resumes here, --jobs 1 needs less"
                ) from None


def _titled(title: str, work: Callable[..., Any], call: tuple) -> Any:
    if title:
        sys.stderr.write(title + "\n")  # in one write: print writes the line's end separately, and workers share stderr
        sys.stderr.flush()
    return work(*call)


def _in_worker(title: str, work: Callable[..., Any], call: tuple) -> Any:
    """`_titled`, with system errors as OSError: not every library's errors can be sent between processes."""
    try:
        return _titled(title, work, call)
    except UserError:
        raise
    except BaseException as error:
        refused = system_error(error)
        if refused is None:
            raise
        raise OSError(refused.errno, refused.strerror or str(refused), refused.filename) from None


def _failed(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


def _begin(parent: int) -> None:
    """Set a worker up to leave Ctrl-C to the parent and to die with it: a killed run must not leave a writer in its folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard_streams()
    guard_hooks()
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
