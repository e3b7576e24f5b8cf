"""The paper's CTR model (Appendix A): user, item, query and context -> MLP -> logit of a click.

U distinct items, S sessions, B impressions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctr.attention import HistoryNetwork
from ctr.batches import Batch
from ctr.config import CtrConfig
from ctr.inputs import CLUSTER, HISTORIES, Layout, Table
from ctr.linear import LinearWithImage, take_rows
from ctr.runs import HistoryRuns
from ctr.scores import Cosines, similarity
from ctr.tables import Tables
from run.randomness import keyed_init


class Layer(nn.Linear):
    """A linear layer after a ReLU, with first weights that keep the signal's size (He et al. 2015, arXiv:1502.01852).

    torch's own would shrink it to less than a half in each layer: after five the logits hardly depend on the input, and
    what only pairs of inputs tell (this look, that user) is not learned in a small log.
    """

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class CtrModel(nn.Module):
    """Logits of a batch's impressions.

    The image feature enters in the columns of an item (vector, cluster_id) or of a pair of target and history item
    (sim_score); every other weight has the same name, shape and first value in all forms.

    Args:
        of_tables: `device` and `precision` of `Tables`.
    """

    def __init__(self, layout: Layout, config: CtrConfig, **of_tables: str):
        super().__init__()
        self.layout = layout
        self.cosines = Cosines(layout.cosine_mean, layout.cosine_spread, config.mask_same_item)
        tables = (*layout.item, *layout.user, *layout.context)
        self.tables = Tables(tables, words=layout.words, word_dim=config.token_size, **of_tables)
        text = config.token_size
        item = _size(layout.item, layout.item_numeric) + text * layout.titles
        of_item = {"vector": layout.vector_size + 1, "cluster_id": config.cluster_size}.get(layout.form, 0)
        in_history = 2 if layout.form == "sim_score" else of_item
        self.histories = nn.ModuleDict({name: HistoryNetwork(item, in_history, **network_sizes(config)) for name in HISTORIES})
        user = _size(layout.user, layout.user_numeric) + len(HISTORIES) * config.width
        other = text * layout.queries + _size(layout.context, layout.context_numeric)
        self.first = LinearWithImage(user + item + other, of_item, config.hidden[0])
        self.hidden = nn.ModuleList(Layer(a, b) for a, b in zip(config.hidden, config.hidden[1:], strict=False))
        self.logit = nn.Linear(config.hidden[-1], 1)

    def forward(self, batch: Batch) -> Tensor:
        """(B,) logits."""
        found, texts = self.tables(batch.ids, batch.words)
        titles, queries = self._texts(texts, len(batch.present))
        item_UD = _joined(found, self.layout.item, batch.item_numeric, titles)
        image_UF = self._image(found, batch)
        user = take_rows(_joined(found, self.layout.user, batch.user_numeric), batch.session)
        histories = [
            network(item_UD, image_UF, self._pairs(batch, history), history, batch)
            for network, history in zip(self.histories.values(), batch.histories, strict=True)
        ]
        query = [] if queries is None else [take_rows(queries, batch.query)]
        context = _joined(found, self.layout.context, batch.context_numeric)
        target_image = None if image_UF is None else take_rows(image_UF, batch.target)
        x = self.first(torch.cat([user, *histories, take_rows(item_UD, batch.target), *query, context], dim=1), target_image)
        for layer in self.hidden:
            x = layer(torch.relu(x))
        return self.logit(torch.relu(x))[:, 0]

    def _texts(self, texts: Tensor | None, items: int) -> tuple[Tensor | None, Tensor | None]:
        """Titles (U, W) and queries (Q, W), which stand one behind the other."""
        if texts is None:
            return None, None
        cut = items if self.layout.titles else 0
        return (texts[:cut] if self.layout.titles else None), (texts[cut:] if self.layout.queries else None)

    def _image(self, found: dict[str, Tensor], batch: Batch) -> Tensor | None:
        """(U, F): the image feature of the items, or None."""
        if self.layout.form == "cluster_id":
            return found[CLUSTER]
        if self.layout.form == "vector":
            assert batch.vectors is not None
            return torch.cat([batch.vectors, batch.present[:, None].to(batch.vectors.dtype)], dim=1)
        return None

    def _pairs(self, batch: Batch, history: HistoryRuns) -> list[Tensor] | None:
        """For each run of a history (s, P, L, 2), the image feature of targets and history items; or None."""
        if self.layout.form != "sim_score":
            return None
        assert batch.vectors is not None
        return [similarity(batch.vectors, batch.present, history, run, batch.grid, self.cosines) for run in history.runs]


def build(layout: Layout, config: CtrConfig, seed: int) -> CtrModel:
    """A model with first weights by (seed, name, row)."""
    model = CtrModel(layout, config)
    keyed_init(model, seed)
    model.tables.draw(seed)
    return model


def network_sizes(config: CtrConfig) -> dict[str, Any]:
    """The settings of a `HistoryNetwork`."""
    return {name: getattr(config, name) for name in ("width", "heads", "pooling", "score_place")}


def _size(tables: tuple[Table, ...], numeric: int) -> int:
    return sum(table.dim for table in tables if table.name != CLUSTER) + numeric


def _joined(found: dict[str, Tensor], tables: tuple[Table, ...], numeric: Tensor, text: Tensor | None = None) -> Tensor:
    """(n, D): embeddings, numbers and text of n items, users or impressions, but for the image feature."""
    parts = [found[table.name] for table in tables if table.name != CLUSTER] + [numeric]
    return torch.cat(parts if text is None else [*parts, text], dim=1)
