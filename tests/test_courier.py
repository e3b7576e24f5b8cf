"""COURIER's loss against the paper's equations written slowly, in NumPy, one entry at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config import PretrainConfig
from pretrain.methods.courier import Courier, CourierConfig
from pretrain.page_views import PageViews, rows_of_step
from pretrain.parts.courier_losses import contrast
from pretrain.parts.reconstruction import attention, reconstruct


def slow_attention(query, keys, scale):
    """Eq. 1 for one query."""
    products = [float(query @ key) / (math.sqrt(len(query)) if scale else 1.0) for key in keys]
    weights = [math.exp(score - max(products)) for score in products]
    return sum(w / sum(weights) * key for w, key in zip(weights, keys, strict=True))


def slow_contrast(embeddings, reconstructions, labels, items, temperature, mask, group):
    """Eq. 4-6 over a batch: the mean of -log softmax_j0 Sim[j0, j1] / t over clicked j1."""

    def cosine(a, b):
        return float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b)))

    losses = []
    for j1, label in enumerate(labels):
        if label == 1:
            allowed = [j0 for j0 in range(len(embeddings)) if group[items[j0]] == group[items[j1]]]
            if mask:
                allowed = [j0 for j0 in allowed if j0 == j1 or items[j0] != items[j1]]
            total = sum(math.exp(cosine(embeddings[j0], reconstructions[j1]) / temperature) for j0 in allowed)
            losses.append(-math.log(math.exp(cosine(embeddings[j1], reconstructions[j1]) / temperature) / total))
    return sum(losses) / len(losses)


def slow_courier(vectors, views, temperature, scale, mask, group):
    """Eq. 7: L_pv over page items of all rows, plus L_ucs over last clicks of rows with at least two."""
    embeddings, rebuilt, labels, items = [], [], [], []
    for page, clicked, history in zip(views.page, views.clicked, views.history, strict=True):
        keys = [vectors[k] for k in history if k >= 0]
        for item, label in zip(page, clicked, strict=True):
            if item >= 0:
                embeddings.append(vectors[item])
                rebuilt.append(slow_attention(vectors[item], keys, scale))
                labels.append(int(label))
                items.append(item)
    page_loss = slow_contrast(embeddings, rebuilt, labels, items, temperature, mask, group)
    targets, rebuilt, items = [], [], []
    for history in views.history:
        clicks = [k for k in history if k >= 0]
        if len(clicks) >= 2:
            targets.append(vectors[clicks[-1]])
            rebuilt.append(slow_attention(vectors[clicks[-1]], [vectors[k] for k in clicks[:-1]], scale))
            items.append(clicks[-1])
    ucs = slow_contrast(targets, rebuilt, [1] * len(targets), items, temperature, mask, group) if targets else 0.0
    return page_loss + ucs


def some_views(rng, rows=6, items=9, page_items=5, history_items=5):
    page = np.full((rows, page_items), -1)
    clicked = np.zeros((rows, page_items), dtype=bool)
    history = np.full((rows, history_items), -1)
    for row in range(rows):
        shown = rng.integers(1, page_items + 1)
        page[row, :shown] = rng.choice(items, shown, replace=False)
        clicked[row, : rng.integers(1, shown + 1)] = True
        seen = rng.integers(1, history_items + 1)
        history[row, :seen] = rng.integers(0, items, seen)
    return PageViews(page=page, clicked=clicked, history=history)


def loss_of(views, vectors, group=None, **settings):
    return parts_of(views, vectors, group, **settings)[0]


def parts_of(views, vectors, group=None, *, mask_same_item=True, **settings):
    own = CourierConfig(batch_size=len(views), **settings)
    method = Courier(views, PretrainConfig(courier=own, mask_same_item=mask_same_item), seed=0, group=group)
    step = method.step(0)
    return method.loss({"embedding": vectors[step.items]}, step)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), scale=st.booleans(), mask=st.booleans(), temperature=st.sampled_from([0.05, 0.5]), groups=st.integers(1, 3)
)
def test_the_loss_is_that_of_equations_1_to_7(seed, scale, mask, temperature, groups):
    rng = np.random.default_rng(seed)
    views = some_views(rng)
    vectors = torch.from_numpy(rng.normal(size=(9, 4)))
    group = rng.choice([-1, 3, 19], size=groups, replace=False)[rng.integers(0, groups, 9)]  # 3 and 19 share a part
    fast = loss_of(views, vectors, group, temperature=temperature, scale_attention=scale, mask_same_item=mask)
    slow = slow_courier(vectors.numpy(), views, temperature, scale, mask, group)
    assert fast.item() == pytest.approx(slow, rel=1e-9)
    ungrouped = loss_of(views, vectors, temperature=temperature, scale_attention=scale, mask_same_item=mask)
    assert groups > 1 or fast.item() == pytest.approx(ungrouped.item(), rel=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(1)
    views = some_views(rng)
    vectors = torch.from_numpy(rng.normal(size=(9, 4))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: loss_of(views, v, temperature=0.5), vectors)


def test_a_reconstruction_lies_in_the_simplex_of_the_history():
    history = torch.eye(3).expand(2, 3, 3)
    present = torch.tensor([[True, True, True], [True, True, False]])
    rebuilt = reconstruct(torch.randn(2, 4, 3), history, present)
    torch.testing.assert_close(rebuilt.sum(-1), torch.ones(2, 4))
    assert (rebuilt >= 0).all()
    assert (rebuilt[1, :, 2] == 0).all()


def test_a_row_without_history_is_reconstructed_as_zeros_not_nan():
    weights = attention(torch.randn(1, 2, 3), torch.randn(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool))
    assert (weights == 0).all()


def test_a_collapsed_encoder_has_a_loss_of_log_candidates():
    count = torch.tensor([3, 1, 1, 2])
    loss = contrast(torch.ones(4, 3), count, torch.ones(2, 3), torch.tensor([0, 2]), temperature=0.05)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


def test_the_softmax_is_over_items_not_over_reconstructions():
    embeddings, first, second, once = torch.randn(5, 3), torch.randn(1, 3), torch.randn(1, 3), torch.ones(5)
    both = contrast(embeddings, once, torch.cat([first, second]), torch.tensor([0, 1]), temperature=0.1)
    alone = [contrast(embeddings, once, r, torch.tensor([j]), temperature=0.1) for j, r in enumerate((first, second))]
    assert both.item() == pytest.approx(sum(alone).item() / 2, rel=1e-5)


def test_a_batch_without_a_click_is_refused():
    with pytest.raises(ValueError, match="without a clicked item"):
        contrast(torch.ones(2, 3), torch.ones(2), torch.ones(0, 3), torch.zeros(0, dtype=torch.long), temperature=0.1)


def test_the_targets_own_item_elsewhere_in_the_batch_is_not_a_negative_when_masked():
    page = np.array([[0, 1], [0, 2]])
    views = PageViews(page=page, clicked=np.array([[True, False], [True, False]]), history=np.array([[3, -1], [3, -1]]))
    vectors = torch.eye(4, dtype=torch.float64)
    masked = loss_of(views, vectors, temperature=1.0, mask_same_item=True)
    # every page item is orthogonal to the reconstruction (item 3): all similarities are 0; candidates 0, 1, 2 remain
    assert masked.item() == pytest.approx(math.log(3))
    assert loss_of(views, vectors, temperature=1.0, mask_same_item=False).item() == pytest.approx(math.log(4))


def test_rows_with_one_click_are_left_out_of_the_click_sequence_loss():
    views = PageViews(page=np.array([[0, 1]]), clicked=np.array([[True, False]]), history=np.array([[2, -1]]))
    assert parts_of(views, torch.randn(4, 3))[1]["loss_ucs"] == 0


def test_each_row_is_seen_once_per_pass_and_each_picture_once_per_step():
    rng = np.random.default_rng(0)
    views = some_views(rng, rows=12, items=9)
    method = Courier(views, PretrainConfig(courier=CourierConfig(batch_size=4)), seed=3)
    passes = [np.sort(np.concatenate([rows_of_step(12, 4, 3, 3 * p + s) for s in range(3)])) for p in range(2)]
    assert all((rows == np.arange(12)).all() for rows in passes)
    items = method.step(0).items
    assert len(np.unique(items)) == len(items)
    assert items.min() >= 0
