"""Settings of one CTR training run, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.forms.form import ITEM_NUMBERS, ITEM_TABLE, PAIR, PAIR_ATTENTION, PAIR_COUNTS
from features.forms.table import FORMS, NO_FORM, form_modules, places_of
from run.config import one_of, positive, seconds
from run.errors import SettingError
from run.source_code import code_hash

POOLINGS = ("self", "target")
SCHEDULES = ("constant", "cosine")
ORDERS = ("none", "position", "gap")
HISTORY_SCOPES = ("all", "category")
SCORE_PLACES = ("before", "after")
SIMILARITY_PLACES = ("logits", "buckets")
RETRIEVALS = ("cosine", "category")
ADAPTERS = ("linear", "mlp", "gated")
ID_STARTS = ("none", "ridge")
TIER_EDGES = ("quantiles", "equal")
PRECISIONS = ("32-true", "bf16-mixed")  # no loss scaling, which tables do not support
TABLE_OPTIMIZERS = ("adagrad", "rowwise_adagrad", "sgd")
TABLE_PRECISIONS = ("fp32", "fp16", "bf16")
SHARDINGS = ("auto", "table_wise", "row_wise")
LARGEST = 2**31 - 1  # table rows and counts are 32-bit integers
# settings that change no result, so that a run may be resumed with others; `init_from` is compared by content, not by path
NO_RESULT = ("checkpoint_seconds", "keep_checkpoints", "threads", "table_sharding", "init_from")
# settings that only models with an image feature in one of these places read; all others are the same whatever they are
_ANYWHERE = (ITEM_NUMBERS, ITEM_TABLE, PAIR, PAIR_COUNTS, PAIR_ATTENTION)
READ_AT: dict[str, tuple[str, ...]] = {
    "adapter": (ITEM_NUMBERS,), "cluster_size": (ITEM_TABLE,), "score_place": (PAIR,), "similarity_place": (PAIR_ATTENTION,),
    "tiers": (PAIR_COUNTS, PAIR_ATTENTION), "tier_edges": (PAIR_COUNTS, PAIR_ATTENTION),
    "image_gate": _ANYWHERE, "id_start": _ANYWHERE, "picture_epochs": _ANYWHERE,
}  # fmt: skip
SETTINGS = "settings.json"  # what a finished run was trained with

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "click_items": 20, "purchase_items": 10, "cart_items": 5, "width": 16, "hidden": (64, 32, 16, 8), "epochs": 2,
        "batch_sessions": 32, "least_steps": 0, "ema": 0.99,
    },
    "small": {},
    "paper": {
        "click_items": 1000, "purchase_items": 1000, "cart_items": 200, "width": 256, "heads": 8,
        "hidden": (1024, 512, 256, 128), "id_size": 64, "column_size": 32, "token_size": 32, "cluster_size": 64,
        "batch_sessions": 512, "least_steps": 0, "precision": "bf16-mixed", "mask_same_item": False, "table_optimizer": "rowwise_adagrad",
        "ema_tables": False, "match": False, "statistics": False, "co_occurrence": False, "history_order": "none", "windows": (),
        "id_dropout": 0.0, "schedule": "cosine", "image_gate": False,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CtrConfig:
    """How a CTR model is built and trained; the same for every image feature."""

    click_items: int = 50  # newest clicked items in a history; 0 leaves the history empty
    purchase_items: int = 20  # newest bought items
    cart_items: int = 10  # newest items in the cart
    history_scope: str = "all"  # all | category: clicks in the searched category only (the paper's; column `category`)
    min_count: int = 2  # an ID, value or word seen less often in the train split shares row 0 with all unknown ones
    hash_ids: int = 0  # rows of the item ID table and of the user ID table, found by a hash, for unbounded IDs; 0: a row per ID (min_count)
    # numbers computed from the log, strictly from before a session
    match: bool = True  # how many history items share the target's value of each item column, and how long ago the last one was
    statistics: bool = True  # impressions, clicks, click rate and trend so far, of item, each column's value and user
    statistics_lag: str = "0s"  # how old the newest counts are: 1d for those who count once a day
    co_occurrence: bool = True  # how often the target was clicked together with the newest clicks, in the pretraining period
    own_score: bool = True  # where impressions have the column own_score, start from its logit
    history_order: str = "position"  # what a history item knows of its place: none | position (from the newest) | gap (time since)
    windows: tuple[int, ...] = (10, 3)  # the newest few items of each history are pooled too; empty: none

    words: int = 32  # first words of a title or query that are read

    id_size: int = 16  # numbers in the embedding of an item ID or a user ID
    column_size: int = 8  # ... of a categorical column's value
    token_size: int = 8  # ... of a word
    cluster_size: int = 16  # ... of a cluster ID of a picture
    width: int = 32  # numbers in an item inside the attention and in a pooled history
    heads: int = 2  # attention heads; divides `width`
    pooling: str = "self"  # "self": self-attention and mean (the paper's); "target": DIN's attention by the target item
    # sim_score enters "before" the self-attention, in the item (the paper's), or "after" it, which is read once per session
    score_place: str = "before"
    # vector: what a picture's numbers pass through before they are added to an item: linear (nothing but the layer that adds them) | mlp |
    # gated (a linear map, each output times a gate of the picture)
    adapter: str = "linear"
    tiers: int = 20  # tiers of cosines in which sim_tier counts, or whose rows sim_attention adds (similarity_place buckets)
    # where tiers begin: quantiles (of cosines that training meets, finer at the top) | equal (equally wide from -1 to 1, the paper's)
    tier_edges: str = "quantiles"
    # how cosines enter the attention of sim_attention: logits (MUSE) | buckets (of keys and values: DMF)
    similarity_place: str = "logits"
    retrieve: int = 0  # history items that attention reads, those most like the target, in their order; 0: all of them
    # what is most alike: cosine (of pictures; of a model without them, the newest) | category (the same one); ties go to the newest
    retrieve_by: str = "cosine"
    mask_same_item: bool = True  # sim_*: ignore a target's cosine with itself in its history (off: as in Eq. 8)
    hidden: tuple[int, ...] = (128, 64, 32, 16)  # the MLP's hidden layers; the logit is one layer more

    epochs: int = 4  # passes over the train split at most; training stops before if validation does not improve (patience)
    start_epochs: int = 1  # of them, those of the baseline that a comparison's rows go on from (eval.compare --start warm)
    # ridge: an item whose ID is not known also has what its picture says of it, at first by a ridge regression from the pictures to the
    # trained IDs of known items; needs trained weights to start from, as picture_epochs does (--init-from; eval.compare: --start warm)
    id_start: str = "none"
    # a small version of MAKE: epochs before `epochs`, in which only the image branch learns and the trained model that it joins is held
    picture_epochs: int = 0
    batch_sessions: int = 64  # sessions in a batch at most, each complete
    least_steps: int = 400  # of an epoch: a log too small for them has smaller batches, of 8 sessions or more; 0: always batch_sessions
    learning_rate: float = 2e-3  # peak, of AdamW, for everything except the tables
    table_learning_rate: float = 5e-2  # peak, of the tables' optimizer
    # of the embedding tables, applied inside the backward pass: adagrad | rowwise_adagrad (one sum of squares per row) | sgd
    table_optimizer: str = "adagrad"
    table_precision: str = "fp32"  # of table rows: fp32 | fp16 | bf16 (a GPU)
    table_sharding: str = "auto"  # over ranks: auto (TorchRec's planner) | table_wise | row_wise; texts' words always table-wise
    id_dropout: float = 0.9  # share of a batch's item and user IDs that are taken for unknown ones in training
    image_gate: bool = True  # at validations, keep less of the image branch where that lowers the log loss (ctr/training/gate.py)
    click_rate_start: bool = True  # the logit's bias begins at the click rate, not at 0
    weight_decay: float = 1e-4  # of AdamW; none on tables
    schedule: str = "constant"  # constant: learning rates stay at their peak, and the average of weights settles; cosine: they fall to 0
    warm_up: float = 0.05  # share of an epoch (cosine: of all steps) in which the learning rates rise
    ema: float = 0.999  # decay per step of the average of weights that is validated; 0 validates the weights themselves
    ema_tables: bool = True  # average the tables too: a pass over all their rows at each step
    validations_per_epoch: int = 2  # validations in an epoch
    patience: int = 3  # stop after this many validations without a lower log loss
    checkpoint_seconds: float = 20.0  # between checkpoints; one is also written at every validation
    keep_checkpoints: int = 2  # how many of the newest are kept, in addition to that of the best weights
    init_from: Path | None = None  # run on the same data, or its best.safetensors, whose weights to start from; None: from scratch

    threads: int = 0  # CPU threads of ctr.train, 0: torch's choice; eval.compare always uses one per training
    precision: str = "32-true"  # 32-true or bf16-mixed

    @property
    def lag(self) -> int:
        """Seconds that `statistics_lag` means."""
        return seconds("statistics_lag", self.statistics_lag)

    @property
    def need_start(self) -> dict[str, Any]:
        """The settings, with their values, that ask something of trained weights to start from; the baseline reads none of them."""
        asked = {"picture_epochs": self.picture_epochs, "id_start": self.id_start}
        return {name: value for name, value in asked.items() if value not in (0, "none")}

    @property
    def start(self) -> Path | None:
        """The weights file that `init_from` means."""
        return self.init_from / "best.safetensors" if self.init_from is not None and self.init_from.is_dir() else self.init_from

    def __post_init__(self):
        for name in (
            "click_items", "purchase_items", "cart_items", "checkpoint_seconds", "weight_decay", "threads", "hash_ids", "least_steps",
            "retrieve", "picture_epochs",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise SettingError(name, getattr(self, name), "give 0 or more")
        for name in (
            "min_count", "words", "id_size", "column_size", "token_size", "cluster_size", "width", "heads", "epochs", "start_epochs",
            "batch_sessions", "learning_rate", "table_learning_rate", "validations_per_epoch", "patience", "keep_checkpoints",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        for name, value in vars(self).items():
            if isinstance(value, int) and value > LARGEST:
                raise SettingError(name, value, f"give {LARGEST} or less")
        if self.tiers < 2:
            raise SettingError("tiers", self.tiers, "give 2 or more: one tier tells nothing")
        for size in self.hidden:
            positive("hidden", size)
        if not self.hidden:
            raise SettingError("hidden", self.hidden, "give at least one layer")
        if self.width % self.heads:
            raise SettingError("heads", self.heads, f"must divide width {self.width}")
        for name in ("warm_up", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "give a share from 0 to below 1")
        if not 0 <= self.id_dropout <= 1:
            raise SettingError("id_dropout", self.id_dropout, "give a share from 0 to 1")
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("pooling", self.pooling, POOLINGS)
        one_of("score_place", self.score_place, SCORE_PLACES)
        if self.score_place == "after" and self.pooling != "self":
            raise SettingError("score_place", self.score_place, "needs pooling self: other pooling has no self-attention to come after")
        one_of("similarity_place", self.similarity_place, SIMILARITY_PLACES)
        one_of("retrieve_by", self.retrieve_by, RETRIEVALS)
        one_of("adapter", self.adapter, ADAPTERS)
        one_of("id_start", self.id_start, ID_STARTS)
        if self.id_start != "none" and self.hash_ids:
            raise SettingError("id_start", self.id_start, "a hashed ID is always known: give no hash_ids")
        one_of("tier_edges", self.tier_edges, TIER_EDGES)
        one_of("history_scope", self.history_scope, HISTORY_SCOPES)
        one_of("history_order", self.history_order, ORDERS)
        for size in self.windows:
            positive("windows", size)
        if self.lag < 0:
            raise SettingError("statistics_lag", self.statistics_lag, "give 0 or more")
        one_of("precision", self.precision, PRECISIONS)
        one_of("table_optimizer", self.table_optimizer, TABLE_OPTIMIZERS)
        one_of("table_precision", self.table_precision, TABLE_PRECISIONS)
        one_of("table_sharding", self.table_sharding, SHARDINGS)
        for name in ("id_size", "column_size", "token_size", "cluster_size"):
            if getattr(self, name) % 4:
                raise SettingError(name, getattr(self, name), "give a multiple of 4: the tables' kernels need it")
        if self.table_precision != "fp32" and self.ema and self.ema_tables:
            raise SettingError("table_precision", self.table_precision, "an average of tables needs fp32; turn ema_tables off or give fp32")


def settings_read(config: CtrConfig, form: str) -> dict[str, Any]:
    """The settings on which the result of training with this form of image feature depends, by name.

    Args:
        form: as `code_of`'s.
    """
    places = set(places_of(form))
    unread = {*NO_RESULT, *(name for name, at in READ_AT.items() if places.isdisjoint(at))}
    return {name: value for name, value in asdict(config).items() if name not in unread}


def code_of(form: str, module: str = "ctr.training.loop") -> str:
    """A hash of the code that trains a CTR model with this form of image feature; other forms' files are left out.

    Args:
        form: one of FORMS, several joined by "+", or "none".
        module: where the training begins.
    """
    own = form_modules(form)
    others = [module for name in FORMS for module in form_modules(name) if module not in own]
    return code_hash(module, *own, without=("features.forms.table", *others))


def refuse_without_start(config: CtrConfig, form: str) -> None:
    """Refuse settings that need trained weights to start from where there are none.

    Args:
        form: as `code_of`'s.

    Raises:
        SettingError: names the setting.
    """
    for name, value in config.need_start.items() if form != NO_FORM and config.start is None else ():
        raise SettingError(name, value, "needs a trained model: --init-from (eval.compare: --start warm)")
