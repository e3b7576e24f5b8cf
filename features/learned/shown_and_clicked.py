"""Pairs of an item shown in training and one that its user had clicked before: what forms that compare the two learn from."""

from __future__ import annotations

import numpy as np

from data.log.histories import click_history, jagged
from data.log.shop_folder import Shop
from run.randomness import hashed, permutation

_CLICKS = 50  # newest clicks that a pair's second item is drawn from
_AT_ONCE = 1 << 16  # pairs whose vectors are gathered at once


def shown_and_clicked(shop: Shop, *, seed: int, most: int = 200_000) -> np.ndarray:
    """(n, 2) item indices: shown in the train split, and clicked by the same user before that session; never the same item twice.

    Args:
        seed: of the impressions that are taken, and of the click that each is paired with.
        most: n at most.
    """
    rows = shop.rows("train")
    rows = np.sort(rows[permutation(len(rows), seed, "shown")[:most]])
    session, place = np.unique(shop.session[rows], return_inverse=True)
    clicked, lengths = jagged(click_history(shop, max_items=_CLICKS), session)
    start, count = (np.cumsum(lengths) - lengths)[place], lengths[place]
    rows, start, count = rows[count > 0], start[count > 0], count[count > 0]
    drawn = start + (hashed(seed, "clicked", rows) % count.astype(np.uint64)).astype(np.int64)
    pairs = np.stack([shop.item[rows], clicked[drawn]], axis=1).astype(np.int64)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def cosines_of(pairs: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(m,) float32 cosines of those of (n, 2) pairs of items in which both have a picture; (N, D) unit rows, zero rows without one."""
    present = np.any(vectors, axis=1)
    pairs = pairs[np.all(present[pairs], axis=1)]
    parts = [pairs[at : at + _AT_ONCE] for at in range(0, len(pairs), _AT_ONCE)]
    found = [np.einsum("nd,nd->n", vectors[part[:, 0]], vectors[part[:, 1]]) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, np.float32)
