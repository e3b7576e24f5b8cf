"""Train one encoder: python -m pretrain.train --encoder courier --data DIR."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig, initial_config
from pretrain.methods.table import METHODS, parts_read, uses_initial_weights
from run.config import as_dict, one_of, parse, to_toml, with_settings
from run.errors import entry
from run.files import write_atomic, write_json
from run.folder import locked

ENCODERS = tuple(METHODS)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one encoder's training."""

    encoder: str = "courier"  # courier | simclr | simsiam | clip | maskclip | supervised | random (the backbone as it begins)
    preset: str = "small"  # tiny | small | paper
    seed: int = 0  # of first weights, order and views
    out: Path = Path("runs/encoder")  # run folder; the same command goes on where a killed one was
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    pretrain: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)

    def __post_init__(self):
        one_of("encoder", self.encoder, ENCODERS)


PRESETS: dict[str, dict[str, Any]] = {
    name: {"source": SOURCE_PRESETS[name], "pretrain": preset} for name, preset in PRETRAIN_PRESETS.items()
}


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, train, write `best.safetensors` and `result.json` into the run folder."""
    config = parse(
        TrainConfig, argv, prog="python -m pretrain.train", presets=PRESETS,
        description="Train one image encoder on a shop's pictures and clicks; embed with features.embed afterwards.",
    )  # fmt: skip
    for flag in unread(config):
        print(f"note: {flag} is of another method; {config.encoder} does not read it", file=sys.stderr)
    from contextlib import nullcontext

    from data.readiness import check_scorable
    from pretrain.loop import train_encoder
    from run.devices import default_jobs, set_up

    fabric = set_up(precision=config.pretrain.precision)
    pretrain, first = config.pretrain, fabric.is_global_zero
    with locked(config.out) if first else nullcontext():
        with fabric.rank_zero_first():  # the others find data and pictures made
            shop = config.source.shop(config.out)
            check_scorable(shop, "valid")
            store = config.source.pictures(config.out, size=pretrain.store_size, jobs=default_jobs())
        if uses_initial_weights(config.encoder, pretrain):
            train_encoder("simclr", shop, store, initial_config(pretrain), seed=config.seed, folder=config.out / "start", title="start")
            pretrain = replace(pretrain, weights=str(config.out / "start" / "best.safetensors"))
        result = train_encoder(config.encoder, shop, store, pretrain, seed=config.seed, folder=config.out)
        if not first:
            return
        write_atomic(config.out / "config.toml", to_toml(as_dict(config)).encode())
        write_json(config.out / "result.json", result)
    print(
        f"{config.encoder}: SimScore GAUC {result['valid_gauc']:.4f} in validation sessions, after {result['best_pictures']:,} of "
        f"{result['pictures']:,} pictures; weights in {config.out / 'best.safetensors'}\n"
        f"next: python -m features.embed --run {config.out} --out EMBEDDINGS"
    )


def unread(config: TrainConfig) -> list[str]:
    """Flags that were given another value than the preset's, and belong to a method that is not trained (the start is)."""
    preset = with_settings(PretrainConfig(), PRETRAIN_PRESETS[config.preset], source=config.preset)
    read = set(parts_read(config.encoder, config.pretrain))
    if uses_initial_weights(config.encoder, config.pretrain):
        read |= set(parts_read("simclr", config.pretrain))  # what all begin with
    found = []
    for part in (one.name for one in fields(PretrainConfig) if is_dataclass(getattr(preset, one.name))):
        if part in read:
            continue
        given, usual = (asdict(getattr(settings, part)) for settings in (config.pretrain, preset))
        prefix = "--" if part == "courier" else f"--{part}."
        found += [prefix + name.replace("_", "-") for name, value in given.items() if value != usual[name]]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
