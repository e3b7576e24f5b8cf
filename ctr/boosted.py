"""A check of the baseline: gradient-boosted trees (LightGBM) on the same features. A baseline that ranks worse than they do is weak."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.config import CtrConfig
from ctr.impression_numbers import ImpressionNumbers, impression_numbers, thinned
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from ctr.training.predict import Predictions, measures, write_predictions
from data.log.shop_folder import Shop
from features.image_feature import no_image
from run.files import write_json

if TYPE_CHECKING:
    from lightgbm import Booster

MOST = 2_000_000  # train impressions; of a larger log, sessions are sampled evenly
ROUNDS, PATIENCE = 2_000, 50  # trees at most; trees without a lower valid log loss before it stops
PARAMETERS: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50, "lambda_l2": 1.0, "feature_fraction": 0.8,
    "bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip


def train_boosted(shop: Shop, config: CtrConfig, *, seed: int, folder: Path) -> dict[str, Any]:
    """Fit trees to the train split, as many as give the lowest log loss on the valid split, and predict valid and test.

    Leaves predictions.parquet in `folder`, and then result.json.

    Args:
        config: which features of the log there are; settings of the network are not read.
        seed: of the columns and rows that each tree is shown.

    Returns:
        What `train_ctr` returns, with trees as steps.

    Raises:
        UserError: the train split is empty.
    """
    began = time.monotonic()
    inputs = encode(shop, no_image(len(shop.items)), config)
    train = impression_numbers(inputs, thinned(split_sessions(shop, "train"), MOST))
    valid = impression_numbers(inputs, split_sessions(shop, "valid"))
    trees = fit_trees(train, valid, shop.click, seed=seed)
    impressions, best = len(train.rows), trees.best_iteration
    del train
    splits = {
        "valid": predicted(trees, valid, shop),
        "test": predicted(trees, impression_numbers(inputs, split_sessions(shop, "test")), shop),
    }
    result: dict[str, Any] = {}
    for split, found in splits.items():
        result |= {f"{split}_{name}": value for name, value in measures(found, shop.session).items()}
    result |= {"best_step": best, "steps": min(best + PATIENCE, ROUNDS), "impressions": impressions, "seconds": time.monotonic() - began}
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.parquet", splits)
    write_json(folder / "result.json", result)
    return result


def fit_trees(train: ImpressionNumbers, valid: ImpressionNumbers, click: np.ndarray, *, seed: int, **changed: Any) -> Booster:
    """Trees that minimise the log loss of `train`, stopped by that of `valid`.

    Args:
        click: (I,) of the log's impressions.
        changed: parameters other than PARAMETERS.
    """
    import lightgbm

    parameters = PARAMETERS | {"seed": seed} | changed
    codes = list(train.codes)
    shared: dict[str, Any] = {"categorical_feature": codes, "params": parameters}
    data = lightgbm.Dataset(train.values, click[train.rows], init_score=train.start, **shared)
    check = lightgbm.Dataset(valid.values, click[valid.rows], init_score=valid.start, reference=data, **shared)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(parameters, data, num_boost_round=ROUNDS, valid_sets=[check], callbacks=[stop])


def predicted(trees: Booster, numbers: ImpressionNumbers, shop: Shop) -> Predictions:
    """Logits of the impressions, by row."""
    logit = np.asarray(trees.predict(numbers.values, raw_score=True, num_threads=1), np.float64)
    logit = logit if numbers.start is None else logit + numbers.start
    ascending = np.argsort(numbers.rows)
    row = numbers.rows[ascending]
    return Predictions(row=row, click=shop.click[row], logit=logit[ascending])
