"""Which device, precision and how many threads: Lightning Fabric decides, one place asks."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def set_up(threads: int = 0, precision: str = "32-true") -> Fabric:
    """A Fabric on the GPU where there is one, else on the CPU; under torchrun one process a rank.

    Args:
        threads: CPU threads of this process; 0 leaves torch's choice. Sums are grouped by thread, so that runs to be compared bit for bit
            must use the same number.
        precision: Fabric's names, such as "32-true", "bf16-mixed", "16-mixed".
    """
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning_fabric import Fabric
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else each rank says at length that it begins
    warnings.filterwarnings("ignore", message="torch.distributed.nn.functional")  # what Fabric gathers with in this version

    if threads:
        torch.set_num_threads(threads)
    if precision == "16-mixed" and not torch.cuda.is_available():
        print(
            "no GPU: precision 32-true in place of 16-mixed", file=sys.stderr
        )  # most CPUs do half precision in software, at a tenth of the speed
        precision = "32-true"
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    fabric = Fabric(accelerator="auto", devices=ranks // nodes, num_nodes=nodes, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def scales_losses(fabric: Fabric) -> bool:
    """True in "16-mixed" on a GPU, where steps with infinite gradients are skipped."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    """The loss scale that "16-mixed" has come to, as plain numbers for a checkpoint; empty in every other precision."""
    return fabric.strategy.precision.state_dict()


def restore_scaler(fabric: Fabric, saved: dict[str, Any] | None) -> None:
    """Take `scaler_state` back; where a checkpoint holds none, the scale begins anew."""
    if saved:
        fabric.strategy.precision.load_state_dict(saved)


def default_jobs() -> int:
    """How many trainings to run side by side: one on a GPU, else one a CPU core, for small models gain little from a second thread."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, len(os.sched_getaffinity(0)))
