"""A shop as arrays that a batch is gathered from: one row an item, a user, an impression; made once.

What the train split knows is fitted first (`fit`) and then applied, to the same shop or to a later one (`encode`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl

from ctr.config import CtrConfig
from ctr.inputs.vocabulary import Hashed, Ragged, Scale, Vocabulary, fit_ids, fit_scale, fit_values, fit_words, word_rows
from data.arrays.stored_frame import Frame
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from data.log.histories import History, cart_history, click_history, purchase_history
from data.log.shop_folder import Shop
from data.log.tables import index_of
from features.image_feature import ImageFeature
from run.errors import DataError, UserError

HISTORIES = ("clicks", "purchases", "cart")
CLUSTER = "image_cluster"  # the table of cluster IDs
FILES = {"item": "items.parquet", "user": "users.parquet", "context": "impressions.parquet"}
_RESERVED = {"item": ITEM_RESERVED, "user": USER_RESERVED, "context": IMPRESSION_RESERVED}


@dataclass(frozen=True, kw_only=True)
class Table:
    """An embedding table and the feature that reads it, of the same name."""

    name: str
    size: int  # rows
    dim: int


@dataclass(frozen=True, kw_only=True)
class EncodedColumns:
    """The features of n items, users or impressions."""

    tables: tuple[Table, ...]
    rows: np.ndarray  # (K, n) int32, a table's rows in each line
    numeric: np.ndarray  # (n, M) float32


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a model must know of the data to be built: tables and sizes."""

    item: tuple[Table, ...]
    user: tuple[Table, ...]
    context: tuple[Table, ...]
    item_numeric: int
    user_numeric: int
    context_numeric: int
    words: int  # rows of the words' table; 0: neither titles nor queries
    titles: bool
    queries: bool
    form: str  # of the image feature
    vector_size: int  # D of the form "vector", else 0
    cosine_mean: float = 0.0  # sim_score: of pairs of pictures; scores are standardised by these, as all numeric inputs are
    cosine_spread: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the columns of items, users or impressions become numbers."""

    kind: str  # item | user | context
    ids: Vocabulary | Hashed | None  # of the rows' own ids; impressions have none
    categorical: dict[str, Vocabulary]  # by column
    numeric: tuple[Scale, ...]

    def tables(self, config: CtrConfig) -> tuple[Table, ...]:
        """The embedding tables that the columns need."""
        own = [] if self.ids is None else [Table(name=self.kind, size=self.ids.size, dim=config.id_size)]
        # a module's name may hold no dot; a written-out one keeps a.b and a_b apart
        named = [(f"{self.kind}:" + name.replace("%", "%25").replace(".", "%2E"), values) for name, values in self.categorical.items()]
        return (*own, *(Table(name=name, size=values.size, dim=config.column_size) for name, values in named))

    @property
    def numbers(self) -> int:
        """Standardised numbers and flags of a row."""
        return sum(2 if scale.flag else 1 for scale in self.numeric)


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """All that the train split knew of values, words and numbers."""

    item: Rules
    user: Rules
    context: Rules
    words: Vocabulary | None  # None: neither titles nor queries
    titles: bool
    queries: bool


@dataclass(frozen=True, kw_only=True)
class EncodedCatalogue:
    """N items and U users as arrays."""

    layout: Layout
    items: EncodedColumns
    users: EncodedColumns
    titles: Ragged | None  # of items
    vectors: np.ndarray | None  # (N, D) float32, zero rows where absent; for vector and sim_score
    present: np.ndarray  # (N,) bool
    feature: ImageFeature  # of the items


@dataclass(frozen=True, kw_only=True)
class Inputs(EncodedCatalogue):
    """N items, U users, I impressions of S sessions."""

    context: EncodedColumns  # of impressions
    queries: Ragged | None  # distinct queries
    query: np.ndarray  # (I,) int64, which query; zeros without queries
    histories: tuple[History, ...]  # in the order of HISTORIES
    each_impression: bool  # the model reads histories for each impression, not once a session
    shop: Shop
    vocabularies: Vocabularies


def encode(shop: Shop, feature: ImageFeature, config: CtrConfig, vocabularies: Vocabularies | None = None) -> Inputs:
    """Make a shop's arrays. Vocabularies and standardisation know the train split alone, and events before its end.

    Args:
        vocabularies: what an earlier log has taught; None: fitted to this shop's train split.

    Raises:
        UserError: the train split is empty, or the image feature is of another catalogue.
        DataError: a column is of a type that is no feature, is missing, or is not of the type that the vocabularies know.
    """
    if len(feature.present) != len(shop.items):
        raise UserError(f"{shop.folder}: {len(shop.items)} items, but the image feature has {len(feature.present)}; make it anew")
    known = vocabularies or fit(shop, config)
    return encode_log(shop, encode_catalogue(shop, feature, config, known), config, known)


def fit(shop: Shop, config: CtrConfig) -> Vocabularies:
    """What the train split knows, events before its end included.

    Raises:
        UserError: the train split is empty.
        DataError: a column is of a type that is no feature.
    """
    train = shop.rows("train")
    if not len(train):
        raise UserError(f"{shop.folder}: the train split has no impressions; set the split column or log more sessions")
    item_seen, user_seen = _seen(shop, train)
    trained = np.bincount(train, minlength=len(shop.impressions))
    texts, weights = [], []
    if titles := "title" in shop.items.columns:
        texts.append(shop.items["title"])
        weights.append(item_seen)
    if queries := "query" in shop.impressions.columns:
        asked = shop.impressions["query"].gather(train).value_counts(name="times")
        texts.append(asked["query"])
        weights.append(asked["times"].to_numpy())
    return Vocabularies(
        item=_fit_columns("item", shop.items, item_seen, config, ids="item_id"),
        user=_fit_columns("user", shop.users, user_seen, config, ids="user_id"),
        context=_fit_columns("context", shop.impressions, trained, config, ids=None),
        words=fit_words(texts, weights, config.words, config.min_count) if texts else None,
        titles=titles,
        queries=queries,
    )


def layout_of(vocabularies: Vocabularies, feature: ImageFeature, config: CtrConfig) -> Layout:
    """What a model of these vocabularies and this image feature must know to be built."""
    item = vocabularies.item.tables(config)
    if feature.form == "cluster_id":
        item = (*item, Table(name=CLUSTER, size=feature.clusters + 1, dim=config.cluster_size))
    return Layout(
        item=item, user=vocabularies.user.tables(config), context=vocabularies.context.tables(config),
        item_numeric=vocabularies.item.numbers, user_numeric=vocabularies.user.numbers, context_numeric=vocabularies.context.numbers,
        words=0 if vocabularies.words is None else vocabularies.words.size, titles=vocabularies.titles, queries=vocabularies.queries,
        form=feature.form, vector_size=feature.vectors.shape[1] if feature.form == "vector" and feature.vectors is not None else 0,
        cosine_mean=feature.cosine_mean, cosine_spread=feature.cosine_spread,
    )  # fmt: skip


def encode_catalogue(shop: Shop, feature: ImageFeature, config: CtrConfig, vocabularies: Vocabularies) -> EncodedCatalogue:
    """The arrays of a shop's items and users."""
    layout = layout_of(vocabularies, feature, config)
    items = encode_columns(vocabularies.item, shop.items, config)
    if feature.form == "cluster_id":
        assert feature.cluster is not None
        items = replace(items, tables=layout.item, rows=np.concatenate([items.rows, feature.cluster[None].astype(np.int32)]))
    return EncodedCatalogue(
        layout=layout,
        items=items,
        users=encode_columns(vocabularies.user, shop.users, config),
        titles=encode_titles(vocabularies, shop.items, config),
        vectors=feature.vectors,
        present=feature.present,
        feature=feature,
    )


