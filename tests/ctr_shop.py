"""A small shop in memory for the CTR tests: users like some styles, and a style shows in the picture's vector only."""

from __future__ import annotations

import dataclasses
import tempfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ctr.config import POOLINGS, CtrConfig
from ctr.inputs.length_buckets import BucketedHistory
from ctr.model.ctr_model import CtrModel
from ctr.training.loop import train_ctr
from data.log.events import ACTIONS, EventRows, by_action
from data.log.shop_folder import SPLITS, Events, Shop, load_shop
from features.forms.form import PlaceValues
from features.forms.table import FORM_NAMES, forms_of
from features.image_feature import ImageFeature, no_image

DIM = 8


def make_shop(
    *, users: int = 60, items: int = 80, sessions: int = 400, page: int = 6, events: int = 600, styles: int = 4,
    seed: int = 0, strength: float = 3.0, columns: bool = True,
) -> tuple[Shop, np.ndarray]:  # fmt: skip
    """A shop and each item's style (N,); the click probability is sigmoid(strength * (style is the user's) - 1.5)."""
    rng = np.random.default_rng(seed)
    style = rng.integers(styles, size=items)
    taste = rng.integers(styles, size=users)
    session_user = np.sort(rng.integers(users, size=sessions))[rng.permutation(sessions)].astype(np.int32)
    size = rng.integers(1, 2 * page, size=sessions)
    session = np.repeat(np.arange(sessions), size).astype(np.int32)
    impressions = len(session)
    user = session_user[session]
    item = rng.integers(items, size=impressions).astype(np.int32)
    chance = 1 / (1 + np.exp(1.5 - strength * (style[item] == taste[user])))
    click = (rng.random(impressions) < chance).astype(np.int8)
    session_time = 1_000_000 + 100 * np.arange(sessions, dtype=np.int64)
    category = np.array(["dress", "shoe", "bag"])[rng.integers(3, size=items)]
    item_frame = pl.DataFrame({"item_id": np.arange(items) + 1000, "image": [f"{i}.png" for i in range(items)]})
    user_frame = pl.DataFrame({"user_id": np.arange(users) + 5})
    frame = pl.DataFrame(
        {
            "session_id": session,
            "user_id": user + 5,
            "item_id": item + 1000,
            "timestamp": session_time[session],
            "click": click,
        }
    )
    if columns:
        price = rng.lognormal(size=items)
        price[rng.random(items) < 0.1] = np.nan
        words = np.array(["red", "soft", "new", "wool", "long"])[rng.integers(5, size=(items, 2))]
        item_frame = item_frame.with_columns(
            title=pl.Series([f"{a} {b} {c}" for (a, b), c in zip(words, category, strict=True)]),
            category=pl.Series(category),
            price=pl.Series(price),
            weight=pl.Series(rng.random(items)),
        )
        user_frame = user_frame.with_columns(age=pl.Series(rng.integers(3, size=users)))
        frame = frame.with_columns(
            query=pl.Series(np.array(["red dress", "shoe", "a bag"])[rng.integers(3, size=sessions)][session]),
            position=pl.Series(np.arange(impressions) % page),
            hour=pl.Series(rng.random(impressions)),
        )
    split = np.repeat(SPLITS, np.diff(np.round(np.array([0, 0.1, 0.7, 0.85, 1]) * sessions).astype(int)))
    frame = frame.with_columns(split=pl.Series(split[session]))
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("items", item_frame), ("users", user_frame), ("impressions", frame)):
            table.write_parquet(Path(folder) / f"{name}.parquet")
        shop = load_shop(folder)
    # given here, because a loaded folder without events would use the clicks of its impressions
    return dataclasses.replace(shop, folder=Path("a shop in memory"), events=_events(rng, events, style, taste, session_time)), style


