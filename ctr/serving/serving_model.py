"""The trained model over plain tables, for one user and their candidates: exported by `torch.export`, and free of TorchRec.

Legend: U distinct items of candidates and histories, C candidates, L history items, W width, K tables, M numbers, F image feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.config import CtrConfig
from ctr.inputs.encode import Layout, is_image_table
from ctr.inputs.rules import Table
from ctr.model.attention import HistoryNetwork, SelfAttention, TargetAttention
from ctr.model.match import candidate_match
from ctr.model.network import Network
from ctr.model.order import order_bucket, positions, window_shares
from ctr.model.places import Pairs, compare, item_feature, pair_feature, tier_counts
from ctr.model.retrieval import likeness_of_groups, likeness_of_pictures, most_alike
from features.forms.form import PAIR, PAIR_COUNTS
from run.errors import UserError


class ModelInputs(NamedTuple):
    """One user's candidates; each item is given once and referred to by index."""

    user_rows: Tensor  # (K,) int64 table rows of the user
    user_numeric: Tensor  # (M,) float32
    item_rows: Tensor  # (U, K) int64
    item_numeric: Tensor  # (U, M) float32
    title_words: Tensor  # (T,) int64: table rows of the words of all U titles, end to end
    title_start: Tensor  # (U,) int64: where each title begins
    vectors: Tensor  # (U, D) float32 zero rows where absent; D = 0 unless a form gives item numbers
    unit: Tensor  # (U, D) float32 unit rows, zero rows where absent; D = 0 unless a form compares pictures
    present: Tensor  # (U,) bool: the item has a picture
    codes: Tensor  # (U, C) int32: which value of each matched column an item has; 0: missing
    group: Tensor  # (U,) int32: the category of an item, if histories are retrieved by it; 0: missing
    clicks: Tensor  # (L,) int64: which of the U items, oldest first; -1 = padding; an empty history is one -1
    purchases: Tensor  # (L',) likewise
    cart: Tensor  # (L'',) likewise
    click_ages: Tensor  # (L,) float32: log1p of the seconds since each click; -1 where not known
    purchase_ages: Tensor  # (L',) likewise
    cart_ages: Tensor  # (L'',) likewise
    candidates: Tensor  # (C,) int64: which of the U items
    query_words: Tensor  # (Q,) int64 table rows
    context_rows: Tensor  # (C, K) int64
    context_numeric: Tensor  # (C, M) float32
    log_numbers: Tensor  # (C, K) float32 statistics and co-occurrence, standardised
    own_logit: Tensor  # (C,) float32 of the user's own model; zeros where the model does not start from it


class View(NamedTuple):
    """What is read of one user's history: by all candidates alike (r = 1, P = C), or by each alone (r = C, P = 1)."""

    target: Tensor  # (r, P) int64: candidates, as distinct items
    item: Tensor  # (r, L) int64 distinct items
    real: Tensor  # (r, L) bool; a row is padding alone where the history is empty
    age: Tensor  # (r, L)


