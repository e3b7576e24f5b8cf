"""The numbers that the baseline reads of each impression besides embeddings, as one matrix, for models of other kinds.

Legend: n impressions of a split, K numbers.
"""

from __future__ import annotations

import numpy as np
import torch

from ctr.inputs.batches import assemble
from ctr.inputs.encode import HISTORIES, Inputs
from ctr.inputs.sampler import SplitSessions, in_order, split_sessions
from ctr.model.match import history_match, match_names

_SESSIONS = 512  # of a batch


def dense_features(inputs: Inputs, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Match with each history, statistics and co-occurrence of a split's impressions.

    Returns:
        K names, the impressions' rows (n,) int64 in impressions.parquet, and their numbers (n, K) float32.
    """
    return dense_features_of(inputs, split_sessions(inputs.shop, split))


@torch.no_grad()
def dense_features_of(inputs: Inputs, part: SplitSessions) -> tuple[list[str], np.ndarray, np.ndarray]:
    """`dense_features` of these sessions, in their order."""
    names = dense_names(inputs)
    rows, values = [np.zeros(0, np.int64)], [np.zeros((0, len(names)), np.float32)]
    for places in in_order(part, _SESSIONS):
        batch = assemble(inputs, part, places)
        matched = [history_match(batch, history, inputs.layout.distances) for history in batch.histories if inputs.layout.matched]
        rows.append(batch.row.numpy())
        values.append(torch.cat([*matched, batch.log_numbers], dim=1).numpy())
    return names, np.concatenate(rows), np.concatenate(values)


def dense_names(inputs: Inputs) -> list[str]:
    """Names of `dense_features`' columns."""
    names: list[str] = []
    if inputs.layout.matched:
        known = inputs.vocabularies.item
        of_history = match_names(["item", *known.categorical], [scale.column for scale in known.numeric])
        names += [f"{history} {name}" for history in HISTORIES for name in of_history]
    return [*names, *(scale.column for scale in inputs.vocabularies.log_numbers)]
