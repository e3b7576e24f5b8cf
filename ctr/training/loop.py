"""The training loop of a CTR model: shuffle sessions, forward, loss, backward, step; validate, keep the best, resume after a kill."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctr.config import SETTINGS, CtrConfig, code_of, refuse_without_start
from ctr.inputs.encode import Inputs, encode
from ctr.inputs.feed import batches_per_epoch, feed
from ctr.inputs.sampler import SplitSessions, split_sessions
from ctr.inputs.vocabulary_files import write_model_spec
from ctr.training.checkpoint import load, load_best, remove, save
from ctr.training.gate import validated
from ctr.training.predict import measures, predict, write_predictions
from ctr.training.sharding import gathered
from ctr.training.training import Training, prepare, settings_of, take_step
from ctr.training.weights import save_weights
from data.identity import shop_fingerprint
from data.log.histories import click_history
from data.log.shop_folder import Shop
from features.forms.table import NO_FORM
from features.image_feature import ImageFeature, digest
from run.checkpoint import refuse_other_settings
from run.devices import set_up
from run.distributed import summed
from run.errors import SettingError, Stopped, UserError
from run.files import read_json, write_json
from run.folder import MetricsLog, file_hash
from run.prefetch import prefetch
from run.progress import Progress
from run.randomness import integer_seed
from run.stop import stop_requests

_LEAST_BATCH = 8  # sessions
_LOG_STEPS = 20  # steps per line of metrics.jsonl, which gives their mean loss


def train_ctr(shop: Shop, feature: ImageFeature, config: CtrConfig, *, seed: int, folder: Path) -> dict[str, Any]:
    """Train one CTR model on the train split.

    The average of weights with the lowest log loss on the valid split predicts valid and test. Leaves in `folder`:
    predictions.parquet, best.safetensors, metrics.jsonl, TensorBoard events and, last of all, result.json. A killed run resumes from
    `checkpoints/` and ends bit-equal; that folder is removed when the run is done. Under torchrun, ranks share tables and the
    sessions of each batch, and the result is that of one rank up to rounding; the first rank writes.

    Args:
        feature: the image feature of the shop's items.
        seed: of the initial weights and the order of sessions; never of the data.

    Returns:
        The content of result.json: valid_auc, valid_gauc, valid_log_loss, the same of test, best_step, steps, impressions, seconds. A
        finished run is not trained again.

    Raises:
        UserError: the train split has nothing to learn, a split cannot be measured, the loss is not a number, or `folder` holds a partial
            or finished run with other settings.
        Stopped: SIGTERM was received; the training can be resumed from `folder`.
    """
    fabric = set_up(config.threads, config.precision)
    check_trainable(shop, config)
    inputs = encode(shop, feature, config)
    train = split_sessions(shop, "train")
    refuse_without_start(config, feature.form)
    alone = 0 if feature.form == NO_FORM else config.picture_epochs
    config = replace(config, batch_sessions=batch_of(config, len(train.sessions)), epochs=config.epochs + alone)
    steps = config.epochs * batches_per_epoch(train, config)
    settings = settings_of(config, inputs.layout, seed)
    settings |= {"shop": shop_fingerprint(shop.folder), "embeddings": digest(feature), "init_from": str(file_hash(config.start))}
    done = finished_before(folder, settings, code_of(feature.form))
    if done is not None:
        if fabric.is_global_zero:
            remove(folder)  # left by a kill just before this step
        return done
    run = prepare(inputs, config, seed=seed, steps=steps, fabric=fabric, settings=settings)
    run.alone = alone * batches_per_epoch(train, config)
    resumed = load(run, folder)
    log = MetricsLog(folder, resume_step=run.state.step if resumed else None) if fabric.is_global_zero else None
    if resumed and log:
        print(
            f"ctr {feature.form} seed {seed}: resuming from step {run.state.step:,}, {run.state.impressions:,} impressions", file=sys.stderr
        )
    take_steps(run, inputs, train, log, folder, seed=seed)
    if log:
        log.close()
    return finish(run, inputs, folder)


def take_steps(run: Training, inputs: Inputs, train: SplitSessions, log: MetricsLog | None, folder: Path, *, seed: int) -> None:
    """Train to the end of the epochs, or until the valid split has not improved for `patience` validations, with checkpoints.

    Raises:
        Stopped: SIGTERM was received; a checkpoint has been written.
    """
    state, config, fabric, per_epoch = run.state, run.config, run.fabric, batches_per_epoch(train, run.config)
    order = order_seed(seed, warm=config.start is not None)
    shares = feed(inputs, train, config, seed=order, first=state.step, rank=fabric.global_rank, ranks=fabric.world_size)
    total = config.epochs * len(train.rows)
    progress = Progress(f"ctr {run.form} seed {seed}", total=total, unit="impressions", start=state.impressions)
    with prefetch(shares) as ready, stop_requests() as asked_to_stop, progress as bar:
        last_save = time.monotonic()
        began = last_save - state.seconds
        if begins_trained(run, inputs) and state.step == 0 and not math.isfinite(state.best_log_loss):
            validate(run, inputs, log)
            save(run, folder)
        while state.step < run.steps and (state.worse < config.patience or state.step < run.alone):
            before = state.impressions
            value = take_step(run, next(ready))
            bar.advance(state.impressions - before, note=f"loss {value:.4f}")
            validation = is_validation(state.step, per_epoch, config)
            note_loss(run, value, log, write=validation)
            if validation:
                validate(run, inputs, log)
            if state.step == run.alone:
                state.worse = 0
            stop, due = summed(fabric, asked_to_stop(), time.monotonic() - last_save >= config.checkpoint_seconds)
            if validation or stop or due:
                last_save = time.monotonic()
                state.seconds = last_save - began
                save(run, folder)
            if stop:
                raise Stopped(f"ctr {run.form}: stopped at step {state.step:,}, as requested; the same command resumes from here")


def order_seed(seed: int, *, warm: bool) -> int:
    """The seed of sessions' order and of hidden IDs: going on from trained weights repeats no epoch that these saw.

    >>> order_seed(5, warm=False), order_seed(5, warm=True) == 5
    (5, False)
    """
    return integer_seed(seed, "ctr warm order") if warm else seed


def batch_of(config: CtrConfig, sessions: int) -> int:
    """Sessions in a batch for a train split of this size.

    >>> [batch_of(CtrConfig(), sessions) for sessions in (100_000, 8_000, 500)]
    [64, 20, 8]
    """
    if not config.least_steps:
        return config.batch_sessions
    return min(config.batch_sessions, max(_LEAST_BATCH, sessions // config.least_steps))


def begins_trained(run: Training, inputs: Inputs) -> bool:
    """Whether the model is worth something before its first step, so that its state then counts as a checkpoint."""
    return run.config.start is not None or inputs.layout.own_score


def check_trainable(shop: Shop, config: CtrConfig) -> None:
    """Refuse a shop whose train split holds nothing to learn, or whose valid split cannot be measured.

    Raises:
        UserError: names the split.
        DataError: `history_scope` needs a column that is not there.
        SettingError: `retrieve_by` does.
    """
    for split in ("train", "valid"):
        click = shop.click[shop.rows(split)]
        if not len(click):
            raise UserError(f"{shop.folder}: the {split} split has no impressions; set the split column or log more sessions")
        if split == "train" and click.min() == click.max():
            what = "nothing but clicks" if click[0] else "no click"
            raise UserError(f"{shop.folder}: the train split holds {what}, so nothing can be learned; log longer or change the split")
    if config.retrieve and config.retrieve_by == "category" and shop.item_category is None:
        raise SettingError("retrieve_by", "category", "items.parquet has no such column of texts or numbers: add it, or give cosine")
    if shop.session_category is None or shop.item_category is None:
        click_history(shop, max_items=config.click_items, scope=config.history_scope)  # refuses scope "category"


def finished_before(folder: Path, settings: dict[str, str], code: str) -> dict[str, Any] | None:
    """What an earlier call with these settings left in result.json; None if there is none. A note on stderr says if other code trained it.

    Raises:
        UserError: the folder holds a finished run with other settings.
    """
    if not (folder / "result.json").exists():
        return None
    begun = read_json(folder / SETTINGS)
    refuse_other_settings(folder, begun, settings)
    if begun.get("code") != code:
        print(f"note: {folder}: trained by other code than this; delete it to train again", file=sys.stderr)
    return read_json(folder / "result.json")


def note_loss(run: Training, value: float, log: MetricsLog | None, *, write: bool) -> None:
    """Add a step's loss to the mean for the log; a line is written every _LOG_STEPS steps, and if `write`."""
    state = run.state
    state.loss_sum, state.loss_count = state.loss_sum + value, state.loss_count + 1
    if state.loss_count < _LOG_STEPS and not write:
        return
    if log:
        rate = run.optimizer.param_groups[0]["lr"]
        log.write({"step": state.step, "loss": state.loss_sum / state.loss_count, "learning_rate": rate})
    state.loss_sum, state.loss_count = 0.0, 0


