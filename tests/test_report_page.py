"""The HTML page: the answer first, every number of the results, nothing loaded from elsewhere, names escaped."""

import copy
import re
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from data.pictures.store import PictureStore
from eval.report import report_data
from eval.report.report import AttentionExample, ClusterPictures
from eval.report.wording import SIMULATED, bounds, percentage_points
from tests.reports import CURVES, HOSTILE, RESULTS, page_in


@pytest.fixture
def page(tmp_path):
    return page_in(tmp_path)


def pictures(*shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def test_the_page_begins_with_the_purpose_the_answer_and_its_evidence(page):
    text = page().text
    assert "Do pictures lift the CTR model on shop? Encoders: courier, simclr." in text
    assert "Fed as: cluster_id, vector, sim_score." in text
    assert "courier as cluster_id lifts GAUC by +0.83 percentage points [+0.53, +1.13] (p < 0.001)." in text
    assert "2 seeds; test sessions scored 3,912, one-class 1,020 left out" in text


def test_every_row_shows_the_numbers_of_the_results(page):
    rows = {tuple(cells[:2]): cells[2:] for cells in page().rows if len(cells) == 8}
    assert len(rows) == 2 + len(RESULTS["rows"])  # plus the heading and the baseline
    assert rows["baseline ", "none "][0] == "0.7012 0.7011 0.7013 "
    for expected in RESULTS["rows"]:
        form = expected["image_feature"]
        chosen = expected["selected"] and not expected["encoder"].startswith("shuffled")
        auc, delta_auc, gauc, delta_gauc, p, valid = rows[f"{expected['encoder']} ", f"{form} " + "selected " * chosen]
        low, high = expected["delta_gauc"]["ci95"]
        assert auc == "0.7036 0.7031 0.7041 "
        assert delta_auc == "+0.21 [−0.04, +0.46] "
        assert [float(x) for x in gauc.split()] == pytest.approx([expected["gauc"]["mean"], *expected["gauc"]["per_seed"]], abs=5e-5)
        numbers = [float(x.strip("[],")) for x in delta_gauc.replace("−", "-").split()]
        assert numbers == pytest.approx([100 * expected["delta_gauc"]["mean"], 100 * low, 100 * high], abs=5e-3)
        assert (p, float(valid)) == ("<0.001 ", expected["valid_gauc"])


def test_bold_means_selected_as_in_the_terminal_and_the_page_says_so(page, tmp_path):
    assert "Bold: selected, the form of its encoder with the highest GAUC in validation sessions." in page().text
    assert page().text.count("percentage points (pp)") == 1
    html = (tmp_path / "report.html").read_text()
    bold = re.findall(r"([^{}]+) \{[^}]*font-weight: (?!400)\d+", html.split("</style>")[0])
    assert [rule.strip() for rule in bold if rule.strip().startswith(("td", "tr", ".forest", ".gain"))] == ["tr.selected td"]
    selected = re.findall(r'<tr class="selected"><td>(.*?)</td><td>(\w+)<', html)
    assert selected == [("courier", "cluster_id"), ("simclr", "sim_score")]


def test_forests_and_pairs_show_every_difference(page):
    text = page().text
    for expected in RESULTS["rows"]:
        lift = f"{percentage_points(expected['delta_gauc']['mean'])} {bounds(expected['delta_gauc'])}"
        assert text.count(lift) >= 2  # table and forest
    assert "courier as cluster_id minus simclr as sim_score +0.71 [+0.40, +1.02]" in text


def test_simulated_clicks_are_called_so_and_real_ones_are_not(page):
    assert SIMULATED in page().text
    assert "simulated" not in page(RESULTS | {"simulated": False, "oracle": None}).text


def test_the_ceiling_is_shown_with_the_share_that_the_best_row_reaches(page):
    assert "+4.00 percentage points of GAUC above the baseline. courier as cluster_id gains 21 % of that." in page().text
    for nothing_left in (0.6804, float("nan")):
        assert "% of that" not in page(RESULTS | {"oracle": {"auc": 0.7511, "gauc": nothing_left}}).text


def test_pictures_are_embedded_and_at_most_twelve_per_cluster(page):
    clusters = [ClusterPictures(cluster=7, size=1234, pictures=pictures(20, 130, 100, 3))]
    weights = np.array([0.2, 0.7, 0.1])
    example = AttentionExample(target=pictures(8, 8, 3), history=pictures(3, 8, 8, 3), weights=weights)
    shown = page(clusters=clusters, attention=[example])
    assert shown.tags.count("img") == 12 + 1 + 3
    assert "Cluster 7: 1,234 items" in shown.text
    assert "20 % 70 % 10 %" in shown.text


def test_where_no_clusters_are_shown_a_sentence_says_why(page):
    assert "What a cluster holds No clusters are shown: <b>" in page(no_clusters="No clusters are shown: <b>").text
    assert "What a cluster holds" not in page().text


def test_clusters_of_fewer_than_three_pictures_are_not_worth_showing():
    present = np.arange(14) < 12  # the last two items have no picture
    store = cast(PictureStore, SimpleNamespace(present=present))
    half_small = np.array([0] * 4 + [1] * 4 + [2] * 2 + [3] * 2 + [2] * 2)
    assert report_data.too_small(store, half_small, 4) == ""
    assert "3 of 5 hold fewer than 3 pictures" in report_data.too_small(store, half_small, 5)  # the fifth is empty


def test_curves_are_drawn_for_encoders_the_baseline_and_selected_forms(page):
    assert page().curves == ["courier", "courier", "baseline", "courier cluster_id"]
    everything = copy.deepcopy(RESULTS)
    for each in everything["rows"]:
        each["selected"] = False
    assert page(everything).curves[2:] == ["baseline", "courier cluster_id", "courier vector"]


def test_names_and_notes_are_escaped(page):
    results = copy.deepcopy(RESULTS)
    results |= {"data": HOSTILE, "preset": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    results["rows"][0] |= {"encoder": HOSTILE, "image_feature": HOSTILE, "seconds": {HOSTILE: 1.0}}
    results["pairs"][0]["a"] = [HOSTILE, HOSTILE]
    curves = {f"encoder {HOSTILE}": CURVES["encoder courier"], f"ctr {HOSTILE}": CURVES["ctr baseline"]}
    results["encoders"] = [{"encoder": HOSTILE, "loss": {"lowest": [0.0], "highest": [0.0]}, "std": [0.3], "dim": 8}]
    shown = page(results, curves=curves, no_clusters=HOSTILE)
    assert "script" not in shown.tags
    assert shown.text.count(HOSTILE) >= 10
    assert f"The training loss of {HOSTILE} never moved" in shown.text


def test_every_optional_part_may_be_missing(page):
    bare = {name: RESULTS[name] for name in ("data", "seeds", "sessions_scored", "sessions_one_class", "baseline")}
    shown = page(bare | {"rows": []}, curves={})
    assert "The baseline alone: AUC 0.7012, GAUC 0.6800." in shown.text
    assert not {"img", "svg"} & set(shown.tags)
    plain = {"encoder": "a", "image_feature": "vector", "auc": {"mean": 0.7}, "gauc": {"mean": 0.7}}
    plain |= {"delta_auc": {"mean": float("nan"), "ci95": [None, None]}, "delta_gauc": {"mean": None}}
    assert "No lift shown: a as vector moves GAUC by n/a percentage points [n/a] (p = n/a)" in page(bare | {"rows": [plain]}).text


def test_a_name_that_is_not_valid_text_is_in_the_report(page):
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "file:\udcff.npy"
    assert "file:\\udcff.npy" in page(results).text
