"""Embed a catalogue: python -m features.embed --run runs/encoder --out runs/embeddings (an encoder of pretrain.train), or with an
external one: python -m features.embed --encoder timm:NAME --data DIR --out runs/embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.encoder_names import encoder_names
from pretrain.methods.user_methods import is_user_method
from run.config import one_of, parse, read_recipe, with_settings
from run.errors import SettingError, UserError, entry

if TYPE_CHECKING:
    from data.source import SourceConfig


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of embedding a catalogue."""

    run: Path = Path("runs/encoder")  # run folder of pretrain.train
    # an external one in place of --run: timm:NAME, open_clip:NAME/TAG, a torchvision name, each also @FILE or @random, or file:PATH
    encoder: str = ""
    out: Path = Path("runs/embeddings")  # embeddings folder to write
    data: str = ""  # shop folder to embed; empty: the data the encoder was trained on (with --encoder it must be given)
    max_bad_images: float = 0.01  # share of unreadable pictures above which the run stops
    # where pictures are read from: auto (the store if the training has left one, otherwise files: a catalogue that is read once
    # needs no store) | store | files (decoded when read; unreadable ones are listed in bad_pictures.csv)
    pictures_from: str = "auto"

    def __post_init__(self):
        one_of("pictures_from", self.pictures_from, ("auto", "store", "files"))
        if not self.encoder:
            return
        if self.run != EmbedConfig.run:
            raise SettingError("run", self.run, "--encoder is external and has no run folder: give one of the two")
        if is_user_method(self.encoder):
            raise SettingError("encoder", self.encoder, "is trained: give the run folder of its pretrain.train as --run")
        if len(encoder_names("encoder", self.encoder, ())) > 1:
            raise SettingError("encoder", self.encoder, "give one")
        if not self.data:
            raise SettingError("data", self.data, "--encoder embeds a shop folder: give it")


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, embed every item, write the embeddings folder."""
    config = parse(
        EmbedConfig, argv, prog="python -m features.embed",
        description="Embed every item's picture once with a trained encoder: vectors.npy, items.parquet, meta.json.",
    )  # fmt: skip
    from data.pictures.reader import picture_files
    from data.source import SourceConfig

    if config.encoder:
        source = SourceConfig(data=config.data, allow_unordered_split=True, max_bad_images=config.max_bad_images)
        embed_external(config.encoder, source, config.out)
        return
    from features.encoder_stages import embed_catalogue
    from pretrain.config import PretrainConfig
    from run.devices import default_jobs

    weights, recipe = config.run / "best.safetensors", config.run / "config.toml"
    for needed in (weights, recipe):
        if not needed.exists():
            raise UserError(f"{needed}: no such file; --run takes the folder that pretrain.train wrote")
    trained = {"encoder": "?", "seed": 0, "pretrain": {}, "source": {}} | read_recipe(recipe)
    pretrain = with_settings(PretrainConfig(), trained["pretrain"], source=str(recipe))
    source = with_settings(SourceConfig(), trained["source"], source=str(recipe))
    if config.data:
        source = SourceConfig(data=config.data, allow_unordered_split=True)
    source = replace(source, max_bad_images=config.max_bad_images, pictures_from="store")
    # the data of the training, and its decoded pictures, are in its run folder, or where it shared them
    root = config.out if config.data else Path(trained.get("shared", config.run))
    shop, size = source.shop(root), pretrain.store_size
    stored = (source.store_folder(root, size=size) / "store.json").exists()
    if config.pictures_from == "store" or (config.pictures_from == "auto" and stored):
        pictures = source.pictures(root, size=size, jobs=default_jobs())
    else:
        options = {"size": size, "workers": default_jobs(), "max_bad_images": config.max_bad_images}
        pictures = picture_files(shop, config.out, **options)
    embed_catalogue(weights, shop, pictures, pretrain, encoder=trained["encoder"], seed=trained["seed"], out=config.out)
    seen = int(pictures.present.sum()) - int(pictures.present[pictures.unreadable()].sum())
    print(f"{len(shop.items):,} items, {seen:,} with a picture: embeddings in {config.out}")


def embed_external(encoder: str, source: SourceConfig, out: Path) -> None:
    """Embed every item with an external encoder; a killed call is resumed."""
    from features.external import embed_shop, external_stage
    from run.folder import locked

    with locked(out):
        shop, key = source.shop(out), external_stage(source, out, encoder).hash
        embedded = embed_shop(shop, encoder, out, key=key, workers=0, max_bad_images=source.max_bad_images)
    print(f"{len(shop.items):,} items, {embedded:,} with an embedding: embeddings in {out}")


if __name__ == "__main__":
    raise SystemExit(main())
