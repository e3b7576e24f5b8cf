"""The stages of a comparison: their dependencies, the functions that make them, and the list of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ctr.config import CtrConfig, code_of, settings_read
from eval.rows import BASELINE, BOOSTED, OTHER_SEEDS, WARM, Row, encoder_of, is_shuffled
from eval.tasks import Task
from features.encoder_stages import (
    Experiment,
    body_stages,
    encoder_stage,
    initial_encoder_stage,
    is_external,
    make_body_features,
    make_embeddings,
    make_initial_encoder,
    needs_initial_encoder,
)
from features.external import parse_external, safe_name
from features.forms.form import PAIR
from features.forms.table import FormSettings, places_of, settings_of
from run.files import read_json, write_with
from run.folder import Stage, file_hash
from run.source_code import code_hash
from run.versions import installed

OTHER = 1000  # added to a seed for the A/A row: a comparison has fewer seeds than this
_PACKAGES = ("torch", "torchvision", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "faiss-cpu", "faiss-gpu", "polars", "numpy")


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Everything that a comparison's stages depend on."""

    ctr: CtrConfig
    forms: FormSettings
    start: str = "cold"  # of CTR models: cold | warm


def comparison_tasks(
    comparison: Comparison, encoders: Sequence[str], rows: Sequence[Row], seeds: Sequence[int], *, jobs: int
) -> list[Task]:
    """Everything a comparison makes, in order: external embeddings (which may fail at once), pictures, encoders, CTR models.

    Args:
        rows: all except the baseline.
        jobs: threads that decode pictures or embed with an external network; 0: one per CPU core.
    """
    external = sorted(filter(is_external, encoders), key=lambda name: parse_external(name).library != "file")  # files are read at once
    own = [encoder for encoder in encoders if not is_external(encoder)]
    initial = [seed for seed in seeds if any(needs_initial_encoder(encoder, comparison.pretrain) for encoder in own)]
    warm = [WARM] if comparison.start == "warm" else []
    return [
        *(_external_task(comparison, encoder, jobs) for encoder in external),
        *([Task(kind="pictures", title="", stage=None, run=make_pictures, arguments=(comparison, jobs), alone=True)] if encoders else []),
        *(_initial_task(comparison, seed) for seed in initial),
        *_features_tasks(comparison, own, seeds, jobs),
        *(_encoder_task(comparison, encoder, seed) for seed in seeds for encoder in own),
        *(_alone_task(comparison, encoder, seed) for seed in seeds for encoder in encoders),
        *(_ctr_task(comparison, row, seed, kind="warm start") for seed in seeds for row in warm),
        *(_ctr_task(comparison, row, seed) for seed in seeds for row in _longest_first([BASELINE, *rows])),
    ]


def _longest_first(rows: Sequence[Row]) -> list[Row]:
    """Rows of which attention reads each history again for every target come first, lest one be left over while other cores are idle."""
    return sorted(rows, key=lambda row: PAIR not in places_of(row[1]))


def ctr_stage(comparison: Comparison, row: Row, seed: int) -> Stage:
    """The stage of the CTR model with this image feature, trained or not.

    Args:
        row: (an encoder's name, perhaps shuffled; its form), or one of the baselines.
    """
    encoder, form = row
    key = comparison.source.key(comparison.root)
    key |= {"seed": ctr_seed(row, seed), "form": form, "ctr": settings_read(comparison.ctr, form)}
    if row == BOOSTED:
        key |= {"code": code_of(form, "ctr.boosted"), "versions": versions() | installed("lightgbm")}
        return Stage(comparison.root, f"ctr/{safe_name(encoder)}-seed{seed}", key)
    key |= {"init_from": file_hash(comparison.ctr.start), "code": code_of(form), "versions": versions()}
    if comparison.start == "warm" and row != WARM:
        key["start"] = ctr_stage(comparison, WARM, seed).hash
    if form != "none":
        key |= {"embeddings": encoder_stage(comparison, encoder_of(encoder), seed).hash, "shuffled": is_shuffled(encoder)}
        key |= {"settings": settings_of(form, comparison.forms), "centre": comparison.pretrain.centre, "feature": _feature_code()}
    return Stage(comparison.root, f"ctr/{safe_name(encoder)}-{form}-seed{seed}", key)


def alone_stage(comparison: Comparison, encoder: str, seed: int) -> Stage:
    """The stage of an encoder's similarities without a CTR model, made or not."""
    settings = {name: getattr(comparison.pretrain, name) for name in ("centre", "valid_history", "mask_same_item")}
    key = comparison.source.key(comparison.root) | settings | {"embeddings": encoder_stage(comparison, encoder, seed).hash}
    key |= {"code": code_hash("eval.alone", without=("data.source",)), "versions": installed("numpy", "polars")}
    return Stage(comparison.root, f"alone/{safe_name(encoder)}-seed{seed}", key)


def _feature_code() -> str:
    """A hash of the code between an embeddings folder and a form; the form's own code is in `code_of`."""
    return code_hash("eval.row_feature", without=("features.forms.table", "data.source"))


def ctr_seed(row: Row, seed: int) -> int:
    """The seed that the CTR model of a row is trained with."""
    return seed + OTHER if row == OTHER_SEEDS else seed


@cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that affect the numbers."""
    return installed(*_PACKAGES)


def _external_task(comparison: Comparison, encoder: str, jobs: int) -> Task:
    stage = encoder_stage(comparison, encoder, 0)
    arguments = (replace(comparison, threads=jobs), encoder, 0)
    return Task(kind="external", title=f"embeddings {encoder}", stage=stage, run=make_embeddings, arguments=arguments, alone=True)


def _initial_task(comparison: Comparison, seed: int) -> Task:
    stage = initial_encoder_stage(comparison, seed)
    return Task(kind="initial", title=f"initial encoder seed {seed}", stage=stage, run=make_initial_encoder, arguments=(comparison, seed))


def _features_tasks(comparison: Comparison, encoders: Sequence[str], seeds: Sequence[int], jobs: int) -> list[Task]:
    """A task for each stage of a frozen body's features: one that encoders and seeds share is made once."""
    found: dict[Path, Task] = {}
    for seed in seeds:
        for encoder in encoders:
            options = {"run": make_body_features, "arguments": (comparison, encoder, seed, jobs), "alone": True}
            options["needs"] = _first_needs(comparison, encoder, seed)
            for stage in body_stages(comparison, encoder, seed):
                found.setdefault(stage.folder, Task(kind="features", title=stage.folder.name, stage=stage, **options))
    return list(found.values())


def _first_needs(comparison: Comparison, encoder: str, seed: int) -> tuple[Stage, ...]:
    """The initial encoder's stage, for an encoder that starts from it."""
    return (initial_encoder_stage(comparison, seed),) if needs_initial_encoder(encoder, comparison.pretrain) else ()


def _encoder_task(comparison: Comparison, encoder: str, seed: int) -> Task:
    stage, title = encoder_stage(comparison, encoder, seed), f"encoder {encoder} seed {seed}"
    needs = (*_first_needs(comparison, encoder, seed), *body_stages(comparison, encoder, seed))
    return Task(kind="encoder", title=title, stage=stage, run=make_embeddings, arguments=(comparison, encoder, seed), needs=needs)


def _alone_task(comparison: Comparison, encoder: str, seed: int) -> Task:
    stage, needs = alone_stage(comparison, encoder, seed), (encoder_stage(comparison, encoder, seed),)
    return Task(kind="alone", title="", stage=stage, run=make_alone, arguments=(comparison, encoder, seed), needs=needs)


def _ctr_task(comparison: Comparison, row: Row, seed: int, kind: str = "ctr") -> Task:
    encoder, form = row
    needs = [encoder_stage(comparison, encoder_of(encoder), seed)] if form != "none" else []
    needs += [ctr_stage(comparison, WARM, seed)] if comparison.start == "warm" and row not in (WARM, BOOSTED) else []
    stage, title = ctr_stage(comparison, row, seed), f"ctr {encoder} {form} seed {seed}"
    return Task(kind=kind, title=title, stage=stage, run=make_ctr_model, arguments=(comparison, row, seed), needs=tuple(needs))


def make_pictures(comparison: Comparison, jobs: int) -> None:
    """Decode the shop's pictures into the run folder, if missing."""
    from run.devices import default_jobs

    comparison.source.pictures(comparison.root, size=comparison.pretrain.store_size, jobs=jobs or default_jobs())


def make_alone(comparison: Comparison, encoder: str, seed: int) -> None:
    """Score the test impressions by an encoder's similarities, alone and beside popularity: `scores.npy`."""
    import numpy as np

    from eval.alone import similarity_alone

    stage = alone_stage(comparison, encoder, seed)
    shop, embeddings = comparison.source.shop(comparison.root), encoder_stage(comparison, encoder, seed).folder / "embeddings"
    scores = similarity_alone(shop, embeddings, comparison.pretrain)
    stage.folder.mkdir(parents=True, exist_ok=True)
    write_with(stage.folder / "scores.npy", lambda file: np.save(file, scores))
    stage.finish({"test_impressions": scores.shape[1]})


def make_ctr_model(comparison: Comparison, row: Row, seed: int) -> None:
    """Train one CTR model and write its predictions, unless that is done."""
    stage = ctr_stage(comparison, row, seed)
    if stage.done:
        return
    from ctr.training.loop import train_ctr
    from eval.row_feature import clusters_of, code_quality_of

    shop = comparison.source.shop(comparison.root)
    if row == BOOSTED:
        from ctr.boosted import train_boosted

        stage.finish(train_boosted(shop, comparison.ctr, seed=seed, folder=stage.folder) | {"clusters": 0})
        return
    feature = feature_of(comparison, shop, row, seed)
    result = stage.folder / "result.json"
    if not result.exists():  # otherwise, an earlier call was killed after the training and before this line
        config = replace(comparison.ctr, threads=comparison.threads)
        if row == WARM:
            config = replace(config, epochs=config.start_epochs)
        elif comparison.start == "warm":
            config = replace(
                config,
                epochs=max(1, config.epochs - config.start_epochs),
                init_from=ctr_stage(comparison, WARM, seed).folder / "best.safetensors",
            )
        train_ctr(shop, feature, config, seed=ctr_seed(row, seed), folder=stage.folder)
    codes = code_quality_of(feature)
    stage.finish({**read_json(result), "clusters": clusters_of(feature)[1], **({} if codes is None else {"codes": codes})})


def feature_of(comparison: Comparison, shop, row: Row, seed: int):
    """The `ImageFeature` of this row of the comparison."""
    from eval.row_feature import row_feature
    from features.image_feature import no_image

    encoder, form = row
    if form == "none":
        return no_image(len(shop.items))
    embeddings = encoder_stage(comparison, encoder_of(encoder), seed).folder / "embeddings"
    return row_feature(
        shop, embeddings, form, shuffled=is_shuffled(encoder), settings=comparison.forms, centre=comparison.pretrain.centre, seed=seed
    )
