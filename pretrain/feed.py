"""The pictures that a rank encodes, step by step, read while the network works on earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise

import torch
from torch import Tensor

from data.pictures.reader import Pictures
from pretrain.backbones.feature_store import Features
from pretrain.methods.method import Method, Step


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some of a step's pictures, encoded at once."""

    step: Step
    rows: slice  # which of the step's pictures
    read: Tensor  # (P, S, S, 3) uint8 pixels, or (P, F) features of a frozen body


def feed(method: Method, pictures: Pictures | Features, *, first: int, rank: int, ranks: int, chunk: int, seed: int = 0) -> Iterator[Piece]:
    """This rank's pieces of step `first`, of the step after it, and so on; if a step has several pieces, they come twice in a row.

    Args:
        chunk: most pictures of a piece; 0: no limit.
        seed: of the choice among cached views of features.
    """
    for number in count(first):
        step = method.step(number)
        pieces = pieces_of(len(step.items), rank, ranks, chunk)
        for rows in pieces * passes(pieces):
            if isinstance(pictures, Features):
                found = pictures.read_views(step.items[rows], step.view[rows], (seed, "view", step.number))
            else:
                found = pictures.read(step.items[rows])
            read = torch.from_numpy(found)
            yield Piece(step=step, rows=rows, read=read.pin_memory() if torch.cuda.is_available() else read)


def pieces_of(pictures: int, rank: int, ranks: int, chunk: int) -> list[slice]:
    """This rank's even share of `pictures` pictures, in pieces of at most `chunk` (0: no limit) and nearly the same size."""
    begin, end = pictures * rank // ranks, pictures * (rank + 1) // ranks
    parts = max(1, -(-(end - begin) // chunk)) if chunk else 1
    edges = [begin + (end - begin) * part // parts for part in range(parts + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def passes(pieces: list[slice]) -> int:
    """How often a step's pieces are encoded: with several, once for the loss and once for the gradients."""
    return 1 if len(pieces) == 1 else 2
