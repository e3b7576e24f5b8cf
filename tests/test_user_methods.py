"""A user's own method, from a file outside the packages: the documented example is trained, and every mistake is reported in one line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.log.shop_folder import load_shop
from data.source import SourceConfig
from features.embed import main as embed
from features.encoder_names import encoder_names, safe_name
from features.encoder_stages import Experiment, encoder_stage, make_embeddings, needs_initial_encoder
from pretrain.config import PretrainConfig
from pretrain.methods.method import Method
from pretrain.methods.table import METHODS, check_needs, method_of, settings_read
from pretrain.methods.user_methods import load_method, own_settings
from pretrain.train import main as train
from run.errors import UserError
from run.parallel import Workers
from tests.shops import write_shop

DOC = Path(__file__).parent.parent / "docs" / "your-own-encoder.md"
CONFIG = PretrainConfig(weights="random", image_size=16, store_size=24, dim=8, pictures=200, checkpoints=2, batch_pictures=32)
PLAIN = "from pretrain.methods.method import Method\n"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The documented file in a folder of the user's own."""
    path = tmp_path_factory.mktemp("own code") / "barlow.py"
    found = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert found
    path.write_text(found.group(1))
    return path


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = write_shop(tmp_path_factory.mktemp("shop"), sessions=300)
    return Experiment(root=tmp_path_factory.mktemp("run"), source=SourceConfig(data=str(folder)), pretrain=CONFIG, threads=1)


def test_the_documented_example_is_about_40_lines_and_trains_as_a_cached_stage(example, experiment):
    assert len(example.read_text().splitlines()) <= 45
    name = f"module:{example}:Barlow"
    assert encoder_names("encoders", f"simclr,{name}", METHODS) == ["simclr", name]
    stage = make_embeddings(experiment, name, 0)
    assert stage.folder == encoder_stage(experiment, name, 0).folder
    assert stage.done
    vectors = np.load(stage.folder / "embeddings" / "vectors.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors[:-1], axis=1), 1, rtol=1e-5)
    lines = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "loss_diagonal", "valid_gauc"} <= set(lines[-1])
    assert lines[-1]["loss_diagonal"] < lines[1]["loss_diagonal"]


def test_the_documented_example_trains_on_a_frozen_body_too(example, experiment):
    frozen = replace(experiment, pretrain=replace(CONFIG, body="frozen", head="components"))
    stage = make_embeddings(frozen, f"module:{example}:Barlow", 0)
    assert stage.done
    assert stage.result["start_gauc"] <= stage.result["valid_gauc"]
    assert {folder.name.rpartition("-")[0] for folder in (experiment.root / "features").iterdir()} == {"small_cnn", "small_cnn-distorted"}


def test_worker_processes_load_it_by_its_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN + "class Mine(Method):\n    def loss(self, o, s): ...")
    name = f"module:{path}:Mine"
    with Workers(2) as workers:
        assert workers.run(encoder_names, [("encoders", name, ())] * 2) == [[name], [name]]


def test_it_begins_with_the_shared_weights_like_the_others(example):
    name = f"module:{example}:Barlow"
    assert needs_initial_encoder(name, PretrainConfig())
    assert not needs_initial_encoder(name, CONFIG)


def test_its_key_depends_on_its_code_and_settings_not_on_its_path(example, experiment, tmp_path):
    def key(path, text="", query=""):
        if text:
            path.write_text(text)
        return encoder_stage(experiment, f"module:{path}:Barlow{query}", 0).hash

    code = example.read_text()
    first = key(example)
    assert key(tmp_path / "moved.py", code) == first
    assert key(tmp_path / "commented.py", "# mine\n" + code) == first
    assert key(tmp_path / "edited.py", code.replace("+ 1e-6", "+ 1e-5")) != first
    assert key(example, query="?redundancy=0.005") == first
    assert key(example, query="?redundancy=0.01") != first
    other = replace(experiment, pretrain=replace(CONFIG, simclr=replace(CONFIG.simclr, temperature=0.5)))
    assert encoder_stage(other, f"module:{example}:Barlow", 0).hash == first
    other = replace(experiment, pretrain=replace(CONFIG, distortion=replace(CONFIG.distortion, strength=0.1)))
    assert encoder_stage(other, f"module:{example}:Barlow", 0).hash != first


