"""The log of a built-in world: sessions, launches and events in the order of time."""

from __future__ import annotations

import polars as pl

from data.worlds import build as worlds
from data.worlds import click_rule as behaviour
from data.worlds import simulator as sessions
from data.worlds.fashion import LATE_CLASS
from data.worlds.shop_words import LATE_THING
from tests.made_worlds import SIZES, log_with_truth, table

LATEST_OPENING = behaviour.START + behaviour.LATE_CATEGORY_AT * behaviour.SPAN


def test_nothing_is_shown_before_its_launch(world):
    log = log_with_truth(world)
    assert (log["timestamp"] >= log["launch"]).all()
    late = (table(world, "truth/items")["launch"] > behaviour.START).mean()
    assert 0.15 < late < 0.4  # a fifth, and the late category


def test_one_category_comes_late(world):
    log = table(world, "impressions")
    newcomer = log["category"] == (LATE_THING if world.name == "shop" else LATE_CLASS)
    assert newcomer.sum() > 100
    assert log.filter(newcomer)["timestamp"].min() >= LATEST_OPENING
    first = log.filter(~newcomer).group_by("category").agg(pl.col("timestamp").min())["timestamp"]
    assert (first < behaviour.START + 0.2 * behaviour.SPAN).all()


def test_a_session_has_one_user_one_search_and_different_items(world):
    log = table(world, "impressions")
    each = log.group_by("session_id", maintain_order=True).agg(
        *(pl.col(name).n_unique().alias(name) for name in ("user_id", "query", "category", "item_id")),
        pl.len().alias("shown"),
        (pl.col("position") == pl.int_range(1, pl.len() + 1)).all().alias("in_order"),
        (pl.col("timestamp").diff().fill_null(0).is_between(0, 2)).all().alias("steady"),
        pl.col("timestamp").min().alias("time"),
    )
    assert (each["user_id"] == 1).all()
    assert (each["query"] == 1).all()
    assert (each["category"] == 1).all()
    assert (each["item_id"] == each["shown"]).all()
    assert each["shown"].max() == 12
    assert (each["shown"] >= 8).mean() > 0.8  # fewer if a category, here of some 24 items, does not have enough
    assert each["in_order"].all()
    assert each["steady"].all()
    assert each["time"].is_sorted()
    assert each["session_id"].to_list() == list(range(1_000_000, 1_000_000 + SIZES["sessions"]))


def test_events_are_every_click_and_what_follows_it(world):
    events = table(world, "events")
    clicked = table(world, "impressions").filter(pl.col("click") == 1).select("user_id", "item_id", "timestamp")
    keys = ["timestamp", "user_id", "item_id"]
    found = events.filter(pl.col("action") == "click").select(clicked.columns)
    assert found.sort(keys).equals(clicked.sort(keys))
    assert events["timestamp"].is_sorted()
    share = {name: (events["action"] == name).sum() / clicked.height for name in ("cart", "uncart", "purchase")}
    assert 0.2 < share["cart"] < 0.3
    assert 0 < share["uncart"] < 0.1
    assert 0.04 < share["purchase"] < 0.12
    for earlier, follow_up, longest in (("click", "cart", 90), ("cart", "purchase", 86_400), ("cart", "uncart", 6 * 3600)):
        before = events.filter(pl.col("action") == earlier).with_columns(seen=pl.col("timestamp"))
        after = events.filter(pl.col("action") == follow_up)
        joined = after.join_asof(before, on="timestamp", by=["user_id", "item_id"], check_sortedness=False)
        assert joined["seen"].null_count() == 0
        assert (joined["timestamp"] - joined["seen"] <= longest).all()


def test_chunks_leave_no_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "CHUNK", 64)
    folder = worlds.make_world("shop", tmp_path / "shop", users=20, items=60, sessions=300, seed=0)
    log = log_with_truth(folder)
    assert log["session_id"].unique(maintain_order=True).to_list() == list(range(1_000_000, 1_000_300))
    assert not (folder / "parts").exists()
    assert log["probability"].null_count() == 0
