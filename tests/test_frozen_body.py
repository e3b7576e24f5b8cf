"""A frozen body: its features are computed once, training touches heads alone and begins as the frozen encoder."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from data.source import SourceConfig
from features.embed import main as embed_run
from features.embeddings import read_embeddings
from features.encoder_stages import Experiment, body_stages, encoder_stage, make_embeddings
from pretrain.backbones.backbone import backbone_of
from pretrain.backbones.feature_store import Features, open_features, write_features
from pretrain.backbones.heads import from_components, new_head
from pretrain.backbones.names import HEAD_SHAPES
from pretrain.body_features import frozen_features
from pretrain.config import PRESETS, PretrainConfig
from pretrain.embedding import Validation, embed, similarity_scores
from pretrain.loop import train_encoder
from pretrain.methods.courier import Courier, CourierConfig
from pretrain.methods.simclr import SimClr
from pretrain.methods.table import check_body, own_config
from pretrain.page_views import pretraining_items
from pretrain.similarity import normalise
from pretrain.train import main as train
from pretrain.views import resized
from run.config import with_settings
from run.errors import SettingError
from run.folder import read_metrics
from tests.shops import write_shop
from tests.trainings import train_with_a_stop

CONFIG = PretrainConfig(
    backbone="timm:test_convnext", weights="random", body="frozen", head="components", image_size=32, store_size=48, dim=8, pictures=400,
    checkpoints=3, batch_pictures=24, checkpoint_seconds=0.01, learning_rate=1e-3, courier=CourierConfig(batch_size=16),
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return SourceConfig(data=str(write_shop(tmp_path_factory.mktemp("frozen") / "shop", sessions=200)))


@pytest.fixture(scope="module")
def shop(source):
    return load_shop(source.data)


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=48, workers=1)


@pytest.fixture(scope="module")
def features(source, tmp_path_factory):
    """Of full pictures and of distorted views."""
    return frozen_features(tmp_path_factory.mktemp("features"), source, "simclr", CONFIG, 0, jobs=1, threads=1)


def test_features_are_the_bodys_of_full_pictures(shop, store, features):
    body = backbone_of(CONFIG, 0).body.eval()
    items = np.flatnonzero(store.present)
    with torch.no_grad():
        expected = body(resized(torch.from_numpy(store.read(items)), 32)).numpy()
    np.testing.assert_allclose(features.read(items), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(features.full, np.memmap)
    assert (features.present == store.present).all()
    assert not features.full[~store.present].any()


def test_an_item_shows_two_different_cached_views_that_depend_on_seed_and_step(features):
    items = np.flatnonzero(features.present)[:10]
    tiled, view = np.tile(items, 2), np.repeat([0, 1], len(items))

    def shown(seed, step):
        return features.read_views(tiled, view, (seed, "view", step))

    first, second = np.split(shown(0, 0), 2)
    assert (np.abs(first - second).max(1) > 1e-3).all()
    cached = features.distorted[:, items]
    assert all((cached[:, row] == first[row]).all(1).any() for row in range(len(items)))
    assert (shown(0, 0) == shown(0, 0)).all()
    assert (shown(0, 0) != shown(0, 1)).any()
    assert (shown(0, 0) != shown(1, 0)).any()
    drawn = np.stack([shown(0, step)[0] for step in range(60)])
    assert all((drawn == cached[number, 0]).all(1).any() for number in range(CONFIG.cached_views))


def test_features_computed_with_a_stop_have_the_same_bits(store, tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.backbones.feature_store._PART", 8)
    body, items = backbone_of(CONFIG, 0).body, np.flatnonzero(store.present)
    views = [lambda pixels, _: resized(pixels, 32)]
    write_features(tmp_path / "full", body, store, items, views, batch=4)
    calls = 0

    def dies(pixels, _):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return resized(pixels, 32)

    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path / "killed", body, store, items, [dies], batch=4)
    assert not (tmp_path / "killed/present.npy").exists()
    read = []
    monkeypatch.setattr(type(store), "read", lambda self, rows: read.append(len(rows)) or self.pixels[rows])
    write_features(tmp_path / "killed", body, store, items, views, batch=4)
    assert sum(read) == len(items) - 16  # two parts were done
    for name in ("features.npy", "present.npy"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


@pytest.mark.parametrize("shape", HEAD_SHAPES)
def test_a_head_begins_as_the_principal_components_whatever_its_shape(shape):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 12)) * np.linspace(3, 0.1, 12) + 5
    head = new_head(shape, 12, 5)
    from_components(head, torch.from_numpy(features).float(), whiten=False)
    centred = features - features.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:5]
    expected = normalise(centred @ directions.T)
    with torch.no_grad():
        found = normalise(head(torch.from_numpy(features).float()).numpy())
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_the_linear_part_reads_standardised_features():
    features = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([100, 10, 1, 1, 0.1, 0.0]) + 7
    head = new_head("linear", 6, 3)
    torch.testing.assert_close(head(features), torch.nn.functional.linear(features, head.weight, head.bias))  # until pictures set them
    from_components(head, features, whiten=False)
    read = (features - head.mean) / head.deviation
    torch.testing.assert_close(read.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(read.std(0)[:4], torch.ones(4))
    assert torch.equal(read.std(0)[5:], torch.zeros(1))  # a column without differences stays one
    assert read.std(0)[4] < 1  # one with hardly any is not blown up


def test_a_head_on_several_layers_begins_as_the_components_that_rank_best_in_validation(shop, source, tmp_path):
    config = replace(CONFIG, features="stages")
    stages = frozen_features(tmp_path / "stages", source, "courier", config, 0, jobs=1, threads=1)
    parts = backbone_of(config, 0).body.parts
    assert sum(parts) == stages.full.shape[1]
    result = train_encoder("courier", shop, stages, config, seed=0, folder=tmp_path / "run", threads=1)
    validation, of_items = Validation.of(shop), stages.full[pretraining_items(shop, stages.present)].astype(np.float64)
    layer, deviation = np.repeat(np.arange(len(parts)), parts), of_items.std(0, ddof=1)
    deviation = np.maximum(deviation, 0.01 * deviation.mean())  # random networks have dead channels
    weights = {"all": np.ones(len(layer)), "last": 1.0 * (layer == 0), "alike": 1 / deviation / np.array(parts)[layer] ** 0.5}
    found = {}
    for name, weight in weights.items():
        directions = np.linalg.svd((of_items - of_items.mean(0)) * weight, full_matrices=False)[2][: config.dim]
        vectors = normalise((stages.full - of_items.mean(0)) * weight @ directions.T) * stages.present[:, None]
        found[name] = validation.beside_popularity(similarity_scores(shop, vectors, validation.rows, config))
    assert len(set(found.values())) == 3
    assert result["components"] == max(found, key=found.get)
    assert result["start_gauc"] == pytest.approx(max(found.values()), abs=2e-3)


def test_a_file_whose_head_standardises_nothing_still_loads(tmp_path):
    net = backbone_of(CONFIG, 3)
    torch.save({key: value for key, value in net.state_dict().items() if key not in ("head.mean", "head.deviation")}, tmp_path / "old.pt")
    loaded = backbone_of(CONFIG, 4, tmp_path / "old.pt")
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("encoder", ["courier", "simclr", "simsiam", "supervised"])
def test_training_begins_as_the_frozen_encoder_and_ends_no_worse(shop, features, tmp_path, encoder):
    body = {key: value.clone() for key, value in backbone_of(CONFIG, 0).body.state_dict().items()}
    result = train_encoder(encoder, shop, features, CONFIG, seed=0, folder=tmp_path, threads=1)
    curve = {line["pictures"]: line["valid_gauc"] for line in read_metrics(tmp_path / "metrics.jsonl") if "valid_gauc" in line}
    assert len(curve) == 1 + CONFIG.checkpoints
    frozen = train_encoder("random", shop, features, CONFIG, seed=0, folder=tmp_path / "frozen", threads=1)
    assert curve[0] == frozen["valid_gauc"]
    assert result["valid_gauc"] == max(curve.values()) == curve[result["best_pictures"]]
    trained = backbone_of(CONFIG, 1, tmp_path / "best.safetensors")
    assert all(torch.equal(value, body[key]) for key, value in trained.body.state_dict().items())


@pytest.mark.parametrize("shape", HEAD_SHAPES)
def test_the_weights_embed_new_pictures_as_the_features_were(shop, store, features, tmp_path, shape):
    config = replace(CONFIG, head_shape=shape)
    train_encoder("courier", shop, features, config, seed=0, folder=tmp_path, threads=1)
    net = backbone_of(config, 0, tmp_path / "best.safetensors").eval()
    np.testing.assert_allclose(embed(net, store, config), embed(net.head, features, config), atol=1e-5)


@pytest.mark.parametrize(("encoder", "kind"), [("courier", Courier), ("simclr", SimClr)])
def test_a_run_stopped_anywhere_ends_with_the_same_bits(shop, features, tmp_path, encoder, kind):
    whole = train_encoder(encoder, shop, features, CONFIG, seed=1, folder=tmp_path / "full", threads=1)
    resumed = train_with_a_stop(encoder, kind, 6, shop, features, CONFIG, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()


def test_methods_and_seeds_share_the_features(source, tmp_path):
    experiment = Experiment(
        root=tmp_path, source=source, pretrain=replace(CONFIG, weights="registry", backbone="timm:tf_efficientnet_lite0")
    )
    folders = {name: [stage.folder for stage in body_stages(experiment, name, 0)] for name in ("courier", "simclr", "supervised")}
    assert len(folders["courier"]) == 1
    assert folders["courier"] == folders["supervised"] == folders["simclr"][:1]
    assert len(folders["simclr"]) == 2
    assert [stage.folder for stage in body_stages(experiment, "courier", 1)] == folders["courier"]
    random = replace(experiment, pretrain=CONFIG)
    assert body_stages(random, "courier", 0)[0].folder != body_stages(random, "courier", 1)[0].folder
    assert body_stages(replace(random, pretrain=replace(CONFIG, body="tuned")), "courier", 0) == []


def test_a_stage_of_a_frozen_body_leaves_embeddings_of_all_pictures(source, shop, tmp_path):
    experiment = Experiment(root=tmp_path, source=source, pretrain=CONFIG, threads=1)
    stage = make_embeddings(experiment, "courier", 0)
    vectors = read_embeddings(stage.folder / "embeddings", shop.items["item_id"])
    features = open_features(body_stages(experiment, "courier", 0)[0].folder)
    assert isinstance(features, Features)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), features.present, atol=1e-5)


def test_imagenet_is_the_same_frozen_network_whatever_the_others_backbone(source, shop, tmp_path):
    tuned = PretrainConfig(**PRESETS["tiny"])
    other = replace(tuned, backbone="timm:test_vit", head_shape="mlp", learning_rate=1e-5)
    mine, theirs = (Experiment(root=tmp_path, source=source, pretrain=config, threads=1) for config in (tuned, other))
    (features,) = body_stages(mine, "imagenet", 0)
    assert [features.folder] == [stage.folder for stage in body_stages(theirs, "imagenet", 0)]
    assert encoder_stage(mine, "imagenet", 0).key["pretrain"]["backbone"] == "timm:tf_efficientnet_lite0"
    stage = make_embeddings(mine, "imagenet", 0)
    full = open_features(features.folder)
    assert full.full.shape == (len(shop.items), 1280)
    items = pretraining_items(shop, full.present)
    centred = full.full[full.present] - full.full[items].mean(0)
    directions = np.linalg.svd(full.full[items] - full.full[items].mean(0), full_matrices=False)[2][: tuned.dim]
    expected = normalise(centred @ directions.T)
    vectors = read_embeddings(stage.folder / "embeddings", shop.items["item_id"])[full.present]
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-3)


def test_trainings_that_share_a_folder_compute_the_features_once(shop, tmp_path):
    shared, made = tmp_path / "shared", []
    for encoder in ("courier", "pairs"):
        words = f"--encoder {encoder} --data {shop.folder} --preset tiny --pictures 400 --weights random --body frozen --head components"
        train([*words.split(), "--shared", str(shared), "--out", str(tmp_path / encoder)])
        assert not (tmp_path / encoder / "features").exists()
        (file,) = shared.glob("features/*/features.npy")
        made.append((file, file.stat().st_mtime_ns))
    assert made[0] == made[1]
    words = f"--encoder pairs --data {shop.folder} --preset tiny --pictures 400 --weights random --body frozen --head components".split()
    train([*words, "--out", str(tmp_path / "own"), "--shared", os.path.relpath(tmp_path / "own")])  # one folder in two spellings
    embed_run(["--run", str(tmp_path / "pairs"), "--out", str(tmp_path / "vectors")])
    assert not (tmp_path / "pairs" / "pictures").exists()


def test_preset_small_begins_as_imagenet():
    small = with_settings(PretrainConfig(), PRESETS["small"], source="small")
    assert own_config("imagenet", small) == small != PretrainConfig()


def test_methods_that_need_pictures_are_refused(tmp_path):
    with pytest.raises(SettingError, match=r"maskclip needs the pictures themselves.*give tuned"):
        check_body("maskclip", CONFIG)
    (tmp_path / "mine.py").write_text(
        "from pretrain.methods.simsiam import SimSiam\n\n\nclass Mine(SimSiam):\n    frozen_views = 'full'\n    settings = None\n"
        "    def view(self, pixels, keys, size):\n        return pixels\n"
    )
    with pytest.raises(SettingError, match="makes its own views of pictures"):
        check_body(f"module:{tmp_path / 'mine.py'}:Mine", CONFIG)
    check_body("maskclip", replace(CONFIG, body="tuned"))
