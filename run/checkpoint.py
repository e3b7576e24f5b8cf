"""Checkpoints and weights of a training run: complete or absent, and never unpickled."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run.errors import UserError
from run.files import replacing, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

_SHORT = 40  # characters of a setting's value that an error repeats


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; after a kill, the previous checkpoint is still there."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what `save_checkpoint` wrote, on the CPU; None if there is no such file.

    Raises:
        UserError: the file is cut off, corrupt, or holds anything but tensors and plain values.
    """
    import torch

    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for a broken file
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to train from scratch") from None


def write_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend only on its content, with the same read permissions as the folder's other files.

    The library writes the metadata in an order that changes from process to process, and into a file that only its owner can read.
    """
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary, metadata=dict(metadata))
        temporary.chmod(mode)
        with open(temporary, "r+b") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            if "__metadata__" in header:
                header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) <= size:  # the format pads a header with spaces
                file.seek(8)
                file.write(text.ljust(size))


def refuse_other_settings(path: Path, begun: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to resume the checkpoint `path` of a run whose settings at its start (`begun`) differ from those of `now`.

    Raises:
        UserError: names the settings that differ, with both values if they are short.
    """
    other = []
    for name, value in now.items():
        before = begun.get(name)
        if before != value:
            short = before is not None and max(len(before), len(value)) <= _SHORT
            other.append(f"{name}: {before} then, {value} now" if short else name)
    if other:
        raise UserError(f"{path}: started with other settings ({', '.join(other)}); delete it or give another --out")