def is_validation(step: int, batches_per_epoch: int, config: CtrConfig) -> bool:
    """True after the steps that divide each epoch into `validations_per_epoch` parts, the epoch's last one included."""
    parts = config.validations_per_epoch
    return step * parts // batches_per_epoch > (step - 1) * parts // batches_per_epoch


def validate(run: Training, inputs: Inputs, log: MetricsLog | None) -> None:
    """Validate the averaged weights and note it in the state and in the log; the checkpoint that follows holds them."""
    state, values = run.state, validated(run, inputs)
    if log:
        gate = {} if run.form == NO_FORM else {"image_gate": state.image_gate}
        log.write({"step": state.step} | gate | {f"valid_{name}": value for name, value in values.items()})
    log_loss = values["log_loss"]
    if log_loss is None:
        raise UserError(f"the valid log loss is not a number at step {state.step}; lower the learning rates")
    if log_loss >= state.best_log_loss:
        state.worse += 1
    else:
        state.best_log_loss, state.best_step, state.worse = log_loss, state.step, 0


def finish(run: Training, inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Predict valid and test with the best weights and write a run's files; returns the content of result.json."""
    load_best(run, folder)
    splits = {split: predict(run.model, inputs, split, run.fabric, run.config) for split in ("valid", "test")}
    weights = dict(gathered(run.model, run.fabric.device))
    result: dict[str, Any] = {}
    for split, found in splits.items():
        result |= {f"{split}_{name}": value for name, value in measures(found, inputs.shop.session).items()}
    result |= {name: getattr(run.state, name) for name in ("best_step", "impressions", "seconds")}
    result["steps"] = run.state.step
    if run.fabric.is_global_zero:
        save_weights(folder / "best.safetensors", weights, inputs)
        write_model_spec(folder, inputs, run.config)
        write_predictions(folder / "predictions.parquet", splits)
        write_json(folder / SETTINGS, run.settings | {"code": code_of(run.form)})
        write_json(folder / "result.json", result)
        remove(folder)
    run.fabric.barrier()  # the next step may read these files
    return result
