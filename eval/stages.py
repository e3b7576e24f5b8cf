"""The trainings a comparison is made of, each a cached stage that runs in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ctr.config import NO_RESULT, CtrConfig
from features.encoder_stages import Experiment, encoder_stage, make_embeddings, make_initial_encoder
from features.external import safe_name
from run.files import read_json
from run.folder import Stage, file_hash
from run.randomness import permutation

VERSION = 4  # of CTR training and image features: raise it when the code gives other numbers from the same settings
BASELINE = "baseline"
OTHER_SEEDS = "baseline (other seeds)"
WARM = "baseline (start)"  # trained first where all rows, the baseline too, go on from one trained baseline
SHUFFLED = "shuffled "  # before an encoder's name: its embeddings dealt out to the wrong items
_OTHER = 1000  # added to a seed for the A/A row


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """What every stage of a comparison depends on."""

    ctr: CtrConfig
    clusters: int
    start: str = "cold"  # of CTR models: cold | warm


def ctr_stage(comparison: Comparison, encoder: str, form: str, seed: int) -> Stage:
    """Where the CTR model with this image feature stands, trained or not.

    Args:
        encoder: an encoder's name, BASELINE, OTHER_SEEDS, WARM, or SHUFFLED + name.
        form: vector, sim_score, cluster_id, or "none" for the baselines.
    """
    settings = {name: value for name, value in asdict(comparison.ctr).items() if name not in NO_RESULT}
    key = comparison.source.key(comparison.root) | {"seed": seed, "form": form, "ctr": settings, "version": VERSION}
    key |= {"other": encoder == OTHER_SEEDS, "init_from": file_hash(comparison.ctr.start)}
    if comparison.start == "warm" and encoder != WARM:
        key["start"] = ctr_stage(comparison, WARM, "none", seed).hash
    if form != "none":
        key["embeddings"] = encoder_stage(comparison, encoder.removeprefix(SHUFFLED), seed).hash
        key |= {"shuffled": encoder.startswith(SHUFFLED), "clusters": comparison.clusters if form == "cluster_id" else 0}
    return Stage(comparison.root, f"ctr/{safe_name(encoder)}-{form}-seed{seed}", key)


def titles(kind: str, stages: Sequence[Stage], calls: Sequence[tuple]) -> list[str]:
    """What to say as each training begins, such as `ctr courier vector seed 0 (3 of 14)`; "" for those that are there already.

    Args:
        kind: the first word.
        stages: one a call.
        calls: each with the comparison first and the seed last; what stands between tells the trainings apart.
    """
    to_do = [not stage.done for stage in stages]
    said = []
    for number, (begins, (_, *words, seed)) in enumerate(zip(to_do, calls, strict=True)):
        name = " ".join([kind, *words, f"seed {seed}"])
        said.append(f"{name} ({sum(to_do[: number + 1])} of {sum(to_do)})" if begins else "")
    return said


def run_initial_encoder(comparison: Comparison, seed: int) -> None:
    """Make the weights that all encoders of a seed begin with, unless they are there."""
    make_initial_encoder(comparison, seed)


def run_encoder(comparison: Comparison, encoder: str, seed: int) -> None:
    """Train one encoder and embed the catalogue with it, unless that is done."""
    make_embeddings(comparison, encoder, seed)


def run_external(comparison: Comparison, encoder: str, workers: int) -> None:
    """Embed the catalogue once for all seeds with an encoder made elsewhere, unless that is done."""
    make_embeddings(replace(comparison, threads=workers), encoder, 0)


def run_ctr(comparison: Comparison, encoder: str, form: str, seed: int) -> None:
    """Train one CTR model and write its predictions, unless that is done."""
    stage = ctr_stage(comparison, encoder, form, seed)
    if stage.done:
        return
    from ctr.training.loop import train_ctr

    if (stage.folder / "result.json").exists():  # killed between its last line and this one
        stage.finish(read_json(stage.folder / "result.json"))
        return
    shop = comparison.source.shop(comparison.root)
    feature = feature_of(comparison, shop, encoder, form, seed)
    config = replace(comparison.ctr, threads=comparison.threads)
    if comparison.start == "warm" and encoder != WARM:
        config = replace(config, init_from=ctr_stage(comparison, WARM, "none", seed).folder / "best.safetensors")
    own_seed = seed + _OTHER if encoder == OTHER_SEEDS else seed
    train_ctr(shop, feature, config, seed=own_seed, folder=stage.folder)
    stage.finish(read_json(stage.folder / "result.json"))


def feature_of(comparison: Comparison, shop, encoder: str, form: str, seed: int):
    """The `ImageFeature` that this row of the comparison gives to its CTR model."""
    from features.embeddings import read_embeddings
    from features.forms.table import FormSettings
    from features.image_feature import image_feature, items_shown_before, no_image

    if form == "none":
        return no_image(len(shop.items))
    stage = encoder_stage(comparison, encoder.removeprefix(SHUFFLED), seed)
    vectors = read_embeddings(stage.folder / "embeddings", shop.items["item_id"])
    if encoder.startswith(SHUFFLED):
        present = np.flatnonzero(vectors.any(1))
        vectors[present] = vectors[present[permutation(len(present), seed, "shuffled")]]
    known, centre = items_shown_before(shop, "valid"), comparison.pretrain.centre
    return image_feature(form, vectors, FormSettings(clusters=comparison.clusters), seed=seed, fit_on=known, centre=centre)
