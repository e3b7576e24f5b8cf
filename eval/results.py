"""Predictions of all rows -> `results.json`: metrics, lifts, intervals, the selected form, pairs of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.log.shop_folder import Shop
from eval.merge import interval, pairs_of, select_forms
from eval.stages import BASELINE, SHUFFLED, Comparison, ctr_stage
from eval.wording import is_control
from features.encoder_stages import encoder_stage, initial_encoder_stage, needs_initial_encoder
from metrics.auc import auc
from metrics.gauc import Weight, dense_codes, gauc
from metrics.intervals import Draws, GaucSums, Resamples, auc_draws, difference, gauc_sums, resampled
from run.errors import UserError

Row = tuple[str, str]  # encoder, image feature
_PACKAGES = ("torch", "torchvision", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "faiss-cpu", "faiss-gpu", "polars", "numpy")


def measure(
    comparison: Comparison,
    shop: Shop,
    rows: Sequence[Row],
    seeds: Sequence[int],
    *,
    gauc_weight: Weight = "session",
    gauc_key: str = "session",
) -> tuple[dict[str, Any], dict[Row, GaucSums]]:
    """Everything `results.json` says of the rows (the baseline is measured besides), and the sums that rows of other runs are compared by.

    A form is selected for each encoder by its mean GAUC in validation sessions; test impressions choose nothing.

    Args:
        rows: (encoder, image feature) of each row; their stages are done.
        gauc_weight: "session" or "impression", how groups are weighted.
        gauc_key: "session" or "user", what a group is.
    """
    test = shop.rows("test")
    click = shop.click[test]
    group = (shop.session if gauc_key == "session" else shop.user)[test]
    if len(np.unique(shop.user[test])) < 2:
        raise UserError(f"{shop.folder}: all test impressions are of one user; an interval needs at least two")
    resamples = Resamples(shop.user[test])
    everyone: list[Row] = [(BASELINE, "none"), *rows]
    scores = {row: np.stack([test_scores(comparison, *row, seed, test) for seed in seeds]) for row in everyone}
    aucs = {row: auc_draws(click, scores[row], resamples) for row in everyone}
    sums = {row: gauc_sums(click, scores[row], group, resamples, weight=gauc_weight) for row in everyone}
    gaucs = {row: resampled(sums[row], resamples) for row in everyone}
    counted = gauc(click, scores[everyone[0]][0], group, weight=gauc_weight)
    valid = {row: _mean_valid_gauc(comparison, row, seeds) for row in everyone}
    selected = select_forms(valid, [row for row in rows if not is_control(row[0])])

    table = []
    for row in rows:
        encoder, form = row
        table.append({
            "encoder": encoder,
            "image_feature": form,
            "auc": _summary(aucs[row]),
            "gauc": _summary(gaucs[row]),
            "delta_auc": interval(difference(aucs[row], aucs[everyone[0]])),
            "delta_gauc": interval(difference(gaucs[row], gaucs[everyone[0]])),
            "selected": row in selected.values(),
            "valid_gauc": valid[row],
            **_steps(comparison, row, seeds),
            "seconds": _seconds(comparison, row, seeds),
        })  # fmt: skip
    baseline = {"auc": _summary(aucs[everyone[0]]), "gauc": _summary(gaucs[everyone[0]]), "valid_gauc": valid[everyone[0]],
                **_steps(comparison, everyone[0], seeds), "seconds": _seconds(comparison, everyone[0], seeds)}  # fmt: skip
    results = {
        "seeds": list(seeds),
        "sessions_scored": counted.sessions_scored,
        "sessions_one_class": counted.sessions_one_class,
        "users": len(resamples.pool_of_user),
        "users_scored": users_scored(click, shop.user[test], group),
        "impressions_scored": len(test),
        "gauc_weight": gauc_weight,
        "gauc_key": gauc_key,
        "baseline": baseline,
        "rows": table,
        "pairs": pairs_of(selected, gaucs),
        "versions": versions(),
    }
    return results, sums


def users_scored(click: np.ndarray, user: np.ndarray, group: np.ndarray) -> int:
    """How many users have a group that GAUC scores, one with both classes: what its intervals resample in truth.

    Args:
        click: (I,) 0 or 1.
        user: (I,) ids.
        group: (I,) ids.
    """
    _, code = dense_codes(group)
    clicked = np.bincount(code, weights=click)
    mixed = (clicked > 0) & (clicked < np.bincount(code))
    return len(np.unique(user[mixed[code]]))


def test_scores(comparison: Comparison, encoder: str, form: str, seed: int, test: np.ndarray) -> np.ndarray:
    """(I,) predicted click probability of the test impressions, in the order of `test`."""
    table = pl.read_parquet(ctr_stage(comparison, encoder, form, seed).folder / "predictions.parquet")
    table = table.filter(pl.col("split") == "test")
    rows = table["row"].to_numpy()
    place = np.argsort(rows)
    found = place[np.searchsorted(rows, test, sorter=place)]
    if not np.array_equal(rows[found], test):
        raise ValueError(f"predictions of {encoder} {form} are not of these test impressions")
    return table["score"].to_numpy()[found]


def oracle(comparison: Comparison, shop: Shop, *, gauc_weight: Weight = "session", gauc_key: str = "session") -> dict[str, float] | None:
    """AUC and GAUC of the very probabilities that a built-in world drew its clicks from: no model can beat them but by luck."""
    truth = shop.folder / "truth" / "impressions.parquet"
    if not is_simulated(shop.folder) or not truth.exists():
        return None
    test = shop.rows("test")
    probability = pl.read_parquet(truth)["probability"].to_numpy()[test]
    group = (shop.session if gauc_key == "session" else shop.user)[test]
    value = gauc(shop.click[test], probability, group, weight=gauc_weight).value
    return {"auc": auc(shop.click[test], probability), "gauc": value}


def is_simulated(folder: Path) -> bool:
    """True for a folder that `data.make_world` wrote: its clicks are drawn, not observed."""
    return (folder / "world.json").exists()


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    from importlib.metadata import PackageNotFoundError

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _summary(draws: Draws) -> dict[str, Any]:
    return {"mean": float(draws.point.mean()), "per_seed": [float(value) for value in draws.point]}


def _mean_valid_gauc(comparison: Comparison, row: Row, seeds: Sequence[int]) -> float:
    return float(np.mean([ctr_stage(comparison, *row, seed).result["valid_gauc"] for seed in seeds]))


def _steps(comparison: Comparison, row: Row, seeds: Sequence[int]) -> dict[str, list[int]]:
    """For each seed, the step of the CTR model that was kept and the last one."""
    results = [ctr_stage(comparison, *row, seed).result for seed in seeds]
    return {name: [result[name] for result in results] for name in ("best_step", "steps")}


def _seconds(comparison: Comparison, row: Row, seeds: Sequence[int]) -> dict[str, float]:
    """Mean seconds of a row's stages over seeds; `start` is spent once a seed, for all encoders that begin with it."""
    seconds = {"ctr": float(np.mean([ctr_stage(comparison, *row, seed).result["seconds"] for seed in seeds]))}
    if row[1] != "none":
        encoder = row[0].removeprefix(SHUFFLED)
        stages = [encoder_stage(comparison, encoder, seed) for seed in seeds]
        seconds["encoder"] = float(np.mean([stage.result["seconds"] for stage in stages]))
        if needs_initial_encoder(encoder, comparison.pretrain):
            stages = [initial_encoder_stage(comparison, seed) for seed in seeds]
            seconds["start"] = float(np.mean([stage.result["seconds"] for stage in stages]))
    return seconds
