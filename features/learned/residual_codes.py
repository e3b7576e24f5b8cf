"""Codes of pictures by residual k-means (RQ-KMeans: Luo et al. 2024, arXiv:2411.11739), and how good they are.

M pictures, D embedding length, L levels, C codes of a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.learned.clustering import fit_centres, nearest


def fit_levels(vectors: np.ndarray, *, levels: int, codes: int, seed: int) -> list[np.ndarray]:
    """(C, D) float32 centres of each level: k-means of the embeddings, then of what the nearest centre leaves, and so on.

    Where nothing is left to divide, a level has fewer codes than wanted: one of no length if all is told already.

    Args:
        vectors: (M, D) float32; M may be 0, which gives every level one code.
    """
    found, left = [], np.ascontiguousarray(vectors, dtype=np.float32)
    for level in range(levels):
        centres, _ = fit_centres(left, clusters=codes, seed=seed + level)
        if not len(centres):
            centres = np.zeros((1, vectors.shape[1]), np.float32)
        found.append(centres)
        left = left - centres[nearest(left, centres)] if len(left) else left
    return found


def codes_of(vectors: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """(M, L) int64: each picture's nearest centre, then that of what it leaves, and so on; new pictures get theirs the same way."""
    codes, left = np.zeros((len(vectors), len(levels)), dtype=np.int64), np.ascontiguousarray(vectors, dtype=np.float32)
    for level, centres in enumerate(levels):
        if len(left):
            codes[:, level] = nearest(left, centres)
            left = left - centres[codes[:, level]]
    return codes


def prefixes_of(codes: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """(M, L) int64: a number for the first code, for the first two, ...: sum_i c_i C_(i+1) ... C_l, the codes as digits.

    They fit in 64 bits up to C^L = 2^63.
    """
    out = np.zeros_like(codes)
    for level, centres in enumerate(levels):
        out[:, level] = (out[:, level - 1] * len(centres) if level else 0) + codes[:, level]
    return out


def levels_in(constants: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The centres of each level among a form's constants, centres-0, centres-1, ...; [] where it has none."""
    count = sum(name.startswith("centres-") for name in constants)
    return [constants[f"centres-{level}"] for level in range(count)]


@dataclass(frozen=True, kw_only=True)
class CodeQuality:
    """What is known of the codes of some pictures."""

    unique: float  # share of pictures whose codes no other picture has
    collisions: float  # share of pictures that another one shares all codes with: 1 - unique
    used: tuple[float, ...]  # of each level, the share of codes that occur
    entropy: tuple[float, ...]  # of each level, of its codes, as a share of that of codes used equally often
    error: tuple[float, ...]  # after each level, mean squared length of what is left, as a share of the pictures' variance


def quality(vectors: np.ndarray, levels: list[np.ndarray]) -> CodeQuality:
    """Measures of the codes of (M, D) pictures, M at least 1."""
    codes, left = codes_of(vectors, levels), vectors.astype(np.float64)
    variance = float(np.square(left - left.mean(0)).sum()) or 1.0
    used, entropy, error = [], [], []
    for level, centres in enumerate(levels):
        count = np.bincount(codes[:, level], minlength=len(centres))
        share = count[count > 0] / len(codes)
        used.append(float((count > 0).mean()))
        entropy.append(float(-(share * np.log(share)).sum() / np.log(len(centres))) if len(centres) > 1 else 1.0)
        left = left - centres[codes[:, level]]
        error.append(float(np.square(left).sum()) / variance)
    _, times = np.unique(codes, axis=0, return_counts=True)
    unique = float((times == 1).sum() / len(codes))
    return CodeQuality(unique=unique, collisions=1 - unique, used=tuple(used), entropy=tuple(entropy), error=tuple(error))
