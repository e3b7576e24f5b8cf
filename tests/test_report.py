import copy
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from data.pictures.store import PictureStore
from eval.report import plots, report_data
from eval.report.caveats import caveats, notes
from eval.report.plots import ForestRow, Line, binned, forest, line_chart, number_text, ticks
from eval.report.report import AttentionExample, ClusterPictures, write_report
from eval.report.table import markdown_table, print_table
from eval.report.wording import ONE_SEED, SIMULATED, UNADJUSTED, answer, best_row, bounds, over_own_model, p_value, percentage_points
from eval.results import users_scored
from eval.rows import BOOSTED, OTHER_SEEDS

HOSTILE = "<script>alert('x')</script>\"&|[bold](http://evil.example)"
VOID = {"meta", "img", "br"}


def metric(*per_seed):
    return {"mean": float(np.mean(per_seed)), "per_seed": list(per_seed)}


def delta(mean, low, high, p=0.01):
    return {"mean": mean, "ci95": [low, high], "p_value": p}


def row(encoder, form, gauc, valid_gauc, *, selected=False):
    return {
        "encoder": encoder,
        "image_feature": form,
        "auc": metric(0.7031, 0.7041),
        "gauc": metric(*gauc),
        "delta_auc": delta(0.0021, -0.0004, 0.0046, p=0.0953),
        "delta_gauc": delta(np.mean(gauc) - 0.68, np.mean(gauc) - 0.683, np.mean(gauc) - 0.677, p=0.0004),
        "selected": selected,
        "valid_gauc": valid_gauc,
        "seconds": {"encoder": 12.34, "ctr": 5.6},
    }


RESULTS = {
    "data": "shop",
    "preset": "small",
    "seeds": [0, 1],
    "sessions_scored": 3912,
    "sessions_one_class": 1020,
    "baseline": {"auc": metric(0.7011, 0.7013), "gauc": metric(0.6799, 0.6801)},
    "rows": [
        row("courier", "cluster_id", (0.6881, 0.6885), 0.69, selected=True),
        row("courier", "vector", (0.6891, 0.6897), 0.68),  # better on test, but not selected on validation
        row("simclr", "sim_score", (0.6811, 0.6813), 0.685, selected=True),
        row("shuffled courier", "cluster_id", (0.6795, 0.6797), 0.70, selected=True),
        row("baseline (other seeds)", "none", (0.6802, 0.6804), 0.684),
    ],
    "pairs": [
        {"a": ["courier", "cluster_id"], "b": ["simclr", "sim_score"], "delta_gauc": delta(0.0071, 0.004, 0.0102)},
    ],
    "versions": {"numpy": "2.4.6"},
    "commit": "abc1234",
    "simulated": True,
    "oracle": {"auc": 0.7511, "gauc": 0.7200},
}
CURVES = {
    "encoder courier": [{"step": s, "pictures": 64 * s, "loss": 5 / s, "valid_gauc": 0.5 + s / 100} for s in (1, 2, 3)],
    "ctr baseline": [{"step": s, "loss": 0.4, "valid_log_loss": 0.3 + 0.1 / s} for s in (10, 20)],
    "ctr courier cluster_id": [{"step": s, "loss": 0.4, "valid_log_loss": 0.3} for s in (10, 20)],
    "ctr courier vector": [{"step": s, "loss": 0.4, "valid_log_loss": 0.29} for s in (10, 20)],
}


