"""Predictions of all rows -> `results.json`: metrics, lifts, intervals, the selected form, pairs of encoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.inputs.own_score import COLUMN, has_own_score
from data.log.shop_folder import Shop
from eval.alone import popularity_alone
from eval.merge import alone_entries, interval, pairs_of, select_forms, summary
from eval.rows import ALONE, BASELINE, BESIDE, BOOSTED, POPULARITY, Row, encoder_of, is_control
from eval.stages import Comparison, alone_stage, ctr_stage, installed, versions
from features.encoder_stages import encoder_stage, initial_encoder_stage, is_external, needs_initial_encoder
from features.forms.table import settings_of
from metrics.auc import auc
from metrics.calibration import ece, log_loss, pcoc
from metrics.gauc import Weight, dense_codes, gauc
from metrics.intervals import Draws, GaucSums, Resamples, auc_draws, difference, gauc_sums, resampled
from run.folder import read_metrics


class TestSet:
    """The common basis of all rows' measurements: test impressions, their groups, and resamples of their users.

    Args:
        gauc_weight: "session" or "impression", how groups are weighted.
        gauc_key: "session" or "user", what a group is.

    Raises:
        ValueError: all test impressions are of one user.
    """

    __test__ = False  # not a test, despite its name

    def __init__(self, shop: Shop, *, gauc_weight: Weight = "session", gauc_key: str = "session"):
        self.shop, self.gauc_key = shop, gauc_key
        self.gauc_weight: Weight = gauc_weight
        self.rows = shop.rows("test")  # (I,) in impressions.parquet
        self.click, self.user = shop.click[self.rows], shop.user[self.rows]
        self.group = (shop.session if gauc_key == "session" else shop.user)[self.rows]
        self.resamples = Resamples(self.user)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of the comparison, measured with every seed."""

    row: Row
    auc: Draws
    gauc: Draws
    sums: GaucSums
    trained: list[dict[str, Any]]  # each seed's CTR training: the result of its stage

    @property
    def valid_gauc(self) -> float:
        """GAUC in validation sessions, a mean over seeds."""
        return float(np.mean([result["valid_gauc"] for result in self.trained]))

    @property
    def steps(self) -> dict[str, list[int]]:
        """For each seed, the step of the chosen CTR model and the last step."""
        return {name: [result[name] for result in self.trained] for name in ("best_step", "steps")}


def measure(comparison: Comparison, test: TestSet, rows: Sequence[Row], seeds: Sequence[int]) -> tuple[dict[str, Any], dict[Row, GaucSums]]:
    """The entries of `results.json` for the rows and the baseline, and the sums needed to compare rows of other runs.

    A form is selected for each encoder by its mean GAUC in validation sessions; test impressions play no part in it.

    Args:
        rows: (encoder, image feature) of each row except the baseline; their stages are done.
    """
    baseline = measured_row(comparison, test, BASELINE, seeds)
    measured = [measured_row(comparison, test, row, seeds) for row in rows]
    counted = gauc(test.click, test_predictions(comparison, BASELINE, seeds[0], test.rows), test.group, weight=test.gauc_weight)
    selected = select_forms({each.row: each.valid_gauc for each in measured}, [row for row in rows if not is_control(row[0])])
    results = {
        "seeds": list(seeds),
        "sessions_scored": counted.sessions_scored,
        "sessions_one_class": counted.sessions_one_class,
        "users": len(test.resamples.pool_of_user),
        "users_scored": users_scored(test.click, test.user, test.group),
        "impressions_scored": len(test.rows),
        "gauc_weight": test.gauc_weight,
        "gauc_key": test.gauc_key,
        "baseline": {
            "auc": summary(baseline.auc), "gauc": summary(baseline.gauc), "valid_gauc": baseline.valid_gauc, **baseline.steps,
            "seconds": _seconds(comparison, baseline, seeds),
        },
        **own_model(test, baseline, seeds, used=comparison.ctr.own_score),
        "rows": [_table_row(comparison, each, baseline, seeds, selected=each.row in selected.values()) for each in measured],
        "pairs": pairs_of(selected, {each.row: each.gauc for each in measured}),
        "encoders": encoders_trained(comparison, _encoders(rows), seeds),
        "pictures_unreadable": _unreadable(comparison, rows),
        "versions": versions() | (installed("lightgbm") if BOOSTED in rows else {}),
    }  # fmt: skip
    entries, alone = measured_alone(comparison, test, _encoders(rows), seeds)
    results |= entries
    ceiling = oracle(test)
    return results | ({} if ceiling is None else {"oracle": ceiling}), {each.row: each.sums for each in [baseline, *measured]} | alone