class ServingModel(Network):
    """(C,) logits of a `ModelInputs`'s candidates: those of `CtrModel` for one session.

    The network's parts have the names that they have in `CtrModel`, so its weights are loaded unchanged.

    Args:
        weights: of best.safetensors.
    """

    def __init__(self, layout: Layout, config: CtrConfig, weights: Mapping[str, Tensor]):
        super().__init__(layout, config)
        self.tables = nn.ParameterList(_table(weights, table.name) for table in (*layout.item, *layout.user, *layout.context))
        self.words = nn.Parameter(_table(weights, "word")) if layout.words else None
        network = {name: value for name, value in weights.items() if not name.startswith("tables.")}
        own = {name for name in self.state_dict() if name != "words" and not name.startswith("tables.")}
        if own != set(network):
            raise UserError(f"weights of another model: {sorted(own ^ set(network))[0]!r}; export with the code that trained them")
        self.load_state_dict(network, strict=False)
        self.requires_grad_(False).eval()

    def forward(
        self,
        user_rows: Tensor,
        user_numeric: Tensor,
        item_rows: Tensor,
        item_numeric: Tensor,
        title_words: Tensor,
        title_start: Tensor,
        vectors: Tensor,
        unit: Tensor,
        present: Tensor,
        codes: Tensor,
        group: Tensor,
        clicks: Tensor,
        purchases: Tensor,
        cart: Tensor,
        click_ages: Tensor,
        purchase_ages: Tensor,
        cart_ages: Tensor,
        candidates: Tensor,
        query_words: Tensor,
        context_rows: Tensor,
        context_numeric: Tensor,
        log_numbers: Tensor,
        own_logit: Tensor,
    ) -> Tensor:
        layout = self.layout
        of_item, of_user, of_context = self._looked_up(item_rows, user_rows[None], context_rows)
        if self.image_id is not None:
            at = [table.name for table in layout.item].index("item")
            of_item[at] = self.known_by_picture(of_item[at], item_rows[:, at], unit, present)
        titles = [self._means(title_words, title_start)] if layout.titles else []
        item_UD = torch.cat([*_others(layout.item, of_item), item_numeric, *titles], dim=1)
        by_name = dict(zip([table.name for table in layout.item], of_item, strict=True))
        image_UF = item_feature(layout, vectors, present, by_name, self.image_adapter)
        images = [] if image_UF is None else [image_UF[candidates]]
        pooled, match, counts, similar = [], [], [], []
        count = candidates.shape[0]
        histories = zip((clicks, purchases, cart), (click_ages, purchase_ages, cart_ages), strict=True)
        for network, (history_L, age_L) in zip(self.histories.values(), histories, strict=True):
            assert isinstance(network, HistoryNetwork)
            read = View(candidates[None], history_L.clamp(min=0)[None], (history_L >= 0)[None], age_L[None])
            pairs = self._pairs(unit, present, read)
            if pairs is not None and layout.image(PAIR_COUNTS) is not None:
                counts.append(tier_counts(pairs, self.tiers, self.cosines).flatten(0, 1))
            projected_UW = network.project(item_UD, image_UF)
            windows = newest(network, projected_UW, read)
            if self.retrieve:
                read = self._retrieved(read, pairs, group)
                pairs = self._pairs(unit, present, read) if self.reads_pairs else None
            if pairs is not None and network.image_attention is not None:
                similar.append(self._similar(network, projected_UW, read, pairs))
            scores = None if pairs is None or layout.image(PAIR) is None else pair_feature(pairs, self.cosines)
            own = pool(network, projected_UW, read, scores)
            pooled.append(torch.cat([part.expand(count, -1) for part in (own, *windows)], dim=1))
            if layout.matched:
                match.append(candidate_match(codes, item_numeric, candidates, history_L, age_L, layout.distances))
        user = torch.cat([*of_user, user_numeric[None]], dim=1).expand(count, -1)
        query = []
        if layout.queries:
            start = torch.zeros(1, dtype=torch.int64, device=query_words.device)
            query = [self._means(query_words, start).expand(count, -1)]
        numbers = [log_numbers] if layout.log_numbers else []
        parts = [user, *pooled, item_UD[candidates], *query, *of_context, context_numeric, *match, *numbers]
        return self.mlp(parts, [*images, *counts, *similar], own_logit)

    def _pairs(self, unit: Tensor, present: Tensor, read: View) -> Pairs | None:
        return compare(unit, present, read.target, read.item, read.real) if self.compares else None

    def _retrieved(self, read: View, pairs: Pairs | None, group: Tensor) -> View:
        """The items most like each candidate. There is padding after the newest, so that there are always enough to choose from."""
        if pairs is not None and self.layout.group < 0:
            likeness_CL = likeness_of_pictures(pairs, self.cosines)[0]
        else:
            likeness_CL = likeness_of_groups(group[read.target], group[read.item])[0]
        item_1L, real_1L, age_1L = (F.pad(part, (0, self.retrieve)) for part in (read.item, read.real, read.age))
        count = likeness_CL.shape[0]
        place_CK = most_alike(F.pad(likeness_CL, (0, self.retrieve)), real_1L.expand(count, -1), self.retrieve)
        # padding is the least alike and the newest: in ascending order it comes last, as in a batch
        return View(read.target[0, :, None], *(part[0][place_CK] for part in (item_1L, real_1L, age_1L)))

    def _similar(self, network: HistoryNetwork, projected_UW: Tensor, read: View, pairs: Pairs) -> Tensor:
        """(C, W): what the attention that knows cosines gives; zeros for an empty history."""
        assert network.image_attention is not None
        real, any_real = _at_least_one(read.real)
        out = network.image_attention(projected_UW[read.item], real, projected_UW[read.target], pairs, self.tiers, self.cosines)
        return (out * any_real[:, None, None]).flatten(0, 1)

    def _means(self, words: Tensor, start: Tensor) -> Tensor:
        """(n, dim) the mean embedding of each text's words; zeros for a text without any."""
        assert self.words is not None
        return F.embedding_bag(words, self.words, start, mode="mean")

    def _looked_up(self, *rows: Tensor) -> list[list[Tensor]]:
        """The embeddings (n, dim) of each table's column of (n, K) rows, for items, users and contexts."""
        tables = iter(self.tables)
        return [[F.embedding(column, next(tables)) for column in part.unbind(1)] for part in rows]


def newest(network: HistoryNetwork, projected_UW: Tensor, read: View) -> list[Tensor]:
    """[(1, W times windows)] the means of the newest items of one user's history; [] where the model reads none."""
    if not network.windows:
        return []
    share_1VL = window_shares(positions(read.item, None), None, network.windows)
    return [(share_1VL @ projected_UW[read.item]).flatten(1) * read.real.any()]


