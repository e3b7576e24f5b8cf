"""A shop as arrays that batches are gathered from: one row per item, user or impression; made once.

What the train split knows is fitted first (`ctr.inputs.rules.fit`) and then applied, to the same shop or to a later one (`encode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl

from ctr.config import CtrConfig
from ctr.inputs.dense import LogFeatures, encode_numbers, log_features
from ctr.inputs.own_score import own_logits
from ctr.inputs.rules import FILES, Rules, Table, Vocabularies, fit, train_begins
from ctr.inputs.statistics import value_codes
from ctr.inputs.vocabulary import Ragged, word_rows
from data.arrays.stored_frame import Frame
from data.log.columns import ITEM_RESERVED, feature_columns
from data.log.histories import History, cart_history, click_history, purchase_history
from data.log.shop_folder import Shop
from data.log.tables import index_of
from data.origin import is_sampled
from features.forms.form import COMPARING, PAIR
from features.forms.table import NO_FORM, places_of
from features.image_feature import ImageFeature
from run.errors import DataError, SettingError, UserError

HISTORIES = ("clicks", "purchases", "cart")
IMAGE_TABLES = "image:"  # how the names of the item tables that forms fill begin, in weights files too


def is_image_table(name: str) -> bool:
    """Whether a form fills the table of this name."""
    return name.startswith(IMAGE_TABLES)


@dataclass(frozen=True, kw_only=True)
class EncodedColumns:
    """The features of n items, users or impressions."""

    tables: tuple[Table, ...]
    rows: np.ndarray  # (K, n) int32 table rows, one line per table
    numeric: np.ndarray  # (n, M) float32


@dataclass(frozen=True, kw_only=True)
class ImageLayout:
    """What a model must know of one form of its image feature."""

    form: str
    place: str  # where it enters (features/forms/form.py)
    size: int  # D of item numbers, else 0
    tables: tuple[str, ...]  # names of its item tables
    constants: dict[str, tuple[float, ...]]  # by the place's names


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a model must know of the data to be built: tables and sizes."""

    item: tuple[Table, ...]
    user: tuple[Table, ...]
    context: tuple[Table, ...]
    item_numeric: int
    user_numeric: int
    context_numeric: int
    log_numbers: int  # K statistics and co-occurrence of an impression
    group: int  # which of these columns tells what is retrieved for a target; -1: none does
    matched: int  # C columns whose values are compared with those of history items; 0: match is off
    own_score: bool  # logits start from those of the user's own model
    own_line: tuple[float, float]  # scale and bias of its logit at the start
    distances: tuple[tuple[int, int], ...]  # for each numeric item column: where its value and its flag of missing ones are; -1: no flag
    words: int  # rows of the words' table; 0: neither titles nor queries
    titles: bool
    queries: bool
    form: str  # of the image feature: one, several joined by "+", or "none"
    images: tuple[ImageLayout, ...] = ()  # of each form
    unit: int = 0  # D of unit embeddings, where the model reads them

    @property
    def pictured(self) -> bool:
        """Whether the model reads pictures."""
        return self.form != NO_FORM

    def image(self, place: str) -> ImageLayout | None:
        """The form that enters at a place; None if there is none."""
        return next((image for image in self.images if image.place == place), None)


@dataclass(frozen=True, kw_only=True)
class EncodedCatalogue:
    """N items and U users as arrays."""

    layout: Layout
    items: EncodedColumns
    users: EncodedColumns
    titles: Ragged | None  # of items
    vectors: np.ndarray | None  # (N, D) float32, zero rows where absent; of a form that enters as item numbers
    unit: np.ndarray | None  # (N, D) float32 unit rows, zero rows where absent; None if no pictures are compared
    present: np.ndarray  # (N,) bool
    codes: np.ndarray  # (N, C) int32: which item it is, and which value of each categorical column it has, from 1 on; 0: missing
    log_features: LogFeatures  # what the log says of items and users
    feature: ImageFeature  # of the items


@dataclass(frozen=True, kw_only=True)
class Inputs(EncodedCatalogue):
    """N items, U users, I impressions of S sessions."""

    context: EncodedColumns  # of impressions
    queries: Ragged | None  # distinct queries
    query: np.ndarray  # (I,) int64, which query; zeros without queries
    own_logit: np.ndarray | None  # (I,) float32 logits of the user's own model; None: not used
    log_numbers: np.ndarray  # (I, K) float32 statistics and co-occurrence, standardised
    histories: tuple[History, ...]  # in the order of HISTORIES
    each_impression: bool  # the model reads histories once per impression, not once per session
    shop: Shop
    vocabularies: Vocabularies


