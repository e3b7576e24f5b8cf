"""Keyed randomness: a number depends on (seed, purpose), not on the order in which numbers are drawn.

Ranks, resumed runs and variants of a model therefore draw the same numbers for the same purpose, on any machine.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Key = int | str | np.ndarray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(seed: int, *keys: Key) -> np.ndarray:
    """64 well-mixed bits for each combination of keys (splitmix64, Steele et al. 2014), broadcast over array keys."""
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(seed, dtype=np.int64).astype(np.uint64) + _GOLDEN)
        for key in keys:
            word = zlib.crc32(key.encode()) if isinstance(key, str) else key
            state = _mix(state * _GOLDEN + np.asarray(word).astype(np.int64).astype(np.uint64) + _GOLDEN)
    return state


def uniform(seed: int, *keys: Key) -> np.ndarray:
    """Numbers in [0, 1), float64, one for each combination of keys (integers, strings or integer arrays)."""
    return (hashed(seed, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, *keys: Key) -> np.ndarray:
    """Standard normal numbers, one for each combination of keys (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, *keys, "radius")))
    return radius * np.cos(2.0 * np.pi * uniform(seed, *keys, "angle"))


def permutation(n: int, seed: int, *keys: Key) -> np.ndarray:
    """(n,) int64: the numbers below n, in an order that depends on (seed, keys)."""
    return np.argsort(hashed(seed, *keys, np.arange(n)), kind="stable")


def integer_seed(seed: int, *keys: Key) -> int:
    """A seed for another generator (torch, faiss), below 2^31."""
    return int(hashed(seed, *keys) >> np.uint64(33))


def keyed_init(module: nn.Module, seed: int) -> None:
    """Draw a module's initial weights again, each part from its own generator keyed by (seed, name).

    Every submodule with a `reset_parameters` is drawn; parts with the same name and shape get the same weights in any two models,
    whatever else these contain.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        for name, part in module.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                torch.manual_seed(integer_seed(seed, "init", name))
                reset()


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
