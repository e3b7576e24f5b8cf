"""CLIP's loss by closed forms and by a slow double sum; its method; COURIER with it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.log.shop_folder import load_shop
from pretrain.config import PretrainConfig
from pretrain.methods.clip import Clip, ClipConfig, clip_loss, clip_loss_of
from pretrain.methods.courier import Courier, CourierConfig
from pretrain.methods.method import Step
from pretrain.methods.table import make_method
from pretrain.page_views import PageViews
from pretrain.parts.text import Titles
from run.errors import UserError

TITLES = Titles(
    of_item=np.array([1, 2, 3, 2, 0, 1]),
    tokens=np.array([[0, 0], [3, 4], [5, 0], [4, 6]]),
    lengths=np.array([0, 2, 1, 2]),
    words=np.array([[False, False], [True, True], [True, False], [True, True]]),
    size=7,
    mask=2,
)
CLIP = ClipConfig(width=8, layers=1, heads=2, words=2)


def slow_clip(image, text, temperature, group, title):
    """Each picture searches for its title among its candidates, then each title for its picture."""
    x = [row / np.linalg.norm(row) for row in image]
    t = [row / np.linalg.norm(row) for row in text]
    total = 0.0
    for i in range(len(x)):
        rivals = [j for j in range(len(x)) if j == i or (group[j] == group[i] and title[j] != title[i])]
        own = math.exp(x[i] @ t[i] / temperature)
        total -= math.log(own / sum(math.exp(x[i] @ t[j] / temperature) for j in rivals)) / 2
        total -= math.log(own / sum(math.exp(x[j] @ t[i] / temperature) for j in rivals)) / 2
    return total / len(x)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([0.05, 0.1, 1.0]), groups=st.integers(1, 3), titles=st.integers(1, 8))
def test_the_loss_is_the_mean_of_both_directions(seed, temperature, groups, titles):
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, 7, 5))
    group, title = rng.integers(0, groups, 7), rng.integers(0, titles, 7)
    fast = clip_loss(
        torch.from_numpy(image), torch.from_numpy(text),
        temperature=temperature, group=torch.from_numpy(group), title=torch.from_numpy(title),
    )  # fmt: skip
    assert fast.item() == pytest.approx(slow_clip(image, text, temperature, group, title), rel=1e-9, abs=1e-12)


def test_without_groups_and_titles_all_other_pictures_are_negatives():
    image, text = np.random.default_rng(0).normal(size=(2, 6, 5))
    slow = slow_clip(image, text, 0.1, np.zeros(6), np.arange(6))
    assert clip_loss(torch.from_numpy(image), torch.from_numpy(text), temperature=0.1).item() == pytest.approx(slow, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    image, text = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    title = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda i, t: clip_loss(i, t, temperature=0.5, title=title), (image, text))


def test_collapsed_encoders_have_a_loss_of_log_batch_size():
    assert clip_loss(torch.ones(8, 4), torch.ones(8, 4), temperature=0.1).item() == pytest.approx(math.log(8), rel=1e-6)


def test_pairs_orthogonal_to_all_others_have_a_loss_in_closed_form():
    eye = torch.eye(5, dtype=torch.float64)
    assert clip_loss(eye, 3 * eye, temperature=0.5).item() == pytest.approx(math.log(1 + 4 * math.exp(-2)), rel=1e-10)


def test_equal_titles_are_not_negatives_of_each_other():
    collapsed = clip_loss(torch.ones(4, 3), torch.ones(4, 3), temperature=0.1, title=torch.tensor([7, 7, 1, 2]))
    assert collapsed.item() == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4, rel=1e-6)


def test_pictures_of_other_groups_do_not_compete():
    image, text = torch.randn(2, 6, 5, dtype=torch.float64)
    group = torch.tensor([0, 1, 0, 1, 1, 0])
    together = clip_loss(image, text, temperature=0.2, group=group)
    alone = [clip_loss(image[group == g], text[group == g], temperature=0.2) for g in (0, 1)]
    assert together.item() == pytest.approx(sum(alone).item() / 2, rel=1e-12)


@pytest.mark.parametrize(("pictures", "titles"), [((3, 2), (2, 2)), ((3, 2), (3, 4)), ((0, 2), (0, 2))])
def test_different_numbers_of_pictures_and_titles_are_refused(pictures, titles):
    with pytest.raises(ValueError, match="as many pictures as titles"):
        clip_loss(torch.ones(pictures), torch.ones(titles), temperature=0.1)


def test_a_step_holds_each_picture_once_with_its_title_and_group():
    items = np.array([0, 1, 2, 3, 5])
    method = Clip(items, TITLES, PretrainConfig(batch_pictures=5, clip=CLIP), 0, np.arange(6) % 2)
    step = method.step(3)
    assert sorted(step.items) == items.tolist()
    assert (step.places["title"] == TITLES.of_item[step.items]).all()
    assert (step.places["group"] == step.items % 2).all()


def test_the_methods_loss_is_clips_on_the_backbones_embedding():
    method = Clip(np.array([0, 1, 2, 3, 5]), TITLES, PretrainConfig(batch_pictures=5, dim=4, clip=CLIP), 0)
    step = method.step(0)
    embedding = torch.randn(5, 4)
    outputs = method.encode(lambda pictures: embedding, torch.zeros(5, 3, 8, 8), step)
    assert outputs["embedding"] is embedding
    title = TITLES.of_item[step.items]
    slow = slow_clip(embedding.numpy(), outputs["text"].detach().numpy(), 0.1, np.zeros(5), title)
    assert method.loss(outputs, step)[0].item() == pytest.approx(slow, rel=1e-5)


def test_pictures_without_a_title_are_left_out():
    embedding, text = torch.randn(2, 4, 3)
    step = Step(number=0, items=np.arange(4), view=np.zeros(4), places={"title": np.array([1, 0, 2, 0]), "group": np.zeros(4)})
    found = clip_loss_of({"embedding": embedding, "text": text}, step, temperature=0.1)
    assert found.item() == clip_loss(embedding[[0, 2]], text[[0, 2]], temperature=0.1).item()
    none = Step(number=0, items=np.arange(4), view=np.zeros(4), places={"title": np.zeros(4, dtype=int)})
    assert clip_loss_of({"embedding": embedding, "text": text}, none, temperature=0.1).item() == 0


def test_titles_that_are_alike_wherever_they_compete_are_refused(shop_folder):
    shop = load_shop(shop_folder)  # "dress number 3": numbers are too rare to be words
    with_picture = shop.items["image"].is_not_null().to_numpy()
    config = PretrainConfig(clip=CLIP)
    with pytest.raises(UserError, match=r"clip: all titles are the same within each category \(--pretrain.negatives batch"):
        make_method("clip", shop, with_picture, config, 0)
    assert isinstance(make_method("clip", shop, with_picture, replace(config, negatives="batch"), 0), Clip)


def test_courier_with_clip_adds_both_losses():
    views = PageViews(page=np.array([[0, 1], [2, 4]]), clicked=np.array([[True, False], [True, True]]), history=np.array([[3, 5], [0, -1]]))
    own = CourierConfig(batch_size=2, with_clip=True)
    config = PretrainConfig(dim=4, courier=own, clip=CLIP)
    method, plain = Courier(views, config, 0, titles=TITLES), Courier(views, config, 0)
    step = method.step(0)
    embedding = torch.randn(len(step.items), 4)
    outputs = method.encode(lambda pictures: embedding, torch.zeros(len(step.items), 3, 8, 8), step)
    total, parts = method.loss(outputs, step)
    titled = TITLES.of_item[step.items] > 0
    assert (~titled).sum() == 1  # item 4 has no title
    clip = clip_loss(
        embedding[titled], outputs["text"][titled], temperature=0.1, title=torch.from_numpy(TITLES.of_item[step.items][titled])
    )
    assert parts["loss_clip"].item() == pytest.approx(clip.item(), rel=1e-6)
    assert total.item() == pytest.approx(plain.loss({"embedding": embedding}, plain.step(0))[0].item() + clip.item(), rel=1e-6)
