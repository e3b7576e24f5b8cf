"""Encoders made elsewhere: their names, their networks, embeddings from files in every format, and every way to be wrong."""

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import timm.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from torchvision import models

from data.shop_folder import load_shop
from data.source import SourceConfig
from eval.compare import main as compare
from features import foreign_nets
from features.embed import main as embed
from features.embeddings import read_embeddings, write_embeddings
from features.foreign import encoder_names, foreign, foreign_stage, make_foreign, models_of, safe_name
from features.foreign_nets import load
from features.foreign_vectors import read_vectors
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
    return make_foreign(source, tmp_path_factory.mktemp("made"), NAME, workers=1)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(foreign_nets, "_PART", 8)


# names


def test_a_name_is_taken_apart():
    parts = [
        foreign(name) for name in ("timm:vit.tag", "open_clip:RN50/openai", "open_clip:RN50/openai@/a/b.pt", "swin_t", "swin_t@random")
    ]
    assert [part.library for part in parts] == ["timm", "open_clip", "open_clip", "torchvision", "torchvision"]
    assert [part.model for part in parts] == ["vit.tag", "RN50", "RN50", "swin_t", "swin_t"]
    assert [part.tag for part in parts] == ["", "openai", "openai", "", ""]
    assert [part.weights for part in parts] == ["download", "download", "/a/b.pt", "download", "random"]
    assert foreign("file:random").file == Path("random")


def test_names_of_all_kinds_are_taken_in_order_without_repeats():
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
        ("densenet121", "densenet.* are not taken; timm has them"),
        ("timm:", "timm has no such model; there are: .*a torchvision name"),
        ("timm:resnet10t@/no/such.pt", "no such file of weights: '/no/such.pt'.*@random"),
        ("timm:resnet10t@", "no such file of weights: ''"),
        ("file:/no/such.npy", "no such file of embeddings"),
        ("file:", "no such file of embeddings"),
        ("zzzz", "timm:NAME, open_clip:NAME/TAG, file:PATH"),
        (",", "give at least one name"),
    ],
)
def test_a_name_that_is_wrong_is_refused_with_the_mend(name, message):
    with pytest.raises(UserError, match=message):
        encoder_names("encoders", name, OWN)


@pytest.mark.parametrize(("name", "install"), [("timm:resnet10t", r"\[timm\]"), ("open_clip:RN50/openai", r"\[open_clip\]")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, name, install):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"is not installed; pip install '\.{install}'"):
        encoder_names("encoders", name, OWN)


@given(st.text(min_size=1, max_size=300))
def test_a_folders_name_has_no_separator_and_is_of_bounded_length(text):
    for name in (f"file:{text}", f"timm:{text}", f"shuffled timm:x@{text}"):
        safe = safe_name(name)
        assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
        assert 0 < len(safe) <= 60


# networks


def test_embeddings_are_those_of_the_bare_network_picture_by_picture(made, folder, items):
    net = load(foreign(NAME)).net
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
    few, many = (make_foreign(source, tmp_path / str(workers), NAME, workers=workers) for workers in (1, 3))
    assert (few.folder / "embeddings/vectors.npy").read_bytes() == (many.folder / "embeddings/vectors.npy").read_bytes()


