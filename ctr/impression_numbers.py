"""All that the baseline knows of an impression as one row of numbers, for models that read no histories.

Legend: n impressions, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.inputs.encode import HISTORIES, Inputs
from ctr.inputs.rules import Rules
from ctr.inputs.sampler import SplitSessions
from ctr.model.dense_features import dense_features_of
from data.arrays.ranges import ranges
from data.log.histories import jagged_events

MOST_VALUES = 1_000  # a column with more values is left out: its values' statistics are among the numbers


@dataclass(frozen=True, kw_only=True)
class ImpressionNumbers:
    """n impressions by K columns."""

    names: tuple[str, ...]  # (K,)
    codes: tuple[int, ...]  # which columns hold codes of categories instead of quantities
    rows: np.ndarray  # (n,) int64 rows of impressions.parquet
    values: np.ndarray  # (n, K) float32
    start: np.ndarray | None  # (n,) logits of the user's own model, from which predictions start; None: from 0


def impression_numbers(inputs: Inputs, part: SplitSessions) -> ImpressionNumbers:
    """Statistics, co-occurrence, match, categories, numeric columns and history lengths of all impressions of some sessions.

    The IDs of items and users are left out: a tree would only memorise them, and their counts are among the statistics. Texts are left
    out too.
    """
    dense_names, rows, dense = dense_features_of(inputs, part)
    item, user = inputs.shop.item[rows], inputs.shop.user[rows]
    numbers = inputs.vocabularies
    quantities = [
        (dense_names, dense),
        (number_names(numbers.item), inputs.items.numeric[item]),
        (number_names(numbers.user), inputs.users.numeric[user]),
        (number_names(numbers.context), inputs.context.numeric[rows]),
        ([f"{name}: length" for name in HISTORIES], _lengths(inputs, part)),
    ]
    start = None if inputs.own_logit is None else inputs.own_logit[rows]
    if start is not None:
        quantities.append((["own logit"], start[:, None]))
    categories = [
        _categories(numbers.item, inputs.items.rows, item),
        _categories(numbers.user, inputs.users.rows, user),
        _categories(numbers.context, inputs.context.rows, rows),
    ]
    names = tuple(name for found, _ in (*quantities, *categories) for name in found)
    values = np.concatenate([found for _, found in (*quantities, *categories)], axis=1, dtype=np.float32)
    first = sum(len(found) for found, _ in quantities)
    return ImpressionNumbers(names=names, codes=tuple(range(first, len(names))), rows=rows, values=values, start=start)


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