def encode(shop: Shop, feature: ImageFeature, config: CtrConfig, vocabularies: Vocabularies | None = None) -> Inputs:
    """Make a shop's arrays. Vocabularies and standardisation are fitted to the train split and to events before its end only.

    Args:
        vocabularies: those fitted to an earlier log; None: fit them to this shop's train split.

    Raises:
        UserError: the train split is empty, or the image feature is of another catalogue.
        DataError: a column is of a type that is no feature, is missing, or has another type than the vocabularies.
    """
    if len(feature.present) != len(shop.items):
        raise UserError(f"{shop.folder}: {len(shop.items)} items, but the image feature has {len(feature.present)}; make it again")
    clicks = clicks_of(shop, config)
    if vocabularies is None:
        columns = feature_columns(shop.items, reserved=ITEM_RESERVED).categorical
        features = log_features(shop, config, columns, train_begins(shop), clicks_only=is_sampled(shop.folder))
        known = fit(shop, config, features, clicks)
    else:
        features, known = features_of(shop, config, vocabularies), vocabularies
    return encode_log(shop, encode_catalogue(shop, feature, config, known, features), config, known, clicks=clicks)


def features_of(shop: Shop, config: CtrConfig, vocabularies: Vocabularies) -> LogFeatures:
    """What the shop's log says of items and users, for the columns that a trained model reads."""
    return log_features(shop, config, list(vocabularies.item.categorical), vocabularies.since, clicks_only=vocabularies.sampled)


def clicks_of(shop: Shop, config: CtrConfig) -> History:
    """The click histories that a model with these settings reads."""
    return click_history(shop, max_items=config.click_items, scope=config.history_scope)


def layout_of(vocabularies: Vocabularies, feature: ImageFeature, config: CtrConfig) -> Layout:
    """What a model of these vocabularies and this image feature must know to be built."""
    images = image_layouts(feature)
    layout = Layout(
        item=(*vocabularies.item.tables(config), *image_tables(feature, config.cluster_size)),
        user=vocabularies.user.tables(config), context=vocabularies.context.tables(config),
        item_numeric=vocabularies.item.numbers, user_numeric=vocabularies.user.numbers, context_numeric=vocabularies.context.numbers,
        log_numbers=len(vocabularies.log_numbers), matched=1 + len(vocabularies.item.categorical) if config.match else 0,
        group=_group(vocabularies.item, config),
        own_score=vocabularies.own_score,
        own_line=vocabularies.own_line,
        distances=value_places(vocabularies.item) if config.match else (),
        words=0 if vocabularies.words is None else vocabularies.words.size, titles=vocabularies.titles, queries=vocabularies.queries,
        form=feature.form, images=images,
    )  # fmt: skip
    return replace(layout, unit=feature.unit.shape[1]) if feature.unit is not None and reads_units(layout, config) else layout


def _group(items: Rules, config: CtrConfig) -> int:
    """The number of the column `category` among the codes of items, if histories are retrieved by it.

    Raises:
        SettingError: items have no such column.
    """
    if not config.retrieve or config.retrieve_by != "category":
        return -1
    if "category" not in items.categorical:
        raise SettingError(
            "retrieve_by", config.retrieve_by, "items.parquet has no column 'category' of texts or numbers; add it, or give cosine"
        )
    return 1 + list(items.categorical).index("category")


def image_tables(feature: ImageFeature, dim: int) -> tuple[Table, ...]:
    """The item tables that an image feature's forms fill, in the order of its rows."""
    names = [name for image in image_layouts(feature) for name in image.tables]
    sizes = [size for part in feature.parts.values() for size in part.table_sizes]
    return tuple(Table(name=name, size=size, dim=dim) for name, size in zip(names, sizes, strict=True))


def image_layouts(feature: ImageFeature) -> tuple[ImageLayout, ...]:
    """What a model must know of each form of an image feature."""
    return tuple(
        ImageLayout(
            form=form,
            place=place,
            size=0 if part.numbers is None else part.numbers.shape[1],
            tables=tuple(f"{IMAGE_TABLES}{form}:{level}" for level in range(len(part.table_sizes))),
            constants=part.constants,
        )
        for (form, part), place in zip(feature.parts.items(), places_of(feature.form), strict=True)
    )


