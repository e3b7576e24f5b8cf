"""Cluster ID: k-means on unit embeddings; the nearest centre's number is the feature (paper, Appendix B).

On unit vectors the Euclidean order is the cosine order (Eq. 10).
"""

from __future__ import annotations

import numpy as np

from run.randomness import integer_seed


def fit_centres(vectors: np.ndarray, *, clusters: int, seed: int, rounds: int = 25, tries: int = 3) -> np.ndarray:
    """k-means (faiss) on unit rows.

    Args:
        vectors: (M, D) float32 unit rows, M >= 1.
        clusters: centres wanted; at most as many as there are distinct rows.
        rounds: steps of each try.
        tries: beginnings from other first centres; the one with the least inertia is kept.

    Returns:
        (C, D) float32 centres, none of them empty: faiss splits a large cluster where one runs empty, and a centre that ends without a
        vector is dropped.
    """
    import faiss

    clusters = min(clusters, len(np.unique(vectors, axis=0)))
    kmeans = faiss.Kmeans(
        vectors.shape[1], clusters, niter=rounds, nredo=tries, seed=integer_seed(seed, "k-means") % 2**30, min_points_per_centroid=1,
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


def cluster_ids(vectors: np.ndarray, *, clusters: int, seed: int, fit_on: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cluster number of every item, and the centres.

    Args:
        vectors: (N, D) unit embeddings, zero rows where an item has no picture.
        clusters: centres wanted.
        fit_on: (M,) items to learn the centres from; None: all that have a picture.

    Returns:
        (N,) int64 in [0, C], where C, the number of centres found, stands for "no picture"; and (C, D) float32 centres.
    """
    centres = learned_centres(vectors, clusters=clusters, seed=seed, fit_on=fit_on)
    return assigned(vectors, centres), centres


def learned_centres(vectors: np.ndarray, *, clusters: int, seed: int, fit_on: np.ndarray | None = None) -> np.ndarray:
    """(C, D) float32 centres of the items with a picture, or of those among `fit_on`; arguments are those of `cluster_ids`."""
    present = vectors.any(1)
    learn = present if fit_on is None else present & np.isin(np.arange(len(vectors)), fit_on)
    if not learn.any():
        return np.zeros((0, vectors.shape[1]), dtype=np.float32)
    return fit_centres(vectors[learn], clusters=clusters, seed=seed)


def assigned(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N,) int64: the nearest of the (C, D) centres to each unit row; C for a zero row, which stands for "no picture"."""
    out = np.full(len(vectors), len(centres), dtype=np.int64)
    present = vectors.any(1)
    if len(centres) and present.any():
        out[present] = nearest(vectors[present], centres)
    return out
