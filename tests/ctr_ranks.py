"""Trainings of the CTR tests in separate processes, one per rank: python -m tests.ctr_ranks JSON, under torchrun or alone.

JSON is a list of {"folder", "form", "stop_at", other settings of CtrConfig}, run one after the other.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import ctr.training.loop
from ctr.config import PRESETS, CtrConfig
from ctr.training.loop import train_ctr
from tests.ctr_shop import make_shop, pictures

SESSIONS = 402  # 241 in the train split: the last batch of 8 has a single one, so only one rank gets any of it
CONFIG = CtrConfig(**{**PRESETS["tiny"], "batch_sessions": 8}, threads=1, patience=10_000, checkpoint_seconds=1000, validations_per_epoch=1)


class Stop(BaseException):
    """Ends a training as if it had been killed."""


def train(folder: str | Path, *, form: str = "cluster_id", stop_at: int | None = None, **settings: Any) -> dict[str, Any]:
    """Train on the tests' shop, logging every step; with `stop_at`, exit before that step without saving.

    Returns:
        the content of result.json; nothing if it was stopped.
    """
    shop, style = make_shop(sessions=SESSIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctr.training.loop, "_LOG_STEPS", 1)
        if stop_at is not None:
            take_step = ctr.training.loop.take_step

            def dies(run, share):
                if run.state.step == stop_at:
                    raise Stop
                return take_step(run, share)

            patch.setattr(ctr.training.loop, "take_step", dies)
        try:
            return train_ctr(shop, pictures(style, form), dataclasses.replace(CONFIG, **settings), seed=0, folder=Path(folder))
        except Stop:
            assert stop_at is not None
            return {}


if __name__ == "__main__":
    for settings in json.loads(sys.argv[1]):
        train(**settings)
