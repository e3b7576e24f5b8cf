"""Progress with rate and time left: a bar on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Self


class Progress:
    """Counts work done out of a total.

    Args:
        title: what is being done.
        total: how much there is to do.
        unit: what is counted (pictures, impressions).
        start: how much an earlier run had done.
        every: seconds between plain lines if there is no terminal.
    """

    def __init__(self, title: str, *, total: int, unit: str, start: int = 0, every: float = 15.0):
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done = self.start = start
        self.began = self.spoke = time.monotonic()
        self.bar = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and multiprocessing.parent_process() is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = ("{task.description}", BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, text="")
        return self

    def advance(self, amount: int, note: str = "") -> None:
        """Add `amount` to the work done; `note` (a loss, say) is shown with it."""
        self.done += amount
        now = time.monotonic()
        text = f"{self.done:,}/{self.total:,} {self.unit} {self.rate():,.0f}/s {note}"
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=text)
        elif now - self.spoke >= self.every:
            self.spoke = now
            left = (self.total - self.done) / max(self.rate(), 1e-9)
            print(f"{self.title}: {text} {left:,.0f} s left", file=sys.stderr, flush=True)

    def rate(self) -> float:
        """Units per second since this process began."""
        return (self.done - self.start) / max(time.monotonic() - self.began, 1e-9)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
