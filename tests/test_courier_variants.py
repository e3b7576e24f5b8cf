"""COURIER's ablations and variants (tables 6, 8, 11, 12 and the authors' code) by closed forms and slow loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from eval.compare import PRESETS as COMPARE_PRESETS
from eval.compare import CompareConfig
from pretrain.config import PretrainConfig
from pretrain.methods.courier import Courier, CourierConfig, mismatched
from pretrain.needs import lonely_pages
from pretrain.page_views import PageViews
from pretrain.parts.courier_losses import contrast, contrast_within, hinge, pull
from pretrain.parts.reconstruction import MultiheadReconstruction, reconstruct, summary
from run.config import parse
from run.errors import SettingError, UserError

VIEWS = PageViews(
    page=np.array([[0, 1, 2], [3, 4, -1], [5, 1, 0], [2, 6, 3]]),
    clicked=np.array([[True, False, False], [True, True, False], [True, False, False], [True, False, False]]),
    history=np.array([[5, 6, -1], [0, -1, -1], [2, 3, 4], [1, 6, 0]]),
)
ITEMS = 7


def method_of(group=None, **settings):
    own = CourierConfig(batch_size=len(VIEWS), **settings)
    return Courier(VIEWS, PretrainConfig(courier=own, dim=4, mask_same_item=False), seed=0, group=group)


def loss_of(vectors, group=None, **settings):
    method = method_of(group, **settings)
    step = method.step(0)
    heads = method.heads.double()
    assert heads is method.heads
    return method.loss({"embedding": vectors[step.items]}, step)


@pytest.fixture
def vectors():
    return torch.randn(ITEMS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rows():
    """The page views as lists: (clicked items, all page items, history)."""
    for page, clicked, history in zip(VIEWS.page, VIEWS.clicked, VIEWS.history, strict=True):
        yield [int(i) for i in page[clicked]], [int(i) for i in page if i >= 0], [int(i) for i in history if i >= 0]


def slow_reconstructions(vectors, target, history):
    weights = torch.stack([vectors[target] @ vectors[k] for k in history]).div(math.sqrt(4)).softmax(0)
    return sum(w * vectors[k] for w, k in zip(weights, history, strict=True))


def cosine(a, b):
    return F.cosine_similarity(a, b, dim=0)


def test_without_ucs_only_the_page_view_loss_is_left(vectors):
    total, parts = loss_of(vectors, without="ucs")
    assert set(parts) == {"loss_pv"}
    assert total == parts["loss_pv"] == loss_of(vectors)[1]["loss_pv"]


def test_without_negatives_of_the_page_only_clicked_items_compete(vectors):
    clicked = [(target, history) for targets, _, history in rows() for target in targets]
    losses = []
    for target, history in clicked:
        rebuilt = slow_reconstructions(vectors, target, history)
        logits = torch.stack([cosine(vectors[other], rebuilt) / 0.05 for other, _ in clicked])
        losses.append(logits.logsumexp(0) - cosine(vectors[target], rebuilt) / 0.05)
    expected = torch.stack(losses).mean()
    assert loss_of(vectors, without="neg-pv")[1]["loss_pv"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_with_logq_an_item_competes_once_however_many_pages_show_it(vectors):
    shown = sorted({item for _, page, _ in rows() for item in page})
    assert len(shown) < sum(len(page) for _, page, _ in rows())
    losses = []
    for targets, _, history in rows():
        for target in targets:
            rebuilt = slow_reconstructions(vectors, target, history)
            logits = torch.stack([cosine(vectors[other], rebuilt) / 0.05 for other in shown])
            losses.append(logits.logsumexp(0) - cosine(vectors[target], rebuilt) / 0.05)
    assert loss_of(vectors, logq=True)[1]["loss_pv"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-9)


def test_the_page_loss_is_that_of_clicked_items_against_the_unclicked_ones_of_their_page(vectors):
    losses = []
    for targets, page, history in rows():
        others = [item for item in page if item not in targets]
        for target in targets if others else []:  # the second page has no unclicked item
            rebuilt = slow_reconstructions(vectors, target, history)
            logits = torch.stack([cosine(vectors[item], rebuilt) / 0.05 for item in (target, *others)])
            losses.append(logits.logsumexp(0) - logits[0])
    assert 0 < len(losses) < VIEWS.clicked.sum()
    total, parts = loss_of(vectors, page_weight=2.0)
    assert parts["loss_page"].item() == pytest.approx(2 * torch.stack(losses).mean().item(), rel=1e-9)
    assert total.item() == pytest.approx(loss_of(vectors)[0].item() + parts["loss_page"].item(), rel=1e-9)


def test_with_popularity_its_logit_stands_beside_the_similarity_within_the_page(vectors):
    known = np.random.default_rng(0).normal(size=VIEWS.page.shape).astype(np.float32)
    losses = []
    for number, (page, clicked, history) in enumerate(zip(VIEWS.page, VIEWS.clicked, VIEWS.history, strict=True)):
        others = [place for place in range(3) if page[place] >= 0 and not clicked[place]]
        for target in np.flatnonzero(clicked) if others else []:
            rebuilt = slow_reconstructions(vectors, int(page[target]), [int(item) for item in history if item >= 0])
            places = [int(target), *others]
            logits = torch.stack([cosine(vectors[int(page[p])], rebuilt) / 0.05 + float(known[number, p]) for p in places])
            losses.append(logits.logsumexp(0) - logits[0])
    method = method_of(pv_weight=0.0, ucs_weight=0.0, page_weight=1.0, popularity=True)
    method.views = replace(VIEWS, known=known)
    step = method.step(0)
    found = method.loss({"embedding": vectors[step.items]}, step)[0]
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    method.views = replace(VIEWS, known=np.zeros_like(known))
    assert method.loss({"embedding": vectors[step.items]}, method.step(0))[0].item() == pytest.approx(
        loss_of(vectors, page_weight=1.0)[1]["loss_page"].item()
    )


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("group", [None, np.array([0, 1, 0, 1, 0, 0, 1])])
def test_symmetric_is_the_mean_of_both_directions(vectors, group, mask):
    columns = [(target, slow_reconstructions(vectors, target, history)) for targets, _, history in rows() for target in targets]
    columns.append((columns[0][0], columns[1][1]))  # an item clicked twice
    positive, rebuilt = torch.tensor([item for item, _ in columns]), torch.stack([vector for _, vector in columns])
    other_way = []
    for c, (item, own) in enumerate(columns):
        peers = [
            vector for k, (other, vector) in enumerate(columns)
            if k == c or ((group is None or group[other] == group[item]) and not (mask and other == item))
        ]  # fmt: skip
        logits = torch.stack([cosine(vectors[item], vector) / 0.05 for vector in peers])
        other_way.append(logits.logsumexp(0) - cosine(vectors[item], own) / 0.05)
    options = {"temperature": 0.05, "mask_same_item": mask, "group_U": None if group is None else torch.as_tensor(group)}
    vectors.requires_grad_()
    one_way = contrast(vectors, torch.ones(ITEMS), rebuilt, positive, **options)
    both = contrast(vectors, torch.ones(ITEMS), rebuilt, positive, symmetric=True, **options)
    assert both.item() == pytest.approx((one_way + torch.stack(other_way).mean()).item() / 2, rel=1e-9)
    both.backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_the_losses_have_the_weights_they_are_given(vectors):
    total, parts = loss_of(vectors, pv_weight=0.5, ucs_weight=3.0, page_weight=2.0)
    _, plain = loss_of(vectors, page_weight=1.0)
    for name, weight in (("loss_pv", 0.5), ("loss_ucs", 3.0), ("loss_page", 2.0)):
        assert parts[name].item() == pytest.approx(weight * plain[name].item())
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()))
    assert set(loss_of(vectors, pv_weight=0.0, page_weight=1.0, ucs_weight=0.0)[1]) == {"loss_page"}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"pv_weight": 0.0, "without": "ucs"}, "no loss is left"),
        ({"ucs_weight": 0.0, "without": "ucs"}, "left out already"),
        ({"pv_weight": 0.0, "without": "neg-pv"}, "whose weight pv_weight is 0"),
        ({"symmetric": True, "loss": "hinge"}, "only a contrast has two directions"),
        ({"page_weight": -1.0}, "give 0 or more"),
        ({"popularity": True}, "'popularity'.*whose weight page_weight is 0"),
        ({"pv_weight": 0.0, "ucs_weight": 0.0, "page_weight": 1.0, "logq": True}, "'logq'.*about the losses across pages"),
        ({"pv_weight": 0.0, "ucs_weight": 0.0, "page_weight": 1.0, "without": "contrast"}, "'without'.*about the losses across pages"),
        ({"pv_weight": 0.0, "ucs_weight": 0.0, "page_weight": 1.0, "loss": "hinge"}, "'loss'.*about the losses across pages"),
        ({"pv_weight": 0.0, "ucs_weight": 0.0, "page_weight": 1.0, "symmetric": True}, "'symmetric'.*about the losses across pages"),
        ({"page_weight": 1.0, "loss": "hinge"}, "'loss'.*within the page is a contrast all the same.*paper-loss"),
        ({"page_weight": 1.0, "without": "contrast"}, "'without'.*within the page is a contrast all the same"),
    ],
)
def test_settings_without_effect_are_refused(settings, fault):
    with pytest.raises(SettingError, match=fault):
        CourierConfig(**settings)


def test_without_contrast_a_clicked_picture_is_pulled_to_its_reconstruction(vectors):
    distances = [
        1 - cosine(vectors[target], slow_reconstructions(vectors, target, history)) for targets, _, history in rows() for target in targets
    ]
    assert loss_of(vectors, without="contrast")[1]["loss_pv"].item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-9)


def test_without_contrast_the_gradient_moves_the_picture_not_its_reconstruction():
    picture, rebuilt = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    pull(picture, rebuilt).backward()
    assert picture.grad is not None
    assert rebuilt.grad is None
    assert pull(rebuilt, 2 * rebuilt).item() == pytest.approx(0, abs=1e-6)


def test_without_reconstruction_the_history_is_summarised_without_the_target(vectors):
    history, present = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    found = summary(history, present)
    for row, length in ((0, 2), (1, 3)):
        own = history[row, :length]
        mixed = (own @ own.T / math.sqrt(4)).softmax(1) @ own
        torch.testing.assert_close(found[row], mixed.mean(0))
    assert loss_of(vectors, without="reconstruction")[1]["loss_pv"] != loss_of(vectors)[1]["loss_pv"]


def test_parts_can_be_left_out_together(vectors):
    total, parts = loss_of(vectors, without="ucs,neg-pv")
    assert set(parts) == {"loss_pv"}
    assert total == loss_of(vectors, without="neg-pv")[1]["loss_pv"]


def test_the_hinge_is_that_of_appendix_f():
    torch.manual_seed(0)
    pictures, rebuilt = torch.randn(5, 3), torch.randn(5, 3)
    other = torch.tensor([1, 2, 3, 4, 4])  # the last column has no other one
    slow = [max(0.0, (cosine(pictures[j], rebuilt[other[j]]) - cosine(pictures[j], rebuilt[j])).item() + 0.3) for j in range(4)]
    assert hinge(pictures, rebuilt, other, margin=0.3).item() == pytest.approx(np.mean(slow), rel=1e-5)


def test_perfect_reconstructions_have_no_hinge_loss_and_equal_ones_the_margin():
    pictures = torch.eye(4)
    assert hinge(pictures, pictures, torch.tensor([1, 2, 3, 0]), margin=0.5).item() == 0
    assert hinge(torch.ones(4, 2), torch.ones(4, 2), torch.tensor([1, 2, 3, 0]), margin=0.5).item() == pytest.approx(0.5)


@given(
    columns=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=40),
    number=st.integers(0, 5), mask=st.booleans(), grouped=st.booleans(),
)  # fmt: skip
def test_a_mismatched_column_is_another_one_of_the_same_group(columns, number, mask, grouped):
    target = torch.tensor([2 * item + group for item, group in columns])
    group = torch.arange(8) % 2 if grouped else None
    other = mismatched(target, group, mask, 0, number).tolist()
    own_group = (target % 2).tolist() if grouped else [0] * len(columns)
    assert all(own_group[c] == own_group[o] for c, o in enumerate(other))
    if mask:
        assert all(o == c or target[o] != target[c] for c, o in enumerate(other))
    else:
        assert sorted(other) == list(range(len(columns)))
        assert all(other[c] != c or own_group.count(own_group[c]) == 1 for c in range(len(columns)))
    assert other == mismatched(target, group, mask, 0, number).tolist()


def test_the_hinge_loss_trains_on_mismatched_reconstructions_of_the_batch(vectors):
    total, parts = loss_of(vectors, loss="hinge", margin=10.0)
    assert 8 < parts["loss_pv"].item() < 12  # margin plus a difference of two cosines
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()))


def test_with_a_projection_head_the_loss_sees_projections(vectors):
    method = method_of(projection_head=True)
    step = method.step(0)
    method.heads.double()
    found = method.loss({"embedding": vectors[step.items]}, step)[0]
    with torch.no_grad():
        projected = method.heads["projection"](vectors)
    assert found.item() == pytest.approx(loss_of(projected)[0].item(), rel=1e-12)


def test_several_heads_equal_torchs_attention_and_ignore_padding():
    ours, theirs = MultiheadReconstruction(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    target, history = torch.randn(3, 2, 8), torch.randn(3, 4, 8)
    present = torch.arange(4)[None, :] < torch.tensor([[4], [2], [1]])
    expected = theirs(target, history, history, key_padding_mask=~present, need_weights=False)[0]
    torch.testing.assert_close(ours(target, history, present), expected, rtol=1e-5, atol=1e-6)
    other = torch.where(present[:, :, None], history, torch.full_like(history, 99.0))
    torch.testing.assert_close(ours(target, other, present), expected, rtol=1e-5, atol=1e-6)


def test_several_heads_reconstruct_a_row_without_history_as_zeros():
    ours = MultiheadReconstruction(4, 2)
    empty = torch.zeros(1, 3, dtype=torch.bool)
    torch.testing.assert_close(ours(torch.randn(1, 2, 4), torch.randn(1, 3, 4), empty), ours.out.bias.expand(1, 2, 4))


def test_the_click_head_adds_the_cross_entropy_of_all_page_items(vectors):
    method = method_of(click_head=True)
    method.heads.double()
    step = method.step(0)
    found = method.loss({"embedding": vectors[step.items]}, step)[1]["loss_click"]
    losses = []
    for targets, page, history in rows():
        for item in page:
            rebuilt = reconstruct(vectors[None, None, item], vectors[None, history], torch.ones(1, len(history), dtype=torch.bool))[0, 0]
            with torch.no_grad():
                probability = method.heads["click"](torch.cat([vectors[item], rebuilt])).sigmoid().item()
            losses.append(-math.log(probability if item in targets else 1 - probability))
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("settings", [{"loss": "hinge"}, {"attention": "multihead", "attention_heads": 2}, {"without": "contrast"},
                                      {"without": "reconstruction"}, {"projection_head": True}, {"click_head": True}])  # fmt: skip
def test_every_variant_has_a_gradient_for_each_picture(vectors, settings):
    leaf = vectors.clone().requires_grad_()
    loss_of(leaf, **settings)[0].backward()
    assert leaf.grad is not None
    assert (leaf.grad.abs().sum(1) > 0).all() or settings.get("without") == "contrast"


@pytest.mark.parametrize(("left", "said"), [(1, ["75 %"]), (2, ["50 %"]), (3, []), (4, [])])
def test_a_loss_within_pages_needs_pages_with_an_unclicked_item(left, said):
    """Of four page views, `left` keep one."""
    clicked = np.ones((4, 2), dtype=bool)
    clicked[:left, 1] = False
    views = PageViews(page=np.array([[0, 1]] * 4), clicked=clicked, history=np.array([[2]] * 4))
    assert [caution[:4] for caution in lonely_pages(views, mask_same_item=True)] == said


@pytest.mark.parametrize("mask", [False, True])
def test_an_item_does_not_compete_with_itself_within_a_page(vectors, mask):
    """The clicked item is on its page as a skip too: with the mask only the third item competes."""
    views = PageViews(
        page=np.array([[0, 0, 1], [2, 2, -1]]), clicked=np.array([[True, False, False], [True, False, False]]), history=np.array([[3], [4]])
    )
    own = CourierConfig(batch_size=2, pv_weight=0, ucs_weight=0, page_weight=1)
    method = Courier(views, PretrainConfig(courier=own, dim=4, mask_same_item=mask), seed=0)
    step = method.step(0)
    losses = []
    for target, others, history in ((0, [1] if mask else [0, 1], 3), (2, [] if mask else [2], 4)):
        logits = torch.stack([cosine(vectors[item], vectors[history]) / 0.05 for item in (target, *others)])
        losses += [logits.logsumexp(0) - logits[0]] if others else []
    assert method.loss({"embedding": vectors[step.items]}, step)[0].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-9)
    lonely = replace(views, page=views.page[1:], clicked=views.clicked[1:], history=views.history[1:])
    if mask:
        with pytest.raises(UserError, match=r"no page view keeps an unclicked item.*--pretrain.page-items.*--pretrain.pv-weight 1"):
            lonely_pages(lonely, mask_same_item=True)
    else:
        assert lonely_pages(lonely, mask_same_item=False) == []


@pytest.mark.parametrize("grouped", [False, True])
def test_symmetric_reaches_both_losses_across_pages_with_and_without_groups(vectors, grouped):
    group = np.arange(ITEMS) % 2 if grouped else None
    one_way, both = (loss_of(vectors, group, symmetric=symmetric)[1] for symmetric in (False, True))
    for name in ("loss_pv", "loss_ucs"):
        assert both[name] != one_way[name]


def test_symmetric_within_groups_is_the_same_without_the_cost_of_the_others(vectors):
    group, positive = torch.arange(ITEMS) % 3, torch.tensor([0, 3, 1, 0, 6])
    rebuilt = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"temperature": 0.1, "mask_same_item": True, "symmetric": True}
    within = contrast_within(vectors, torch.ones(ITEMS), rebuilt, positive, group, **options)
    assert within.item() == pytest.approx(
        contrast(vectors, torch.ones(ITEMS), rebuilt, positive, group_U=group, **options).item(), rel=1e-9
    )


def test_preset_small_contrasts_within_the_page_and_recipes_have_the_papers_loss():
    def weights(*words):
        found = parse(CompareConfig, list(words), prog="", description="", presets=COMPARE_PRESETS).pretrain.part(CourierConfig)
        return found.pv_weight, found.ucs_weight, found.page_weight, found.page_items, found.popularity

    assert weights() == (0, 0, 1, 10, True)
    assert weights("--preset", "paper") == weights("--preset", "tiny") == (1, 1, 0, 5, False)
    for recipe in ("paper-loss", "scratch", "letter"):
        assert weights("--recipe", f"recipes/{recipe}.toml") == (1, 1, 0, 5, False)
