"""Train one encoder: python -m pretrain.train --encoder courier --data DIR."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from pretrain.backbones.names import COMPONENTS
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig, initial_config
from pretrain.methods.table import (
    INITIAL_METHOD,
    METHODS,
    UNTRAINED,
    check_needs,
    default_encoders,
    own_config,
    parts_read,
    settings_classes,
    uses_initial_weights,
)
from pretrain.methods.user_methods import FORM, is_user_method, own_settings
from pretrain.settings import TUNED_ONLY
from run.config import one_of, parse, with_settings, write_config
from run.errors import entry
from run.files import write_json
from run.folder import locked

ENCODERS = tuple(METHODS)
BASIC = ("data", "encoder", "preset", "seed", "out", "backbone", "weights", "image_size", "pictures", "learning_rate", "recipe")
_NAMES = f"{' | '.join(ENCODERS)} (imagenet: frozen, pretrained; {UNTRAINED}: the untrained backbone)"
_HELP = f"{_NAMES} | {FORM} (your own: docs/your-own-encoder.md)"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one encoder's training."""

    encoder: Annotated[str, tyro.conf.arg(help=_HELP)] = default_encoders()[0]
    preset: str = "small"  # tiny | small | paper
    seed: int = 0  # of initial weights, sampling and views
    out: Path = Path("runs/encoder")  # run folder; the same command resumes where a killed one stopped
    # run folder of what several trainings share, made where missing: decoded pictures and a frozen body's features; by default `out`
    shared: Path | None = None
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    pretrain: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)

    def __post_init__(self):
        if is_user_method(self.encoder):
            own_settings(self.encoder)  # raises for a method that cannot be loaded
        else:
            one_of("encoder", self.encoder, ENCODERS)

    @property
    def root(self) -> Path:
        """Where the data's own stages are kept."""
        return self.shared or self.out


PRESETS: dict[str, dict[str, Any]] = {
    name: {"source": SOURCE_PRESETS[name], "pretrain": preset} for name, preset in PRETRAIN_PRESETS.items()
}


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, train, write `best.safetensors` and `result.json` into the run folder."""
    config = parse(
        TrainConfig, argv, prog="python -m pretrain.train", presets=PRESETS, basic=BASIC,
        description="Train one image encoder on a shop's pictures and clicks; embed with features.embed afterwards.",
    )  # fmt: skip
    for flag, reason in unread(config).items():
        print(f"note: {flag} changes nothing: {reason}", file=sys.stderr)
    from contextlib import AbstractContextManager, nullcontext

    from data.readiness import check_scorable
    from pretrain.body_features import frozen_features
    from pretrain.loop import train_encoder
    from run.devices import default_jobs, set_up

    fabric = set_up(precision=config.pretrain.precision)
    pretrain, first = own_config(config.encoder, config.pretrain), fabric.is_global_zero

    def alone() -> AbstractContextManager[None]:
        """Nobody else makes what is shared meanwhile."""
        apart = config.root.resolve() != config.out.resolve()
        return locked(config.root, flag="--shared", wait=True) if first and apart else nullcontext()

    with locked(config.out) if first else nullcontext():
        with fabric.rank_zero_first(), alone():  # the others find data and pictures ready
            shop = config.source.shop(config.root)
            check_scorable(shop, "valid")
            check_needs(config.encoder, shop, pretrain)
            jobs = default_jobs()
            store = config.source.pictures(config.root, size=pretrain.store_size, jobs=jobs)
        if uses_initial_weights(config.encoder, pretrain):
            folder, first_config = config.out / "start", initial_config(pretrain)
            train_encoder(INITIAL_METHOD, shop, store, first_config, seed=config.seed, folder=folder, title="initial encoder")
            pretrain = replace(pretrain, weights=str(folder / "best.safetensors"))
        if pretrain.body == "frozen":
            with fabric.rank_zero_first(), alone():
                store = frozen_features(config.root, config.source, config.encoder, pretrain, config.seed, jobs=jobs)
        result = train_encoder(config.encoder, shop, store, pretrain, seed=config.seed, folder=config.out)
        if not first:
            return
        write_config(config.out, replace(config, pretrain=own_config(config.encoder, config.pretrain)))
        write_json(config.out / "result.json", result)
    began = f"{result['start_gauc']:.4f} before the first, " if "start_gauc" in result else ""
    if "components" in result:
        began += f"where the head was components of {COMPONENTS[result['components']]}, "
    print(
        f"{config.encoder}: GAUC of SimScore beside popularity {result['valid_gauc']:.4f} in validation sessions, after "
        f"{result['best_pictures']:,} of {result['pictures']:,} pictures ({began}{result['popularity_gauc']:.4f} with popularity alone); "
        f"weights in {config.out / 'best.safetensors'}\n"
        f"next: python -m features.embed --run {config.out} --out EMBEDDINGS"
    )


def unread(config: TrainConfig) -> dict[str, str]:
    """Flags that were given another value than the preset's and are not read, and why: they belong to a method that is not trained (the
    initial encoder is), or to the training of a body that is frozen.
    """
    preset = with_settings(PretrainConfig(), PRETRAIN_PRESETS[config.preset], source=config.preset)
    read = set(parts_read(config.encoder, config.pretrain))
    if uses_initial_weights(config.encoder, config.pretrain):
        read |= set(parts_read(INITIAL_METHOD, config.pretrain))  # all methods start from it
    found = {}
    for kind in settings_classes():
        given, usual = (asdict(settings.part(kind)) for settings in (config.pretrain, preset))
        prefix = "--" if kind.plain_flags else f"--{kind.part}."
        for name in (name for name, value in given.items() if value != usual[name]):
            flag = prefix + name.replace("_", "-")
            if kind.part not in read:
                found[flag] = f"it belongs to another method than {config.encoder}"
            elif name in TUNED_ONLY and config.pretrain.body == "frozen":
                found[flag] = "the body is frozen (--body tuned reads it)"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
