"""The sentences that page, terminal and Markdown share: the answer, its hedges, who was scored, differences in percentage points."""

import copy

import numpy as np
import pytest

from eval.report.table import markdown_table
from eval.report.wording import ONE_SEED, UNADJUSTED, answer, best_row, over_own_model, p_value, percentage_points
from eval.results import users_scored
from tests.reports import CALIBRATION, RESULTS, SOUND, delta, page_in, printed


@pytest.fixture
def page(tmp_path):
    return page_in(tmp_path)


def test_test_data_chooses_nothing_and_no_control_wins():
    assert best_row(RESULTS) is RESULTS["rows"][0]


@pytest.mark.parametrize("low, high, expected", [
    (0.001, 0.003, "courier as cluster_id lifts GAUC"),
    (-0.003, -0.001, "courier as cluster_id lowers GAUC"),
    (-0.001, 0.003, "No lift shown: courier as cluster_id moves GAUC"),
])  # fmt: skip
def test_the_answer_follows_the_interval(low, high, expected):
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["delta_gauc"] = delta((low + high) / 2, low, high)
    assert answer(results).startswith(expected)


def test_one_training_is_hedged_in_the_headline_and_directly_under_it(page):
    one = RESULTS | {"seeds": [0]}
    headline = "In this one training courier as cluster_id lifts GAUC by +0.83 percentage points [+0.53, +1.13] (p < 0.001)."
    assert answer(one) == headline
    assert f"{headline} {ONE_SEED} 1 seed;" in page(one).text
    assert f"{headline} {ONE_SEED} courier as cluster_id minus" in " ".join(printed(one).split())
    assert markdown_table(one).startswith(f"{headline} {ONE_SEED}\n".replace("<", "&lt;"))
    undecided = copy.deepcopy(one)
    undecided["rows"][0]["delta_gauc"] = delta(0.001, -0.001, 0.003)
    assert answer(undecided).startswith("No lift shown in this one training: courier")
    for words in (page().text, printed(RESULTS), answer(RESULTS)):
        assert "this one training" not in words
        assert "One seed" not in words
    alone = one | {"rows": [], "pairs": []}
    assert ONE_SEED not in page(alone).text  # no lift to hedge


def test_terminal_and_report_say_that_p_values_are_not_adjusted(page):
    assert page().text.count(UNADJUSTED) == 1
    assert " ".join(printed(RESULTS).split()).count(UNADJUSTED) == 1


@pytest.mark.parametrize("high, ahead", [(-0.001, True), (0.001, False)])
def test_a_baseline_ahead_of_the_users_own_model_is_pointed_out(high, ahead):
    own = {"log_loss": 0.4, "calibration": CALIBRATION, "delta_gauc": delta(-0.01, -0.02, high)}
    assert ("The baseline is ahead of it" in over_own_model(RESULTS | {"own_model": own})) == ahead


def test_users_scored_are_those_of_a_session_with_both_classes(page):
    click, user, session = np.array([[1, 0, 1, 1, 0, 0, 1, 0], [7, 7, 8, 8, 8, 9, 7, 7], [4, 4, 1, 1, 2, 3, 5, 5]])
    assert users_scored(click, user, session) == 1
    click[3] = 0
    assert users_scored(click, user, session) == 2
    assert "one-class 1,020 left out; users scored 900" in page(RESULTS | SOUND).text
    assert "left out; users scored 900" in " ".join(printed(RESULTS | SOUND).split())


def test_differences_are_in_percentage_points_with_a_sign():
    written = [percentage_points(x) for x in (0.00824, -0.0003, -0.00001, 0.0, float("nan"), None)]
    assert written == ["+0.82", "−0.03", "+0.00", "+0.00", "n/a", "n/a"]
    assert [p_value(p) for p in (0.0005, 0.0123, 1.0, None)] == ["<0.001", "0.012", "1.000", "n/a"]
