"""Processes of one or several ranks, on the CPU over gloo.

`python -m tests.ranks JSON` calls commands in turn in one process (or, under torchrun, in each rank): a start with torch and TorchRec
takes longer than the trainings of tests. JSON is a list of [module, [words, ...]].
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def with_ranks(ranks: int, module: str, words: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """`python -m module words` on a number of ranks, under torchrun if there are several; its output goes to a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = (
        ["-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(port)] if ranks > 1 else []
    )
    with open(output, "w") as out:
        command = [sys.executable, *launcher, "-m", module, *words]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=out, stderr=out)


if __name__ == "__main__":
    for name, words in json.loads(sys.argv[1]):
        status = importlib.import_module(name).main(words)
        if status:
            raise SystemExit(status)
