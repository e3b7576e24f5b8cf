"""Plots of the page: round ticks, intervals at their places, curves of any length."""

import numpy as np
import pytest

from eval.report import plots
from eval.report.plots import ForestRow, Line, binned, forest, line_chart, number_text, ticks


@pytest.mark.parametrize("low, high, expected", [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (-0.3, 0.8, [-0.2, 0, 0.2, 0.4, 0.6, 0.8]),
    (61, 149, [80, 100, 120, 140]),
    (5, 5, [5]),
])  # fmt: skip
def test_ticks_are_round_numbers_within_the_range(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_tick_labels_are_short():
    assert [number_text(x) for x in (1.2e6, 20_000, 0.15, -0.4, 0.0)] == ["1.2M", "20k", "0.15", "−0.4", "0"]


def test_a_forest_puts_each_interval_at_its_place():
    axis = forest([ForestRow(label="a", mean=1.0, low=0.0, high=2.0, text="t")])
    (drawn,) = axis["rows"]
    at = {name: float(place.strip("%")) for name, place in (("zero", axis["zero"]), ("mark", drawn["mark"]), *drawn["bar"].items())}
    assert at["zero"] == at["left"] == pytest.approx(100 * 0.1 / 2.2, abs=0.01)
    assert at["mark"] == pytest.approx(50)
    assert at["width"] == pytest.approx(100 * 2 / 2.2, abs=0.01)


def test_a_forest_leaves_out_what_is_not_finite():
    nan = float("nan")
    (drawn,) = forest([ForestRow(label="a", mean=nan, low=nan, high=nan, text="n/a")])["rows"]
    assert (drawn["bar"], drawn["mark"], drawn["text"]) == (None, None, "n/a")


def test_a_long_line_keeps_its_mean_and_drops_what_is_not_finite():
    y = np.arange(1001.0)
    y[0] = np.nan
    short = binned(Line(name="loss", x=np.arange(1001), y=y, colour="red"))
    assert len(short.y) == plots._MOST_POINTS
    assert short.y.mean() == pytest.approx(np.nanmean(y), rel=0.01)
    assert line_chart([Line(name="n", x=np.arange(2), y=np.full(2, np.nan), colour="red")], x_label="", heading="") is None


def test_a_flat_line_and_a_single_point_are_drawn():
    flat = Line(name="flat", x=np.arange(3), y=np.zeros(3), colour="red")
    point = Line(name="point", x=np.array([4]), y=np.array([0.5]), colour="red")
    drawn = [line_chart([line], x_label="step", heading=line.name) for line in (flat, point)]
    assert all(chart and "nan" not in str(chart) for chart in drawn)
    assert [bool(chart and chart["lines"][0]["dot"]) for chart in drawn] == [False, True]
