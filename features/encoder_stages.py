"""The cached stages from a shop and its pictures to embeddings: the shared initial weights, encoders, embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.pictures.reader import Pictures
from data.source import SourceConfig
from features.encoder_names import safe_name
from features.external import external_stage, make_external
from pretrain.body_features import feature_stages, frozen_features
from pretrain.config import PretrainConfig, initial_config
from pretrain.methods.table import INITIAL_METHOD, code_read, is_trained_here, own_config, settings_read, uses_initial_weights
from pretrain.methods.user_methods import is_user_method, parse_name
from run.folder import Stage, file_hash
from run.versions import installed

if TYPE_CHECKING:
    from pretrain.backbones.feature_store import Features

# modules that every encoder's stage runs in addition to its method, and modules that these import without running
_CODE = ("features.encoder_stages", "pretrain.loop", "pretrain.embedding", "features.embeddings", "data.pictures.store")
_NOT_RUN = ("features.encoder_names", "features.external", "features.external_networks", "features.external_vectors")
_LIBRARIES = ("torch", "torchvision", "numpy", "pillow")  # whose versions affect the numbers


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a run's stages depend on, apart from the encoder and the seed."""

    root: Path  # run folder: stages are kept here
    source: SourceConfig
    pretrain: PretrainConfig
    threads: int = 0  # CPU threads of a training; 0: torch's choice


def encoder_stage(experiment: Experiment, encoder: str, seed: int) -> Stage:
    """The stage of the encoder trained with these settings on this data, trained or not; an external one has no settings and no seed."""
    if is_external(encoder):
        return external_stage(experiment.source, experiment.root, encoder)
    return _stage(f"encoders/{safe_name(encoder)}", experiment, encoder, experiment.pretrain, seed)


def initial_encoder_stage(experiment: Experiment, seed: int) -> Stage:
    """The stage of the initial encoder, whose weights all encoders of this seed start from; its folder is called start."""
    return _stage("encoders/start", experiment, INITIAL_METHOD, initial_config(experiment.pretrain), seed)


def is_external(encoder: str) -> bool:
    """True for an encoder that is not trained here: frozen, and the same for every seed."""
    return not is_trained_here(encoder)


def needs_initial_encoder(encoder: str, config: PretrainConfig) -> bool:
    """True for an encoder that starts from the weights of `initial_encoder_stage`."""
    return not is_external(encoder) and uses_initial_weights(encoder, config)


def _stage(name: str, experiment: Experiment, encoder: str, config: PretrainConfig, seed: int) -> Stage:
    config = _own_config(encoder, config)
    key = experiment.source.key(experiment.root) | {"encoder": _key_name(encoder), "seed": seed}
    key |= {"pretrain": settings_read(encoder, config), "code": code_read(encoder, config, *_CODE, without=_NOT_RUN)}
    key["versions"] = installed(*_LIBRARIES)
    if uses_initial_weights(encoder, config):
        key["initial"] = initial_encoder_stage(experiment, seed).hash
    return Stage(experiment.root, f"{name}-seed{seed}", key)


def _key_name(encoder: str) -> str:
    """An encoder's name without the path of a user's file, whose code is in the key anyway."""
    return f"module:{parse_name(encoder).attribute}" if is_user_method(encoder) else encoder


def _own_config(encoder: str, config: PretrainConfig) -> PretrainConfig:
    """The settings of this encoder only: `start_pictures` counts with weights "pictures" alone."""
    config = own_config(encoder, config)
    return config if config.weights == "pictures" else replace(config, start_pictures=1)


def make_embeddings(experiment: Experiment, encoder: str, seed: int) -> Stage:
    """Train the encoder if missing, and embed every item with its best checkpoint.

    Returns:
        The stage; `folder / "embeddings"` is the embeddings folder, `folder / "best.safetensors"` the weights (of one trained here).
    """
    if is_external(encoder):
        return make_external(experiment.source, experiment.root, encoder, workers=experiment.threads)
    return _make(encoder_stage(experiment, encoder, seed), experiment, encoder, experiment.pretrain, seed)