def pool(network: HistoryNetwork, projected_UW: Tensor, read: View, score_rPLF: Tensor | None) -> Tensor:
    """(C, W) what is read of one user's history for each candidate, or (1, W) if it is the same for all; zeros of an empty history."""
    real_rL, any_real = _at_least_one(read.real)
    x_rLW = projected_UW[read.item]
    if network.order is not None:
        bucket_rL = order_bucket(network.history_order, positions(read.item, real_rL), read.age)
        x_rLW = x_rLW + F.embedding(bucket_rL, network.order.weight)
    if score_rPLF is not None and network.score_place == "after":
        assert isinstance(network.pool, SelfAttention)
        assert network.image is not None
        read_rLR = F.linear(x_rLW, *network.pool.reader())
        pooled = network.pool.with_scores(x_rLW, read_rLR, real_rL, score_rPLF, network.image.weight).flatten(0, 1)
        return network.out(pooled) * any_real.any()
    target = None
    if score_rPLF is not None or isinstance(network.pool, TargetAttention):  # each candidate reads for itself
        rows, targets = read.target.shape
        x_rLW = x_rLW[:, None].expand(-1, targets, -1, -1)
        if score_rPLF is not None:
            assert network.image is not None
            x_rLW = x_rLW + network.image(score_rPLF)
        x_rLW, real_rL = x_rLW.flatten(0, 1), real_rL[:, None].expand(rows, targets, -1).flatten(0, 1)
        target = projected_UW[read.target.flatten()]
    read_rLR = F.linear(x_rLW, *network.pool.reader())
    pooled = network.pool(x_rLW, read_rLR, real_rL, target if isinstance(network.pool, TargetAttention) else None)
    return network.out(pooled) * any_real.any()


def _at_least_one(real_rL: Tensor) -> tuple[Tensor, Tensor]:
    """The same with one real item in each row at least, without which a softmax is undefined; and (r,) whether there was one."""
    any_real = real_rL.any(1)
    first = torch.arange(real_rL.shape[1], device=real_rL.device) == 0
    return real_rL | (first & ~any_real[:, None]), any_real


def _table(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """The weights (rows, dim) of the table of that name, wherever TorchRec's collections keep it."""
    for key, value in weights.items():
        if key.startswith("tables.") and key.endswith(f".{name}.weight"):
            return value.float()
    raise UserError(f"weights of another model: no table {name!r}; export with the code that trained them")


def _others(tables: tuple[Table, ...], found: list[Tensor]) -> list[Tensor]:
    """All embeddings except the image feature's."""
    return [part for table, part in zip(tables, found, strict=True) if not is_image_table(table.name)]


def exported(model: ServingModel, *, vectors: int, unit: int) -> torch.export.ExportedProgram:
    """The model as a program of its own, for any number of items, candidates, words and history items.

    Args:
        vectors: D of what a form gives as item numbers; 0 without one.
        unit: D of what forms compare; 0 without any.
    """
    sizes = {name: torch.export.Dim(name, min=0) for name in ("words", "query_length")}
    sizes |= {name: torch.export.Dim(name, min=1) for name in ("items", "click_length", "purchase_length", "cart_length", "count")}
    first = {
        "item_rows": "items", "item_numeric": "items", "title_words": "words", "title_start": "items", "vectors": "items",
        "unit": "items", "group": "items",
        "present": "items", "clicks": "click_length", "purchases": "purchase_length", "cart": "cart_length", "candidates": "count",
        "query_words": "query_length", "codes": "items", "click_ages": "click_length", "purchase_ages": "purchase_length",
        "cart_ages": "cart_length", "log_numbers": "count", "own_logit": "count", "context_rows": "count", "context_numeric": "count",
    }  # fmt: skip
    shapes = {name: {0: sizes[first[name]]} if name in first else None for name in ModelInputs._fields}
    with torch.no_grad():
        return torch.export.export(model, tuple(_sample(model.layout, vectors, unit)), dynamic_shapes=shapes)


def _sample(layout: Layout, vectors: int, unit: int) -> ModelInputs:
    """Any inputs with 2 or more of everything: sizes of 0 and 1 would become constants of the program."""
    ids, numbers = torch.int64, torch.float32
    return ModelInputs(
        user_rows=torch.zeros(len(layout.user), dtype=ids),
        user_numeric=torch.zeros(layout.user_numeric, dtype=numbers),
        item_rows=torch.zeros(7, len(layout.item), dtype=ids),
        item_numeric=torch.zeros(7, layout.item_numeric, dtype=numbers),
        title_words=torch.zeros(11, dtype=ids),
        title_start=torch.arange(7),
        vectors=torch.zeros(7, vectors, dtype=numbers),
        unit=torch.zeros(7, unit, dtype=numbers),
        present=torch.ones(7, dtype=torch.bool),
        codes=torch.ones(7, layout.matched, dtype=torch.int32),
        group=torch.ones(7, dtype=torch.int32),
        clicks=torch.arange(3),
        purchases=torch.arange(4),
        cart=torch.arange(5),
        click_ages=torch.ones(3),
        purchase_ages=torch.ones(4),
        cart_ages=torch.ones(5),
        candidates=torch.arange(6),
        query_words=torch.zeros(9, dtype=ids),
        context_rows=torch.zeros(6, len(layout.context), dtype=ids),
        context_numeric=torch.zeros(6, layout.context_numeric, dtype=numbers),
        log_numbers=torch.zeros(6, layout.log_numbers, dtype=numbers),
        own_logit=torch.zeros(6),
    )