def value_places(rules: Rules) -> tuple[tuple[int, int], ...]:
    """For each numeric column, where its value and its flag of missing ones are among the numbers; -1: it has no flag."""
    places, at = [], 0
    for scale in rules.numeric:
        places.append((at, at + 1 if scale.flag else -1))
        at += 2 if scale.flag else 1
    return tuple(places)


def value_numbers(items: pl.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """(N, C) int32: which item it is, and which value of each categorical column it has; 0 where that is missing."""
    codes = [np.arange(len(items), dtype=np.int32)] + [value_codes(items[name])[0] for name in columns]
    return np.stack(codes, axis=1) + 1


def encode_catalogue(
    shop: Shop, feature: ImageFeature, config: CtrConfig, vocabularies: Vocabularies, features: LogFeatures | None = None
) -> EncodedCatalogue:
    """The arrays of a shop's items and users.

    Args:
        features: what the shop's log says of them; None: it is counted.
    """
    layout = layout_of(vocabularies, feature, config)
    items = encode_columns(vocabularies.item, shop.items, config)
    if feature.rows.shape[1]:
        items = replace(items, tables=layout.item, rows=np.concatenate([items.rows, feature.rows.T.astype(np.int32)]))
    return EncodedCatalogue(
        layout=layout,
        items=items,
        users=encode_columns(vocabularies.user, shop.users, config),
        titles=encode_titles(vocabularies, shop.items, config),
        vectors=feature.numbers,
        unit=feature.unit if layout.unit else None,
        present=feature.present,
        codes=value_numbers(shop.items, list(vocabularies.item.categorical)),
        log_features=features or features_of(shop, config, vocabularies),
        feature=feature,
    )


def compares(layout: Layout, config: CtrConfig) -> bool:
    """Whether a model reads cosines of targets and history items."""
    places = {image.place for image in layout.images}
    return bool(places & COMPARING) or bool(places and config.retrieve and config.retrieve_by == "cosine")


def reads_units(layout: Layout, config: CtrConfig) -> bool:
    """Whether a model reads unit embeddings."""
    return compares(layout, config) or (layout.pictured and config.id_start != "none")


def encode_log(
    shop: Shop, catalogue: EncodedCatalogue, config: CtrConfig, vocabularies: Vocabularies, *, clicks: History | None = None,
    file: str = FILES["context"],
) -> Inputs:  # fmt: skip
    """The arrays of a shop's impressions and histories, with those of its catalogue; errors call the impressions' file `file`.

    Args:
        clicks: the click histories; None: they are found.
    """
    queries, query = None, np.zeros(len(shop.impressions), dtype=np.int64)
    if vocabularies.queries:
        assert vocabularies.words is not None
        text = _column(shop.impressions, "query", file).cast(pl.String).fill_null("")
        distinct = text.unique().sort()
        query = index_of(text, distinct).astype(np.int64)
        queries = word_rows(vocabularies.words, distinct, config.words)
    clicks = clicks or clicks_of(shop, config)
    return Inputs(
        **{field.name: getattr(catalogue, field.name) for field in fields(EncodedCatalogue)},
        context=encode_columns(vocabularies.context, shop.impressions, config, file=file),
        queries=queries,
        query=query,
        own_logit=own_logits(shop, file=file) if vocabularies.own_score else None,
        log_numbers=encode_numbers(catalogue.log_features, vocabularies.log_numbers, shop, clicks),
        histories=(
            clicks,
            purchase_history(shop, max_items=config.purchase_items),
            cart_history(shop, max_items=config.cart_items),
        ),
        each_impression=_each_impression(catalogue.layout, config),
        shop=shop,
        vocabularies=vocabularies,
    )


def _each_impression(layout: Layout, config: CtrConfig) -> bool:
    scored_before = layout.image(PAIR) is not None and config.score_place == "before"
    return config.pooling == "target" or config.retrieve > 0 or scored_before


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


def _column(frame: Frame, name: str, file: str) -> pl.Series:
    if name not in frame.columns:
        raise DataError(file, column=name, fix="no such column, but the model was trained with it; add it, null where unknown")
    return frame[name]
