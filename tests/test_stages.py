"""What a comparison's stages depend on: code, libraries, settings and the content of files, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from ctr.config import CtrConfig
from data.source import SourceConfig, shop_folder
from eval import stages
from eval.compare import PRESETS, CompareConfig, comparison_of
from eval.rows import BASELINE, BOOSTED, OTHER_SEEDS, SHUFFLED, WARM, encoder_of, is_control, is_shuffled, rows_of
from eval.stages import OTHER, Comparison, comparison_tasks, ctr_seed, ctr_stage
from eval.tasks import waves
from features.encoder_stages import encoder_stage
from features.forms.table import FORM_NAMES, FormSettings
from pretrain.config import PretrainConfig
from pretrain.methods.table import UNTRAINED
from run import source_code
from run.config import parse, write_config
from run.errors import UserError
from tests.shops import write_shop

ROWS = [BASELINE, OTHER_SEEDS, *(("simclr", form) for form in FORM_NAMES), (f"{SHUFFLED}simclr", FORM_NAMES[0]), (UNTRAINED, FORM_NAMES[0])]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    write_shop(folder / "shop", pictures=False)
    source = SourceConfig(data=str(folder / "shop"))
    settings = {"pretrain": PretrainConfig(), "ctr": CtrConfig(), "forms": FormSettings(clusters=10)}
    return Comparison(root=folder / "run", source=source, threads=1, **settings)


def hashes(comparison, rows=ROWS):
    return {row: ctr_stage(comparison, row, 0).hash for row in rows}


def moved(before, after):
    return {row for row in before if before[row] != after[row]}


def with_pictures():
    return {row for row in ROWS if row[1] != "none"}


@pytest.fixture
def edit(monkeypatch):
    """Pretend that one character of a module's code has changed."""

    def change(module):
        original = source_code._code
        assert source_code.modules_of(module)
        monkeypatch.setattr(source_code, "_code", lambda name: original(name) + "+" * (name == module))

    return change


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("ctr.model.network", set(ROWS)),
        ("ctr.training.loop", set(ROWS)),
        ("data.log.histories", set(ROWS)),
        ("eval.row_feature", with_pictures()),
        ("features.embeddings", with_pictures()),
        ("metrics.intervals", set()),
        ("eval.results", set()),
        ("eval.report.table", set()),
        ("eval.stages", set()),
    ],
)
def test_changed_code_moves_only_the_stages_that_run_it(comparison, edit, module, expected):
    before = hashes(comparison)
    edit(module)
    assert moved(before, hashes(comparison)) == expected


@pytest.mark.parametrize("module", ["pretrain.methods.simclr", "pretrain.parts.courier_losses", "pretrain.loop"])
def test_changed_encoder_code_moves_exactly_the_rows_whose_encoder_moves(comparison, edit, module):
    rows = [*ROWS, ("courier", FORM_NAMES[0])]
    before, encoders = hashes(comparison, rows), {row: encoder(comparison, row) for row in rows}
    edit(module)
    assert moved(before, hashes(comparison, rows)) == moved(encoders, {row: encoder(comparison, row) for row in rows})


def encoder(comparison, row):
    return "" if row[1] == "none" else encoder_stage(comparison, encoder_of(row[0]), 0).hash


def test_another_version_of_a_library_moves_every_stage(comparison, monkeypatch):
    before = hashes(comparison)
    monkeypatch.setattr(stages, "versions", lambda: {"torch": "0.0"})
    assert moved(before, hashes(comparison)) == set(ROWS)


def test_the_lightgbm_check_depends_on_its_library_and_the_features_but_on_no_network(comparison, edit, monkeypatch):
    def moves():
        return ctr_stage(comparison, BOOSTED, 0).hash != before

    before = ctr_stage(comparison, BOOSTED, 0).hash
    edit("ctr.model.network")
    assert not moves()
    edit("ctr.inputs.statistics")
    assert moves()
    monkeypatch.undo()
    assert not moves()
    monkeypatch.setattr(stages, "installed", lambda *packages: dict.fromkeys(packages, "0.0"))
    assert moves()
    assert ctr_stage(comparison, BOOSTED, 1).hash != ctr_stage(comparison, BOOSTED, 0).hash


def test_settings_that_change_no_result_move_no_stage(comparison):
    paced = replace(comparison.ctr, checkpoint_seconds=1.0, keep_checkpoints=7, threads=3, table_sharding="row_wise")
    assert hashes(replace(comparison, ctr=paced)) == hashes(comparison)
    assert moved(hashes(comparison), hashes(replace(comparison, ctr=replace(comparison.ctr, epochs=9)))) == set(ROWS)


@pytest.mark.parametrize(
    ("change", "forms"),
    [
        ({"tiers": 7}, {"sim_tier", "sim_attention"}),
        ({"similarity_place": "buckets"}, {"sim_attention"}),
        ({"adapter": "mlp"}, {"vector"}),
        ({"cluster_size": 32}, {"cluster_id", "semantic_id"}),
        ({"score_place": "after"}, {"sim_score"}),
        ({"picture_epochs": 1}, set(FORM_NAMES)),
        ({"retrieve": 5}, {"none", *FORM_NAMES}),
    ],
)
def test_a_setting_of_some_forms_moves_their_stages_alone(comparison, change, forms):
    after = hashes(replace(comparison, ctr=replace(comparison.ctr, **change)))
    assert {row[1] for row in moved(hashes(comparison), after)} == forms


