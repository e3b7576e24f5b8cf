"""Embed a catalogue with a trained encoder: python -m features.embed --run runs/encoder --data DIR --out runs/embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from data.source import SourceConfig
from run.config import parse, with_settings
from run.errors import UserError, entry


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of embedding a catalogue."""

    run: Path = Path("runs/encoder")  # run folder of pretrain.train
    out: Path = Path("runs/embeddings")  # embeddings folder to write
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, embed every item, write the embeddings folder."""
    config = parse(
        EmbedConfig, argv, prog="python -m features.embed",
        description="Embed every item's picture once with a trained encoder: vectors.npy, items.parquet, meta.json.",
    )  # fmt: skip
    import tomllib

    from data.pictures import build_store
    from data.source import open_shop, shop_folder
    from features.make import embed_catalogue
    from pretrain.config import PretrainConfig
    from run.devices import default_jobs

    weights, recipe = config.run / "best.safetensors", config.run / "config.toml"
    for needed in (weights, recipe):
        if not needed.exists():
            raise UserError(f"{needed}: no such file; --run takes the folder that pretrain.train wrote")
    trained = tomllib.loads(recipe.read_text())
    pretrain = with_settings(PretrainConfig(), trained["pretrain"], source=str(recipe))
    shop = open_shop(shop_folder(config.source, config.out), config.source.allow_unordered_split)
    store = build_store(
        shop, config.out / "pictures", size=pretrain.store_size, workers=default_jobs(), max_bad_images=config.source.max_bad_images
    )
    embed_catalogue(weights, shop, store, pretrain, encoder=trained["encoder"], seed=trained["seed"], out=config.out)
    print(f"{len(shop.items):,} items, {int(store.present.sum()):,} with a picture: embeddings in {config.out}")


if __name__ == "__main__":
    raise SystemExit(main())
