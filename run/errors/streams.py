"""Standard output and error that never lose a result, even if closed early, closed from the start, full, or unable to encode a name."""

from __future__ import annotations

import io
import os
import select
import sys


class _Lenient(io.RawIOBase):
    """Writes to a file descriptor until it fails; later bytes are dropped, and the first error is kept."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.error: OSError | None = None

    def write(self, data) -> int:
        while self.error is None:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:  # a pipe that another process has made non-blocking
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.error = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)


_guarded: dict[str, _Lenient] = {}


def guard_streams() -> None:
    """Make the process's own stdout and stderr lenient; streams put in their place by others are only made to escape characters."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by `>&-`: the next file opened would get this number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            encoding = "utf-8" if stream is None else stream.encoding
            if stream is not None:
                stream.flush()
            _guarded[name] = raw = _Lenient(descriptor)
            lines = name == "stderr" or raw.isatty()
            buffer = io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=lines))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def output_error() -> OSError | None:
    """Why standard output is incomplete; None: it is complete, or its reader closed it on purpose."""
    if sys.stdout is not None:
        sys.stdout.flush()
    raw = _guarded.get("stdout")
    return None if raw is None or isinstance(raw.error, BrokenPipeError) else raw.error