def test_a_run_to_start_from_counts_by_content_wherever_it_is(comparison, tmp_path):
    def started_from(path, content):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return hashes(replace(comparison, ctr=replace(comparison.ctr, init_from=path)))

    here, there = started_from(tmp_path / "a/best.safetensors", b"weights"), started_from(tmp_path / "b/copy.safetensors", b"weights")
    assert here == there
    assert moved(here, hashes(comparison)) == moved(here, started_from(tmp_path / "c/best.safetensors", b"others")) == set(ROWS)


def test_the_number_of_clusters_moves_the_forms_made_of_clusters_alone(comparison):
    after = hashes(replace(comparison, forms=FormSettings(clusters=11)))
    assert {row[1] for row in moved(hashes(comparison), after)} == {"cluster_id"}


def test_centring_moves_rows_of_frozen_embeddings_too(comparison, tmp_path):
    (tmp_path / "vectors.npy").write_bytes(b"any")
    row = (f"file:{tmp_path / 'vectors.npy'}", FORM_NAMES[0])
    apart = replace(comparison, pretrain=replace(comparison.pretrain, centre=not comparison.pretrain.centre))
    assert hashes(comparison, [row]) != hashes(apart, [row])


def test_a_warm_start_is_in_the_key_of_every_row_that_starts_from_it(comparison):
    warm = replace(comparison, start="warm")
    assert moved(hashes(comparison, [*ROWS, WARM]), hashes(warm, [*ROWS, WARM])) == set(ROWS)


def test_the_seeds_of_the_a_a_row_are_not_seeds_of_the_comparison():
    assert ctr_seed(OTHER_SEEDS, 3) == 3 + OTHER
    assert ctr_seed(BASELINE, 3) == ctr_seed(("simclr", FORM_NAMES[0]), 3) == 3


def test_stages_are_ordered_so_that_failures_come_early(comparison, tmp_path):
    (tmp_path / "vectors.npy").write_bytes(b"any")
    file = f"file:{tmp_path / 'vectors.npy'}"
    rows = rows_of(["resnet18@random", file, "simclr"], FORM_NAMES[:1], controls_of="simclr")
    tasks = comparison_tasks(replace(comparison, start="warm"), ["resnet18@random", file, "simclr"], rows, range(2), jobs=1)
    found = [[task.title for task in wave] for wave in waves(tasks)]
    form = FORM_NAMES[0]
    assert found[0] == [f"embeddings {file}", "embeddings resnet18@random"]  # a file is read immediately
    assert found[1] == [""]  # the picture store
    assert found[2:4] == [[f"{kind} seed {seed}" for seed in range(2)] for kind in ("initial encoder", "encoder simclr")]
    assert found[4] == [""] * 6  # similarities alone
    assert found[5] == [f"ctr {WARM[0]} none seed {seed}" for seed in range(2)]
    assert len(found) == 7
    assert len(found[6]) == 2 * (1 + len(rows))
    slow = rows_of(["a"], ["vector", "vector+sim_score", "sim_tier"])
    assert stages._longest_first([BASELINE, *slow]) == [slow[1], BASELINE, slow[0], slow[2]]
    assert f"ctr {SHUFFLED}simclr {form} seed 1" in found[6]
    assert [task.alone for task in tasks[:4]] == [True, True, True, False]


def test_rows_by_name():
    rows = rows_of(["a", "b"], ["f", "g"], controls_of="a")
    assert rows == [("a", "f"), ("a", "g"), ("b", "f"), ("b", "g"), (f"{SHUFFLED}a", "f"), (f"{SHUFFLED}a", "g"), OTHER_SEEDS]
    assert rows_of(["a"], ["f"]) == rows_of(["a"], ["f"], boosted=True) == [("a", "f")]
    assert rows_of(["a", "b"], ["f", "g"], controls_of="a", boosted=True) == [*rows, BOOSTED]
    assert is_control(BOOSTED[0])
    assert [is_control(row[0]) for row in rows] == [False] * 4 + [True] * 3
    assert [encoder_of(row[0]) for row in rows if is_shuffled(row[0])] == ["a", "a"]


def test_a_stages_folder_has_a_safe_name(comparison):
    stage = ctr_stage(comparison, OTHER_SEEDS, 2)
    assert stage.folder == Path(comparison.root) / f"ctr/baseline-other-seeds-none-seed2-{stage.hash}"


def test_settings_written_to_config_toml_and_read_back_give_the_same_stages(comparison, tmp_path, monkeypatch):
    def parsed(*words):
        return parse(CompareConfig, list(words), prog="compare", description="", presets=PRESETS)

    shop = Path(comparison.source.data)
    monkeypatch.chdir(shop.parent)
    flags = ("--preset", "tiny", "--data", f"./{shop.name}", "--clusters", "7", "--ctr.hidden", "16", "8", "--pretrain.dim", "8")
    config = parsed(*flags, "--pretrain.simclr.temperature", "0.3", "--split-fractions", "0.3", "0.4", "0.1", "0.2")
    rows = [*ROWS, ("courier", FORM_NAMES[-1])]
    before, of_flags_alone = hashes(comparison_of(config), rows), hashes(comparison_of(parsed(*flags)), rows)
    write_config(tmp_path, config)
    monkeypatch.chdir(tmp_path)  # a recipe is read from any folder
    again = parsed("--recipe", str(tmp_path / "config.toml"))
    assert hashes(comparison_of(again), rows) == before
    assert moved(before, of_flags_alone) == set(rows)


def test_a_name_that_means_both_a_world_and_a_folder_is_refused(tmp_path, monkeypatch):
    write_shop(tmp_path / "fashion", pictures=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--data fashion: .*give \./fashion for the folder"):
        shop_folder(SourceConfig(data="fashion"), tmp_path / "run")
    assert shop_folder(SourceConfig(data="./fashion"), tmp_path / "run") == tmp_path / "fashion"
