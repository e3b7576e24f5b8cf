"""Train one CTR model: python -m ctr.train --data DIR --image-feature cluster_id --embeddings DIR.

Without --embeddings, COURIER is trained first and its embeddings are used. Under torchrun, ranks share the tables and each batch
(docs/sharded-training.md).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ctr.config import PRESETS as CTR_PRESETS
from ctr.config import CtrConfig, refuse_without_start
from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from features.forms.table import FORM_NAMES, NO_FORM, FormSettings, check_form
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig
from pretrain.methods.table import default_encoders
from run.config import parse, write_config
from run.errors import SettingError, UserError, entry
from run.folder import locked

if TYPE_CHECKING:
    from data.log.shop_folder import Shop
    from features.image_feature import ImageFeature

BASIC = ("data", "image_feature", "embeddings", "preset", "seed", "out", "clusters", "epochs", "learning_rate", "init_from", "recipe")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one CTR model's training."""

    image_feature: str = NO_FORM  # none (the baseline), or a form in which embeddings are fed, or several: sim_tier+cluster_id
    embeddings: Path | None = None  # embeddings folder (features.embed); None: courier is trained first
    preset: str = "small"  # tiny | small | paper
    seed: int = 0  # of initial weights and the order of sessions
    out: Path = Path("runs/ctr")  # run folder; the same command resumes where a killed one stopped
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    forms: Annotated[FormSettings, tyro.conf.arg(name="")] = field(default_factory=FormSettings)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    ctr: Annotated[CtrConfig, tyro.conf.arg(name="")] = field(default_factory=CtrConfig)

    def __post_init__(self):
        check_form("image_feature", self.image_feature)
        if not -(2**63) <= self.seed < 2**63:
            raise SettingError("seed", self.seed, "give an integer of 64 bits")
        refuse_without_start(self.ctr, self.image_feature)
        if self.image_feature == NO_FORM and self.embeddings is not None:
            raise SettingError("embeddings", self.embeddings, f"--image-feature none takes none; give one of {', '.join(FORM_NAMES)}")


PRESETS: dict[str, dict[str, Any]] = {
    name: {"source": SOURCE_PRESETS[name], "ctr": CTR_PRESETS[name], "pretrain": PRETRAIN_PRESETS[name]} for name in CTR_PRESETS
}
PRESETS["tiny"]["forms"], PRESETS["paper"]["forms"] = {"clusters": 40, "codes": 8}, {"clusters": 100_000, "codes": 8192}


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, train, write predictions, weights and `result.json` into the run folder."""
    config = parse(
        TrainConfig, argv, prog="python -m ctr.train", presets=PRESETS, basic=BASIC,
        description="Train one CTR model, with one encoder's embeddings in one form or without pictures.",
    )  # fmt: skip
    from ctr.training.loop import check_trainable, train_ctr
    from ctr.training.weights import check_weights
    from data.readiness import check_scorable
    from run.devices import set_up

    fabric = set_up(config.ctr.threads, config.ctr.precision)
    if fabric.world_size > 1 and config.image_feature != NO_FORM and config.embeddings is None:
        raise UserError("several ranks need existing embeddings: make them with pretrain.train and features.embed, then give --embeddings")
    if config.ctr.start is not None:
        check_weights(config.ctr.start)
    with locked(config.out) if fabric.is_global_zero else nullcontext():
        with fabric.rank_zero_first():  # the others find the data ready
            shop = config.source.shop(config.out)
            check_trainable(shop, config.ctr)
            check_scorable(shop, "valid")
            check_scorable(shop, "test")
        result = train_ctr(shop, image_feature_for(shop, config), config.ctr, seed=config.seed, folder=config.out)
        if not fabric.is_global_zero:
            return
        write_config(config.out, config)  # not before: a run with other settings is refused
    for split in ("valid", "test"):
        values = (_shown(result[f"{split}_{name}"]) for name in ("auc", "gauc"))
        print("{}, {} split: AUC {}, GAUC {}".format(config.image_feature, split, *values))
    print(f"trained on {result['impressions']:,} impressions; predictions in {config.out / 'predictions.parquet'}")


def image_feature_for(shop: Shop, config: TrainConfig) -> ImageFeature:
    """The feature that the flags select, from an embeddings folder or from an encoder trained for it."""
    from features.embeddings import read_embeddings
    from features.encoder_stages import Experiment, make_embeddings
    from features.image_feature import feature_of_shop, no_image

    if config.image_feature == NO_FORM:
        return no_image(len(shop.items))
    folder = config.embeddings
    if folder is None:
        experiment = Experiment(root=config.out, source=config.source, pretrain=config.pretrain)
        folder = make_embeddings(experiment, default_encoders()[0], config.seed).folder / "embeddings"
    vectors = read_embeddings(folder, shop.items["item_id"])
    return feature_of_shop(shop, vectors, config.image_feature, config.forms, seed=config.seed, centre=config.pretrain.centre)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
