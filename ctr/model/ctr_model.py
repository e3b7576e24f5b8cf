"""The paper's CTR model (Appendix A): user, item, query and context -> MLP -> logit of a click.

U distinct items, S sessions, B impressions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctr.config import CtrConfig
from ctr.inputs.batches import Batch
from ctr.inputs.encode import Layout, is_image_table
from ctr.inputs.rules import Table
from ctr.model.linear import put, take_rows
from ctr.model.match import history_match
from ctr.model.network import Network
from ctr.model.places import Pairs, Reading, item_feature, pair_feature, pairs_of, tier_counts
from ctr.model.retrieval import likeness_of_groups, likeness_of_pictures, retrieved
from ctr.model.tables import EmbeddingTables
from features.forms.form import PAIR, PAIR_ATTENTION, PAIR_COUNTS
from run.randomness import keyed_init


class CtrModel(Network):
    """Logits of a batch's impressions.

    Args:
        of_tables: `device` and `precision` of `EmbeddingTables`.
    """

    def __init__(self, layout: Layout, config: CtrConfig, **of_tables: str):
        super().__init__(layout, config)
        self.pictures_alone = False  # no gradient reaches the tables, except for those that forms fill
        tables = (*layout.item, *layout.user, *layout.context)
        self.tables = EmbeddingTables(tables, words=layout.words, word_dim=config.token_size, **of_tables)

    def forward(self, batch: Batch) -> Tensor:
        """(B,) logits."""
        found, texts = self.tables(batch.ids, batch.words)
        if self.pictures_alone:
            found = {name: rows if is_image_table(name) else rows.detach() for name, rows in found.items()}
            texts = None if texts is None else texts.detach()
        if self.image_id is not None:
            found |= {"item": self.known_by_picture(found["item"], batch.ids["item"].values(), batch.unit, batch.present)}
        titles, queries = self._texts(texts, len(batch.present))
        item_UD = _joined(found, self.layout.item, batch.item_numeric, titles)
        image_UF = item_feature(self.layout, batch.vectors, batch.present, found, self.image_adapter)
        user = take_rows(_joined(found, self.layout.user, batch.user_numeric), batch.session)
        histories, counts, similar = [], [], []
        for network, history in zip(self.histories.values(), batch.histories, strict=True):
            full = Reading(history, batch.grid, batch.slot)
            pairs = self._pairs(batch, full)
            if pairs is not None and self.layout.image(PAIR_COUNTS) is not None:
                counts.append(self._counts(pairs, full))
            read = full
            if self.retrieve:
                read = retrieved(full, self._likeness(full, pairs, batch), batch.target, self.retrieve)
                pairs = self._pairs(batch, read) if self.reads_pairs else None
            if pairs is not None and self.layout.image(PAIR_ATTENTION) is not None:
                similar.append(network.similar(item_UD, image_UF, pairs, read, self.tiers, self.cosines))
            scores = None if pairs is None or self.layout.image(PAIR) is None else [pair_feature(each, self.cosines) for each in pairs]
            histories.append(network(item_UD, image_UF, scores, history, batch, read if self.retrieve else None))
        query = [] if queries is None else [take_rows(queries, batch.query)]
        context = _joined(found, self.layout.context, batch.context_numeric)
        images = [] if image_UF is None else [take_rows(image_UF, batch.target)]
        with torch.no_grad():
            match = [history_match(batch, history, self.layout.distances) for history in batch.histories if self.layout.matched]
        numbers = [batch.log_numbers] if self.layout.log_numbers else []
        parts = [user, *histories, take_rows(item_UD, batch.target), *query, context, *match, *numbers]
        return self.mlp(parts, [*images, *counts, *similar], batch.own_logit)

    def _texts(self, texts: Tensor | None, items: int) -> tuple[Tensor | None, Tensor | None]:
        """Titles (U, W) and queries (Q, W), one after the other."""
        if texts is None:
            return None, None
        cut = items if self.layout.titles else 0
        return (texts[:cut] if self.layout.titles else None), (texts[cut:] if self.layout.queries else None)

    def _pairs(self, batch: Batch, reading: Reading) -> list[Pairs] | None:
        """Targets and history items of each length bucket; None where their pictures are not compared."""
        return pairs_of(batch.unit, batch.present, reading) if self.compares and batch.unit is not None else None

    def _likeness(self, reading: Reading, pairs: list[Pairs] | None, batch: Batch) -> list[Tensor]:
        """For each length bucket (s, P, L), how like each target every history item is; all alike where the model cannot tell."""
        if pairs is not None and self.layout.group < 0:
            return [likeness_of_pictures(of_bucket, self.cosines) for of_bucket in pairs]
        group_U = torch.zeros_like(batch.present, dtype=torch.int32) if batch.group is None else batch.group
        buckets = reading.history.buckets
        return [likeness_of_groups(group_U[reading.grid[each.session]], group_U[reading.history.item[each.item]]) for each in buckets]

    def _counts(self, pairs: list[Pairs], reading: Reading) -> Tensor:
        """(B, T + 2): `tier_counts` of one history; zeros where it is empty."""
        rows = []
        for of_bucket, bucket in zip(pairs, reading.history.buckets, strict=True):
            count_sPF = tier_counts(of_bucket, self.tiers, self.cosines)
            rows.append(count_sPF[bucket.row, reading.slot[bucket.impression]])
        return put(torch.cat(rows), [bucket.impression for bucket in reading.history.buckets], len(reading.slot))


def build(layout: Layout, config: CtrConfig, seed: int) -> CtrModel:
    """A model with initial weights determined by (seed, name, row)."""
    model = CtrModel(layout, config)
    keyed_init(model, seed)
    model.tables.draw(seed)
    return model


def _joined(found: dict[str, Tensor], tables: tuple[Table, ...], numeric: Tensor, text: Tensor | None = None) -> Tensor:
    """(n, D): embeddings, numbers and text of n items, users or impressions, without the image feature."""
    parts = [found[table.name] for table in tables if not is_image_table(table.name)] + [numeric]
    return torch.cat(parts if text is None else [*parts, text], dim=1)
