"""The batches of a training in order, and each rank's share of them; one number, the step, says where in the data a training is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ctr.config import CtrConfig
from ctr.inputs.batches import Batch, IdDropout, assemble
from ctr.inputs.encode import Inputs
from ctr.inputs.sampler import SplitSessions, in_order, share, shuffled


class Share(NamedTuple):
    """One rank's part of a batch."""

    batch: Batch
    real: bool  # False: this rank's part is empty; the batch's first session is a placeholder, because ranks must step together
    impressions: int  # of all ranks


def batches_per_epoch(part: SplitSessions, config: CtrConfig) -> int:
    """Steps of one pass over a split."""
    return math.ceil(len(part.sessions) / config.batch_sessions)


def feed(inputs: Inputs, part: SplitSessions, config: CtrConfig, *, seed: int, first: int, rank: int, ranks: int) -> Iterator[Share]:
    """A rank's shares of the batches of the steps `first`, first + 1, ... until the epochs end."""
    per_epoch = batches_per_epoch(part, config)
    epoch, begin = divmod(first, per_epoch)
    while epoch < config.epochs:
        batches = shuffled(part, config.batch_sessions, seed=seed, epoch=epoch)
        for number in range(begin, per_epoch):
            hidden = IdDropout(share=config.id_dropout, seed=seed, step=epoch * per_epoch + number)
            yield share_of(inputs, part, batches[number], rank=rank, ranks=ranks, id_dropout=hidden)
        epoch, begin = epoch + 1, 0


def feed_in_order(inputs: Inputs, part: SplitSessions, batch_sessions: int, *, rank: int, ranks: int) -> Iterator[Share]:
    """A rank's shares of all sessions of a split, oldest first."""
    for places in in_order(part, batch_sessions):
        yield share_of(inputs, part, places, rank=rank, ranks=ranks)


def share_of(
    inputs: Inputs, part: SplitSessions, places: np.ndarray, *, rank: int, ranks: int, id_dropout: IdDropout | None = None
) -> Share:
    """The share of a batch whose sessions are at `places` in a split."""
    own = share(places, rank, ranks)
    real = len(own) > 0
    return Share(assemble(inputs, part, own if real else places[:1], id_dropout), real, int(part.count[places].sum()))
