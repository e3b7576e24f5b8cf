"""Batches of complete sessions: every distinct item of a batch is in it once, and targets and histories refer to it by index.

U distinct items, S sessions, B impressions, Q distinct queries, L history items, P most impressions in a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from ctr.inputs.encode import Inputs
from ctr.inputs.length_buckets import BucketedHistory, length_buckets
from ctr.inputs.sampler import SplitSessions
from data.arrays.ranges import ranges
from data.log.histories import jagged_events
from run.randomness import uniform

_UNKNOWN = 0  # the table row of IDs that the train split does not hold; with --ctr.hash-ids an ordinary row
_ID_TABLES = ("item", "user")


class Batch(NamedTuple):
    """A named tuple, because Fabric moves and casts its parts."""

    ids: KeyedJaggedTensor  # one row per key: U, S or B table rows for a column of items, users or the context
    words: KeyedJaggedTensor | None  # key "word": the words of U titles (if any), then of Q queries (if any)
    item_numeric: Tensor  # (U, M)
    user_numeric: Tensor  # (S, M')
    context_numeric: Tensor  # (B, M'')
    log_numbers: Tensor  # (B, K) statistics and co-occurrence, standardised
    own_logit: Tensor | None  # (B,) float32 of the user's own model
    codes: Tensor  # (U, C) int32: which value of each matched column an item has; 0 where it is missing
    group: Tensor | None  # (U,) int32: the category of an item; 0 where it is missing; None: it is not read
    vectors: Tensor | None  # (U, D) zero rows where absent: the form that enters as item numbers
    unit: Tensor | None  # (U, D) unit rows, zero rows where absent: forms that compare pictures
    present: Tensor  # (U,) bool
    histories: tuple[BucketedHistory, ...]  # clicks, purchases, cart
    target: Tensor  # (B,) int64: which distinct item
    session: Tensor  # (B,) int64: which session
    query: Tensor  # (B,) int64: which distinct query
    grid: Tensor  # (S, P) int64: one row of targets per session; 0 where a session has fewer
    slot: Tensor  # (B,) int64: the impression's place in its session: grid[session, slot] = target
    click: Tensor  # (B,) float32
    row: Tensor  # (B,) int64 rows of impressions.parquet


@dataclass(frozen=True, kw_only=True)
class IdDropout:
    """Which IDs of a training batch are taken for unknown ones: the same in any order of sessions, on any rank and after a resume.

    The embedding of an ID learns the clicks of its own impressions by heart, and a model that relies on it ranks worse from the second
    epoch on. With most IDs hidden, the model has to explain clicks by what it will also know of others; and row 0 learns what to make
    of new IDs.
    """

    share: float  # of IDs
    seed: int
    step: int

    def of(self, table: str, rows: np.ndarray) -> np.ndarray:
        """The rows (n,) of a table, those of hidden IDs as the unknown one; other tables' as they are.

        >>> hidden = IdDropout(share=0.5, seed=0, step=3)
        >>> hidden.of("item", np.arange(1, 9)).tolist(), hidden.of("item:brand", np.arange(1, 9)).tolist()
        ([1, 2, 3, 4, 0, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8])
        """
        if not self.share or table not in _ID_TABLES:
            return rows
        return np.where(uniform(self.seed, "id dropout", table, self.step, rows) < self.share, _UNKNOWN, rows)


def assemble(inputs: Inputs, part: SplitSessions, places: np.ndarray, id_dropout: IdDropout | None = None) -> Batch:
    """Gather the batch of the sessions at `places` (S,), with IDs hidden in training."""
    shop = inputs.shop
    sessions, count = part.sessions[places], part.count[places]
    rows = part.rows[ranges(part.start[places], count)]
    session = np.repeat(np.arange(len(places)), count)
    slot = ranges(np.zeros_like(count), count)
    items, targets, histories = _distinct(inputs, rows, sessions, count)
    users = shop.session_user[sessions]
    queries, query = np.unique(inputs.query[rows], return_inverse=True)
    grid = np.zeros((len(places), count.max(initial=1)), dtype=np.int64)
    grid[session, slot] = targets
    tables = [table.name for table in (*inputs.layout.item, *inputs.layout.user, *inputs.layout.context)]
    table_rows = [*inputs.items.rows[:, items], *inputs.users.rows[:, users], *inputs.context.rows[:, rows]]
    if id_dropout is not None:
        table_rows = [id_dropout.of(table, of_table) for table, of_table in zip(tables, table_rows, strict=True)]
    return Batch(
        ids=_ids(tables, table_rows),
        words=_words(inputs, items, queries),
        item_numeric=torch.from_numpy(inputs.items.numeric[items]),
        user_numeric=torch.from_numpy(inputs.users.numeric[users]),
        context_numeric=torch.from_numpy(inputs.context.numeric[rows]),
        log_numbers=torch.from_numpy(inputs.log_numbers[rows]),
        own_logit=None if inputs.own_logit is None else torch.from_numpy(inputs.own_logit[rows]),
        codes=torch.from_numpy(inputs.codes[items, : inputs.layout.matched]),
        group=None if inputs.layout.group < 0 else torch.from_numpy(inputs.codes[items, inputs.layout.group]),
        vectors=None if inputs.vectors is None else torch.from_numpy(inputs.vectors[items]),
        unit=None if inputs.unit is None else torch.from_numpy(inputs.unit[items]),
        present=torch.from_numpy(inputs.present[items]),
        histories=histories,
        target=torch.from_numpy(targets),
        session=torch.from_numpy(session),
        query=torch.from_numpy(query),
        grid=torch.from_numpy(grid),
        slot=torch.from_numpy(slot),
        click=torch.from_numpy(shop.click[rows].astype(np.float32)),
        row=torch.from_numpy(rows),
    )


def _distinct(
    inputs: Inputs, rows: np.ndarray, sessions: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[BucketedHistory, ...]]:
    """The distinct items (U,), targets (B,) as places among them, and the histories."""
    distinct, bucketed = [], []
    for history in inputs.histories:
        events, lengths = jagged_events(history, sessions, session_time=inputs.shop.session_time)
        items, place = np.unique(history.item[events], return_inverse=True)
        age = np.repeat(inputs.shop.session_time[sessions], lengths) - history.time[events]
        distinct.append(items)
        bucketed.append(length_buckets(place, age, lengths, count, each_impression=inputs.each_impression))
    items, place = np.unique(np.concatenate([inputs.shop.item[rows], *distinct]), return_inverse=True)
    targets, *places = np.split(place, np.cumsum([len(rows), *map(len, distinct)])[:-1])
    histories = (BucketedHistory(torch.from_numpy(at), of) for at, of in zip(places, bucketed, strict=True))
    return items, targets, tuple(histories)


def _ids(keys: list[str], rows: list[np.ndarray]) -> KeyedJaggedTensor:
    """Table rows of each key as one jagged row: keys of U, S and B values share a tensor without padding."""
    lengths = [len(part) for part in rows]
    return KeyedJaggedTensor(
        keys=keys,
        values=torch.from_numpy(np.concatenate(rows).astype(np.int64)),
        lengths=torch.tensor(lengths, dtype=torch.int32),
        stride=1,
        length_per_key=lengths,
        offset_per_key=np.cumsum([0, *lengths]).tolist(),
    )


def _words(inputs: Inputs, items: np.ndarray, queries: np.ndarray) -> KeyedJaggedTensor | None:
    texts = ((inputs.titles, items), (inputs.queries, queries))
    taken = [ragged.take(index) for ragged, index in texts if ragged is not None]
    if not taken:
        return None
    values = np.concatenate([rows for rows, _ in taken]).astype(np.int64)
    lengths = np.concatenate([lengths for _, lengths in taken]).astype(np.int32)
    return KeyedJaggedTensor(keys=["word"], values=torch.from_numpy(values), lengths=torch.from_numpy(lengths))
