"""Exports of CTR models trained on a tiny shop, each made once however many test files ask for it, and their scorers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr.export import main as export
from ctr.score import Scorer
from run.folder import locked
from tests.trained_ctr import make_run, run_folder

FORMS = ("none", "vector", "semantic_id", "sim_score", "sim_attention", "cluster_id+sim_tier")  # each form once
HALVED = ("sim_score", "--score-place", "after", "--hash-ids", "50", "--table-precision", "fp16")


def exports_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path, Path]]:
    """A function from a form and training flags to (shop folder, run folder, export folder).

    Shop and run are read only: all processes of a test run share them, and the first that asks makes them. The export is
    the caller's own copy, so that its log can be counted again.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "serving"
    own, there = tmp_path_factory.mktemp("exports"), {}

    def of(form: str, *flags: str) -> tuple[Path, Path, Path]:
        if (form, *flags) not in there:
            run = run_folder(root, form, *flags)
            out = root / f"export-{run.name}"
            made = out / "meta.json"  # written last
            if not made.exists():
                with locked(root, wait=True):
                    if not made.exists():  # another process may have made it meanwhile
                        make_run(root, form, *flags)
                        assert export(["--run", str(run), "--out", str(out)]) == 0
            there[form, *flags] = root / "shop", run, shutil.copytree(out, own / run.name)
        return there[form, *flags]

    return of


def scorers() -> Callable[[Path], Scorer]:
    """A function from an export to its scorer, loaded once, with the log as it is now."""
    loaded = {}

    def of(out: Path) -> Scorer:
        if out not in loaded:
            loaded[out] = Scorer.load(out)
        loaded[out].reload_log()
        return loaded[out]

    return of
