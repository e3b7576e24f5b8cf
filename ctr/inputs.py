"""A shop as arrays that a batch is gathered from: one row an item, a user, an impression; made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ctr.config import CtrConfig
from ctr.vocabulary import Coded, Ragged, code, code_column, code_words, standardise
from data.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from data.histories import History, cart_history, click_history, purchase_history
from data.shop_folder import Shop
from data.stored_frame import Frame
from features.image_feature import ImageFeature
from run.errors import UserError

HISTORIES = ("clicks", "purchases", "cart")


@dataclass(frozen=True, kw_only=True)
class Table:
    """An embedding table and the feature that reads it, of the same name."""

    name: str
    size: int  # rows
    dim: int


@dataclass(frozen=True, kw_only=True)
class Columns:
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
class Inputs:
    """N items, U users, I impressions of S sessions."""

    layout: Layout
    items: Columns
    users: Columns
    context: Columns  # of impressions
    titles: Ragged | None  # of items
    queries: Ragged | None  # distinct queries
    query: np.ndarray  # (I,) int64, which query; zeros without queries
    histories: tuple[History, ...]  # in the order of HISTORIES
    vectors: np.ndarray | None  # (N, D) float32, zero rows where absent; for vector and sim_score
    present: np.ndarray  # (N,) bool
    shop: Shop


def encode(shop: Shop, feature: ImageFeature, config: CtrConfig) -> Inputs:
    """Make a shop's arrays. Vocabularies and standardisation know the train split alone, and events before its end.

    Raises:
        UserError: the train split is empty, or the image feature is of another catalogue.
        DataError: a column is of a type that is no feature.
    """
    train = shop.rows("train")
    if not len(train):
        raise UserError(f"{shop.folder}: the train split has no impressions; set the split column or log more sessions")
    if len(feature.present) != len(shop.items):
        raise UserError(f"{shop.folder}: {len(shop.items)} items, but the image feature has {len(feature.present)}; make it anew")
    item_seen, user_seen = _seen(shop, train)
    trained = np.bincount(train, minlength=len(shop.impressions))
    items = _columns("item", shop.items, ITEM_RESERVED, item_seen, config, identity=True)
    users = _columns("user", shop.users, USER_RESERVED, user_seen, config, identity=True)
    context = _columns("context", shop.impressions, IMPRESSION_RESERVED, trained, config, identity=False)
    if feature.form == "cluster_id":
        assert feature.cluster is not None
        table = Table(name="image_cluster", size=feature.clusters + 1, dim=config.cluster_size)
        rows = np.concatenate([items.rows, feature.cluster[None].astype(np.int32)])
        items = replace(items, tables=(*items.tables, table), rows=rows)
    titles, queries, query, words = _texts(shop, item_seen, trained, config)
    layout = Layout(
        item=items.tables, user=users.tables, context=context.tables, item_numeric=items.numeric.shape[1],
        user_numeric=users.numeric.shape[1], context_numeric=context.numeric.shape[1], words=words,
        titles=titles is not None, queries=queries is not None, form=feature.form,
        vector_size=feature.vectors.shape[1] if feature.form == "vector" and feature.vectors is not None else 0,
        cosine_mean=feature.cosine_mean, cosine_spread=feature.cosine_spread,
    )  # fmt: skip
    histories = (
        click_history(shop, max_items=config.click_items, scope=config.history_scope),
        purchase_history(shop, max_items=config.purchase_items),
        cart_history(shop, max_items=config.cart_items),
    )
    return Inputs(
        layout=layout, items=items, users=users, context=context, titles=titles, queries=queries, query=query,
        histories=histories, vectors=feature.vectors, present=feature.present, shop=shop,
    )  # fmt: skip


def _seen(shop: Shop, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each item (N,) and user (U,) stands in train impressions and in events before the last of them."""
    items, users = shop.events.counts_before(shop.session_time[shop.session[train]].max(), items=len(shop.items))
    items += np.bincount(shop.item[train], minlength=len(shop.items))
    users += np.bincount(shop.user[train], minlength=len(shop.users))
    return items, users


def _columns(kind: str, frame: Frame, reserved: Sequence[str], seen: np.ndarray, config: CtrConfig, *, identity: bool) -> Columns:
    """The feature columns of a table, headed by its rows' own IDs where `identity`."""
    found = feature_columns(frame, reserved=reserved)
    coded: list[tuple[str, int, Coded]] = []
    if identity:
        coded.append((kind, config.id_size, code(seen, np.arange(len(frame)), config.min_count)))
    for name in found.categorical:
        # a module's name may hold no dot; a written-out one keeps a.b and a_b apart
        table = f"{kind}:" + name.replace("%", "%25").replace(".", "%2E")
        coded.append((table, config.column_size, code_column(frame[name], seen, config.min_count)))
    return Columns(
        tables=tuple(Table(name=name, size=column.size, dim=dim) for name, dim, column in coded),
        rows=np.stack([column.rows for _, _, column in coded]) if coded else np.zeros((0, len(frame)), np.int32),
        numeric=standardise(frame, found.numeric, seen > 0),
    )


def _texts(
    shop: Shop, item_seen: np.ndarray, trained: np.ndarray, config: CtrConfig
) -> tuple[Ragged | None, Ragged | None, np.ndarray, int]:
    """Words of the titles (N) and of the distinct queries (Q), each impression's query (I,), rows of the table."""
    query = np.zeros(len(shop.impressions), dtype=np.int64)
    texts, weights = [], []
    if has_titles := "title" in shop.items.columns:
        texts.append(shop.items["title"])
        weights.append(item_seen)
    if has_queries := "query" in shop.impressions.columns:
        text = shop.impressions["query"].cast(pl.String).fill_null("")
        distinct = text.unique().sort()
        query = text.rank("dense").to_numpy().astype(np.int64) - 1
        texts.append(distinct)
        weights.append(np.bincount(query, weights=trained, minlength=len(distinct)))
    if not texts:
        return None, None, query, 0
    lists, size = code_words(texts, weights, config.words, config.min_count)
    return (lists[0] if has_titles else None), (lists[-1] if has_queries else None), query, size
