"""Supervised against a slow click model in NumPy, one page item at a time; which rows are used; padding changes nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.log.shop_folder import SPLITS, load_shop
from data.pictures.store import build_store
from pretrain.config import PretrainConfig
from pretrain.loop import train_encoder
from pretrain.methods.supervised import Supervised, SupervisedConfig
from pretrain.page_views import PageViews, page_views
from run.errors import SettingError, UserError
from run.folder import read_metrics
from tests.shops import write_shop
from tests.trainings import one_step, train_with_a_stop

CONFIG = PretrainConfig(
    weights="random", image_size=16, store_size=24, dim=8, pictures=600, checkpoints=3, checkpoint_seconds=0.01,
    supervised=SupervisedConfig(batch_size=24, heads=2, hidden=6),
)  # fmt: skip
ITEMS = 9


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return load_shop(write_shop(tmp_path_factory.mktemp("shop"), sessions=300))


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=24, workers=1)


def some_views(rng, *, rows=6, page_items=5, history_items=4, fewest=0):
    """Page views with pages of 1 item up to full width, histories of `fewest` up to full width, and any number of clicks."""
    page = np.full((rows, page_items), -1)
    history = np.full((rows, history_items), -1)
    for row in range(rows):
        shown, seen = rng.integers(1, page_items + 1), rng.integers(fewest, history_items + 1)
        page[row, :shown] = rng.choice(ITEMS, shown, replace=False)
        history[row, :seen] = rng.integers(0, ITEMS, seen)
    return PageViews(page=page, clicked=(rng.random(page.shape) < 0.3) & (page >= 0), history=history)


def method_of(views, **changes):
    """The method over these rows, in float64, all rows in a step."""
    own = replace(CONFIG.supervised, batch_size=len(views), **changes)
    method = Supervised(views, replace(CONFIG, supervised=own), seed=0)
    method.heads.double()
    return method


def loss_of(method, vectors):
    step = method.step(0)
    return method.loss({"embedding": vectors[step.items]}, step)[0]


def slow_layer(layer, row):
    return [
        sum(w * x for w, x in zip(weights, row, strict=True)) + b
        for weights, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def slow_attention(part, heads, target, history):
    """Multi-head attention (Vaswani et al. 2017, section 3.2) of one target over its history; an empty one counts as zeros."""
    width = len(target) // heads
    query = slow_layer(part.query, target)
    keys, values = ([slow_layer(layer, item) for item in history] for layer in (part.key, part.value))
    mixed = [0.0] * len(target)
    for head in range(heads):
        own = range(head * width, (head + 1) * width)
        weights = [math.exp(sum(query[d] * key[d] for d in own) / math.sqrt(width)) for key in keys]
        for d in own:
            mixed[d] = sum(w / sum(weights) * value[d] for w, value in zip(weights, values, strict=True)) if history else 0.0
    return slow_layer(part.out, mixed)


def slow_loss(method, vectors, views):
    """Mean over real page items of the cross entropy of their clicks."""
    first, _, last = method.heads["click"]
    paid = []
    for page, clicked, history in zip(views.page, views.clicked, views.history, strict=True):
        seen_items = [vectors[k].tolist() for k in history if k >= 0]
        for item, label in zip(page, clicked, strict=True):
            if item >= 0:
                target = vectors[item].tolist()
                seen = slow_attention(method.heads["attention"], method.own.heads, target, seen_items)
                hidden = slow_layer(first, [*target, *seen, *(a * b for a, b in zip(target, seen, strict=True))])
                (logit,) = slow_layer(last, [max(h, 0.0) for h in hidden])
                click = 1 / (1 + math.exp(-logit))
                paid.append(-math.log(click if label else 1 - click))
    return sum(paid) / len(paid)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), heads=st.sampled_from([1, 2, 4]))
def test_the_loss_is_that_of_a_slow_click_model(seed, heads):
    rng = np.random.default_rng(seed)
    views = some_views(rng)
    method, vectors = method_of(views, heads=heads), torch.from_numpy(rng.normal(size=(ITEMS, CONFIG.dim)))
    assert loss_of(method, vectors).item() == pytest.approx(slow_loss(method, vectors, views), rel=1e-9)


def test_a_model_that_predicts_one_half_has_a_loss_of_log_2():
    views = some_views(np.random.default_rng(0))
    method = method_of(views)
    for weight in method.heads["click"][-1].parameters():
        torch.nn.init.zeros_(weight)
    assert loss_of(method, torch.randn(ITEMS, CONFIG.dim, dtype=torch.float64)).item() == pytest.approx(math.log(2))


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(1)
    views = some_views(rng)
    method = method_of(views)
    vectors = torch.from_numpy(rng.normal(size=(ITEMS, CONFIG.dim))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: loss_of(method, v), vectors)


def test_padding_changes_nothing():
    """Wider tables, with the same entries, give the same loss: padding is neither a page item nor a click to attend to."""
    rng = np.random.default_rng(2)
    views = some_views(rng)
    vectors = torch.from_numpy(rng.normal(size=(ITEMS, CONFIG.dim)))

    def wider(table, fill):
        return np.concatenate([table, np.full((len(table), 3), fill)], 1)

    wide = PageViews(page=wider(views.page, -1), clicked=wider(views.clicked, False), history=wider(views.history, -1))
    assert loss_of(method_of(wide), vectors).item() == pytest.approx(loss_of(method_of(views), vectors).item(), rel=1e-12)


def test_the_order_of_a_history_does_not_matter():
    rng = np.random.default_rng(3)
    views = some_views(rng, fewest=4)
    vectors = torch.from_numpy(rng.normal(size=(ITEMS, CONFIG.dim)))
    turned = replace(views, history=views.history[:, ::-1].copy())
    assert loss_of(method_of(turned), vectors).item() == pytest.approx(loss_of(method_of(views), vectors).item(), rel=1e-12)


def test_a_row_without_history_has_a_finite_gradient_through_its_page_alone():
    views = PageViews(page=np.array([[0, 1]]), clicked=np.array([[True, False]]), history=np.array([[-1, -1]]))
    vectors = torch.randn(2, CONFIG.dim, dtype=torch.float64, requires_grad=True)
    method = method_of(views)
    loss_of(method, vectors).backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert vectors.grad.any(1).all()
    assert not method.heads["attention"].value.weight.grad.any()


def test_a_picture_that_occurs_in_many_places_is_encoded_once_and_gets_the_gradient_of_all():
    views = some_views(np.random.default_rng(4), rows=12, fewest=1)
    method = method_of(views)
    step = method.step(0)
    used = np.unique(np.concatenate([views.page.ravel(), views.history.ravel()]))
    assert step.items.tolist() == used[used >= 0].tolist()
    alone = torch.from_numpy(np.random.default_rng(5).normal(size=(len(step.items), CONFIG.dim))).requires_grad_()
    (together,) = torch.autograd.grad(method.loss({"embedding": alone}, step)[0], alone)
    # each place its own copy: the gradients of an item's copies add up to that of its one embedding
    places, copies = {}, []
    for name in ("page", "history"):
        table = step.places[name]
        places[name] = np.where(table >= 0, np.cumsum(table.ravel() >= 0).reshape(table.shape) - 1 + len(copies), -1)
        copies += table[table >= 0].tolist()
    spread = alone.detach()[copies].requires_grad_()
    (apart,) = torch.autograd.grad(method.loss({"embedding": spread}, replace(step, places=step.places | places))[0], spread)
    torch.testing.assert_close(torch.zeros_like(together).index_add_(0, torch.tensor(copies), apart), together, rtol=1e-9, atol=1e-12)


def test_page_views_without_a_click_are_used_and_those_with_one_are_couriers(shop, store):
    sizes = {"page_items": 5, "history_items": 4, "has_picture": store.present}
    few, all_views = page_views(shop, **sizes), page_views(shop, **sizes, unclicked=True)
    with_click = all_views.clicked.any(1)
    assert 0 < (~with_click).sum() < len(all_views)
    for name in ("page", "clicked", "history"):
        assert (getattr(all_views, name)[with_click] == getattr(few, name)).all()
    assert (all_views.history[:, 0] >= 0).all()
    sessions = np.flatnonzero(shop.session_split == SPLITS.index("pretrain"))
    shown = sum(
        int(((shop.session == session) & store.present[shop.item]).sum())
        for session in sessions
        if any(
            user == shop.session_user[session] and when < shop.session_time[session] and action == 0 and store.present[item]
            for user, item, when, action in zip(*shop.events.rows(), strict=True)
        )
    )
    assert (all_views.page >= 0).sum() == shown


def test_a_step_in_chunks_has_the_gradients_of_one_chunk(shop, store):
    full, expected = one_step("supervised", shop, store, CONFIG)
    loss, found = one_step("supervised", shop, store, replace(CONFIG, chunk=5))
    assert loss == pytest.approx(full, rel=1e-6)
    assert set(found) == set(expected)
    steepest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * steepest, msg=name)
    assert any(name.startswith("heads") for name in expected)


def test_a_run_stopped_anywhere_ends_with_the_same_bits(shop, store, tmp_path):
    full_run = train_encoder("supervised", shop, store, CONFIG, seed=1, folder=tmp_path / "full", threads=1)
    resumed = train_with_a_stop("supervised", Supervised, 9, shop, store, CONFIG, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**full_run, "seconds": 0}
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()
    assert read_metrics(tmp_path / "full/metrics.jsonl") == read_metrics(tmp_path / "killed/metrics.jsonl")


def test_a_log_without_histories_is_refused(tmp_path):
    few = load_shop(write_shop(tmp_path / "few", users=120, sessions=120))
    small = build_store(few, tmp_path / "store", size=24, workers=1)
    with pytest.raises(UserError, match=r"supervised: \d page views .* have earlier clicks with pictures; it needs a longer log"):
        train_encoder("supervised", few, small, CONFIG, seed=0, folder=tmp_path / "x", threads=1)


def test_heads_that_do_not_divide_the_embedding_are_refused():
    with pytest.raises(SettingError, match=r"supervised.heads.*divisor of dim = 8"):
        method_of(some_views(np.random.default_rng(0)), heads=3)


def test_a_crop_of_more_than_the_picture_is_refused():
    with pytest.raises(SettingError, match=r"supervised.crop"):
        SupervisedConfig(crop=1.1)