def test_settings_in_the_name_reach_the_method(example, experiment):
    name = f"module:{example}:Barlow?width=24&redundancy=0.5"
    assert (own_settings(name).width, own_settings(name).redundancy) == (24, 0.5)
    assert settings_read(name, CONFIG)["own"] == {"width": 24, "redundancy": 0.5}
    shop = load_shop(Path(experiment.source.data))
    check_needs(name, shop, CONFIG)
    folder = encoder_stage(experiment, name, 0).folder
    assert folder.name.startswith("barlow-Barlow-width-24-redundancy-0.5-seed0")


def test_folders_are_named_by_file_and_class():
    assert safe_name("module:/home/me/my methods/barlow.py:Barlow") == "barlow-Barlow"
    assert safe_name("shuffled module:a/b.py:C?x=1") == "shuffled-b-C-x-1"


def test_a_loss_is_all_that_a_method_needs_and_its_run_is_embedded_from_any_folder(tmp_path, experiment, monkeypatch):
    path = tmp_path / "plain.py"
    path.write_text(
        PLAIN + 'class Spread(Method):\n    def loss(self, outputs, step):\n        return -outputs["embedding"].var(0).mean(), {}\n'
    )
    out = tmp_path / "run"
    words = ["--encoder", f"module:{path}:Spread", "--data", Path(experiment.source.data).name, "--out", str(out), "--weights", "random"]
    words += ["--image-size", "16", "--store-size", "24", "--dim", "8", "--pictures", "100", "--checkpoints", "1", "--batch-pictures", "20"]
    monkeypatch.chdir(Path(experiment.source.data).parent)
    assert train(words) == 0
    assert (out / "best.safetensors").exists()
    assert json.loads((out / "result.json").read_text())["pictures"] >= 100
    monkeypatch.chdir(tmp_path)
    assert embed(["--run", str(out), "--out", "embeddings [1]"]) == 0
    assert np.load("embeddings [1]/vectors.npy").shape == (40, 8)


def test_a_users_contrast_is_refused_where_nothing_competes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN + "class Mine(Method):\n    contrasts = True\n    def loss(self, outputs, step): ...\n")
    lonely = write_shop(tmp_path / "shop", items_frame=lambda frame: frame.with_columns(category=frame["image"]))
    with pytest.raises(UserError, match="no picture has a competitor"):
        check_needs(f"module:{path}:Mine", load_shop(lonely), CONFIG)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "Mine", "no such file; give module:PATH.py:NAME"),
        ("class Mine(:", "Mine", "line 1: invalid syntax"),
        ("import nowhere_at_all", "Mine", "cannot be imported \\(ModuleNotFoundError"),
        (PLAIN + "1 / 0", "Mine", "cannot be imported \\(ZeroDivisionError"),
        (PLAIN + "class Mine(Method):\n    def loss(self, o, s): ...", "Mime", "no class 'Mime'; it has Mine"),
        ("class Mine: ...", "Mine", "not a subclass of pretrain.methods.method.Method"),
        ("Mine = 3", "Mine", "not a subclass"),
        (PLAIN + "class Mine(Method): ...", "Mine", "Mine lacks loss"),
        (PLAIN + "class Mine(Method):\n    settings = dict\n    def loss(self, o, s): ...", "Mine", "must be a dataclass"),
        (PLAIN + "class Mine(Method):\n    def loss(self, o, s): ...", "Mine?t=1", "no setting 't'; there is none"),
        (PLAIN, "", "give module:PATH.py:NAME"),
        (PLAIN, "Mine?t", "give module:PATH.py:NAME, and settings after it"),
    ],
)
def test_a_mistake_is_reported_in_one_line(tmp_path, text, name, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        encoder_names("encoders", f"module:{path}:{name}", METHODS)
    assert "\n" not in str(caught.value)


def test_a_value_of_another_type_is_refused(example):
    with pytest.raises(UserError, match="width = 'wide' is not of the type of 128"):
        own_settings(f"module:{example}:Barlow?width=wide")
    with pytest.raises(UserError, match="no setting 'widht'; there is width"):
        own_settings(f"module:{example}:Barlow?widht=3")


def test_a_file_is_run_once_and_again_when_it_changes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN + "class Mine(Method):\n    crop = 0.5\n    def loss(self, o, s): ...")
    first = load_method(f"module:{path}:Mine")
    assert load_method(f"module:{path}:Mine") is first
    path.write_text(path.read_text().replace("0.5", "0.25"))
    assert method_of(f"module:{path}:Mine").crop == 0.25


def test_a_method_that_keeps_no_items_says_what_it_learned_from_without_a_number():
    class Own(Method):
        def __init__(self):
            pass

        def loss(self, outputs, step):
            return outputs["embedding"].sum(), {}

    assert Own().material == "the shop's pictures"
