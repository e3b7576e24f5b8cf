"""The main command: which image encoder, in which form, lifts the CTR model, by how much, and is it real?

python -m eval.compare --encoders courier,simclr --data shop
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ctr.config import PRESETS as CTR_PRESETS
from ctr.config import CtrConfig
from data.source import PRESETS as SOURCE_PRESETS
from data.source import SourceConfig
from features.encoder_names import encoder_names, resolved_name
from features.forms.table import FORM_NAMES, JOIN, NO_FORM, FormSettings, check_form, forms_of
from pretrain.config import PRESETS as PRETRAIN_PRESETS
from pretrain.config import PretrainConfig
from pretrain.methods.table import METHODS, UNTRAINED, default_encoders, is_trained, is_trained_here
from run.config import changed_settings, names, one_of, parse, positive, write_config
from run.errors import SettingError, entry, one_process
from run.files import write_json
from run.folder import commit, locked

if TYPE_CHECKING:
    from data.log.shop_folder import Shop
    from eval.rows import Row
    from eval.stages import Comparison

NO_ENCODER = "none"  # in --encoders: only the baseline
ENCODERS = (*METHODS, NO_ENCODER)
MOST_SEEDS = 1000  # the A/A row uses the seeds after these
# settings that results.json holds under names of their own, and those that no result depends on
SAID = ("data", "encoders", "image-features", "preset", "seeds", "start", "gauc-weight", "gauc-key", "controls", "out", "jobs", "from")
BASIC = (
    "data", "encoders", "image_features", "preset", "seeds", "out", "controls", "start", "clusters", "jobs", "from", "recipe",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of a comparison."""

    encoders: Annotated[
        str,
        tyro.conf.arg(
            help=f"comma-separated: {', '.join(METHODS)} (imagenet: a frozen pretrained network; {UNTRAINED}: an untrained one), "
            f"{NO_ENCODER} (only the baseline); "
            "external: timm:NAME, open_clip:NAME/TAG, a torchvision name, each also with @FILE (weights) or @random, and "
            "file:PATH (embeddings); your own: module:PATH.py:NAME"
        ),
    ] = ",".join(default_encoders())
    image_features: Annotated[
        str,
        tyro.conf.arg(
            help=f"forms in which embeddings are fed to the CTR model, comma-separated: {', '.join(FORM_NAMES)}; {JOIN} feeds several at "
            f"once: {FORM_NAMES[0]}{JOIN}{FORM_NAMES[-1]}"
        ),
    ] = ",".join(FORM_NAMES)
    preset: str = "small"  # tiny (about a minute; only shows that everything runs) | small | paper (a GPU)
    seeds: int = 3  # trainings of every model, with seeds 0, 1, ...
    out: Path = Path("runs/compare")  # run folder: stages are stored here and reused
    # of CTR models: warm: all, the baseline too, start from one trained baseline of their seed (the paper's way); cold: from scratch
    start: Literal["cold", "warm"] = "warm"
    # add an A/A row (the baseline with other seeds), shuffled embeddings, the untrained backbone, and LightGBM as a check of the
    # baseline (if it is installed)
    controls: bool = False
    gauc_weight: Literal["session", "impression"] = "session"  # how groups are averaged; the paper: session, the plain mean
    gauc_key: Literal["session", "user"] = "session"  # what a group is; the paper: session
    # merge parts of one comparison: comma-separated results.json files, each with its users.parquet next to it; trains nothing, writes
    # merged.json and merged.html into --out
    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    jobs: int = 0  # trainings at a time; 0: one per CPU core, or one on a GPU
    source: Annotated[SourceConfig, tyro.conf.arg(name="")] = field(default_factory=SourceConfig)
    forms: Annotated[FormSettings, tyro.conf.arg(name="")] = field(default_factory=FormSettings)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    ctr: CtrConfig = field(default_factory=CtrConfig)

    def __post_init__(self):
        encoder_names("encoders", self.encoders, ENCODERS)
        given = names("image_features", self.image_features)
        for form in given:
            if form == NO_FORM:
                raise SettingError("image_features", self.image_features, "the baseline is always there; name forms alone")
            check_form("image_features", form)
        if len(set(map(forms_of, given))) < len(given):
            raise SettingError("image_features", self.image_features, "the same forms are named twice, in another order")
        for setting in ("encoders", "image_features"):
            _no_repeats(setting, getattr(self, setting))
        positive("seeds", self.seeds)
        if self.seeds > MOST_SEEDS:
            raise SettingError("seeds", self.seeds, f"give at most {MOST_SEEDS}")
        one_of("gauc_weight", self.gauc_weight, ("session", "impression"))
        one_of("gauc_key", self.gauc_key, ("session", "user"))
        for name, value in self.ctr.need_start.items() if self.start == "cold" else ():
            raise SettingError(f"ctr.{name}", value, "needs a trained baseline: --start warm")
        if self.jobs < 0:
            raise SettingError("jobs", self.jobs, "give 0 or more")

    def resolved(self) -> CompareConfig:
        """The same settings with absolute paths in the names of encoders, for the run folder's config.toml."""
        return replace(self, encoders=",".join(map(resolved_name, names("encoders", self.encoders))))

    @property
    def all_encoders(self) -> list[str]:
        """The encoders of the table's rows; controls include the untrained one."""
        named = [name for name in names("encoders", self.encoders) if name != NO_ENCODER]
        return named + [UNTRAINED] * (self.controls and UNTRAINED not in named)

    @property
    def rows(self) -> list[Row]:
        """All rows of the table except the baseline. The controls shuffle the first trained encoder's embeddings."""
        from eval.rows import has_lightgbm, rows_of

        encoders = self.all_encoders
        trained = (name for name in encoders if not is_trained_here(name) or is_trained(name))  # or trained elsewhere
        shuffled = next(trained, UNTRAINED) if self.controls else None
        return rows_of(encoders, names("image_features", self.image_features), controls_of=shuffled, boosted=has_lightgbm())


