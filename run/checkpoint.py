"""Checkpoints of a training run: whole or not at all, and never unpickled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from run.errors import UserError
from run.files import write_atomic

_SHORT = 40  # characters of a setting's value that an error repeats


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a kill leaves the checkpoint before."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what `save_checkpoint` wrote, on the CPU; None where there is no such file.

    Raises:
        UserError: the file is cut off, corrupt, or holds anything but tensors and plain values.
    """
    import torch

    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to begin again") from None


def refuse_other_settings(path: Path, begun: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to go on from the checkpoint `path` of a run that was `begun` with other settings than those of `now`.

    Raises:
        UserError: it names the settings that differ, with both values where they are short.
    """
    other = []
    for name, value in now.items():
        before = begun.get(name)
        if before != value:
            short = before is not None and max(len(before), len(value)) <= _SHORT
            other.append(f"{name}: {before} then, {value} now" if short else name)
    if other:
        raise UserError(f"{path}: begun with other settings ({', '.join(other)}); delete it or give another --out")