def measured_alone(
    comparison: Comparison, test: TestSet, encoders: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[str, Any], dict[Row, GaucSums]]:
    """The entries of the encoders' similarities without a CTR model, none without encoders, and their sums."""
    if not encoders:
        return {}, {}
    scores: dict[Row, np.ndarray] = {POPULARITY: np.stack([popularity_alone(test.shop)] * len(seeds))}
    for encoder in encoders:
        of_seeds = [np.load(alone_stage(comparison, encoder, seed).folder / "scores.npy") for seed in seeds]
        scores[encoder, ALONE], scores[encoder, BESIDE] = np.stack(of_seeds, axis=1)
    sums = {row: gauc_sums(test.click, of_row, test.group, test.resamples, weight=test.gauc_weight) for row, of_row in scores.items()}
    return alone_entries({row: resampled(of_row, test.resamples) for row, of_row in sums.items()}), sums


def _encoders(rows: Iterable[Row]) -> list[str]:
    """The encoders of these rows, each once."""
    return list(dict.fromkeys(encoder_of(encoder) for encoder, form in rows if form != "none"))


def measured_row(comparison: Comparison, test: TestSet, row: Row, seeds: Sequence[int]) -> Measured:
    """A row's metrics on test impressions and their resamples; its stages are done."""
    predictions = np.stack([test_predictions(comparison, row, seed, test.rows) for seed in seeds])
    sums = gauc_sums(test.click, predictions, test.group, test.resamples, weight=test.gauc_weight)
    return Measured(
        row=row,
        auc=auc_draws(test.click, predictions, test.resamples),
        gauc=resampled(sums, test.resamples),
        sums=sums,
        trained=[ctr_stage(comparison, row, seed).result for seed in seeds],
    )


def own_model(test: TestSet, baseline: Measured, seeds: Sequence[int], *, used: bool) -> dict[str, Any]:
    """The entry of the user's own model, where the log holds its predictions; its differences are from the baseline, as a row's are.

    Args:
        used: rows start from it.
    """
    if not used or not has_own_score(test.shop.impressions):
        return {}
    probability = test.shop.impressions[COLUMN].to_numpy()[test.rows]
    predictions = np.stack([probability] * len(seeds))
    of_auc = auc_draws(test.click, predictions, test.resamples)
    of_gauc = resampled(gauc_sums(test.click, predictions, test.group, test.resamples, weight=test.gauc_weight), test.resamples)
    entry = {
        "auc": float(of_auc.point.mean()), "gauc": float(of_gauc.point.mean()), "log_loss": log_loss(test.click, probability),
        "calibration": {"pcoc": pcoc(test.click, probability), "ece": ece(test.click, probability)},
        "delta_auc": interval(difference(of_auc, baseline.auc)), "delta_gauc": interval(difference(of_gauc, baseline.gauc)),
    }  # fmt: skip
    return {"own_model": entry}


def _table_row(comparison: Comparison, measured: Measured, baseline: Measured, seeds: Sequence[int], *, selected: bool) -> dict[str, Any]:
    encoder, form = measured.row
    wanted = settings_of(form, comparison.forms).get("clusters")
    clusters = {"wanted": wanted, "found": [result["clusters"] for result in measured.trained]}
    codes = [result["codes"] for result in measured.trained if "codes" in result]
    return {
        "encoder": encoder,
        "image_feature": form,
        "auc": summary(measured.auc),
        "gauc": summary(measured.gauc),
        "delta_auc": interval(difference(measured.auc, baseline.auc)),
        "delta_gauc": interval(difference(measured.gauc, baseline.gauc)),
        "selected": selected,
        "valid_gauc": measured.valid_gauc,
        **measured.steps,
        **({"clusters": clusters} if wanted else {}),
        **({"codes": codes} if codes else {}),
        "seconds": _seconds(comparison, measured, seeds),
    }


