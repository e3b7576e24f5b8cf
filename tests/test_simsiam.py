"""SimSiam in closed form and as the paper's algorithm 1 in NumPy; where its gradient flows and where not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from pretrain.config import PretrainConfig
from pretrain.loop import train_encoder
from pretrain.methods.simsiam import SimSiam, SimSiamConfig, negative_cosine
from run.errors import SettingError
from run.folder import read_metrics
from tests.shops import write_shop
from tests.trainings import one_step, train_with_a_stop

CONFIG = PretrainConfig(
    weights="random", image_size=16, store_size=24, dim=8, pictures=600, checkpoints=3, batch_pictures=24, checkpoint_seconds=0.01,
    simsiam=SimSiamConfig(hidden=12, bottleneck=4),
)  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return load_shop(write_shop(tmp_path_factory.mktemp("shop"), sessions=300))


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=24, workers=1)


def slow_negative_cosine(prediction, projection):
    """Eq. 1, row by row."""
    return -np.mean([p @ z / np.sqrt((p @ p) * (z @ z)) for p, z in zip(prediction, projection, strict=True)])


def slow_batch_norm(columns, scale, shift):
    """Column by column over the batch, with the biased variance."""
    out = np.empty_like(columns)
    for d, column in enumerate(columns.T):
        out[:, d] = (column - column.mean()) / np.sqrt(((column - column.mean()) ** 2).mean() + 1e-5) * scale[d] + shift[d]
    return out


def slow_head(rows, layers):
    """A head's layers one after the other, with its own weights."""
    for layer in layers:
        if isinstance(layer, torch.nn.Linear):
            rows = rows @ layer.weight.detach().numpy().T + (0.0 if layer.bias is None else layer.bias.detach().numpy())
        elif isinstance(layer, torch.nn.BatchNorm1d):
            ones, zeros = np.ones(rows.shape[1]), np.zeros(rows.shape[1])
            scale, shift = (ones, zeros) if layer.weight is None else (layer.weight.detach().numpy(), layer.bias.detach().numpy())
            rows = slow_batch_norm(rows, scale, shift)
        else:
            assert isinstance(layer, torch.nn.ReLU)
            rows = np.maximum(rows, 0)
    return rows


def some_method():
    """SimSiam in float64 with random scales and shifts in its batch norms, and the embeddings of its step 0."""
    method = SimSiam(np.arange(40), CONFIG, seed=0)
    method.heads.double()
    torch.manual_seed(0)
    for layer in method.heads.modules():
        if isinstance(layer, torch.nn.BatchNorm1d) and layer.affine:
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    step = method.step(0)
    return method, step, torch.randn(len(step.items), CONFIG.dim, dtype=torch.float64)


def test_the_loss_is_that_of_the_papers_algorithm():
    method, step, embeddings = some_method()
    first, second = np.split(embeddings.numpy(), 2)
    project, predict = (lambda rows, name=name: slow_head(rows, method.heads[name]) for name in ("projector", "predictor"))
    z1, z2 = project(first), project(second)
    slow = slow_negative_cosine(predict(z1), z2) / 2 + slow_negative_cosine(predict(z2), z1) / 2
    assert method.loss({"embedding": embeddings}, step)[0].item() == pytest.approx(slow, rel=1e-10)


def test_the_heads_are_the_papers():
    """Section 3: a projector of three layers, all with batch norm, the last without ReLU; a predictor with a narrow middle."""
    method = SimSiam(np.arange(40), CONFIG, seed=0)
    kinds = {name: [type(layer).__name__ for layer in head] for name, head in method.heads.items()}
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds == {"projector": [*hidden, *hidden, "Linear", "BatchNorm1d"], "predictor": [*hidden, "Linear"]}
    widths = {name: [layer.out_features for layer in head if isinstance(layer, torch.nn.Linear)] for name, head in method.heads.items()}
    assert widths == {"projector": [12, 12, 12], "predictor": [4, 12]}


def test_exchanging_the_views_changes_nothing():
    method, step, embeddings = some_method()
    exchanged = torch.cat(embeddings.chunk(2)[::-1])
    assert method.loss({"embedding": exchanged}, step)[0].item() == pytest.approx(method.loss({"embedding": embeddings}, step)[0].item())


def test_equal_opposite_and_orthogonal_views_have_closed_forms():
    p = torch.randn(5, 3, dtype=torch.float64)
    assert negative_cosine(p, 7 * p).item() == pytest.approx(-1)
    assert negative_cosine(p, -p).item() == pytest.approx(1)
    assert negative_cosine(torch.eye(4), torch.eye(4).roll(1, 0)).item() == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.floats(1e-3, 1e3))
