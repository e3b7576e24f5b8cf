"""Cluster embeddings: python -m features.cluster --embeddings runs/embeddings --clusters 200 --out runs/clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from run.config import parse, positive
from run.errors import UserError, entry


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Settings of clustering embeddings."""

    embeddings: Path = Path("runs/embeddings")  # embeddings folder
    out: Path = Path("runs/clusters")  # gets clusters.parquet (item_id, cluster) and centres.npy (C, D)
    clusters: int = 200  # centres wanted; fewer where there are fewer distinct pictures
    seed: int = 0  # of the first centres

    def __post_init__(self):
        positive("clusters", self.clusters)


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, cluster, write cluster numbers and centres; new pictures take the nearest centre."""
    config = parse(
        ClusterConfig, argv, prog="python -m features.cluster", description="k-means on unit embeddings: a cluster ID for every item."
    )
    import io

    import numpy as np
    import polars as pl

    from features.clustering import fit_centres, nearest
    from features.embeddings import read_embeddings
    from run.folder import write_atomic

    table = config.embeddings / "items.parquet"
    if not table.is_file():
        raise UserError(f"{table}: no such file; --embeddings takes the folder that features.embed wrote")
    try:
        item_id = pl.read_parquet(table, columns=["item_id"])["item_id"]
    except Exception as error:  # polars raises many kinds for a broken file
        raise UserError(f"{table}: not readable ({type(error).__name__})") from None
    vectors = read_embeddings(config.embeddings, item_id)
    present = vectors.any(1)
    if not present.any():
        raise UserError(f"{config.embeddings}: no item has an embedding")
    centres = fit_centres(vectors[present], clusters=config.clusters, seed=config.seed)
    cluster = np.full(len(vectors), len(centres), dtype=np.int64)
    cluster[present] = nearest(vectors[present], centres)
    written = io.BytesIO()
    pl.DataFrame({"item_id": item_id, "cluster": cluster}).write_parquet(written)
    write_atomic(config.out / "clusters.parquet", written.getvalue())
    array = io.BytesIO()
    np.save(array, centres)
    write_atomic(config.out / "centres.npy", array.getvalue())
    sizes = np.bincount(cluster[present], minlength=len(centres))
    print(
        f"{len(centres)} clusters of {sizes.min()} to {sizes.max()} items (median {int(np.median(sizes))}) in {config.out}; "
        f"{int((~present).sum())} items without a picture have ID {len(centres)}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
