"""k-means on unit embeddings, for Cluster ID (paper, Appendix B).

On unit vectors the Euclidean order is the cosine order (Eq. 10).
"""

from __future__ import annotations

import numpy as np

from run.randomness import integer_seed

_CELL = 1e-4  # side of the cells in which rows count as equal: far above float32's rounding, far below the distance between pictures
_ROUNDS = 25  # k-means steps of each try
_TRIES = 3  # runs from different initial centres; the one with the least inertia is kept


def fit_centres(vectors: np.ndarray, *, clusters: int, seed: int) -> tuple[np.ndarray, int]:
    """k-means (faiss) on unit rows.

    Rows that agree up to rounding count as copies of one row. If copies leave fewer centres than possible (a catalogue that is mostly one
    placeholder picture draws most initial centres from its copies), centres are learned from one row of each.

    Args:
        vectors: (M, D) float32 unit rows.
        clusters: centres wanted; at most as many as there are distinct rows.

    Returns:
        (C, D) float32 centres, each nearest to some row; and the number of distinct rows.
    """
    if not len(vectors):
        return np.zeros((0, vectors.shape[1]), dtype=np.float32), 0
    first, group = distinct_rows(vectors)
    clusters = min(clusters, len(first))
    centres = _k_means(vectors[first][group], clusters, seed)
    if len(centres) < clusters and len(first) < len(vectors):
        centres = max(centres, _k_means(vectors[first], clusters, seed), key=len)
    return centres, len(first)


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of (M, D) rows differ beyond rounding.

    Returns:
        (G,) int64 the first row of each group of equal ones, ascending; and (M,) int64 the group of each row.
    """
    # two grids, half a cell apart: rows on either side of a border in one share a cell in the other
    cells = [_same(np.floor(vectors / _CELL + shift).astype(np.int32)) for shift in (0.0, 0.5)]
    label = np.arange(len(vectors))
    while True:
        before = label
        for cell in cells:
            lowest = np.full(cell.max() + 1, len(vectors))
            np.minimum.at(lowest, cell, label)
            label = lowest[cell]
        if (label == before).all():
            return np.unique(label, return_inverse=True)


def _same(cells: np.ndarray) -> np.ndarray:
    """(M,) int64: a number for each of (M, D) rows, the same only for equal rows."""
    rows = np.ascontiguousarray(cells).view(np.dtype((np.void, cells.shape[1] * cells.itemsize)))[:, 0]
    return np.unique(rows, return_inverse=True)[1]


def _k_means(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The (C, D) centres that some row is nearest to, C <= clusters: faiss does not always split a large cluster if one runs empty."""
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1], clusters, niter=_ROUNDS, nredo=_TRIES, seed=integer_seed(seed, "k-means") % 2**30, min_points_per_centroid=1,
        max_points_per_centroid=1024, spherical=False, verbose=False,
    )  # fmt: skip
    kmeans.train(vectors)
    centres = np.asarray(kmeans.centroids, dtype=np.float32)
    return centres[np.unique(nearest(vectors, centres))]


def nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(M,) int64: number of the nearest centre of each row, in Euclidean distance; new pictures get theirs the same way."""
    import faiss

    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(np.ascontiguousarray(centres, dtype=np.float32))
    return index.search(np.ascontiguousarray(vectors, dtype=np.float32), 1)[1][:, 0]


def assigned(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N,) int64: number of the (C, D) centre nearest to each unit row; C for a zero row, which means "no picture"."""
    out = np.full(len(vectors), len(centres), dtype=np.int64)
    present = vectors.any(1)
    if len(centres) and present.any():
        out[present] = nearest(vectors[present], centres)
    return out