def encode_log(
    shop: Shop, catalogue: EncodedCatalogue, config: CtrConfig, vocabularies: Vocabularies, *, file: str = FILES["context"]
) -> Inputs:
    """The arrays of a shop's impressions and histories beside those of its catalogue; errors call the impressions' file `file`."""
    queries, query = None, np.zeros(len(shop.impressions), dtype=np.int64)
    if vocabularies.queries:
        assert vocabularies.words is not None
        text = _column(shop.impressions, "query", file).cast(pl.String).fill_null("")
        distinct = text.unique().sort()
        query = index_of(text, distinct).astype(np.int64)
        queries = word_rows(vocabularies.words, distinct, config.words)
    return Inputs(
        **{field.name: getattr(catalogue, field.name) for field in fields(EncodedCatalogue)},
        context=encode_columns(vocabularies.context, shop.impressions, config, file=file),
        queries=queries,
        query=query,
        histories=(
            click_history(shop, max_items=config.click_items, scope=config.history_scope),
            purchase_history(shop, max_items=config.purchase_items),
            cart_history(shop, max_items=config.cart_items),
        ),
        each_impression=config.pooling == "target" or (catalogue.layout.form == "sim_score" and config.score_place == "before"),
        shop=shop,
        vocabularies=vocabularies,
    )


