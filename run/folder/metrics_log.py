"""A training's measurements: metrics.jsonl, and the same numbers for TensorBoard."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run.errors.system import one_line
from run.files import naming, write_atomic

_opened = itertools.count()


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of one training run.

    Args:
        folder: where both are written.
        resume_step: keep lines up to this step and drop later ones (a resumed run writes them again); None: start without lines.
        unit: the key that counts progress in each line.

    Raises:
        OSError: metrics.jsonl cannot be written; it then ends at the line before. Failing TensorBoard events only give a note on stderr.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None, unit: str = "step"):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.unit = folder / "metrics.jsonl", unit
        kept = [line for line in read_metrics(self.path) if resume_step is not None and line[unit] <= resume_step]
        content = "".join(json.dumps(line) + "\n" for line in kept).encode()
        write_atomic(self.path, content)
        self.size = len(content)  # bytes of complete lines
        self.board: _EventFile | None = None
        try:
            self.board = _EventFile(folder, purge_from=None if resume_step is None else resume_step + 1)
        except OSError as error:
            self._without_board(error)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; its numbers also go to TensorBoard."""
        text = (json.dumps(dict(line)) + "\n").encode()
        with naming(self.path):
            if self.path.exists() and self.path.stat().st_size > self.size:
                os.truncate(self.path, self.size)  # drop a line that a full disk has cut off
            _append(self.path, text)
        self.size += len(text)
        numbers = {name: value for name, value in line.items() if name != self.unit and isinstance(value, (int, float))}
        if self.board is not None:
            try:
                self.board.add(numbers, int(line[self.unit]))
            except OSError as error:
                self._without_board(error)

    def close(self) -> None:
        """Does nothing: no file is open between lines."""

    def _without_board(self, error: OSError) -> None:
        print(f"note: no more TensorBoard events ({one_line(error)}); metrics.jsonl continues", file=sys.stderr)
        self.board = None


class _EventFile:
    """Scalars in TensorBoard's format, written at once: torch's SummaryWriter writes in a thread, in which an error ends in a traceback."""

    def __init__(self, folder: Path, *, purge_from: int | None):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_opened)}"
        self._append({"file_version": "brain.Event:2"})
        if purge_from is not None:  # TensorBoard then hides what the run wrote from that step on before it was resumed
            self._append({"step": purge_from, "session_log": SessionLog(status=SessionLog.START)})

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Add numbers at a step."""
        from torch.utils.tensorboard.summary import scalar

        self._append(*({"step": step, "summary": scalar(name, value)} for name, value in numbers.items()))

    def _append(self, *events: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(Event(wall_time=time.time(), **event).SerializeToString())
        _append(self.path, records.getvalue())


def _append(path: Path, content: bytes) -> None:
    with naming(path), open(path, "ab", buffering=0) as file:
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that a kill has cut off is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines
