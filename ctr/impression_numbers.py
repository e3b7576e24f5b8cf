"""All that the baseline knows of an impression as one row of numbers, for models that read no histories.

Legend: n impressions, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.inputs.batches import assemble
from ctr.inputs.encode import HISTORIES, Inputs
from ctr.inputs.rules import Rules
from ctr.inputs.sampler import SplitSessions, in_order
from ctr.model.match import bucket_match, match_names
from data.arrays.ranges import ranges
from data.log.histories import jagged_events

MOST_VALUES = 1_000  # a column with more values is left out: its values' statistics are among the numbers
_AT_ONCE = 512  # sessions


@dataclass(frozen=True, kw_only=True)
class ImpressionNumbers:
    """n impressions by K columns."""

    names: tuple[str, ...]  # (K,)
    codes: tuple[int, ...]  # which columns hold codes of categories instead of quantities
    rows: np.ndarray  # (n,) int64 rows of impressions.parquet
    values: np.ndarray  # (n, K) float32


def impression_numbers(inputs: Inputs, part: SplitSessions) -> ImpressionNumbers:
    """Statistics, co-occurrence, match, categories, numeric columns and history lengths of all impressions of some sessions.

    The IDs of items and users are left out: a tree would only memorise them, and their counts are among the statistics. Texts are left
    out too.
    """
    rows = part.rows[ranges(part.start, part.count)]
    item, user = inputs.shop.item[rows], inputs.shop.user[rows]
    numbers = inputs.vocabularies
    quantities = [
        (dense_names(inputs), dense_values(inputs, part)),
        (number_names(numbers.item), inputs.items.numeric[item]),
        (number_names(numbers.user), inputs.users.numeric[user]),
        (number_names(numbers.context), inputs.context.numeric[rows]),
        ([f"{name}: length" for name in HISTORIES], _lengths(inputs, part)),
    ]
    categories = [
        _categories(numbers.item, inputs.items.rows, item),
        _categories(numbers.user, inputs.users.rows, user),
        _categories(numbers.context, inputs.context.rows, rows),
    ]
    names = tuple(name for found, _ in (*quantities, *categories) for name in found)
    values = np.concatenate([found for _, found in (*quantities, *categories)], axis=1, dtype=np.float32)
    first = sum(len(found) for found, _ in quantities)
    return ImpressionNumbers(names=names, codes=tuple(range(first, len(names))), rows=rows, values=values)


def dense_names(inputs: Inputs) -> list[str]:
    """Names of `dense_values`' columns."""
    known, layout = inputs.vocabularies, inputs.layout
    columns = ["item", *known.item.categorical] if layout.matched else []
    distances = [scale.column for scale in known.item.numeric] if layout.distances else []
    matched = [f"{history}: {name}" for history in HISTORIES for name in match_names(columns, distances)]
    return [*(scale.column for scale in known.log_numbers), *matched]


def dense_values(inputs: Inputs, part: SplitSessions) -> np.ndarray:
    """(n, K) float32: statistics and co-occurrence, then the match with each history; 0 where a session has no history."""
    layout, done = inputs.layout, 0
    numbers, names = len(inputs.vocabularies.log_numbers), dense_names(inputs)
    values = np.zeros((int(part.count.sum()), len(names)), np.float32)
    width = (len(names) - numbers) // len(HISTORIES)
    for places in in_order(part, _AT_ONCE):
        batch = assemble(inputs, part, places)
        block = values[done : done + len(batch.row)]
        block[:, :numbers] = batch.log_numbers.numpy()
        for place, history in enumerate(batch.histories if width else ()):
            own = block[:, numbers + place * width :][:, :width]
            for bucket in history.buckets:
                if len(bucket.impression):
                    own[bucket.impression.numpy()] = bucket_match(batch, history, bucket, layout.distances).numpy()
        done += len(block)
    return values


def thinned(part: SplitSessions, most: int) -> SplitSessions:
    """Every second, third, ... session of a part, so that about `most` impressions remain; the part itself if it has no more."""
    step = -(-len(part.rows) // most)
    if step <= 1:
        return part
    start, count = part.start[::step], part.count[::step]
    return SplitSessions(rows=part.rows[ranges(start, count)], sessions=part.sessions[::step], start=np.cumsum(count) - count, count=count)


def number_names(rules: Rules) -> list[str]:
    """Names of a table's numeric columns; a flag of missing values follows its column."""
    return [
        name
        for scale in rules.numeric
        for name in (f"{rules.kind}: {scale.column}", f"{rules.kind}: {scale.column} missing")[: 1 + scale.flag]
    ]


def _lengths(inputs: Inputs, part: SplitSessions) -> np.ndarray:
    """(n, H) items in each history."""
    times = inputs.shop.session_time
    lengths = [jagged_events(history, part.sessions, session_time=times)[1] for history in inputs.histories]
    return np.repeat(np.stack(lengths, axis=1), part.count, axis=0)


def _categories(rules: Rules, table_rows: np.ndarray, index: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names, and (n, C) table rows, of the categorical columns with few enough values."""
    first = 0 if rules.ids is None else 1  # the table's first line are the ids
    kept = [
        (f"{rules.kind}: {name}", first + place)
        for place, (name, found) in enumerate(rules.categorical.items())
        if found.size <= MOST_VALUES
    ]
    return [name for name, _ in kept], table_rows[[place for _, place in kept]][:, index].T
