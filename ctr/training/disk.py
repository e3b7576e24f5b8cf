"""Clear errors for a full disk from the writers of torch and safetensors, which raise their own without a reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIGNS = ("no space left", "os error 28", "unexpected pos", "write failed", "file write failed", "quota")  # their words for a full disk


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the block's writers into an OSError that names `path`.

    Raises:
        OSError: ENOSPC where the disk was full, EIO with the library's own words otherwise.
    """
    from safetensors import SafetensorError
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except (RuntimeError, SafetensorError, CheckpointException) as error:
        words = " ".join(f"{type(cause).__name__}: {cause}" for cause in _causes(error))
        if any(sign in words.lower() for sign in _SIGNS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise OSError(errno.EIO, f"not written ({words.splitlines()[0][:200]})", str(path)) from error


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and the errors of each rank."""
    found: list[BaseException] = [error]
    for rank_error, _ in getattr(error, "failures", {}).values():
        found.append(rank_error)
    for other in (error.__cause__, error.__context__):
        if other is not None:
            found.append(other)
    return found
