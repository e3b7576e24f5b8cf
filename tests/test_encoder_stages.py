"""What a changed line of code, a moved file or a changed setting retrains: whatever depends on it and nothing else."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data.source import SourceConfig
from features.encoder_stages import Experiment, encoder_stage, initial_encoder_stage
from features.external import external_stage
from pretrain.config import PretrainConfig
from pretrain.methods.courier import CourierConfig
from pretrain.methods.simclr import SimClrConfig
from pretrain.methods.table import METHODS, code_read, settings_read
from pretrain.settings import PACE
from run import source_code

ROOT = source_code.ROOT
ENCODERS = tuple(METHODS)
WITH_CLIP = "courier with clip"
FILE = "file"
EVERYTHING = {*ENCODERS, WITH_CLIP, "start"}
UNTRAINED = {"random", "imagenet"}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A shop of two small tables: keys depend on their content alone."""
    folder = tmp_path_factory.mktemp("shop")
    pl.DataFrame({"item_id": [1, 2]}).write_parquet(folder / "items.parquet")
    np.save(folder / "made.npy", np.eye(2, dtype=np.float32))
    return Experiment(root=folder / "run", source=SourceConfig(data=str(folder)), pretrain=PretrainConfig())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code that keys are computed from in this file; an edited module is read again."""
    copy = tmp_path_factory.mktemp("code")
    for package in source_code.PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_code, "ROOT", copy)
        for name in ("_tree", "_code", "_imports"):
            patch.setattr(source_code, name, by_content(getattr(source_code, name).__wrapped__))
        yield copy


def by_content(read):
    known = {}

    def again(name):
        path = source_code._path(name)
        key = (name, path.read_text() if path else "")
        if key not in known:
            known[key] = read(name)
        return known[key]

    return again


@contextmanager
def edited(path: Path, before: str, after: str):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    yield
    path.write_text(text)


def keys(experiment: Experiment) -> dict[str, str]:
    found = {name: encoder_stage(experiment, name, 0).hash for name in ENCODERS}
    clip = replace(experiment.pretrain, courier=CourierConfig(with_clip=True))
    found[WITH_CLIP] = encoder_stage(replace(experiment, pretrain=clip), "courier", 0).hash
    found["start"] = initial_encoder_stage(experiment, 0).hash
    found[FILE] = external_stage(experiment.source, experiment.root, f"file:{experiment.source.data}/made.npy").hash
    return found


def changed(experiment: Experiment, before: dict[str, str]) -> set[str]:
    return {name for name, key in keys(experiment).items() if key != before[name]}


@pytest.mark.parametrize(
    ("module", "before", "after", "retrained"),
    [
        # without the initial encoder's weights: clip's loss is read by clip, and by those whose settings ask for it
        ("methods/clip.py", "/ temperature", "* temperature", {"clip", "maskclip", "pairs", WITH_CLIP}),
        ("parts/courier_losses.py", ".mean()", ".sum()", {"courier", "pairs", WITH_CLIP}),
        ("parts/distillation.py", "/ teacher_temperature", "* teacher_temperature", {"maskclip"}),
        ("parts/reconstruction.py", "** 0.5", "** 0.4", {"courier", WITH_CLIP, "supervised"}),
        ("methods/supervised.py", "3 * dim", "4 * dim", {"supervised"}),
        # SimCLR trains the initial encoder, whose weights all except the untrained ones begin with
        ("methods/simclr.py", "/ temperature", "* temperature", EVERYTHING - UNTRAINED),
        ("methods/two_views.py", "stretch=4 / 3", "stretch=4 / 2", EVERYTHING - UNTRAINED),
        ("loop.py", "_HEAD_FROM = 2048", "_HEAD_FROM = 2049", EVERYTHING),
        ("similarity.py", "axis=1, keepdims=True", "axis=1,  keepdims=False", {*EVERYTHING, FILE}),
        ("loop.py", "# pictures that a head's", "# those that a head's", set()),
        ("methods/clip.py", '"""CLIP: a picture', '"""Clip: a picture', set()),
        ("methods/table.py", '"simclr": SimClr,', '"simclr": SimClr,  # first', set()),
    ],
)
def test_an_edited_line_retrains_what_depends_on_it(experiment, tree, module, before, after, retrained):
    untouched = keys(experiment)
    with edited(tree / "pretrain" / module, before, after):
        assert changed(experiment, untouched) == retrained
    assert changed(experiment, untouched) == set()


def test_with_random_weights_the_initial_encoder_is_not_in_the_key(experiment, tree):
    own = replace(experiment, pretrain=PretrainConfig(weights="random"))
    untouched = keys(own)
    with edited(tree / "pretrain/methods/simclr.py", "/ temperature", "* temperature"):
        assert changed(own, untouched) == {"simclr", "start"}


def test_the_settings_of_the_initial_encoder_are_in_the_key_of_every_encoder_that_uses_it(experiment):
    before = keys(experiment)
    other = replace(experiment, pretrain=PretrainConfig(simclr=SimClrConfig(temperature=0.3)))
    assert changed(other, before) == EVERYTHING - UNTRAINED


@pytest.mark.parametrize("pace", PACE)
def test_settings_of_pace_are_in_no_key(experiment, pace):
    before = keys(experiment)
    value = getattr(experiment.pretrain, pace)
    other = replace(experiment, pretrain=replace(experiment.pretrain, **{pace: not value if isinstance(value, bool) else value + 3}))
    assert changed(other, before) == set()


def test_a_moved_file_of_weights_retrains_nothing_and_other_weights_do(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "deep" / "b.safetensors", tmp_path / "c.safetensors"]
    paths[1].parent.mkdir()
    for path, content in zip(paths, (b"one", b"one", b"two"), strict=True):
        path.write_bytes(content)
    first, moved, other = (settings_read("courier", PretrainConfig(weights=str(path))) for path in paths)
    assert first == moved
    assert first != other
    assert str(tmp_path) not in str(first)


def test_a_moved_text_model_retrains_nothing(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    config = PretrainConfig()
    here, there = (
        settings_read("clip", replace(config, clip=replace(config.clip, text_model=tmp_path / name))) for name in ("here", "there")
    )
    assert here == there
    (tmp_path / "there" / "config.json").write_text('{"hidden_size": 8}')
    assert settings_read("clip", replace(config, clip=replace(config.clip, text_model=tmp_path / "there"))) != here


def test_a_file_named_like_named_weights_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = settings_read("simclr", PretrainConfig(weights="random"))
    (tmp_path / "random").write_text("not weights")
    assert settings_read("simclr", PretrainConfig(weights="random")) == before


def test_the_code_of_a_single_training_leaves_out_other_methods(tree):
    config = PretrainConfig()
    before = {name: code_read(name, config, "pretrain.loop") for name in ENCODERS}
    with edited(tree / "pretrain/parts/courier_losses.py", ".mean()", ".sum()"):
        assert {name for name in ENCODERS if code_read(name, config, "pretrain.loop") != before[name]} == {"courier", "pairs"}
