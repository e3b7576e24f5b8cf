"""The click rule: clicks follow the probabilities that the truth file holds, and those depend most on style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from metrics.auc import auc
from metrics.gauc import gauc
from tests.made_worlds import log_with_truth, table


def style_alone(folder: Path, log: pl.DataFrame) -> np.ndarray:
    """Minus the distance from each impression's item to the nearest style that its user likes."""
    people, items = table(folder, "truth/users"), table(folder, "truth/items")
    looks = np.stack([people[f"look_{place}"].to_numpy() for place in (1, 2, 3)], axis=1)
    user = log["user_id"].to_numpy() - people["user_id"][0]
    item = log["item_id"].to_numpy() - items["item_id"][0]
    return -np.linalg.norm(looks[user] - items["taste"].to_numpy()[item][:, None], axis=2).min(axis=1)


def test_about_one_impression_in_seven_is_clicked(world):
    assert 0.13 < table(world, "impressions")["click"].mean() < 0.17


def test_clicks_are_drawn_from_the_truth_row_by_row(world):
    log = log_with_truth(world).sort("probability")
    for part in np.array_split(np.arange(log.height), 10):
        probability, click = log["probability"].to_numpy()[part], log["click"].to_numpy()[part]
        error = np.sqrt((probability * (1 - probability)).sum()) / len(part)
        assert abs(click.mean() - probability.mean()) < 4 * error


def test_the_truth_ranks_well_and_style_does_most_of_it(world):
    log = log_with_truth(world)
    click, session, probability = log["click"].to_numpy(), log["session_id"].to_numpy(), log["probability"].to_numpy()
    style = style_alone(world, log)
    rest = np.log(probability / (1 - probability)).astype(float)
    rest -= np.polyfit(style, rest, 1)[0] * style
    assert 0.72 < gauc(click, probability, session).value < 0.82
    assert gauc(click, style, session).value > 0.66
    assert gauc(click, style, session).value > gauc(click, rest, session).value
    assert 0.75 < auc(click, probability) < 0.84
