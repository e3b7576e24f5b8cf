"""Train one CTR model: python -m ctr.train --data DIR --image-feature cluster_id --embeddings DIR.

Without --embeddings, COURIER is trained first and its embeddings are used. Under torchrun, ranks share the tables and each batch
(docs/sharded-training.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ctr.config import PRESETS as CTR_PRESETS
from ctr.config import CtrConfig
from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig
from run.config import as_dict, one_of, parse, positive, to_toml
from run.errors import SettingError, UserError, entry
from run.files import write_atomic
from run.folder import locked

if TYPE_CHECKING:
    from data.log.shop_folder import Shop
    from features.image_feature import ImageFeature

FORMS = ("none", "cluster_id", "sim_score", "vector")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one CTR model's training."""

    image_feature: str = "none"  # none (the baseline) | cluster_id | sim_score | vector
    embeddings: Path | None = None  # embeddings folder (features.embed); None: courier is trained first
    clusters: int = 200  # cluster IDs wanted
    preset: str = "small"  # tiny | small | paper
    seed: int = 0  # of first weights and the order of sessions
    out: Path = Path("runs/ctr")  # run folder; the same command goes on where a killed one was
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    ctr: Annotated[CtrConfig, tyro.conf.arg(name="")] = field(default_factory=CtrConfig)

    def __post_init__(self):
        one_of("image_feature", self.image_feature, FORMS)
        positive("clusters", self.clusters)
        if self.image_feature == "none" and self.embeddings is not None:
            raise SettingError("embeddings", self.embeddings, "--image-feature none takes none; give cluster_id, sim_score or vector")


PRESETS: dict[str, dict[str, Any]] = {
    name: {"source": SOURCE_PRESETS[name], "ctr": CTR_PRESETS[name], "pretrain": PRETRAIN_PRESETS[name]} for name in CTR_PRESETS
}
PRESETS["tiny"]["clusters"], PRESETS["paper"]["clusters"] = 40, 100_000


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, train, write predictions, weights and `result.json` into the run folder."""
    config = parse(
        TrainConfig, argv, prog="python -m ctr.train", presets=PRESETS,
        description="Train one CTR model, with one encoder's embeddings in one form or without pictures.",
    )  # fmt: skip
    from contextlib import nullcontext

    from ctr.training.loop import train_ctr
    from data.readiness import check_learnable, check_scorable
    from run.devices import set_up

    fabric = set_up(config.ctr.threads, config.ctr.precision)
    if fabric.world_size > 1 and config.image_feature != "none" and config.embeddings is None:
        raise UserError("several ranks take embeddings that are there; make them with pretrain.train and features.embed, give --embeddings")
    with locked(config.out) if fabric.is_global_zero else nullcontext():
        with fabric.rank_zero_first():  # the others find the data made
            shop = config.source.shop(config.out)
            check_learnable(shop)
            check_scorable(shop, "valid")
        result = train_ctr(shop, image_feature_for(shop, config), config.ctr, seed=config.seed, folder=config.out)
        if not fabric.is_global_zero:
            return
        write_atomic(config.out / "config.toml", to_toml(as_dict(config)).encode())  # not before: a run with other settings is refused
    for split in ("valid", "test"):
        values = (_shown(result[f"{split}_{name}"]) for name in ("auc", "gauc"))
        print("{}, {} split: AUC {}, GAUC {}".format(config.image_feature, split, *values))
    print(f"trained on {result['impressions']:,} impressions; predictions in {config.out / 'predictions.parquet'}")


def image_feature_for(shop: Shop, config: TrainConfig) -> ImageFeature:
    """The feature that the flags ask for, from an embeddings folder or from a COURIER trained for it."""
    from features.embeddings import read_embeddings
    from features.encoder_stages import Experiment, make_embeddings
    from features.image_feature import image_feature, items_shown_before, no_image

    if config.image_feature == "none":
        return no_image(len(shop.items))
    folder = config.embeddings
    if folder is None:
        experiment = Experiment(root=config.out, source=config.source, pretrain=config.pretrain)
        folder = make_embeddings(experiment, "courier", config.seed).folder / "embeddings"
    vectors = read_embeddings(folder, shop.items["item_id"])
    known, centre = items_shown_before(shop, "valid"), config.pretrain.centre
    return image_feature(config.image_feature, vectors, clusters=config.clusters, seed=config.seed, fit_on=known, centre=centre)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
