"""Errors of the operating system, whichever library reports them: a full disk is one kind of error, not six."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_INCOMPLETE = "could only be written in part (is the disk full?)"
# how libraries report a short write without its reason: torch.save, numpy
_SHORT_WRITE = re.compile(r"unexpected pos \d+ vs \d+|PytorchStreamWriter failed|\d+ requested and \d+ written")
_QUOTED = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+)|\[Errno (\d+)\]")  # Rust (polars, safetensors) and Python
_KNOWN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EIO)


def system_error(error: BaseException) -> OSError | None:
    """The OSError that `error` is, wraps or quotes; None: something else went wrong.

    An OSError without a number keeps its own text, and has no file name.
    """
    for part in _wrapped(error):
        found = part if isinstance(part, OSError) and part.errno is not None else _quoted(str(part))
        if found is not None:
            return found
    return error if isinstance(error, OSError) else None


def one_line(error: OSError) -> str:
    """`file: reason`, or only the reason if the file is unknown."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return reason
    name = f"file descriptor {error.filename}" if isinstance(error.filename, int) else os.fsdecode(error.filename)
    return f"{name}: {reason}"


def _wrapped(error: BaseException | None) -> Iterator[BaseException]:
    """An error, those it was raised from, and those of all ranks in torch.distributed.checkpoint's CheckpointException."""
    while error is not None:
        failures = getattr(error, "failures", None)
        for failure in failures.values() if isinstance(failures, dict) else ():
            yield from _wrapped(failure[0])
        if type(error).__name__ != "_RemoteTraceback":  # a worker's traceback as text, which may quote errors that were handled there
            yield error
        error = error.__cause__


def _quoted(text: str) -> OSError | None:
    """The system error that a library's message quotes."""
    if _SHORT_WRITE.search(text):
        return OSError(errno.ENOSPC, _INCOMPLETE)
    if found := _QUOTED.search(text):
        number = int(next(filter(None, found.groups())))
        path = re.search(r"\(os error \d+\): (/.+)$", text)
        return OSError(number, os.strerror(number), path[1]) if path else OSError(number, os.strerror(number))
    number = next((number for number in _KNOWN if os.strerror(number) in text), None)
    return None if number is None else OSError(number, os.strerror(number))