def _no_repeats(setting: str, value: str) -> None:
    given = [part.strip() for part in value.split(",") if part.strip()]
    repeated = next((name for place, name in enumerate(given) if name in given[:place]), None)
    if repeated is not None:
        raise SettingError(setting, value, f"{repeated!r} is given twice; name each once")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"forms": {"clusters": 40, "codes": 8}},
    "small": {},
    "paper": {"forms": {"clusters": 100_000, "codes": 8192}},
}
for _name, _preset in PRESETS.items():
    _preset |= {"source": SOURCE_PRESETS[_name], "pretrain": PRETRAIN_PRESETS[_name], "ctr": CTR_PRESETS[_name]}


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags, run, write `results.json` and `report.html`, print the table."""
    config = _parse(argv)
    one_process("eval.compare")
    with locked(config.out):
        merge_results(config) if config.from_ else compare(config)


def _parse(argv: list[str] | None) -> CompareConfig:
    return parse(
        CompareConfig,
        argv,
        prog="python -m eval.compare",
        description="Baseline and every encoder x image feature: how much each lifts the CTR model, with 95 % intervals.",
        presets=PRESETS,
        basic=BASIC,
    )


def compare(config: CompareConfig) -> dict[str, Any]:
    """Run all missing stages, measure, and write the results into `config.out`."""
    from eval.checks import check_settings, check_shop, note_missing_controls
    from eval.stages import comparison_tasks
    from eval.tasks import run_tasks
    from run.devices import default_jobs

    began = time.monotonic()
    check_settings(start=config.start, ctr=config.ctr)
    note_missing_controls(config.rows, controls=config.controls)
    write_config(config.out, config)
    comparison = comparison_of(config)
    shop = config.source.shop(config.out)
    encoders, seeds = config.all_encoders, range(config.seeds)
    check_shop(shop, encoders, config.pretrain)
    run_tasks(comparison_tasks(comparison, encoders, config.rows, seeds, jobs=config.jobs), jobs=config.jobs or default_jobs())
    return write_results(config, comparison, shop, began=began)


def comparison_of(config: CompareConfig) -> Comparison:
    """What every stage of a comparison with these settings depends on."""
    from eval.stages import Comparison

    return Comparison(
        root=config.out, source=config.source, pretrain=config.pretrain, ctr=config.ctr, forms=config.forms, threads=1,
        start=config.start,
    )  # fmt: skip


def write_results(config: CompareConfig, comparison: Comparison, shop: Shop, *, began: float) -> dict[str, Any]:
    """Measure all rows and write `results.json`, `users.parquet` and `report.html`; print the table last, because printing may fail."""
    from data.origin import origin_of
    from data.source import shop_fingerprint
    from eval.merge import write_users
    from eval.report.report_data import write_comparison_report
    from eval.results import TestSet, is_simulated, measure

    seeds = range(config.seeds)
    test = TestSet(shop, gauc_weight=config.gauc_weight, gauc_key=config.gauc_key)
    measured, sums = measure(comparison, test, config.rows, seeds)
    results = {"data": config.source.data, "preset": config.preset, "simulated": is_simulated(shop.folder), **measured}
    results |= {"shop": shop_fingerprint(shop.folder), "split_is_ordered": shop.split_is_ordered, "start": config.start, "commit": commit()}
    if (origin := origin_of(shop.folder)) is not None:
        results["origin"] = origin
    results["settings"] = special_settings(config)
    results["seconds"] = {"this_call": time.monotonic() - began}
    write_users(config.out / "users.parquet", sums, seeds)
    write_json(config.out / "results.json", results)
    write_comparison_report(comparison, shop, results)
    _show(results, config.out / "results.json", config.out / "report.html")
    return results


def special_settings(config: CompareConfig) -> dict[str, Any]:
    """The settings that are not the preset's, as flags without dashes: they say what a row's form and encoder mean."""
    changed = changed_settings(config, _parse(["--preset", config.preset]))
    return {flag: value for flag, value in changed.items() if flag not in SAID}


def merge_results(config: CompareConfig) -> dict[str, Any]:
    """Merge the parts named by `--from`, write the result and print the table."""
    from eval.merge import merge
    from eval.report.report import write_report

    _nothing_else(config)
    files = [Path(name.strip()) for name in config.from_.split(",") if name.strip()]
    if not files:
        raise SettingError("from", config.from_, "give at least one results.json")
    results = merge(files)
    write_json(config.out / "merged.json", results)
    write_report(config.out / "merged.html", results)
    _show(results, config.out / "merged.json", config.out / "merged.html")
    return results


def _nothing_else(config: CompareConfig) -> None:
    """Refuse settings that `--from` would ignore: the parts have their own."""
    for flag in changed_settings(config, _parse([])):
        if flag not in ("from", "out"):
            raise SettingError("from", config.from_, f"trains nothing and takes no other setting than --out; leave out --{flag}")


def _show(results: dict[str, Any], *files: Path) -> None:
    from eval.report.table import print_table

    print_table(results)
    print("  ".join(map(str, files)))


if __name__ == "__main__":
    raise SystemExit(main())
