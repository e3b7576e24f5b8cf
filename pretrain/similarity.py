"""Cosine scores between an item's picture and a user's earlier clicks (paper, Eq. 8): validation and the SimScore feature share them."""

from __future__ import annotations

import numpy as np

from data.log.histories import click_history, padded
from data.log.shop_folder import Shop


def normalise(vectors: np.ndarray) -> np.ndarray:
    """(N, D) floats -> unit rows of the same type; a zero row stays zero.

    If squares overflow or vanish in that type, and a length would be infinite, 0 or inexact, the row is first divided by its largest
    entry.
    """
    with np.errstate(over="ignore", under="ignore"):
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    odd = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] >= _shortest(vectors.dtype))))
    odd = odd[vectors[odd].any(1)]
    unit[odd] = _scaled(vectors[odd])
    return unit


def as_float32(vectors: np.ndarray) -> np.ndarray:
    """(N, D) numbers -> float32; finite rows that would become infinite or nearly zero get unit length, in their direction."""
    with np.errstate(over="ignore", under="ignore"):
        out = vectors.astype(np.float32, copy=False)
    if vectors.dtype.itemsize > out.itemsize and len(out):
        largest = np.abs(out).max(1)
        odd = np.flatnonzero(~(np.isfinite(largest) & (largest >= _shortest(out.dtype))))
        odd = odd[np.isfinite(vectors[odd]).all(1) & vectors[odd].any(1)]
        out[odd] = _scaled(vectors[odd])
    return out


def _shortest(kind: np.dtype) -> float:
    """The length from which on squares are normal numbers of a type."""
    return float(np.sqrt(np.finfo(kind).tiny)) if np.issubdtype(kind, np.floating) else 0.0


def _scaled(rows: np.ndarray) -> np.ndarray:
    """(M, D) nonzero rows -> float64 unit rows, without squares that overflow or vanish."""
    scaled = (rows / np.abs(rows).max(1, keepdims=True)).astype(np.float64)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def common_part(unit_vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(D,) mean of the (N, D) unit rows over the items `known` (M,) that have a picture; zeros where fewer than two have one."""
    known = known[np.any(unit_vectors[known], axis=1)]
    return unit_vectors[known].mean(0) if len(known) > 1 else np.zeros(unit_vectors.shape[1], unit_vectors.dtype)


def centred(unit_vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Unit rows less their mean over the items `known`, of unit length again; zero rows stay zero.

    Embeddings share a part (a mean direction), which makes cosines measure how typical a picture looks, for every user. Those taken
    before a projection (SimCLR's) share so much of it that their raw cosines rank no better than chance.

    Args:
        unit_vectors: (N, D), zero rows where an item has no picture.
        known: (M,) items over which the mean is taken.
    """
    return without_common(unit_vectors, common_part(unit_vectors, known))


def without_common(unit_vectors: np.ndarray, common: np.ndarray) -> np.ndarray:
    """(N, D) unit rows less the (D,) part `common`, of unit length again; zero rows stay zero."""
    present = np.any(unit_vectors, axis=1)
    return normalise((unit_vectors - common) * present[:, None]) if common.any() else unit_vectors


def history_cosines(unit_vectors: np.ndarray, target: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Eq. 8: cosine of each target with each of its history items.

    Args:
        unit_vectors: (N, D) unit rows, zero where an item has no picture.
        target: (B,) item indices.
        history: (B, K) item indices, -1 padding.

    Returns:
        (B, K); 0 at padding and where either has no picture.
    """
    cosines = np.einsum("bd,bkd->bk", unit_vectors[target], unit_vectors[np.maximum(history, 0)])
    return np.where(history >= 0, cosines, 0.0)


def sim_scores(
    shop: Shop, vectors: np.ndarray, rows: np.ndarray, *, history_items: int, mask_same_item: bool = False, chunk: int = 8192
) -> np.ndarray:
    """One score for each impression: the mean cosine of its picture with the newest clicks' pictures, 0 without any.

    Args:
        vectors: (N, D) embeddings, zero rows where an item has no picture.
        rows: (B,) impression rows.
        history_items: how many of the newest clicks are used.
        mask_same_item: leave out clicks on the same item; their cosine is 1 for any encoder.
    """
    unit = normalise(np.asarray(vectors, dtype=np.float32))
    has_picture = np.any(unit, axis=1)
    clicks = click_history(shop, max_items=history_items)
    out = np.zeros(len(rows))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        history = padded(clicks, shop.session[part])
        if mask_same_item:
            history = np.where(history == shop.item[part][:, None], -1, history)
        counted = ((history >= 0) & has_picture[history]).sum(1)
        out[start : start + chunk] = history_cosines(unit, shop.item[part], history).sum(1) / np.maximum(counted, 1)
    return out


def collapse(vectors: np.ndarray) -> float:
    """Mean deviation over dimensions of the unit embeddings: 1/sqrt(D) is healthy, 0 is collapsed (Chen and He 2021, Fig. 2)."""
    unit = normalise(np.asarray(vectors, dtype=np.float64))
    return float(unit[unit.any(1)].std(0).mean())
