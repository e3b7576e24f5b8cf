"""Click probabilities of a split, and the file that holds them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning_fabric import Fabric
from torch import nn

from ctr.config import CtrConfig
from ctr.inputs.encode import Inputs
from ctr.inputs.feed import feed_in_order
from ctr.inputs.sampler import split_sessions
from metrics.auc import auc
from metrics.gauc import gauc
from run.distributed import gather_ragged
from run.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A split's impressions by their row in impressions.parquet."""

    row: np.ndarray  # (I',) int64, ascending
    click: np.ndarray  # (I',) int8
    logit: np.ndarray  # (I',) float64

    @property
    def score(self) -> np.ndarray:
        """(I',) float64 probability of a click."""
        return 0.5 * (1 + np.tanh(0.5 * self.logit))


@torch.no_grad()
def predict(model: nn.Module, inputs: Inputs, split: str, fabric: Fabric, config: CtrConfig) -> Predictions:
    """Logits of all impressions of a split; each rank works on its share of each batch, and all get the complete result."""
    model.eval()
    rows, logits = [np.zeros(0, np.int64)], [np.zeros(0)]
    shares = feed_in_order(
        inputs, split_sessions(inputs.shop, split), config.batch_sessions * 4, rank=fabric.global_rank, ranks=fabric.world_size
    )
    for batch, real, _ in shares:
        with fabric.autocast():
            logit = model(fabric.to_device(batch))
        if real:
            rows.append(batch.row.numpy())
            logits.append(logit.double().cpu().numpy())
    row, logit = (_gathered(fabric, np.concatenate(own)) for own in (rows, logits))
    ascending = np.argsort(row)
    return Predictions(row=row[ascending], click=inputs.shop.click[row[ascending]], logit=logit[ascending])


def _gathered(fabric: Fabric, own: np.ndarray) -> np.ndarray:
    """The numbers (n,) of all ranks, in the order of ranks; n differs between ranks."""
    return gather_ragged(fabric, torch.from_numpy(own).to(fabric.device)).cpu().numpy()


def measures(predictions: Predictions, session: np.ndarray) -> dict[str, float | None]:
    """Log loss in nats, AUC, and GAUC over sessions; None where undefined (no impressions, or clicks of one class).

    Args:
        session: (I,) the session of every impression of the shop.
    """
    click, logit = predictions.click.astype(np.float64), predictions.logit
    values = {
        "log_loss": float(np.mean(np.logaddexp(0, logit) - click * logit)) if len(click) else np.nan,
        "auc": auc(predictions.click, logit) if len(click) else np.nan,
        "gauc": gauc(predictions.click, logit, session[predictions.row]).value if len(click) else np.nan,
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def write_predictions(path: Path, by_split: dict[str, Predictions]) -> None:
    """`row`, `click`, `score` (probability) and `split` of every impression of the splits, split after split."""
    frames: list[pl.DataFrame] = []
    for split, found in by_split.items():
        columns: dict[str, Any] = {"row": found.row, "click": found.click, "score": found.score}
        frames.append(pl.DataFrame(columns).with_columns(split=pl.lit(split)))
    content = io.BytesIO()
    pl.concat(frames).write_parquet(content)
    write_atomic(path, content.getvalue())
