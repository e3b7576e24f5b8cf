"""A disk without room, for tests of what a writer leaves behind."""

from __future__ import annotations

import resource
from contextlib import contextmanager


@contextmanager
def room_for(size: int):
    """No file may grow beyond `size` bytes: the error of a full disk, with another errno."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
