"""The cached stages from a shop folder to embeddings: picture store, encoder, embeddings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from data.pictures import PictureStore, build_store, open_store
from data.source import SourceConfig, fingerprint, open_shop, shop_folder
from pretrain.config import PretrainConfig
from run.folder import Stage

# settings that only say how a run proceeds: they change no result
_NO_RESULT = ("checkpoint_seconds",)
# settings that one method alone reads: another method's stage does not depend on them
_OWN = {
    "courier": ("batch_size", "page_items", "history_items", "temperature", "scale_attention", "mask_same_item", "crop"),
    "simclr": ("batch_pictures", "simclr_temperature", "simclr_strength", "simclr_crop", "simclr_blur"),
}


def picture_store(source: SourceConfig, root: Path, *, size: int, jobs: int) -> PictureStore:
    """The decoded pictures of the run's shop at `size` pixels; made once."""
    folder = shop_folder(source, root)
    stage = Stage(root, f"pictures/{size}px", {"shop": fingerprint(folder), "size": size})
    if not stage.done:
        shop = open_shop(folder, source.allow_unordered_split)
        store = build_store(shop, stage.folder, size=size, workers=jobs, max_bad_images=source.max_bad_images)
        stage.finish({"pictures": int(store.present.sum()), "bad": len(store.bad)})
    return open_store(stage.folder)


def encoder_stage(source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int) -> Stage:
    """Where the encoder trained with these settings on this data stands, trained or not."""
    foreign = {name for method, own in _OWN.items() if method != encoder for name in own}
    settings = {name: value for name, value in asdict(config).items() if name not in foreign and name not in _NO_RESULT}
    key = {"shop": fingerprint(shop_folder(source, root)), "encoder": encoder, "seed": seed, "pretrain": settings}
    return Stage(root, f"encoders/{encoder}-seed{seed}", key | {"unordered": source.allow_unordered_split})


def make_embeddings(source: SourceConfig, root: Path, encoder: str, config: PretrainConfig, seed: int, *, threads: int = 0) -> Stage:
    """Train the encoder unless it is there, and embed every item with its best checkpoint.

    Returns:
        The stage; `folder / "embeddings"` is the embeddings folder, `folder / "best.safetensors"` the weights.
    """
    stage = encoder_stage(source, root, encoder, config, seed)
    if stage.done:
        return stage
    from pretrain.loop import train_encoder

    shop = open_shop(shop_folder(source, root), source.allow_unordered_split)
    store = picture_store(source, root, size=config.store_size, jobs=1)
    result = train_encoder(encoder, shop, store, config, seed=seed, folder=stage.folder, threads=threads)
    embed_catalogue(stage.folder / "best.safetensors", shop, store, config, encoder=encoder, seed=seed, out=stage.folder / "embeddings")
    stage.finish(result)
    return stage


def embed_catalogue(weights: Path, shop, store: PictureStore, config: PretrainConfig, *, encoder: str, seed: int, out: Path) -> None:
    """Embed every item's picture with trained weights and write the embeddings folder."""
    import hashlib

    from features.embeddings import write_embeddings
    from pretrain.backbone import backbone
    from pretrain.loop import embed
    from run.devices import set_up

    fabric = set_up()
    net = backbone(config.backbone, dim=config.dim, seed=seed, weights=str(weights)).to(fabric.device)
    vectors = embed(net, store, config)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    write_embeddings(out, shop.items["item_id"], vectors, {"encoder": encoder, "hash": digest, "normalised": True, "seed": seed})
