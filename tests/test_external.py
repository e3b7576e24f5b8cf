"""External encoders: their names, their networks, the stages that embed with them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import models

from data.log.shop_folder import load_shop
from data.source import SourceConfig
from eval.compare import main as compare
from features import external_networks as external_networks
from features.embed import main as embed
from features.embeddings import read_embeddings
from features.encoder_names import encoder_names, models_of, parse_external, resolved_name, safe_name
from features.external import external_stage, make_external
from features.external_networks import load
from pretrain.config import PretrainConfig
from run.errors import UserError
from tests.shops import write_shop

OWN = ("courier", "simclr", "random", "none")
NAME = "timm:test_resnet@random"
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shops") / "shop", sessions=300)


@pytest.fixture(scope="module")
def source(folder):
    return SourceConfig(data=str(folder))


@pytest.fixture(scope="module")
def items(folder):
    return load_shop(folder).items


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """The shop embedded by `NAME`."""
    return make_external(source, tmp_path_factory.mktemp("made"), NAME, workers=1)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(external_networks, "_PART", 8)


# names


def test_a_name_is_parsed_into_its_parts():
    parts = [
        parse_external(name)
        for name in ("timm:vit.tag", "open_clip:RN50/openai", "open_clip:RN50/openai@/a/b.pt", "swin_t", "swin_t@random")
    ]
    assert [part.library for part in parts] == ["timm", "open_clip", "open_clip", "torchvision", "torchvision"]
    assert [part.model for part in parts] == ["vit.tag", "RN50", "RN50", "swin_t", "swin_t"]
    assert [part.tag for part in parts] == ["", "openai", "openai", "", ""]
    assert [part.weights for part in parts] == ["download", "download", "/a/b.pt", "download", "random"]
    assert parse_external("file:random").file == Path("random")


def test_names_of_all_kinds_are_accepted_in_order_without_repeats():
    names = "courier, timm:resnet10t.c3_in1k,resnet50,open_clip:ViT-B-32/laion2b_s34b_b79k,courier,vit_b_16@random"
    kept = ["courier", "timm:resnet10t.c3_in1k", "resnet50", "open_clip:ViT-B-32/laion2b_s34b_b79k", "vit_b_16@random"]
    assert encoder_names("encoders", names, OWN) == kept


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("courir", "did you mean 'courier'"),
        ("resnet19", "'resnet18'"),
        ("timm:resnet10", "timm has no such model; did you mean .*'resnet1"),
        ("tim:resnet10t", "did you mean 'timm:'"),
        ("open_clip:ViT-B-33/openai", "'ViT-B-32'"),
        ("open_clip:ViT-B-32/openia", "did you mean 'openai'"),
        ("open_clip:ViT-B-32", "its tags are: .*laion2b_s34b_b79k.* or give ViT-B-32@FILE"),
        ("densenet121", "densenet.* are not supported; timm has them"),
        ("timm:", "timm has no such model; there are: .*a torchvision name"),
        ("timm:resnet10t@/no/such.pt", "no such file of weights: '/no/such.pt'.*@random"),
        ("timm:resnet10t@", "no such file of weights: ''"),
        ("file:/no/such.npy", "no such file of embeddings"),
        ("file:", "no such file of embeddings"),
        ("zzzz", "timm:NAME, open_clip:NAME/TAG, file:PATH"),
        (",", "give at least one name"),
    ],
)
def test_a_wrong_name_is_refused_with_the_fix(name, message):
    with pytest.raises(UserError, match=message):
        encoder_names("encoders", name, OWN)


@pytest.mark.parametrize(("name", "install"), [("timm:resnet10t", r"\[timm\]"), ("open_clip:RN50/openai", r"\[open_clip\]")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, name, install):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"is not installed; pip install '\.{install}'"):
        encoder_names("encoders", name, OWN)


@given(st.text(min_size=1, max_size=300))
def test_a_folder_name_has_no_separator_and_a_bounded_length(text):
    for name in (f"file:{text}", f"timm:{text}", f"shuffled timm:x@{text}"):
        safe = safe_name(name)
        assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
        assert 0 < len(safe) <= 60


# networks


def test_embeddings_equal_those_of_the_bare_network_picture_by_picture(made, folder, items):
    net = load(parse_external(NAME)).net
    look = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    found = read_embeddings(made.folder / "embeddings", items["item_id"])
    for row, image in enumerate(items["image"].to_list()):
        if image is None:
            assert not found[row].any()
            continue
        with torch.no_grad():
            expected = net(look(Image.open(folder / "images" / image).convert("RGB"))[None])[0]
        np.testing.assert_allclose(found[row], (expected / expected.norm()).numpy(), atol=1e-5)


def test_the_number_of_workers_changes_no_bit(source, small_parts, tmp_path):
    few, many = (make_external(source, tmp_path / str(workers), NAME, workers=workers) for workers in (1, 3))
    assert (few.folder / "embeddings/vectors.npy").read_bytes() == (many.folder / "embeddings/vectors.npy").read_bytes()


def test_a_killed_embedding_resumes_and_ends_with_the_same_bits(made, source, small_parts, tmp_path, monkeypatch):
    calls = []
    encode = external_networks.encode_files

    def dies_at_the_third(*words):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*words)

    with monkeypatch.context() as patch:
        patch.setattr(external_networks, "encode_files", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            make_external(source, tmp_path, NAME, workers=1)
        done = len(list(tmp_path.rglob("*.npy")))
        calls[:] = [None] * 3
        stage = make_external(source, tmp_path, NAME, workers=1)
    assert done >= 2
    assert len(calls) - 3 == 5 - done
    first, again = (np.load(one.folder / "embeddings/vectors.npy") for one in (made, stage))
    np.testing.assert_allclose(again, first, atol=1e-6)
    assert [path.name for path in (stage.folder / "embeddings").iterdir() if path.is_dir()] == []


def test_an_unreadable_picture_is_a_zero_row_and_too_many_are_refused(tmp_path):
    folder = write_shop(tmp_path / "shop")
    (folder / "images/0003.png").write_bytes(b"no picture")
    stage = make_external(SourceConfig(data=str(folder), max_bad_images=0.1), tmp_path / "run", NAME)
    vectors = np.load(stage.folder / "embeddings/vectors.npy")
    assert np.flatnonzero(~vectors.any(1)).tolist() == [3, 39]
    with pytest.raises(UserError, match=r"1 of 39 pictures are unreadable \(row 3, images/0003.png: "):
        make_external(SourceConfig(data=str(folder)), tmp_path / "strict", NAME)


def test_a_file_of_timm_weights_is_used_and_one_of_another_network_refused(tmp_path):
    torch.manual_seed(5)
    complete = timm.create_model("test_resnet").eval()  # with its classifier, as published weights are
    torch.save(complete.state_dict(), tmp_path / "w.pt")
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = load(parse_external(f"timm:test_resnet@{tmp_path / 'w.pt'}")).encode(pictures)
        torch.testing.assert_close(found, complete.forward_head(complete.forward_features(pictures), pre_logits=True))
    bare = {key: value for key, value in complete.state_dict().items() if not key.startswith("fc.")}
    torch.save(bare, tmp_path / "bare.pt")
    torch.testing.assert_close(load(parse_external(f"timm:test_resnet@{tmp_path / 'bare.pt'}")).encode(pictures), found)
    with pytest.raises(UserError, match=r"not weights of timm's test_vit"):
        load(parse_external(f"timm:test_vit@{tmp_path / 'w.pt'}"))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not readable as weights"):
        load(parse_external(f"timm:test_resnet@{tmp_path / 'broken.safetensors'}"))


def test_a_torchvision_networks_embedding_is_its_classifiers_input(tmp_path):
    torch.manual_seed(6)
    net = models.resnet18().eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    frozen = load(parse_external(f"resnet18@{tmp_path / 'w.pth'}"))
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.fc(frozen.encode(pictures)), net(pictures))
    assert frozen.prepare(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


def test_an_open_clip_file_gives_its_image_tower(tmp_path):
    import open_clip

    (tmp_path / "tiny-clip-of-a-test.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path)
    models_of.cache_clear()
    net = open_clip.create_model("tiny-clip-of-a-test").eval()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    name = f"open_clip:tiny-clip-of-a-test@{tmp_path / 'w.pt'}"
    assert encoder_names("encoders", name, OWN) == [name]
    frozen = load(parse_external(name))
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(frozen.encode(pictures), net.encode_image(pictures))
    assert frozen.prepare(Image.new("RGB", (50, 40))).shape == (3, 32, 32)
    torch.save(models.resnet18().state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="not weights of open_clip's tiny-clip-of-a-test"):
        load(parse_external(f"open_clip:tiny-clip-of-a-test@{tmp_path / 'other.pt'}"))


def test_random_weights_depend_on_the_name_alone():
    first, second = (load(parse_external(NAME)).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm:test_resnet", "timm.create_model"),
        ("open_clip:RN50/openai", "open_clip.create_model"),
        ("resnet18", "torchvision.models._api.load_state_dict_from_url"),
    ],
)
def test_without_internet_the_error_names_both_ways_to_get_weights(monkeypatch, name, place):
    def no_net(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(place, no_net)
    with pytest.raises(UserError, match=r"could (not )?be downloaded.*machine with\s+internet.*@FILE.*[Rr]andom weights"):
        load(parse_external(name))


# stages


def test_a_stage_depends_on_the_content_of_a_file_not_on_its_path(source, tmp_path):
    path = tmp_path / "e.npy"
    np.save(path, np.ones((40, 2)))
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere/e.npy"
    copy.write_bytes(path.read_bytes())
    first = external_stage(source, tmp_path, f"file:{path}")
    assert external_stage(source, tmp_path, f"file:{copy}").folder == first.folder
    (tmp_path / "e.ids.txt").write_text("100\n")
    assert external_stage(source, tmp_path, f"file:{path}").hash != first.hash
    np.save(copy, np.full((40, 2), 2.0))
    assert external_stage(source, tmp_path, f"file:{copy}").hash != first.hash


def test_features_embed_writes_the_folder_that_compare_would(made, folder, tmp_path):
    assert embed(["--encoder", NAME, "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    mine, theirs = (np.load(path / "vectors.npy") for path in (tmp_path / "out", made.folder / "embeddings"))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert embed(["--encoder", NAME, "--out", str(tmp_path / "none")]) == 2
    assert embed(["--encoder", "timm:no_such", "--data", str(folder), "--out", str(tmp_path / "none")]) == 2


def test_a_comparison_of_external_encoders_ends_with_a_table_and_trains_no_initial_encoder(tmp_path, capsys):
    np.save(tmp_path / "image_feat.npy", np.random.default_rng(0).normal(size=(60, 5)))
    names = [NAME, f"file:{tmp_path / 'image_feat.npy'}"]
    words = (  # noqa: SIM905 - as one types it
        "--preset tiny --users 60 --items 60 --sessions 400 --clusters 8 --image-features vector --pretrain.image-size 16 "
        "--pretrain.store-size 24 --ctr.epochs 1 --seeds 2 --jobs 1"
    ).split()
    out = tmp_path / "run"
    assert compare([*words, "--encoders", ",".join(names), "--out", str(out)]) == 0
    assert NAME in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert [(row["encoder"], set(row["seconds"])) for row in results["rows"]] == [(name, {"ctr", "encoder"}) for name in names]
    assert sorted(path.name.rpartition("-")[0] for path in (out / "encoders").iterdir()) == [
        "file-image_feat.npy",
        "timm-test_resnet-random",
    ]
    assert all(name in (out / "report.html").read_text() for name in names)
    stamps = {path: os.stat(path).st_mtime_ns for path in out.rglob("stage.json")}
    # the world, two embedded catalogues, similarities and CTR models of two seeds, each first trained baseline included
    assert len(stamps) == 1 + 2 + 2 * 2 + 2 * 4
    assert compare([*words, "--encoders", ",".join(names), "--out", str(out)]) == 0
    assert {path: os.stat(path).st_mtime_ns for path in out.rglob("stage.json")} == stamps


def test_training_settings_change_no_external_stage(source, tmp_path):
    from features.encoder_stages import Experiment, encoder_stage, needs_initial_encoder

    stages = [
        encoder_stage(Experiment(root=tmp_path, source=source, pretrain=PretrainConfig(dim=dim)), NAME, seed)
        for dim, seed in ((64, 0), (32, 1))
    ]
    assert stages[0].folder == stages[1].folder
    assert not needs_initial_encoder(NAME, PretrainConfig())


def test_a_path_in_a_name_is_made_absolute_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolved_name("file:vec.npy") == f"file:{tmp_path}/vec.npy"
    assert resolved_name("open_clip:ViT-B-32/openai@w/clip.pt") == f"open_clip:ViT-B-32/openai@{tmp_path}/w/clip.pt"
    assert resolved_name("module:own.py:Own?weight=0.1") == f"module:{tmp_path}/own.py:Own?weight=0.1"
    assert resolved_name("simclr") == "simclr"
