"""All embedding tables of a CTR model, in one module over KeyedJaggedTensors, as TorchRec shards them (ctr/training/sharding.py).

An `EmbeddingCollection` holds tables of one width, so there is one per width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from ctr.inputs.rules import Table
from run.randomness import uniform

_SPREAD = 0.05  # initial weights lie between plus and minus this
_CHUNK = 1 << 12  # rows drawn at once: few enough to stay in a processor's cache


class EmbeddingTables(nn.Module):
    """Table rows -> embeddings.

    Args:
        tables: one per categorical feature.
        words: rows of the words' table; 0: none.
        word_dim: its width.
        device: "meta" allocates no rows, for tables that are sharded next.
        precision: of the rows: fp32, fp16 or bf16.
    """

    def __init__(self, tables: Iterable[Table], *, words: int, word_dim: int, device: str = "cpu", precision: str = "fp32"):
        super().__init__()
        tables = list(tables)
        self.by_width = nn.ModuleDict()
        made: dict[str, Any] = {"data_type": DataType[precision.upper()]}
        for dim in sorted({table.dim for table in tables}):
            configs = [
                EmbeddingConfig(name=t.name, embedding_dim=dim, num_embeddings=t.size, feature_names=[t.name], **made)
                for t in tables
                if t.dim == dim
            ]
            self.by_width[str(dim)] = EmbeddingCollection(tables=configs, device=torch.device(device))
        self.words = None
        if words:
            config = EmbeddingBagConfig(
                name="word",
                embedding_dim=word_dim,
                num_embeddings=words,
                feature_names=["word"],
                pooling=PoolingType.MEAN,
                **made,
            )
            self.words = EmbeddingBagCollection(tables=[config], device=torch.device(device))

    def forward(self, ids: KeyedJaggedTensor, words: KeyedJaggedTensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Embeddings (n, dim) of each key of `ids`; the mean embedding of each text of `words`, else zeros."""
        asked = [collection(ids) for collection in self.by_width.values()]  # sent to other ranks, which answer when a value is read
        texts = None if self.words is None else self.words(words)
        found = {name: jagged.values() for answer in asked for name, jagged in answer.items()}
        return found, None if texts is None else texts.values()

    def named_tables(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and weights (rows, dim) of every table."""
        for collection in self.by_width.values():
            for name, table in collection.embeddings.items():  # type: ignore[union-attr]
                yield name, table.weight
        if self.words is not None:
            for name, table in self.words.embedding_bags.items():
                yield name, table.weight  # type: ignore[misc]

    def draw(self, seed: int) -> None:
        """Initial weights by (seed, table, row): a row's depend neither on the number of rows nor on other tables."""
        for name, weight in self.named_tables():
            draw_rows(weight, seed, name)


@torch.no_grad()
def draw_rows(weight: Tensor, seed: int, table: str, *, first: int = 0) -> None:
    """Fill rows `first`, first + 1, ... of a table, given as `weight` (n, dim), with their initial weights."""
    rows, dim = weight.shape
    for at in range(0, rows, _CHUNK):
        row = np.arange(first + at, first + min(at + _CHUNK, rows))[:, None]
        drawn = uniform(seed, "table", table, row, np.arange(dim)[None])
        weight[at : at + _CHUNK] = torch.from_numpy((2 * drawn - 1) * _SPREAD).to(weight)
