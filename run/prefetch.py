"""Prefetching: an iterable that runs in a thread of its own, a few values ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")


@contextmanager
def prefetch(values: Iterable[Value], *, depth: int = 1) -> Iterator[Iterator[Value]]:
    """An iterator over `values`, of which up to `depth` are made before they are asked for.

    What `values` raises is raised where the value would have been taken. Leaving the block ends the thread.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(max(1, depth))
    left = threading.Event()

    def put(word: tuple[str, Any]) -> bool:
        while not left.is_set():
            try:
                made.put(word, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for value in values:
                if not put(("value", value)):
                    return
        except BaseException as error:  # whatever it is, it belongs to the one who takes the values
            put(("error", error))
        else:
            put(("end", None))

    def taken() -> Iterator[Value]:
        while True:
            kind, value = made.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        thread.join()