def _events(rng: np.random.Generator, events: int, style: np.ndarray, taste: np.ndarray, session_time: np.ndarray) -> Events:
    """Events of the upper half of the users, mostly on items of their style; other users have no history."""
    user = rng.integers(len(taste) // 2, len(taste), size=events).astype(np.int32)
    item = rng.integers(len(style), size=events).astype(np.int32)
    liked = style[item] == taste[user]
    chosen = liked | (rng.random(events) < 0.2)
    time = rng.integers(session_time[0] - 50_000, session_time[-1], size=events)
    action = rng.choice(len(ACTIONS), p=[0.7, 0.15, 0.1, 0.05], size=events).astype(np.int8)
    return by_action(EventRows(user, item, time, action).take(np.flatnonzero(chosen)), users=len(taste))


def pictures(style: np.ndarray, form: str, *, seed: int = 0, missing: float = 0.1) -> ImageFeature:
    """Vectors near their style's direction, a few of them missing, in one of the forms."""
    if form == "none":
        return no_image(len(style))
    rng = np.random.default_rng(seed)
    vectors = np.eye(DIM, dtype=np.float32)[style] + 0.2 * rng.normal(size=(len(style), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    present = rng.random(len(style)) >= missing
    vectors[~present] = 0
    return ImageFeature(
        form=form, present=present, unit=vectors, parts={name: _values(name, vectors, present, style) for name in forms_of(form)}
    )


def _values(form: str, vectors: np.ndarray, present: np.ndarray, style: np.ndarray) -> PlaceValues:
    if form == "cluster_id":
        clusters = int(style.max()) + 1
        return PlaceValues(rows=np.where(present, style, clusters).astype(np.int64)[:, None], table_sizes=(clusters + 1,))
    if form == "semantic_id":
        coarse, fine = np.where(present, style % 2, 3), np.where(present, np.minimum(style, 2), 4)
        return PlaceValues(rows=np.stack([coarse, fine], axis=1).astype(np.int64), table_sizes=(4, 5))
    if form == "vector":
        return PlaceValues(numbers=vectors)
    scale, tiers = {"mean": (0.0,), "spread": (1.0,)}, {"quantiles": tuple(np.linspace(-0.4, 1, 11) ** 3)}
    return PlaceValues(constants=scale if form == "sim_score" else tiers)


def items_of(history: BucketedHistory, session: int) -> list[int]:
    """The history of a session, oldest first, as numbers of the batch's distinct items."""
    for run in history.buckets:
        for row in np.flatnonzero(run.session.numpy() == session):
            items = history.item[run.item[row]]
            return (items if run.real is None else items[run.real[row]]).tolist()
    return []


def ages_of(history: BucketedHistory, session: int) -> Tensor:
    """log1p of the seconds since the events of a session's history, oldest first; one -1 for an empty history."""
    for run in history.buckets:
        for row in np.flatnonzero(run.session.numpy() == session):
            return run.age[row] if run.real is None else run.age[row][run.real[row]]
    return torch.full((1,), -1.0)


@torch.no_grad()
def begun_at_zero(model: CtrModel) -> None:
    """Draw the weights that begin as zeros, those of the image feature and of places in histories, so that they matter."""
    for name, weight in model.named_parameters():
        if {"image", "order", "of_keys", "of_values"} & set(name.split(".")):
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            weight.copy_((torch.rand(weight.shape, generator=generator) - 0.5) * 0.6)


def trained_baseline(folder: Path, config: CtrConfig) -> Path:
    """A run of the baseline on the tests' shop, for models that go on from it."""
    shop, _ = make_shop()
    train_ctr(shop, no_image(len(shop.items)), config, seed=0, folder=folder)
    return folder


PLACES = {  # by name: settings of a CTR model
    "before": {},
    "mlp": {"adapter": "mlp"},
    "gated": {"adapter": "gated"},
    "ids": {"id_start": "ridge", "min_count": 18},
    "after": {"score_place": "after"},
    "buckets": {"similarity_place": "buckets"},
    "retrieve": {"retrieve": 3},
    "retrieve after": {"retrieve": 3, "score_place": "after"},
    "retrieve by category": {"retrieve": 3, "retrieve_by": "category"},
}
FORMS = ("none", *FORM_NAMES, "sim_tier+cluster_id", "vector+sim_score+sim_tier")
KINDS = (  # form, pooling, place
    *(
        (form, pooling, "before")
        for form in ("none", *FORM_NAMES, "sim_tier+cluster_id", "vector+sim_score+sim_tier")
        for pooling in POOLINGS
    ),
    ("sim_score", "self", "after"),
    ("sim_attention", "self", "buckets"),
    ("vector", "self", "mlp"),
    ("vector", "target", "ids"),
    ("sim_score", "self", "ids"),
    ("vector+cluster_id", "self", "gated"),
    *((form, "self", "retrieve") for form in ("none", "vector", "sim_score", "sim_attention", "sim_tier")),
    ("sim_score", "self", "retrieve after"),
    *((form, "target", "retrieve") for form in ("none", "sim_score", "cluster_id")),
    *((form, "self", "retrieve by category") for form in ("none", "sim_score")),
)
