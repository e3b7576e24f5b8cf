"""Log loss and calibration in closed form."""

import math

import numpy as np
import pytest

from metrics.calibration import ece, log_loss, pcoc

CLICK = np.array([1, 0, 0, 1])


def test_log_loss_of_a_constant_is_the_cross_entropy_with_it():
    assert log_loss(CLICK, np.full(4, 0.5)) == pytest.approx(math.log(2))
    assert log_loss(np.array([1]), np.array([0.0])) == pytest.approx(-math.log(1e-7))


def test_pcoc_is_predicted_clicks_over_clicks():
    assert pcoc(CLICK, np.full(4, 0.75)) == 1.5
    assert math.isnan(pcoc(np.zeros(3), np.full(3, 0.5)))


def test_ece_is_the_distance_of_the_mean_prediction_from_the_click_rate_in_each_bin():
    assert ece(CLICK, np.full(4, 0.7)) == pytest.approx(0.2)  # equal predictions share a bin
    assert ece(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.8, 0.8]), bins=2) == pytest.approx(0.15)
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    assert ece((rng.random(len(p)) < p).astype(int), p) < 0.01