def encode_columns(rules: Rules, frame: Frame, config: CtrConfig, *, file: str = "") -> EncodedColumns:
    """The feature columns of n items, users or impressions.

    Args:
        file: what errors call the table's file; empty: the name it has in a shop folder.

    Raises:
        DataError: a column is missing, or is not of the type that the rules know.
    """
    file = file or FILES[rules.kind]
    rows = [] if rules.ids is None else [rules.ids.rows(frame[f"{rules.kind}_id"], file)]
    rows += [values.rows(_column(frame, name, file), file) for name, values in rules.categorical.items()]
    numeric = np.empty((len(frame), rules.numbers), dtype=np.float32)
    place = 0
    for scale in rules.numeric:
        column = _column(frame, scale.column, file)
        if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            raise DataError(file, column=column.name, fix=f"type {column.dtype}, but the model was trained on numbers; write it as that")
        for numbers in scale.numbers(column):
            numeric[:, place] = numbers
            place += 1
    return EncodedColumns(
        tables=rules.tables(config),
        rows=np.stack(rows) if rows else np.zeros((0, len(frame)), np.int32),
        numeric=numeric,
    )


def encode_titles(vocabularies: Vocabularies, items: pl.DataFrame, config: CtrConfig) -> Ragged | None:
    """The words of the items' titles; None where the model reads none."""
    if not vocabularies.titles:
        return None
    assert vocabularies.words is not None
    return word_rows(vocabularies.words, _column(items, "title", FILES["item"]), config.words)


def _seen(shop: Shop, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each item (N,) and user (U,) stands in train impressions and in events before the last of them."""
    items, users = shop.events.counts_before(shop.session_time[shop.session[train]].max(), items=len(shop.items))
    items += np.bincount(shop.item[train], minlength=len(shop.items))
    users += np.bincount(shop.user[train], minlength=len(shop.users))
    return items, users


def _fit_columns(kind: str, frame: Frame, seen: np.ndarray, config: CtrConfig, *, ids: str | None) -> Rules:
    """Rules for the feature columns of a table, and for its rows' own ids, where it has some."""
    found = feature_columns(frame, reserved=_RESERVED[kind], file=FILES[kind])
    own = None
    if ids is not None:
        own = Hashed(key=kind, size=config.hash_ids) if config.hash_ids else fit_ids(frame[ids], seen, config.min_count)
    return Rules(
        kind=kind,
        ids=own,
        categorical={name: fit_values(frame[name], seen, config.min_count) for name in found.categorical},
        numeric=tuple(fit_scale(frame[name], seen > 0) for name in found.numeric),
    )


def _column(frame: Frame, name: str, file: str) -> pl.Series:
    if name not in frame.columns:
        raise DataError(file, column=name, fix="no such column, but the model was trained with it; add it, null where unknown")
    return frame[name]
