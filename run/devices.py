"""Which device, which precision and how many threads: the one place that sets up Lightning Fabric."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h


def set_up(threads: int = 0, precision: str = "32-true") -> Fabric:
    """A Fabric on the GPU if there is one, else on the CPU; under torchrun, one process per rank.

    Args:
        threads: CPU threads of this process; 0: torch's choice. The number decides how sums are grouped: runs to be compared bit for bit
            must use the same one.
        precision: Fabric's names, such as "32-true", "bf16-mixed", "16-mixed".
    """
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning_fabric import Fabric
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # otherwise each rank prints several lines
    warnings.filterwarnings("ignore", message="torch.distributed.nn.functional")  # Fabric gathers with it in this version

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    if precision == "16-mixed" and not torch.cuda.is_available():
        # most CPUs do half precision in software, at a tenth of the speed
        print("no GPU: precision 32-true in place of 16-mixed", file=sys.stderr)
        precision = "32-true"
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    fabric = Fabric(accelerator="auto", devices=ranks // nodes, num_nodes=nodes, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 256 MiB, and 512 MiB in all, for the next step.

    glibc gives large freed blocks back to the kernel, which has to clear them page by page when they are next asked for: half of a forward
    pass's time on a CPU. It changes no number. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 256 * 2**20)
        libc.mallopt(_TRIM_THRESHOLD, 512 * 2**20)


def scales_losses(fabric: Fabric) -> bool:
    """True in "16-mixed" on a GPU, where steps with infinite gradients are skipped."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    """The loss scale of "16-mixed" as plain numbers for a checkpoint; empty in every other precision."""
    return fabric.strategy.precision.state_dict()


def restore_scaler(fabric: Fabric, saved: dict[str, Any] | None) -> None:
    """Restore `scaler_state`; if the checkpoint holds none, the scale starts from its default."""
    if saved:
        fabric.strategy.precision.load_state_dict(saved)


def default_jobs() -> int:
    """How many trainings to run at once: one on a GPU, otherwise one per CPU core: small models gain little from a second thread."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, len(os.sched_getaffinity(0)))
