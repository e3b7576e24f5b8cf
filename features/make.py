"""The cached stages from a shop and its pictures to embeddings: encoder, embeddings."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from data.picture_reader import Pictures
from data.source import SourceConfig
from features.foreign import foreign_stage, make_foreign
from pretrain.config import PACE, PretrainConfig, start_config
from pretrain.methods import METHODS, has_start, is_trained, parts_read
from run.folder import Stage, file_hash, folder_hash

VERSION = 8  # of encoder training: raise it when the code gives other numbers from the same settings


def encoder_stage(source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int) -> Stage:
    """Where the encoder trained with these settings on this data stands, trained or not; one made elsewhere has no settings and no seed."""
    if is_foreign(encoder):
        return foreign_stage(source, root, encoder)
    return _stage(f"encoders/{encoder}", source, root, encoder, config, seed)


def start_stage(source: SourceConfig, root: Path, config: PretrainConfig, seed: int) -> Stage:
    """Where the SimCLR training whose weights all encoders of this seed begin with stands; its folder is called start, not simclr."""
    return _stage("encoders/start", source, root, "simclr", start_config(config), seed)


def is_foreign(encoder: str) -> bool:
    """True for an encoder that is not trained here: frozen, and the same for every seed."""
    return encoder not in METHODS


def needs_start(encoder: str, config: PretrainConfig) -> bool:
    """True for an encoder that begins with the weights of `start_stage`."""
    return not is_foreign(encoder) and has_start(encoder, config)


def _stage(name: str, source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int) -> Stage:
    config = _own_start(encoder, config)
    parts = parts_read(encoder, config)  # of the parts of the settings, those of other methods do not count
    settings = {
        name: value for name, value in asdict(config).items() if name not in PACE and (name in parts or not isinstance(value, dict))
    }
    if "clip" in parts and config.clip.text_model is not None:
        settings["clip"]["text_model"] = folder_hash(config.clip.text_model)
    key = source.key(root) | {"encoder": encoder, "seed": seed, "pretrain": settings, "version": VERSION}
    return Stage(root, f"{name}-seed{seed}", key | {"weights": file_hash(config.weights)})


def _own_start(encoder: str, config: PretrainConfig) -> PretrainConfig:
    """The settings with this encoder's own start: none where it is untrained; `start_pictures` counts for weights "pictures" alone."""
    if not is_trained(encoder):
        config = replace(config, weights="random")
    return config if config.weights == "pictures" else replace(config, start_pictures=1)


def make_embeddings(source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int, *, threads: int = 0) -> Stage:
    """Train the encoder unless it is there, and embed every item with its best checkpoint.

    Returns:
        The stage; `folder / "embeddings"` is the embeddings folder, `folder / "best.safetensors"` the weights (of one trained here).
    """
    if is_foreign(encoder):
        return make_foreign(source, root, encoder, workers=threads)
    return _made(encoder_stage(source, root, encoder, config, seed), source, root, encoder, config, seed, threads)


def make_start(source: SourceConfig, root: Path, config: PretrainConfig, seed: int, *, threads: int = 0) -> Stage:
    """Train the start of all encoders of this seed unless it is there; `folder / "best.safetensors"` holds its weights."""
    return _made(start_stage(source, root, config, seed), source, root, "simclr", start_config(config), seed, threads, title="start")


def _made(
    stage: Stage, source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int, threads: int, title: str = ""
) -> Stage:
    if stage.done:
        return stage
    from pretrain.loop import train_encoder

    first = config = _own_start(encoder, config)
    if needs_start(encoder, config):
        start = make_start(source, root, config, seed, threads=threads)
        first = replace(config, weights=str(start.folder / "best.safetensors"))
    shop = source.shop(root)
    store = source.pictures(root, size=config.store_size, jobs=1)
    result = train_encoder(encoder, shop, store, first, seed=seed, folder=stage.folder, threads=threads, title=title)
    embed_catalogue(stage.folder / "best.safetensors", shop, store, config, encoder=encoder, seed=seed, out=stage.folder / "embeddings")
    stage.finish(result)
    return stage


def embed_catalogue(weights: Path, shop, store: Pictures, config: PretrainConfig, *, encoder: str, seed: int, out: Path) -> None:
    """Embed every item's picture with trained weights and write the embeddings folder."""
    from features.embeddings import write_embeddings
    from pretrain.backbone import backbone
    from pretrain.embedding import embed
    from run.devices import set_up

    fabric = set_up()
    net = backbone(config.backbone, dim=config.dim, seed=seed, weights=str(weights)).to(fabric.device)
    vectors = embed(net, store, config)
    meta = {"encoder": encoder, "hash": file_hash(weights), "normalised": True, "seed": seed}
    write_embeddings(out, shop.items["item_id"], vectors, meta)
