"""Prefetching: an iterable consumed in its own thread, a few values ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")


@contextmanager
def prefetch(values: Iterable[Value], *, depth: int = 1) -> Iterator[Iterator[Value]]:
    """An iterator over `values`; up to `depth` of them are computed before they are requested.

    An exception in `values` is raised where its value would have been returned. Leaving the block ends the thread.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(max(1, depth))
    left = threading.Event()

    def put(message: tuple[str, Any]) -> bool:
        while not left.is_set():
            try:
                ready.put(message, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for value in values:
                if not put(("value", value)):
                    return
        except BaseException as error:  # of any kind: raised again in the consumer
            put(("error", error))
        else:
            put(("end", None))

    def received() -> Iterator[Value]:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        left.set()
        thread.join()