class Page(HTMLParser):
    """The text of a page and of its table rows; asserts that tags nest and that nothing external is loaded."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.rows, self.tags, self.curves = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert (value or "").startswith("data:image/png;base64,")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
            return
        if "polyline" in self.open:
            self.curves.append(data)
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " "

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(tmp_path):
    def render(results=RESULTS, *, curves=CURVES, **more):
        path = tmp_path / "report.html"
        write_report(path, results, curves=curves, **more)
        html = path.read_text()
        assert not re.search(r"https?://|url\(|@import", html.replace("http://evil.example", ""))
        return Page(html)

    return render


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


def trained(lowest=(0.1, 0.1), highest=(2.0, 2.0), std=(0.3, 0.3), best=(900, 0, 1200), body="frozen"):
    loss = {"lowest": list(lowest), "highest": list(highest)}
    curve = {"best_pictures": list(best), "valid_gauc": [0.6] * 3, "start_gauc": [0.6] * 3}
    return {"encoder": "simclr", "loss": loss, "std": list(std), "dim": 8, "body": body, "material": "2,604 page views", **curve}


CALIBRATION = {"pcoc": 1.0, "ece": 0.01}
SOUND = {"users_scored": 900, "split_is_ordered": True, "encoders": [trained()]}


@pytest.mark.parametrize("changed, expected", [
    ({"baseline": {"auc": metric(0.6), "gauc": metric(0.515)}}, "hardly ranks better than chance (AUC 0.6000, GAUC 0.5150"),
    ({"baseline": {"auc": metric(0.497), "gauc": metric(0.53)}}, "hardly ranks better than chance (AUC 0.4970"),
    ({"sessions_scored": 199}, "Only 199 sessions scored"),
    ({"users_scored": 49}, "Only 49 users scored"),
    ({"sessions_scored": 12, "users_scored": 3}, "Only 12 sessions of 3 users scored"),
    ({"preset": "tiny"}, "Preset tiny only shows that everything runs"),
    ({"split_is_ordered": False}, "goes back in time"),
    ({"encoders": [trained(lowest=[0.0, 0.1], highest=[0.0, 2.0])]}, "The training loss of simclr never moved (0 from"),
    ({"encoders": [trained(std=[0.3, 0.03])]}, "The embeddings of simclr have collapsed (spread 0.03, 0.35 if"),
    ({"encoders": [trained(best=[0, 0, 0])]}, "2,604 page views taught simclr nothing: by validation, the frozen features stand"),
    ({"encoders": [trained(best=[0, 9, 0], body="tuned")]}, "nothing in 2 of 3 trainings: by validation, the weights it began with stand"),
    ({"rows": [row("a", "b", (0.69, 0.69), 0.6) | {"clusters": {"wanted": 40, "found": [40, 19]}}]}, "19 clusters were found"),
    ({"rows": [row(*OTHER_SEEDS, (0.69, 0.69), 0.6)]}, "The A/A row is significant: the baseline with other seeds moves GAUC by +1.00"),
    ({"rows": [row(*BOOSTED, (0.69, 0.69), 0.6)]}, "over a weak baseline: without pictures, LightGBM ranks better by +1.00"),
    ({"rows": [row("shuffled a", "vector", (0.69, 0.69), 0.6)]}, "though its embeddings belong to other items"),
    ({"commit": "abc, def"}, "made by different code (commits abc, def)"),
    ({"versions": {"numpy": "2.3, 2.4", "torch": "2.14"}}, "made with different versions (numpy 2.3, 2.4)"),
])  # fmt: skip
def test_caveats_are_in_terminal_and_notes(changed, expected):
    assert caveats(RESULTS | SOUND) == []
    assert "Before believing it" not in printed(RESULTS | SOUND)
    (found,) = caveats(RESULTS | SOUND | changed)
    assert expected in found
    terminal = " ".join(printed(RESULTS | SOUND | changed).split())
    assert f"Before believing it: - {found}" in terminal
    assert found in notes(RESULTS | SOUND | changed)


def test_unreadable_pictures_and_an_own_model_below_chance_are_caveats():
    own = {"own_model": {"gauc": 0.48, "auc": 0.5, "delta_gauc": delta(-0.2, -0.21, -0.19), "log_loss": 0.4, "calibration": CALIBRATION}}
    assert "ranks below chance within sessions (GAUC 0.4800)" in " ".join(caveats(RESULTS | SOUND | own))
    (found,) = caveats(RESULTS | SOUND | {"pictures_unreadable": 2})
    assert found.startswith("2 pictures could not be read and count as missing; listed in bad_pictures.csv")


@pytest.mark.parametrize("high, ahead", [(-0.001, True), (0.001, False)])
def test_a_baseline_ahead_of_the_users_own_model_is_pointed_out(high, ahead):
    own = {"log_loss": 0.4, "calibration": CALIBRATION, "delta_gauc": delta(-0.01, -0.02, high)}
    assert ("The baseline is ahead of it" in over_own_model(RESULTS | {"own_model": own})) == ahead


def test_a_caveat_is_given_once_half_of_the_ctr_models_were_best_at_their_last_step():
    def results(*best):
        rows = [one | {"best_step": [best[1 + n]], "steps": [750]} for n, one in enumerate(RESULTS["rows"][: len(best) - 1])]
        return RESULTS | {"baseline": RESULTS["baseline"] | {"best_step": [best[0]], "steps": [750]}, "rows": rows}

    assert caveats(results(375, 375, 750)) == []
    (found,) = caveats(results(750, 375))
    assert found.startswith("1 of 2 CTR trainings were best at their last step")


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


def printed(results, width=120):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_table(results, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_terminal_table_has_every_row_within_120_columns():
    lines = printed(RESULTS).splitlines()
    assert max(map(len, lines)) <= 120
    line = next(line for line in lines if line.startswith("courier") and "cluster_id *" in line)
    cells = re.split(r"\s{2,}", line.strip())
    assert cells[2:] == ["0.7036", "+0.21 [−0.04, +0.46]", "0.6883", "+0.83 [+0.53, +1.13]", "<0.001"]
    for expected in RESULTS["rows"]:
        assert any(line.startswith(expected["encoder"]) and expected["image_feature"] in line for line in lines)
    assert any(SIMULATED[:60] in line for line in lines)


def test_a_name_that_cannot_be_encoded_is_printed_escaped():
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "file:wörter-\udcff-字.npy"
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")  # as in every command
    print_table(results, Console(file=out, width=120, force_terminal=False))
    out.flush()
    assert rb"file:w\xf6rter-\udcff" in raw.getvalue().replace(b"\n", b"")


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_loses_no_number(width):
    text = "".join(printed(RESULTS, width).split())
    assert "percentagepoints(pp)" in text
    assert max(map(len, printed(RESULTS, width).splitlines())) <= width


def test_a_name_that_is_not_valid_text_is_in_the_report(page):
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "file:\udcff.npy"
    assert "file:\\udcff.npy" in page(results).text


def test_the_terminal_table_reads_no_name_as_markup():
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["encoder"] = "[red]file:x[/red]"
    assert "[red]file:x[/red]" in printed(results)


def test_the_markdown_table_has_every_row_and_names_cannot_break_it():
    text = markdown_table(RESULTS)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3 + len(RESULTS["rows"])
    assert table[3] == (
        "| **courier** | **cluster_id** | **0.7036** | **+0.21 [−0.04, +0.46]** | **0.6883** | **+0.83 [+0.53, +1.13]** | **&lt;0.001** |"
    )
    assert answer(RESULTS).replace("<", "&lt;") in text
    results = copy.deepcopy(RESULTS)
    results["rows"][1]["encoder"] = HOSTILE
    line = markdown_table(results).splitlines()[6]
    assert len(re.findall(r"(?<!\\)\|", line)) == 8
    assert "<script" not in line
    assert "](" not in line


def test_the_markdown_table_says_what_speaks_against_it():
    negatives = {"per_positive": 3, "by": "popularity", "window_seconds": 86400, "missing": 0}
    results = RESULTS | {"origin": {"source": "movielens", "negatives": negatives}}
    text = markdown_table(results)
    assert text.count("\n- ") >= len(caveats(results)) > 0
    assert "- Negatives sampled: 3 per click" in text.partition("Before believing it:")[2]


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