def users_scored(click: np.ndarray, user: np.ndarray, group: np.ndarray) -> int:
    """How many users have a group that GAUC scores, one with both classes: those that its intervals effectively resample.

    Args:
        click: (I,) 0 or 1.
        user: (I,) ids.
        group: (I,) ids.
    """
    _, code = dense_codes(group)
    clicked = np.bincount(code, weights=click)
    mixed = (clicked > 0) & (clicked < np.bincount(code))
    return len(np.unique(user[mixed[code]]))


def test_predictions(comparison: Comparison, row: Row, seed: int, test: np.ndarray) -> np.ndarray:
    """(I,) predicted click probability of the test impressions, in the order of `test`."""
    table = pl.read_parquet(ctr_stage(comparison, row, seed).folder / "predictions.parquet", glob=False)
    table = table.filter(pl.col("split") == "test")
    rows = table["row"].to_numpy()
    place = np.argsort(rows)
    found = place[np.searchsorted(rows, test, sorter=place)]
    if not np.array_equal(rows[found], test):
        raise ValueError(f"predictions of {' '.join(row)} are not of these test impressions")
    return table["score"].to_numpy()[found]


def oracle(test: TestSet) -> dict[str, float] | None:
    """AUC and GAUC of the probabilities that a built-in world drew its clicks from: no model can beat them except by chance."""
    truth = test.shop.folder / "truth" / "impressions.parquet"
    if not is_simulated(test.shop.folder) or not truth.exists():
        return None
    probability = pl.read_parquet(truth, glob=False)["probability"].to_numpy()[test.rows]
    value = gauc(test.click, probability, test.group, weight=test.gauc_weight).value
    return {"auc": auc(test.click, probability), "gauc": value}


def is_simulated(folder: Path) -> bool:
    """True for a folder that `data.make_world` wrote: its clicks are drawn, not observed."""
    return (folder / "world.json").exists()


def encoders_trained(comparison: Comparison, names: Iterable[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each encoder trained here, by seed: lowest and highest loss of a step, the spread of its embeddings at the best checkpoint,
    where that was, its GAUC beside popularity in validation sessions, that before the first step, and that of popularity alone.

    An encoder without steps (an untrained one) is left out.
    """
    found = []
    for encoder in names:
        if is_external(encoder):
            continue
        logs = [read_metrics(encoder_stage(comparison, encoder, seed).folder / "metrics.jsonl") for seed in seeds]
        losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
        checkpoints = [[line for line in log if "std" in line] for log in logs]
        if all(losses) and all(checkpoints):
            loss = {"lowest": [min(each) for each in losses], "highest": [max(each) for each in losses]}
            std = [max(each, key=lambda line: line["valid_gauc"])["std"] for each in checkpoints]
            trained = [encoder_stage(comparison, encoder, seed).result for seed in seeds]
            keys = ("best_pictures", "valid_gauc", "start_gauc", "popularity_gauc", "components")
            curve = {key: [result[key] for result in trained] for key in keys if all(key in result for result in trained)}
            learned = {"material": trained[0]["material"], "dim": comparison.pretrain.dim, "body": comparison.pretrain.body}
            found.append({"encoder": encoder, "loss": loss, "std": std, **curve, **learned})
    return found


def _unreadable(comparison: Comparison, rows: Sequence[Row]) -> int:
    """Pictures that could not be read and count as missing; 0 where no row has pictures."""
    if all(form == "none" for _, form in rows):
        return 0
    return len(comparison.source.pictures(comparison.root, size=comparison.pretrain.store_size, jobs=1).bad)


def _seconds(comparison: Comparison, measured: Measured, seeds: Sequence[int]) -> dict[str, float]:
    """Mean seconds of a row's stages over seeds; `start`, the initial encoder, is shared by all encoders that start from its weights."""
    seconds = {"ctr": float(np.mean([result["seconds"] for result in measured.trained]))}
    if measured.row[1] != "none":
        encoder = encoder_of(measured.row[0])
        stages = {"encoder": [encoder_stage(comparison, encoder, seed) for seed in seeds]}
        if needs_initial_encoder(encoder, comparison.pretrain):
            stages["start"] = [initial_encoder_stage(comparison, seed) for seed in seeds]
        seconds |= {name: float(np.mean([stage.result["seconds"] for stage in of_seeds])) for name, of_seeds in stages.items()}
    return seconds
