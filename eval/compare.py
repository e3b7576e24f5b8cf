"""The main job: which image encoder, in which form, lifts the CTR model, by how much, and is it real?

python -m eval.compare --encoders courier,simclr --data shop
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ctr.config import PRESETS as CTR_PRESETS
from ctr.config import CtrConfig
from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from features.external import encoder_names
from features.forms.table import FORM_NAMES
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig
from pretrain.methods.table import METHODS, check_needs
from run.config import as_dict, names, one_of, parse, positive, to_toml
from run.errors import SettingError, entry, one_process
from run.files import write_atomic, write_json
from run.folder import commit, locked

ENCODERS = (*METHODS, "none")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of a comparison."""

    # by comma: courier, simclr, simsiam, clip, maskclip, supervised, random (an untrained backbone), none (the baseline alone); made
    # elsewhere: timm:NAME, open_clip:NAME/TAG, a torchvision name, each also with @FILE (weights) or @random, and file:PATH (embeddings)
    encoders: str = "courier,simclr"
    image_features: str = "cluster_id,sim_score,vector"  # forms in which embeddings are fed, by comma
    preset: str = "small"  # tiny (about a minute; only shows that all runs) | small | paper (a GPU)
    seeds: int = 3  # trainings of every model, with seeds 0, 1, ...
    out: Path = Path("runs/compare")  # run folder: stages are kept here, and reused
    start: Literal["cold", "warm"] = "cold"  # of CTR models; warm: all, the baseline too, go on from one trained baseline of their seed
    controls: bool = False  # add an A/A row (the baseline with other seeds), shuffled embeddings and the untrained backbone
    clusters: int = 200  # cluster IDs wanted
    gauc_weight: Literal["session", "impression"] = "session"  # how groups are averaged; the paper: session, the plain mean
    gauc_key: Literal["session", "user"] = "session"  # what a group is; the paper: session
    # put slices of one comparison together, each a results.json (its users.parquet beside it), by comma; trains nothing, and writes
    # merged.json and merged.html into --out
    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    jobs: int = 0  # trainings side by side; 0: one a CPU core, or one on a GPU
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    ctr: CtrConfig = field(default_factory=CtrConfig)

    def __post_init__(self):
        encoder_names("encoders", self.encoders, ENCODERS)
        names("image_features", self.image_features, FORM_NAMES)
        positive("seeds", self.seeds)
        positive("clusters", self.clusters)
        one_of("gauc_weight", self.gauc_weight, ("session", "impression"))
        one_of("gauc_key", self.gauc_key, ("session", "user"))
        if self.jobs < 0:
            raise SettingError("jobs", self.jobs, "give 0 or more")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"clusters": 40},
    "small": {},
    "paper": {"clusters": 100_000},
}
for _name, _preset in PRESETS.items():
    _preset |= {"source": SOURCE_PRESETS[_name], "pretrain": PRETRAIN_PRESETS[_name], "ctr": CTR_PRESETS[_name]}


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, run, print the table, write `results.json` and `report.html`."""
    config = parse(
        CompareConfig,
        argv,
        prog="python -m eval.compare",
        description="Baseline and every encoder x image feature: how much each lifts the CTR model, with 95 % intervals.",
        presets=PRESETS,
    )
    one_process("eval.compare")
    with locked(config.out):
        put_together(config) if config.from_ else compare(config)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Run all stages that are not there yet, measure, and write the results into `config.out`."""
    from data.log.split import check_scorable
    from data.source import shop_fingerprint, shop_folder
    from eval.merge import write_users
    from eval.results import is_simulated, measure, oracle
    from eval.stages import WARM, Comparison, ctr_stage, run_ctr, run_encoder, run_external, run_initial_encoder, titles
    from eval.table import print_table
    from features.encoder_stages import encoder_stage, initial_encoder_stage, is_external, needs_initial_encoder
    from run.devices import default_jobs
    from run.parallel import run_all

    began = time.monotonic()
    jobs = config.jobs or default_jobs()
    write_atomic(config.out / "config.toml", to_toml(as_dict(config)).encode())
    comparison = Comparison(
        root=config.out, source=config.source, pretrain=config.pretrain, ctr=config.ctr, clusters=config.clusters, threads=1,
        start=config.start,
    )  # fmt: skip
    folder = shop_folder(config.source, config.out)
    shop = config.source.shop(config.out)
    check_scorable(shop, "valid")
    check_scorable(shop, "test")
    for name in names("encoders", config.encoders):
        if name in METHODS:
            check_needs(name, shop, config.pretrain)
    seeds = range(config.seeds)
    encoders = [name for name in names("encoders", config.encoders) if name != "none"]
    encoders += ["random"] if config.controls and "random" not in encoders else []
    if encoders:
        config.source.pictures(config.out, size=config.pretrain.store_size, jobs=jobs)

    rows = rows_of(encoders, names("image_features", config.image_features), controls=config.controls)
    for encoder in filter(is_external, encoders):  # first, for they may fail at once; one by one, each on all cores
        run_external(comparison, encoder, config.jobs)
    trainings = [(comparison, seed) for seed in seeds if any(needs_initial_encoder(encoder, config.pretrain) for encoder in encoders)]
    stages = [initial_encoder_stage(comparison, seed) for _, seed in trainings]
    run_all(run_initial_encoder, trainings, jobs=jobs, titles=titles("start of all encoders", stages, trainings))
    trainings = [(comparison, encoder, seed) for seed in seeds for encoder in encoders if not is_external(encoder)]
    stages = [encoder_stage(comparison, encoder, seed) for _, encoder, seed in trainings]
    run_all(run_encoder, trainings, jobs=jobs, titles=titles("encoder", stages, trainings))
    if config.start == "warm":
        trainings = [(comparison, WARM, "none", seed) for seed in seeds]
        run_all(run_ctr, trainings, jobs=jobs, titles=titles("ctr", [ctr_stage(*training) for training in trainings], trainings))
    trainings = [(comparison, *row, seed) for seed in seeds for row in [("baseline", "none"), *rows]]
    run_all(run_ctr, trainings, jobs=jobs, titles=titles("ctr", [ctr_stage(*training) for training in trainings], trainings))

    results: dict[str, Any] = {"data": config.source.data, "preset": config.preset, "simulated": is_simulated(folder)}
    measured, sums = measure(comparison, shop, rows, seeds, gauc_weight=config.gauc_weight, gauc_key=config.gauc_key)
    results |= measured
    ceiling = oracle(comparison, shop, gauc_weight=config.gauc_weight, gauc_key=config.gauc_key)
    if ceiling is not None:
        results["oracle"] = ceiling
    results |= {"shop": shop_fingerprint(folder), "split_is_ordered": shop.split_is_ordered, "start": config.start, "commit": commit()}
    results["seconds"] = {"this_call": time.monotonic() - began}
    write_users(config.out / "users.parquet", sums, seeds)
    write_json(config.out / "results.json", results)
    from eval.report.report_data import report

    report(comparison, shop, results)
    print_table(results)
    print(f"{config.out / 'results.json'}  {config.out / 'report.html'}")
    return results


def put_together(config: CompareConfig) -> dict[str, Any]:
    """Merge the slices named by `--from`, print the table, and write what was merged."""
    from eval.merge import merge
    from eval.report.report import write_report
    from eval.report.report_data import notes
    from eval.table import print_table

    files = [Path(name.strip()) for name in config.from_.split(",") if name.strip()]
    if not files:
        raise SettingError("from", config.from_, "give at least one results.json")
    results = merge(files)
    write_json(config.out / "merged.json", results)
    write_report(config.out / "merged.html", results, curves={}, clusters=[], attention=[], notes=notes(results, None))
    print_table(results)
    print(f"{config.out / 'merged.json'}  {config.out / 'merged.html'}")
    return results


def rows_of(encoders: list[str], forms: list[str], *, controls: bool) -> list[tuple[str, str]]:
    """(encoder, image feature) of every row beside the baseline, controls last."""
    from eval.stages import OTHER_SEEDS, SHUFFLED

    rows = [(encoder, form) for encoder in encoders for form in forms]
    if controls:
        trained = next((encoder for encoder in encoders if encoder != "random"), "random")
        rows += [(SHUFFLED + trained, form) for form in forms] + [(OTHER_SEEDS, "none")]
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
