"""Initial weights of a backbone: what fits is loaded completely, anything else is refused by name, and nothing is unpickled."""

import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize

from pretrain.backbones.backbone import backbone
from pretrain.backbones.body import IMAGENET_MEAN, IMAGENET_STD
from pretrain.backbones.weights import fit, read_state, torchvision_state
from run.errors import UserError

PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    """torchvision's resnet18 with random weights and running statistics, and its file."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = models.resnet18()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(net.state_dict(), path)
    return net.eval(), path


def features(theirs, pictures):
    """What torchvision's last linear layer reads, of pictures in [0, 1]."""
    seen = []
    hook = theirs.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        theirs(normalize(pictures, IMAGENET_MEAN, IMAGENET_STD))
    hook.remove()
    return seen[0]


def test_weights_of_batch_norm_compute_what_torchvisions_network_computes_in_training_too(resnet18_file):
    theirs, path = resnet18_file
    ours = backbone("resnet18", dim=8, seed=0, weights=str(path)).train()
    torch.testing.assert_close(ours.body(PICTURES), features(theirs, PICTURES), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.body(PICTURES[:1]), ours.body(PICTURES)[:1], rtol=1e-4, atol=1e-5)
    before = [part.running_mean.clone() for part in ours.modules() if isinstance(part, nn.BatchNorm2d)]
    ours(PICTURES).sum().backward()
    after = [part.running_mean for part in ours.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(before) == 20
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(weight.grad is not None for weight in ours.parameters())


def test_a_random_resnet18_has_group_norm_alone():
    net = backbone("resnet18", dim=8, seed=0)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


@pytest.mark.parametrize("norm", ["group norm", "batch norm"])
def test_an_encoder_trained_here_is_loaded_with_its_own_norm_and_head(resnet18_file, tmp_path, norm):
    net = backbone("resnet18", dim=8, seed=0, weights=str(resnet18_file[1]) if norm == "batch norm" else "random").eval()
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "best.safetensors")
    again = backbone("resnet18", dim=8, seed=1, weights=str(tmp_path / "best.safetensors")).eval()
    with torch.no_grad():
        assert torch.equal(net(PICTURES), again(PICTURES))


def test_imagenet_weights_are_taken_from_torchs_own_cache_without_their_classifier(resnet18_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints" / models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(resnet18_file[1].read_bytes())
    net = backbone("resnet18", dim=1000, seed=0, weights="imagenet").eval()
    theirs = resnet18_file[0]
    torch.testing.assert_close(net.body(PICTURES), features(theirs, PICTURES), rtol=1e-4, atol=1e-5)
    assert not torch.equal(net.head.weight, theirs.fc.weight)


@pytest.mark.parametrize("name", ["swin_t", "resnet18"])
def test_without_internet_the_error_names_both_ways_to_get_weights(tmp_path, monkeypatch, name):
    def no_net(*_, **__):
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_net)
    with pytest.raises(UserError) as error:
        torchvision_state(name)
    for text in ("could not be downloaded (URLError)", "on a machine with internet", str(tmp_path), "--weights FILE", f"{name}-"):
        assert text in str(error.value)


def test_a_small_cnn_has_no_imagenet_weights():
    with pytest.raises(UserError, match=r"small_cnn has no weights of imagenet; give a file of one trained here"):
        backbone("small_cnn", dim=8, seed=0, weights="imagenet")


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("conv.bias"), "'conv.bias' is missing"),
        (lambda state: state.update({"conv2.bias": torch.ones(2)}), "'conv2.bias' is not one of its weights"),
        (lambda state: state.update({"conv.bias": torch.ones(5)}), "'conv.bias' is of another shape"),
        (lambda state: state.update({"conv.bias": torch.tensor([1.0, float("nan")])}), "'conv.bias' is not finite"),
    ],
)
def test_weights_of_another_network_are_refused_by_the_first_key(change, fault):
    state = Body().state_dict()
    change(state)
    with pytest.raises(UserError, match=f"there: not weights of body: {fault}"):
        fit(Body(), state, name="body", source="there")


def test_a_resnet34_is_not_taken_for_a_resnet18_though_it_holds_all_its_keys(tmp_path):
    torch.save(models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(UserError, match=r"not weights of resnet18: 'layer1\.2.* is not one of its weights"):
        backbone("resnet18", dim=8, seed=0, weights=str(tmp_path / "resnet34.pth"))


def test_a_head_of_another_length_or_none_is_left_new():
    net = Body()
    fresh = net.head.weight.clone()
    state = {**Body().state_dict(), "head.weight": torch.ones(7, 2), "head.bias": torch.ones(7)}
    fit(net, state, name="body", source="there")
    assert torch.equal(net.head.weight, fresh)
    assert torch.equal(net.conv.weight, state["conv.weight"])


@pytest.mark.parametrize("wrapped", ["bare", "state_dict", "model", "module."])
def test_a_state_dict_is_found_in_its_wrapping(tmp_path, wrapped):
    state = Body().state_dict()
    found = {"bare": state, "module.": {f"module.{key}": value for key, value in state.items()}}.get(wrapped, {wrapped: state, "epoch": 3})
    torch.save(found, tmp_path / "state.pt")
    assert read_state(tmp_path / "state.pt").keys() == state.keys()


def test_a_pickle_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"net": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(UserError, match="not readable as weights"):
            read_state(tmp_path / name)
    assert not (tmp_path / "touched").exists()


def test_files_without_a_state_dict_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state_dict"):
        read_state(tmp_path / "list.pt")
    with pytest.raises(UserError, match="no such file of weights"):
        read_state(tmp_path / "missing.pt")
