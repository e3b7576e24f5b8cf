"""The rules by which columns become numbers: fitted once to what the train split knows, then applied to any log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.config import LARGEST, CtrConfig
from ctr.inputs.dense import LogFeatures, fit_numbers
from ctr.inputs.own_score import calibration, has_own_score, own_logits
from ctr.inputs.vocabulary import Hashed, Scale, Vocabulary, fit_ids, fit_scale, fit_values, fit_words
from data.arrays.stored_frame import Frame
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from data.log.histories import History
from data.log.shop_folder import SPLITS, Shop
from run.errors import UserError

_SAMPLE = 1 << 20  # impressions that the scale of own scores is fitted to
FILES = {"item": "items.parquet", "user": "users.parquet", "context": "impressions.parquet"}
_RESERVED = {"item": ITEM_RESERVED, "user": USER_RESERVED, "context": IMPRESSION_RESERVED}


@dataclass(frozen=True, kw_only=True)
class Table:
    """An embedding table and the feature that reads it; both have the same name."""

    name: str
    size: int  # rows
    dim: int

    def __post_init__(self):
        if self.size > LARGEST:
            raise UserError(
                f"table {self.name!r}: {self.size:,} rows, more than the limit of {LARGEST:,}; give a higher --min-count or --hash-ids"
            )


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
        # The prefix keeps the user's columns apart from our own tables (item, user, word, image:...). A module's name may hold no dot:
        # escaped, a.b and a_b and a%2Eb stay three names.
        named = [(f"{self.kind}:" + name.replace("%", "%25").replace(".", "%2E"), values) for name, values in self.categorical.items()]
        return (*own, *(Table(name=name, size=values.size, dim=config.column_size) for name, values in named))

    @property
    def numbers(self) -> int:
        """Standardised numbers and flags of a row."""
        return sum(2 if scale.flag else 1 for scale in self.numeric)


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """All that is known from the train split of values, words and numbers."""

    item: Rules
    user: Rules
    context: Rules
    log_numbers: tuple[Scale, ...]  # statistics and co-occurrence
    since: int  # Unix s of the train split's first session: co-occurrence is counted before it
    sampled: bool  # impressions without a click were sampled: statistics count clicks alone
    own_score: bool  # predictions start from those of the user's own model
    own_line: tuple[float, float] = (1.0, 0.0)  # scale and bias of its logit at the start
    words: Vocabulary | None  # None: neither titles nor queries
    titles: bool
    queries: bool


def train_begins(shop: Shop) -> int:
    """Unix s of the first session after the pretrain split."""
    return int(shop.session_time[shop.session_split != SPLITS.index("pretrain")].min())


def fit(shop: Shop, config: CtrConfig, features: LogFeatures, clicks: History) -> Vocabularies:
    """Fit the vocabularies to the train split and to the events before its end.

    Args:
        features: what the log says of items and users.
        clicks: the click histories.

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
    starts_from_own = config.own_score and has_own_score(shop.impressions)
    return Vocabularies(
        log_numbers=fit_numbers(features, shop, clicks),
        since=train_begins(shop),
        sampled=features.clicks_only,
        own_score=starts_from_own,
        own_line=_own_line(shop, train) if starts_from_own else (1.0, 0.0),
        item=_fit_columns("item", shop.items, item_seen, config, ids="item_id"),
        user=_fit_columns("user", shop.users, user_seen, config, ids="user_id"),
        context=_fit_columns("context", shop.impressions, trained, config, ids=None),
        words=fit_words(texts, weights, config.words, config.min_count) if texts else None,
        titles=titles,
        queries=queries,
    )


def _own_line(shop: Shop, train: np.ndarray) -> tuple[float, float]:
    """Scale and bias of the user's own logits in the train split, of which a large one is sampled evenly."""
    rows = train[:: max(1, len(train) // _SAMPLE)]
    return calibration(own_logits(shop, file=FILES["context"])[rows], shop.click[rows])


def _seen(shop: Shop, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each item (N,) and user (U,) occurs in train impressions and in events before the last of them."""
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