def test_a_killed_embedding_goes_on_and_ends_with_the_same_bits(made, source, small_parts, tmp_path, monkeypatch):
    calls = []
    encode = foreign_nets.encode_files

    def dies_at_the_third(*words):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*words)

    with monkeypatch.context() as patch:
        patch.setattr(foreign_nets, "encode_files", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            make_foreign(source, tmp_path, NAME, workers=1)
        done = len(list(tmp_path.rglob("*.npy")))
        calls[:] = [None] * 3
        stage = make_foreign(source, tmp_path, NAME, workers=1)
    assert done >= 2
    assert len(calls) - 3 == 5 - done
    whole, again = (np.load(one.folder / "embeddings/vectors.npy") for one in (made, stage))
    np.testing.assert_allclose(again, whole, atol=1e-6)
    assert [path.name for path in (stage.folder / "embeddings").iterdir() if path.is_dir()] == []


def test_an_unreadable_picture_is_a_zero_row_and_too_many_stop(tmp_path):
    folder = write_shop(tmp_path / "shop")
    (folder / "images/0003.png").write_bytes(b"no picture")
    stage = make_foreign(SourceConfig(data=str(folder), max_bad_images=0.1), tmp_path / "run", NAME)
    vectors = np.load(stage.folder / "embeddings/vectors.npy")
    assert np.flatnonzero(~vectors.any(1)).tolist() == [3, 39]
    with pytest.raises(UserError, match=r"1 of 39 pictures are unreadable \(row 3, images/0003.png: "):
        make_foreign(SourceConfig(data=str(folder)), tmp_path / "strict", NAME)


def test_a_file_of_timms_weights_is_used_and_of_another_network_refused(tmp_path):
    torch.manual_seed(5)
    whole = timm.create_model("test_resnet").eval()  # with its classifier, as weights travel
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = load(foreign(f"timm:test_resnet@{tmp_path / 'w.pt'}")).encode(pictures)
        torch.testing.assert_close(found, whole.forward_head(whole.forward_features(pictures), pre_logits=True))
    bare = {key: value for key, value in whole.state_dict().items() if not key.startswith("fc.")}
    torch.save(bare, tmp_path / "bare.pt")
    torch.testing.assert_close(load(foreign(f"timm:test_resnet@{tmp_path / 'bare.pt'}")).encode(pictures), found)
    with pytest.raises(UserError, match=r"not weights of timm's test_vit"):
        load(foreign(f"timm:test_vit@{tmp_path / 'w.pt'}"))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not readable as weights"):
        load(foreign(f"timm:test_resnet@{tmp_path / 'broken.safetensors'}"))


def test_a_torchvision_networks_embedding_is_what_its_classifier_is_given(tmp_path):
    torch.manual_seed(6)
    net = models.resnet18().eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    frozen = load(foreign(f"resnet18@{tmp_path / 'w.pth'}"))
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.fc(frozen.encode(pictures)), net(pictures))
    assert frozen.look(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


def test_an_open_clip_file_gives_its_picture_tower(tmp_path):
    import open_clip

    (tmp_path / "tiny-clip-of-a-test.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path)
    models_of.cache_clear()
    net = open_clip.create_model("tiny-clip-of-a-test").eval()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    name = f"open_clip:tiny-clip-of-a-test@{tmp_path / 'w.pt'}"
    assert encoder_names("encoders", name, OWN) == [name]
    frozen = load(foreign(name))
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(frozen.encode(pictures), net.encode_image(pictures))
    assert frozen.look(Image.new("RGB", (50, 40))).shape == (3, 32, 32)
    torch.save(models.resnet18().state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="not weights of open_clip's tiny-clip-of-a-test"):
        load(foreign(f"open_clip:tiny-clip-of-a-test@{tmp_path / 'other.pt'}"))


def test_random_weights_are_the_same_each_time_and_those_of_a_name():
    first, second = (load(foreign(NAME)).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm:test_resnet", "timm.create_model"),
        ("open_clip:RN50/openai", "open_clip.create_model"),
        ("resnet18", "torchvision.models._api.load_state_dict_from_url"),
    ],
)
def test_without_internet_the_error_says_both_ways(monkeypatch, name, place):
    def no_net(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(place, no_net)
    with pytest.raises(UserError, match=r"could (not )?be downloaded.*machine with\s+internet.*@FILE.*[Rr]andom weights"):
        load(foreign(name))


# files


def write_vectors(path, ids, vectors, kind):
    """One set of embeddings in the format that `kind` names; the path to give."""
    if kind == "folder":
        write_embeddings(path, pl.Series("item_id", ids), vectors, {})
        return path
    target = path.with_suffix(
        {"lists": ".parquet", "arrays": ".parquet", "columns": ".parquet", "tensors": ".safetensors"}.get(kind, ".npy")
    )
    if kind in ("lists", "arrays"):
        cell = pl.List(pl.Float32) if kind == "lists" else pl.Array(pl.Float64, vectors.shape[1])
        pl.DataFrame({"item_id": ids, "e": pl.Series(vectors.tolist(), dtype=cell)}).write_parquet(target)
    elif kind == "columns":
        pl.DataFrame({"item_id": ids} | {f"d{n}": column for n, column in enumerate(vectors.T)}).write_parquet(target)
    elif kind == "tensors":
        save_file({"item_id": np.asarray(ids), "vectors": vectors}, target)
    else:
        np.save(target, vectors)
        beside = target.with_suffix(f".ids.{kind}")
        if kind == "txt":
            beside.write_text("".join(f"{one}\n" for one in ids))
        elif kind == "npy":
            np.save(beside, np.asarray(ids))
        elif kind in ("csv", "parquet"):
            frame = pl.DataFrame({"item_id": ids})
            frame.write_csv(beside) if kind == "csv" else frame.write_parquet(beside)
    return target


KINDS = ("txt", "npy", "csv", "parquet", "lists", "arrays", "columns", "folder")


@pytest.mark.parametrize(("kind", "text_ids"), [*product(KINDS, [False, True]), ("tensors", False)])  # tensors hold no text
def test_every_format_gives_each_item_its_own_row_and_zeros_to_those_it_lacks(tmp_path, kind, text_ids):
    ids = [f"i{n:04d}" if text_ids else 100 + n for n in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # an embeddings folder is read as unit rows
    order = np.random.default_rng(1).permutation(10)  # the last two are missing
    path = write_vectors(tmp_path / "e", [ids[row] for row in order], vectors[order], kind)
    found = read_vectors(path, pl.Series("item_id", ids))
    np.testing.assert_allclose(found[:10], vectors[:10], rtol=1e-6)
    assert not found[10:].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_without_ids_row_n_is_item_n(tmp_path, dtype):
    vectors = np.arange(1, 13).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "image_feat.npy", vectors)
    assert (read_vectors(tmp_path / "image_feat.npy", pl.Series("item_id", [9, 4, 7, 1])) == vectors).all()


def test_a_null_list_is_an_item_without_a_picture(tmp_path):
    pl.DataFrame({"item_id": [1, 2, 3], "e": [[1.0, 2.0], None, [3.0, 4.0]]}).write_parquet(tmp_path / "e.parquet")
    assert read_vectors(tmp_path / "e.parquet", pl.Series([3, 2, 1])).tolist() == [[3, 4], [0, 0], [1, 2]]


def npy(values, ids=None):
    def write(path):
        np.save(path / "e.npy", values, allow_pickle=True)
        if ids is not None:
            (path / "e.ids.txt").write_text("\n".join(ids))
        return path / "e.npy"

    return write


def parquet(**columns):
    def write(path):
        pl.DataFrame(columns).write_parquet(path / "e.parquet")
        return path / "e.parquet"

    return write


def other(name, content=b"x"):
    def write(path):
        (path / name).write_bytes(content)
        return path / name

    return write


def tensors(**content):
    def write(path):
        save_file(content, path / "e.safetensors")
        return path / "e.safetensors"

    return write


def spoiled(value):
    values = np.ones((4, 3))
    values[2, 1] = value
    return values


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (npy(np.ones((3, 3))), r"e\.npy: value '3 rows'; items\.parquet has 4 rows; .*e\.ids\.txt"),
        (npy(np.ones(4)), r"value 'float64 \(4,\)'; give numbers of shape \(N, D\)"),
        (npy(np.ones((4, 0))), r"value 'float64 \(4, 0\)'"),
        (npy(np.array([["a"]] * 4)), r"give numbers of shape"),
        (npy(np.array([[{}]] * 4, dtype=object)), "not readable as a NumPy array of numbers"),
        (npy(spoiled(np.nan)), r"row 2, column '1': value nan; item 7: give finite"),
        (npy(spoiled(np.inf)), r"row 2, column '1': value inf"),
        (npy(spoiled(1e300)), r"row 2, column '1': value 1e\+300; .*float32's size"),
        (npy(np.zeros((4, 3))), "all embeddings of the shop's items are zero"),
        (npy(np.ones((2, 3)), ["9"]), r"e\.ids\.txt: value '1 ids'; e\.npy has 2 rows"),
        (npy(np.ones((2, 3)), ["9", "9"]), r"row 0, column 'item_id': value 9; stands there more than once"),
        (npy(np.ones((2, 3)), ["90", "91"]), r"holds none of the shop's items: its ids are like 90, the shop's are like 9"),
        (npy(np.ones((2, 3)), ["a", "b"]), r"column 'item_id': value .*String.*; the shop's ids are Int64"),
        (other("e.pkl"), r"in a format that is not read here; give \.npy"),
        (other("e.npy"), "not readable as a NumPy array"),
        (other("e.parquet"), "not readable as parquet"),
        (other("e.safetensors"), "not readable as safetensors"),
        (tensors(a=np.ones((4, 2)), b=np.ones((4, 2))), r"value 'a \(4, 2\), b \(4, 2\)'; give one tensor"),
        (tensors(a=np.ones((4, 2)), item_id=np.ones(3, dtype=np.int64)), r"column 'item_id': value .*; give \(4,\) integers"),
        (parquet(id=[9], e=[[1.0]]), "column 'item_id': no such column; there are id, e"),
        (parquet(item_id=[9], e=["text"]), "give one column of lists, or columns of floats"),
        (parquet(item_id=[9], e=[[1.0]], f=[[1.0]]), "give one column of lists"),
        (parquet(item_id=[9], e=[["a"]]), "column 'e': value List.*; give lists of numbers"),
        (parquet(item_id=[9, 4, 7], e=[None, [1.0, 2.0], [1.0]]), r"row 2, column 'e': value '1 numbers'; row 1 has 2"),
        (parquet(item_id=[9, 4], e=[[1.0, 2.0], [1.0, None]]), r"row 1, column '1': value nan; item 4"),
        (parquet(item_id=[9, 4], d0=[1.0, 2.0], d1=[1.0, None]), r"row 1, column 'd1': value nan; item 4"),
        (parquet(item_id=[9, None], e=[[1.0], [2.0]]), r"row 1, column 'item_id': value None; give every row an id"),
        (lambda path: path, r"vectors\.npy: no such file; an embeddings folder holds"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_place_value_and_mend(tmp_path, write, message):
    with pytest.raises(UserError, match=message):
        read_vectors(write(tmp_path), pl.Series("item_id", [9, 4, 7, 1]))


def test_two_files_of_ids_are_one_too_many(tmp_path):
    path = npy(np.ones((1, 2)), ["9"])(tmp_path)
    np.save(tmp_path / "e.ids.npy", np.array([9]))
    with pytest.raises(UserError, match=r"two files of ids beside it, e\.ids\.txt and e\.ids\.npy"):
        read_vectors(path, pl.Series([9]))


# stages


def test_a_stage_depends_on_the_files_content_not_on_its_path(source, tmp_path):
    path = npy(np.ones((40, 2)))(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere/e.npy"
    copy.write_bytes(path.read_bytes())
    first = foreign_stage(source, tmp_path, f"file:{path}")
    assert foreign_stage(source, tmp_path, f"file:{copy}").folder == first.folder
    (tmp_path / "e.ids.txt").write_text("100\n")
    assert foreign_stage(source, tmp_path, f"file:{path}").hash != first.hash
    np.save(copy, np.full((40, 2), 2.0))
    assert foreign_stage(source, tmp_path, f"file:{copy}").hash != first.hash


def test_features_embed_writes_the_folder_that_compare_would(made, folder, tmp_path):
    assert embed(["--encoder", NAME, "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    mine, theirs = (np.load(path / "vectors.npy") for path in (tmp_path / "out", made.folder / "embeddings"))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert embed(["--encoder", NAME, "--out", str(tmp_path / "none")]) == 2
    assert embed(["--encoder", "timm:no_such", "--data", str(folder), "--out", str(tmp_path / "none")]) == 2


def test_a_comparison_of_foreign_encoders_ends_with_a_table_and_trains_no_start(tmp_path, capsys):
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
    assert len(stamps) == 1 + 2 + 2 * 3  # the world, two embedded catalogues, CTR models of two seeds
    assert compare([*words, "--encoders", ",".join(names), "--out", str(out)]) == 0
    assert {path: os.stat(path).st_mtime_ns for path in out.rglob("stage.json")} == stamps


def test_settings_of_training_change_no_foreign_stage(source, tmp_path):
    from features.make import encoder_stage, needs_start

    stages = [encoder_stage(source, tmp_path, NAME, PretrainConfig(dim=dim), seed) for dim, seed in ((64, 0), (32, 1))]
    assert stages[0].folder == stages[1].folder
    assert not needs_start(NAME, PretrainConfig())
