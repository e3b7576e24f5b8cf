"""Export cluster IDs: python -m features.cluster --embeddings runs/embeddings --data DIR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.source import SourceConfig
from features.forms.cluster_id import ClusterIdSettings
from features.forms.semantic_id import check_levels
from run.config import parse, positive
from run.errors import UserError, entry

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from features.image_feature import ImageFeature

ABOUT = """The Cluster ID feature as files, for use elsewhere: in a serving system, another CTR model or a catalogue browser. \
Nothing here reads them: ctr.train and eval.compare make the same clusters themselves, with the same function.

Written into the embeddings folder:
  clusters.parquet  item_id, cluster from 0 to C; C, the number of centres, means "no picture"
  centres.npz       centres (C, D) float32, and common (D,), the part that was first subtracted from all embeddings

With --levels above 1 these are semantic IDs, each level a clustering of what the one before leaves of the embeddings, as in form \
semantic_id:
  semantic_ids.parquet  item_id, codes (a list of one number per level; null means "no picture")
  semantic_ids.npz      centres-0, centres-1, ... of each level, and common

A new picture's cluster is the number of the centre nearest to its embedding minus `common`, scaled to unit length again."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Settings of exporting cluster IDs."""

    embeddings: Path = Path("runs/embeddings")  # embeddings folder (features.embed); the files are added to it
    clusters: int = ClusterIdSettings.clusters  # cluster IDs wanted; fewer if there are fewer distinct pictures
    levels: int = 1  # above 1: semantic IDs of this many codes, each one of `clusters` (ctr.train: --codes, 256)
    seed: int = 0  # of the initial centres
    centre: bool = True  # first subtract the part that all embeddings share, as ctr.train does
    data: str = ""  # shop folder: centres are learned from its items shown before validation, as in ctr.train; empty: from all items
    split_fractions: tuple[float, float, float, float] = SourceConfig.split_fractions  # of --data, as given to ctr.train

    def __post_init__(self):
        positive("clusters", self.clusters)
        positive("levels", self.levels)
        check_levels(self.levels, self.clusters, flag="--clusters")


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, cluster, write cluster numbers and centres."""
    config = parse(ClusterConfig, argv, prog="python -m features.cluster", description=ABOUT)
    import numpy as np

    from features.embeddings import embedded_items, read_embeddings
    from features.forms.table import FormSettings
    from features.image_feature import image_feature, items_shown_before

    source = SourceConfig(data=config.data, split_fractions=config.split_fractions, allow_unordered_split=True)
    shop = source.shop(config.embeddings) if config.data else None
    item_id = embedded_items(config.embeddings) if shop is None else shop.items["item_id"]
    fit_on = None if shop is None else items_shown_before(shop, "valid")
    vectors = read_embeddings(config.embeddings, item_id)
    if config.levels > 1:
        settings = FormSettings(levels=config.levels, codes=config.clusters)
        feature = image_feature("semantic_id", vectors, settings, seed=config.seed, fit_on=fit_on, centre=config.centre)
        return write_semantic_ids(config.embeddings, item_id, feature)
    settings = FormSettings(clusters=config.clusters)
    feature = image_feature("cluster_id", vectors, settings, seed=config.seed, fit_on=fit_on, centre=config.centre)
    assert feature.rule is not None
    cluster, count = feature.rows[:, 0], feature.parts["cluster_id"].table_sizes[0] - 1
    if not count:
        raise UserError(f"{config.embeddings}: none of the items that centres are learned from has an embedding")
    write_clusters(config.embeddings, item_id, cluster, centres=feature.rule.constants["cluster_id"]["centres"], common=feature.rule.common)
    sizes = np.bincount(cluster[feature.present], minlength=count)
    print(
        f"{count} clusters of {sizes.min()} to {sizes.max()} items (median {int(np.median(sizes))}) in {config.embeddings}; "
        f"{int((~feature.present).sum())} items without a picture have ID {count}"
    )


def write_semantic_ids(folder: Path, item_id: pl.Series, feature: ImageFeature) -> None:
    """Write `semantic_ids.parquet` and `semantic_ids.npz`, and print how good the codes are.

    Raises:
        UserError: no picture is known to learn from.
    """
    import numpy as np
    import polars as pl

    from features.learned.residual_codes import codes_of, levels_in, quality
    from run.files import write_with

    assert feature.rule is not None
    assert feature.unit is not None
    levels, present = levels_in(feature.rule.constants["semantic_id"]), feature.present
    if not present.any() or not levels[0].any():
        raise UserError(f"{folder}: none of the items that codes are learned from has an embedding")
    codes = codes_of(feature.unit, levels).tolist()
    found = pl.Series("codes", [row if there else None for row, there in zip(codes, present, strict=True)], dtype=pl.List(pl.Int64))
    write_with(folder / "semantic_ids.parquet", pl.DataFrame({"item_id": item_id, "codes": found}).write_parquet)
    arrays: dict[str, Any] = {f"centres-{level}": centres for level, centres in enumerate(levels)} | {"common": feature.rule.common}
    write_with(folder / "semantic_ids.npz", lambda file: np.savez(file, **arrays))
    known = quality(feature.unit[present], levels)
    counts = ", ".join(str(len(centres)) for centres in levels)
    print(f"{len(levels)} levels of {counts} codes in {folder}; {int((~present).sum())} items without a picture have none")
    print(f"{known.unique:.1%} of the pictures have codes that no other has, {known.collisions:.1%} share all of theirs with another")
    for level, (used, entropy, error) in enumerate(zip(known.used, known.entropy, known.error, strict=True)):
        print(f"level {level}: {used:.1%} of the codes used, entropy {entropy:.3f} of the largest, {error:.1%} of the variance left")


def write_clusters(folder: Path, item_id: pl.Series, cluster: np.ndarray, *, centres: np.ndarray, common: np.ndarray) -> None:
    """Write `clusters.parquet`, the (N,) clusters with their ids, and `centres.npz`, (C, D) centres and the (D,) common part."""
    import numpy as np
    import polars as pl

    from run.files import write_with

    write_with(folder / "clusters.parquet", pl.DataFrame({"item_id": item_id, "cluster": cluster}).write_parquet)
    write_with(folder / "centres.npz", lambda file: np.savez(file, centres=centres, common=common))


if __name__ == "__main__":
    raise SystemExit(main())
