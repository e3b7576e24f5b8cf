"""Checkpoints of a CTR training: folders with the state of all ranks, complete or absent, from which any number of ranks can resume.

`checkpoints/step-00000123/` is written under a temporary name and renamed once every rank is done. It holds the tensors
(torch.distributed.checkpoint), `state.json` (where the training was, and its settings) and `sums.json` (the SHA-256 of every file). That
library pickles its index: resume only from checkpoints that you trust like code.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from torch.distributed import checkpoint

from ctr.config import code_of
from ctr.training.disk import explained
from ctr.training.training import State, Training, best_of, restore, restore_best, tensors_of
from run.checkpoint import refuse_other_settings
from run.distributed import gather_objects, summed
from run.errors import UserError
from run.files import naming, read_json, write_atomic, write_json
from run.folder import sha256

FOLDER = "checkpoints"
SUMS, STATE = "sums.json", "state.json"


def save(run: Training, folder: Path) -> None:
    """Write a checkpoint of the training, then remove older ones except the newest `keep_checkpoints` and their best weights.

    Raises:
        OSError: it cannot be written, because the disk is full, say; earlier checkpoints stay.
    """
    path = step_path(folder, run.state.step)
    temporary, rank = path.with_name(f".{path.name}"), run.fabric.global_rank
    if rank == 0:
        for partial in (folder / FOLDER).glob(".step-*"):  # of a run that was killed
            shutil.rmtree(partial, ignore_errors=True)
        temporary.mkdir(parents=True)
    run.fabric.barrier()
    try:
        with naming(path), explained(path):
            checkpoint.save(tensors_of(run), storage_writer=checkpoint.FileSystemWriter(temporary))
            sums = gather_sums({file.name: sha256(file) for file in temporary.glob(f"__{rank}_*")})
            if rank == 0:
                _complete(run, temporary, sums)
                shutil.rmtree(path, ignore_errors=True)  # one refused earlier
                os.replace(temporary, path)
    except BaseException:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if rank == 0:
        prune(folder, run.config.keep_checkpoints)
    run.fabric.barrier()  # the next step may read it


def _complete(run: Training, folder: Path, sums: dict[str, str]) -> None:
    """Write the state, and last the checksums of all files, into a checkpoint whose tensors are written."""
    state = {"state": asdict(run.state), "settings": run.settings, "code": code_of(run.form)}
    write_atomic(folder / STATE, json.dumps(state, indent=1).encode())  # the best log loss is infinite before the first validation
    for file in folder.iterdir():
        sums.setdefault(file.name, sha256(file))
    write_json(folder / SUMS, sums)


def load(run: Training, folder: Path) -> bool:
    """Restore the newest complete checkpoint, written by any number of ranks; False: there is none, and the run starts afresh.

    One that is cut off or changed is named on stderr, and the one before it is used.

    Raises:
        UserError: there are checkpoints, but none is complete, or the run was started with other settings.
    """
    path = newest_complete(run, folder)
    if path is None:
        return False
    saved = read_json(path / STATE)
    refuse_other_settings(folder / FOLDER, saved["settings"], run.settings)
    if saved.get("code") != code_of(run.form) and run.fabric.is_global_zero:
        print(f"note: {folder / FOLDER}: started by other code than this; delete it to start over", file=sys.stderr)
    tensors = tensors_of(run)
    checkpoint.load(tensors, storage_reader=checkpoint.FileSystemReader(path))
    restore(run, tensors)
    run.state = State(**saved["state"])
    return True


def load_best(run: Training, folder: Path) -> None:
    """Load the weights of the best validation, from that step's checkpoint, into the model."""
    tensors = best_of(run)
    checkpoint.load(tensors, storage_reader=checkpoint.FileSystemReader(step_path(folder, run.state.best_step)))
    restore_best(run, tensors)


def remove(folder: Path) -> None:
    """Delete all checkpoints."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def step_path(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after this many steps."""
    return folder / FOLDER / f"step-{step:08d}"


def newest_complete(run: Training, folder: Path) -> Path | None:
    """The newest checkpoint whose checksums match, with that of its best step; each rank checks a share of the files."""
    found: list[Path] = run.fabric.broadcast(sorted((folder / FOLDER).glob("step-*"), reverse=True))
    for path in found:
        broken = what_is_broken(path, rank=run.fabric.global_rank, ranks=run.fabric.world_size)
        if broken:
            print(broken if path is found[-1] else f"{broken}; the checkpoint before it is used", file=sys.stderr)
        if summed(run.fabric, float(bool(broken))) == [0.0]:
            return path
    if found:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder / FOLDER}: none of its checkpoints is complete ({names}); delete it to start over")
    return None


def what_is_broken(path: Path, *, rank: int = 0, ranks: int = 1) -> str:
    """A message about the first file that has changed since it was written, of every `ranks`-th from `rank` on; "" if there is none."""
    try:
        sums: dict[str, str] = json.loads((path / SUMS).read_text())
        wrong = next((name for name, wanted in list(sums.items())[rank::ranks] if sha256(path / name) != wanted), None)
        if wrong is None and STATE in sums:
            best = json.loads((path / STATE).read_text())["state"]["best_step"]
            other = step_path(path.parent.parent, best)
            return "" if not best or other == path else what_is_broken(other, rank=rank, ranks=ranks)
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    except ValueError:
        return f"{path / SUMS}: not readable"
    return f"{path / (wrong or STATE)}: cut off or changed since it was written"


def prune(folder: Path, count: int) -> None:
    """Delete checkpoints except the newest `count` and those that hold the best weights of these."""
    found = sorted((folder / FOLDER).glob("step-*"))
    kept = set(found[-count:])
    bests = {step_path(folder, read_json(path / STATE)["state"]["best_step"]) for path in kept}
    for path in set(found) - kept - bests:
        shutil.rmtree(path)


def gather_sums(own: dict[str, str]) -> dict[str, str]:
    """The checksums of the files that each rank wrote, of all ranks."""
    return {name: value for sums in gather_objects(own) for name, value in sums.items()}