def make_initial_encoder(experiment: Experiment, seed: int) -> Stage:
    """Train the initial encoder of this seed if missing; `folder / "best.safetensors"` holds its weights."""
    stage, config = initial_encoder_stage(experiment, seed), initial_config(experiment.pretrain)
    return _make(stage, experiment, INITIAL_METHOD, config, seed, title="initial encoder")


def _make(stage: Stage, experiment: Experiment, encoder: str, config: PretrainConfig, seed: int, title: str = "") -> Stage:
    if stage.done:
        return stage
    from pretrain.loop import train_encoder

    config, first = _own_config(encoder, config), _first(experiment, encoder, config, seed)
    shop = experiment.source.shop(experiment.root)
    store = _material(experiment, encoder, first, seed)
    result = train_encoder(encoder, shop, store, first, seed=seed, folder=stage.folder, threads=experiment.threads, title=title)
    embed_catalogue(stage.folder / "best.safetensors", shop, store, config, encoder=encoder, seed=seed, out=stage.folder / "embeddings")
    stage.finish(result)
    return stage


def body_stages(experiment: Experiment, encoder: str, seed: int) -> list[Stage]:
    """The stages of the features that an encoder with a frozen body learns from; none if its body is tuned."""
    config = _own_config(encoder, experiment.pretrain)
    if is_external(encoder) or config.body == "tuned":
        return []
    return feature_stages(experiment.root, experiment.source, encoder, config, seed, weights=_weights_key(experiment, encoder, seed))


def make_body_features(experiment: Experiment, encoder: str, seed: int, jobs: int) -> None:
    """Compute the features of `body_stages` where they are missing, with all CPU threads.

    Args:
        jobs: threads that decode pictures; 0: one per CPU core.
    """
    from run.devices import default_jobs

    config = _first(experiment, encoder, experiment.pretrain, seed)
    _material(replace(experiment, threads=0), encoder, config, seed, jobs=jobs or default_jobs())


def _weights_key(experiment: Experiment, encoder: str, seed: int) -> str:
    """The key of the initial encoder, if a body's weights are its; otherwise nothing, and the settings tell."""
    return initial_encoder_stage(experiment, seed).hash if needs_initial_encoder(encoder, experiment.pretrain) else ""


def _first(experiment: Experiment, encoder: str, config: PretrainConfig, seed: int) -> PretrainConfig:
    """The settings with the file of the initial encoder, trained if missing, where an encoder starts from it."""
    config = _own_config(encoder, config)
    if not needs_initial_encoder(encoder, config):
        return config
    return replace(config, weights=str(make_initial_encoder(experiment, seed).folder / "best.safetensors"))


def _material(experiment: Experiment, encoder: str, config: PretrainConfig, seed: int, jobs: int = 1) -> Pictures | Features:
    """What an encoder learns from: the shop's pictures, or what a frozen body gives for them."""
    if config.body == "tuned":
        return experiment.source.pictures(experiment.root, size=config.store_size, jobs=jobs)
    return frozen_features(
        experiment.root, experiment.source, encoder, config, seed, jobs=jobs, threads=experiment.threads,
        weights=_weights_key(experiment, encoder, seed),
    )  # fmt: skip


def embed_catalogue(weights: Path, shop, store: Pictures | Features, config: PretrainConfig, *, encoder: str, seed: int, out: Path) -> None:
    """Embed every item's picture with trained weights and write the embeddings folder."""
    from features.embeddings import write_embeddings
    from pretrain.backbones.backbone import backbone_of
    from pretrain.backbones.feature_store import Features
    from pretrain.embedding import embed
    from run.devices import set_up

    fabric = set_up()
    net = backbone_of(config, seed, weights).to(fabric.device)
    vectors = embed(net.head if isinstance(store, Features) else net, store, config)
    meta = {"encoder": encoder, "hash": file_hash(weights), "normalised": True, "seed": seed}
    write_embeddings(out, shop.items["item_id"], vectors, meta)