def test_the_loss_lies_between_minus_1_and_1_and_ignores_lengths(seed, length):
    p, z = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 6, 4)))
    loss = negative_cosine(p, z).item()
    assert -1 <= loss <= 1
    assert negative_cosine(length * p, z / length).item() == pytest.approx(loss, rel=1e-9)


def test_no_loss_is_lower_than_that_of_a_collapsed_encoder():
    """Why the spread of embeddings is logged with the loss."""
    same = torch.ones(8, 1) * torch.randn(1, 4)
    assert negative_cosine(same, same).item() == pytest.approx(-1)


def test_views_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        negative_cosine(torch.ones(3, 2), torch.ones(2, 2))


def test_no_gradient_goes_into_the_projection():
    p, z = torch.randn(2, 5, 3, dtype=torch.float64).requires_grad_().unbind()
    z.retain_grad()
    p.retain_grad()
    negative_cosine(p, z).backward()
    assert z.grad is None
    assert p.grad is not None
    assert p.grad.any()


def test_the_gradient_treats_projections_as_constants():
    method, step, embeddings = some_method()
    embeddings.requires_grad_()
    found = torch.autograd.grad(method.loss({"embedding": embeddings}, step)[0], embeddings)[0]

    def symmetric(hold):
        z1, z2 = (method.heads["projector"](view) for view in embeddings.chunk(2))
        pairs = [(method.heads["predictor"](z1), z2), (method.heads["predictor"](z2), z1)]
        return -sum(torch.cosine_similarity(p, hold(z)).mean() for p, z in pairs) / 2

    held = torch.autograd.grad(symmetric(lambda z: torch.from_numpy(z.detach().numpy().copy())), embeddings)[0]
    torch.testing.assert_close(found, held, rtol=1e-10, atol=1e-14)
    moving = torch.autograd.grad(symmetric(lambda z: z), embeddings)[0]
    assert (found - moving).abs().max() > 0.1 * found.abs().max()


def test_batch_norm_centres_each_view_over_all_pictures():
    """The common part of a view's embeddings is gone after the projector's first layer."""
    method, step, embeddings = some_method()
    shifted = embeddings + torch.randn(CONFIG.dim, dtype=torch.float64)
    assert method.loss({"embedding": shifted}, step)[0].item() == pytest.approx(method.loss({"embedding": embeddings}, step)[0].item())
    for view in embeddings.chunk(2):
        z = method.heads["projector"](view)
        torch.testing.assert_close(z.mean(0), torch.zeros(12, dtype=torch.float64), atol=1e-12, rtol=0)
        torch.testing.assert_close(z.var(0, correction=0), torch.ones(12, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_step_in_chunks_has_the_gradients_of_one_chunk(shop, store):
    """In chunks of 7 of 48 pictures, batch norm still sees them all."""
    full, expected = one_step("simsiam", shop, store, CONFIG)
    loss, found = one_step("simsiam", shop, store, replace(CONFIG, chunk=7))
    assert loss == pytest.approx(full, rel=1e-5)
    assert set(found) == set(expected)
    steepest = max(gradient.abs().max().item() for gradient in expected.values())  # some are zero except for rounding: BN undoes shifts
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * steepest, msg=name)
    heads = [name for name in expected if name.startswith("heads")]
    assert len(heads) == 3 + 2 * 2 + 1 + 2 + 2  # linear layers and batch norms of the projector, of the predictor
    assert all(expected[name].any() for name in heads)


def test_a_run_stopped_anywhere_ends_with_the_same_bits(shop, store, tmp_path):
    full_run = train_encoder("simsiam", shop, store, CONFIG, seed=1, folder=tmp_path / "full", threads=1)
    resumed = train_with_a_stop("simsiam", SimSiam, 8, shop, store, CONFIG, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**full_run, "seconds": 0}
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()
    lines = read_metrics(tmp_path / "full/metrics.jsonl")
    assert lines == read_metrics(tmp_path / "killed/metrics.jsonl")
    assert sum("std" in line for line in lines) == 1 + CONFIG.checkpoints  # and the start


def test_a_batch_of_one_picture_is_refused():
    with pytest.raises(SettingError, match=r"batch_pictures.*at least 2"):
        SimSiam(np.arange(40), replace(CONFIG, batch_pictures=1), seed=0)
