"""NT-Xent in closed form and as the paper's double sum; SimCLR's views."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config import PretrainConfig
from pretrain.methods.simclr import SimClr, nt_xent
from pretrain.views import cropped, distorted, resized, to_float


def slow_nt_xent(first, second, temperature):
    """Chen et al. 2020, algorithm 1."""
    z = [v / np.linalg.norm(v) for pair in zip(first, second, strict=True) for v in pair]
    total = 0.0
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        below = sum(math.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i)
        total += -math.log(math.exp(z[i] @ z[j] / temperature) / below)
    return total / len(z)


def test_nt_xent_is_the_papers_double_sum():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    fast = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature=0.2)
    assert fast.item() == pytest.approx(slow_nt_xent(first, second, 0.2), rel=1e-10)


def test_pictures_of_other_groups_do_not_compete():
    first, second = torch.randn(2, 6, 5, dtype=torch.float64)
    group = torch.tensor([0, 1, 0, 1, 1, 0])
    together = nt_xent(first, second, temperature=0.2, group=group)
    alone = [nt_xent(first[group == g], second[group == g], temperature=0.2) for g in (0, 1)]
    assert together.item() == pytest.approx(sum(alone).item() / 2, rel=1e-12)
    assert nt_xent(first, second, temperature=0.2, group=torch.zeros(6)).item() == nt_xent(first, second, temperature=0.2).item()


def test_a_collapsed_encoder_has_a_loss_of_log_other_views():
    ones = torch.ones(8, 4)
    assert nt_xent(ones, ones, temperature=0.2).item() == pytest.approx(math.log(2 * 8 - 1), rel=1e-6)


def test_views_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        nt_xent(torch.ones(3, 2), torch.ones(2, 2), temperature=0.1)


def test_the_two_views_of_a_step_are_the_same_pictures_in_the_same_order():
    method = SimClr(np.arange(10, 30), PretrainConfig(batch_pictures=8), seed=0)
    step = method.step(5)
    assert (step.items[:8] == step.items[8:]).all()
    assert (step.view == np.repeat([0, 1], 8)).all()


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 36, 36, 3), dtype=np.uint8))


def test_views_depend_on_their_keys_alone_not_on_the_batch(pixels):
    keys = np.arange(6)
    together = distorted(cropped(pixels, 24, (0, keys), smallest=0.2), (0, keys), strength=1.0, blur=True)
    alone = distorted(cropped(pixels[3:4], 24, (0, keys[3:4]), smallest=0.2), (0, keys[3:4]), strength=1.0, blur=True)
    torch.testing.assert_close(together[3:4], alone)


def test_a_crop_of_everything_is_the_picture(pixels):
    same = cropped(pixels, 36, (0, np.arange(6)), smallest=1.0)
    torch.testing.assert_close(same, to_float(pixels).contiguous(), atol=1e-5, rtol=0)


def test_with_strength_0_only_grey_changes_the_picture(pixels):
    keys = (0, np.arange(6))
    plain = to_float(pixels).contiguous()
    out = distorted(plain, keys, strength=0.0, blur=False)
    grey = (out - out.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-3
    torch.testing.assert_close(out[~grey], plain[~grey], atol=2e-3, rtol=0)


def test_an_uncropped_view_of_a_flat_picture_is_its_colour():
    flat = torch.full((1, 48, 48, 3), 128, dtype=torch.uint8)
    torch.testing.assert_close(resized(flat, 32), torch.full((1, 3, 32, 32), 128 / 255))


@given(stored=st.integers(48, 220), size=st.integers(32, 128), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_an_uncropped_view_is_the_picture_resized_within_one_level(stored, size, seed):
    picture = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, stored, stored, 3), dtype=np.uint8))
    exact = F.interpolate(to_float(picture), size=(size, size), mode="bilinear", antialias=True)
    found = resized(picture, size)
    torch.testing.assert_close(found, exact, atol=1.01 / 255, rtol=0)
    assert abs(float((found - exact).mean())) < 0.05 / 255  # no level is lost on the way
