"""Comparisons made in parts merge to the results of one."""

import json

import numpy as np
import polars as pl
import pytest

from eval.compare import main as compare
from eval.merge import alone_entries, merge, pairs_of, read_users, select_forms, users_file, write_users
from eval.report.caveats import notes
from eval.report.published import TABLE_5, has_published
from eval.report.wording import pairs_shown
from eval.rows import ALONE, BESIDE, POPULARITY
from metrics.intervals import GaucSums, Resamples, difference, gauc_draws, gauc_sums, resampled
from run.errors import DataError, UserError
from run.files import write_json
from tests.reports import RESULTS as REPORTED
from tests.reports import row as report_row

ROWS = [("courier", "sim_score"), ("simclr", "sim_score"), ("simclr", "cluster_id"), ("shuffled courier", "sim_score")]
SEEDS = [0, 1]


@pytest.fixture(scope="module")
def complete():
    """A comparison of four rows: (results, sums, click, predictions, session, user)."""
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(120), 5)
    user = session // 4
    click = (rng.random(600) < 0.3).astype(int)
    predictions = {row: rng.normal(size=(2, 600)) + 0.3 * place * click for place, row in enumerate(ROWS)}
    resamples = Resamples(user)
    sums = {row: gauc_sums(click, predictions[row], session, resamples) for row in ROWS}
    valid = {row: 0.5 + 0.01 * place for place, row in enumerate(ROWS)}
    selected = select_forms(valid, ROWS[:3])
    results = {
        "data": "shop", "preset": "small", "seeds": SEEDS, "shop": "abc", "gauc_weight": "session", "gauc_key": "session",
        "sessions_scored": 100, "sessions_one_class": 20, "users": 30, "commit": "c1", "seconds": {"this_call": 2.0},
        "baseline": {"auc": {"per_seed": [0.6, 0.61]}, "gauc": {"per_seed": [0.55, 0.56]}},
        "rows": [
            {"encoder": row[0], "image_feature": row[1], "valid_gauc": valid[row], "selected": row in selected.values(),
             "gauc": {"per_seed": sums[row].point.tolist()}}
            for row in ROWS
        ],
        "pairs": pairs_of(selected, {row: resampled(sums[row], resamples) for row in selected.values()}),
    }  # fmt: skip
    without = {(name, how): rng.normal(size=(2, 600)) + click for name in ("courier", "simclr") for how in (ALONE, BESIDE)}
    without = {POPULARITY: rng.normal(size=(2, 600)) + 0.5 * click} | without
    alone = {row: gauc_sums(click, scores, session, resamples) for row, scores in without.items()}
    results |= alone_entries({row: resampled(of_row, resamples) for row, of_row in alone.items()})
    sums |= alone
    return results, sums, click, predictions, session, user


def write_part(path, results, sums, rows):
    kept = [row for row in results["rows"] if (row["encoder"], row["image_feature"]) in rows]
    alone = [each for each in results["alone"] if each["encoder"] in {row[0] for row in rows}]
    write_json(path, {**results, "rows": kept, "pairs": [], "alone": alone, "alone_pairs": []})
    without = [POPULARITY, *((each["encoder"], how) for each in alone for how in (ALONE, BESIDE))]
    write_users(users_file(path), {row: sums[row] for row in [*rows, *without]}, SEEDS)
    return path


def test_parts_by_encoder_merge_to_the_results_of_one_comparison(complete, tmp_path):
    results, sums = complete[:2]
    files = [
        write_part(tmp_path / "a/results.json", results, sums, [ROWS[3], ROWS[0]]),
        write_part(tmp_path / "simclr.json", results, sums, [ROWS[1], ROWS[2]]),
    ]
    merged = merge(files)
    assert merged["rows"] == results["rows"]
    assert merged["pairs"] == results["pairs"]
    assert merged["popularity"] == results["popularity"]
    assert merged["alone"] == results["alone"]
    assert merged["alone_pairs"] == results["alone_pairs"] != []
    assert merged["seconds"] == {"this_call": 4.0}
    assert (tmp_path / "simclr.users.parquet").exists()


def test_a_part_without_similarities_leaves_them_out_of_the_merged_comparison(complete, tmp_path):
    results, sums = complete[:2]
    old = {key: value for key, value in results.items() if not key.startswith(("alone", "popularity"))}
    files = [write_part(tmp_path / "a.json", results, sums, [ROWS[0]]), tmp_path / "b.json"]
    write_json(files[1], {**old, "rows": results["rows"][1:3], "pairs": []})
    write_users(users_file(files[1]), {row: sums[row] for row in ROWS[1:3]}, SEEDS)
    merged = merge(files)
    assert len(merged["rows"]) == 3
    assert not {"popularity", "alone", "alone_pairs"} & set(merged)


def test_a_form_in_a_later_part_can_be_selected(complete, tmp_path):
    results, sums = complete[:2]
    files = [write_part(tmp_path / f"{n}.json", results, sums, [row]) for n, row in enumerate([ROWS[1], ROWS[2], ROWS[0]])]
    merged = merge(files)
    assert [row["selected"] for row in merged["rows"]] == [False, True, True]
    assert [(pair["a"], pair["b"]) for pair in merged["pairs"]] == [(list(ROWS[2]), list(ROWS[0]))]


def test_sums_on_disk_give_the_same_interval_as_the_predictions(complete, tmp_path):
    _, sums, click, predictions, session, user = complete
    write_users(tmp_path / "users.parquet", sums, SEEDS)
    read = read_users(tmp_path / "users.parquet", ROWS, SEEDS)
    resamples = Resamples(user)
    expected = difference(*(gauc_draws(click, predictions[row], session, resamples) for row in ROWS[:2]))
    again = Resamples(np.arange(30))
    pairs = pairs_of({"a": ROWS[0], "b": ROWS[1]}, {row: resampled(read[row], again) for row in ROWS})
    assert pairs[0]["delta_gauc"]["ci95"] == [expected.low, expected.high]


def test_parts_made_on_copies_of_the_data_merge(complete, tmp_path):
    results, sums = complete[:2]
    first = write_part(tmp_path / "first.json", {**results, "data": "/here/shop"}, sums, ROWS[:1])
    other = write_part(tmp_path / "other.json", {**results, "data": "/there/copy"}, sums, ROWS[1:2])
    assert merge([first, other])["data"] == "/here/shop"


def test_differences_between_parts_are_listed_and_noted(complete, tmp_path):
    results, sums = complete[:2]
    own = {"encoder": "courier", "loss": {"lowest": [0, 0], "highest": [0, 0]}, "std": [0.3, 0.3], "dim": 8}
    parts = [
        {**results, "commit": "c1", "versions": {"numpy": "1", "torch": "2"}, "encoders": [own], "pictures_unreadable": 0},
        {**results, "commit": "c2", "versions": {"numpy": "1", "torch": "3"}, "encoders": [own | {"encoder": "simclr"}],
         "pictures_unreadable": 4},
        {**results, "commit": "c2"},
    ]  # fmt: skip
    merged = merge([write_part(tmp_path / f"{n}.json", part, sums, [ROWS[n]]) for n, part in enumerate(parts)])
    assert (merged["commit"], merged["versions"]) == ("c1, c2", {"numpy": "1", "torch": "2, 3"})
    assert [each["encoder"] for each in merged["encoders"]] == ["courier", "simclr"]
    assert merged["pictures_unreadable"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shop": "other"}, "'shop' is 'other', and 'abc'"),
        ({"seeds": [0, 2]}, "'seeds' is"),
        ({"start": "warm"}, "had a warm start, those of .* a cold one"),
        ({"settings": {"ctr.adapter": "mlp"}}, "its --ctr.adapter is mlp, that of .* the preset's; merge parts with equal settings"),
        ({"settings": {}}, "its --ctr.retrieve is the preset's, that of .* 50"),
        ({"baseline": {"auc": {"per_seed": [0.6, 0.61]}, "gauc": {"per_seed": [0.55, 0.57]}}}, "its baseline is not that of"),
    ],
)
def test_parts_of_another_comparison_are_refused_by_name(complete, tmp_path, change, message):
    results, sums = complete[:2]
    settings = {"settings": {"ctr.retrieve": 50} if change == {"settings": {}} else {}}
    first = write_part(tmp_path / "first.json", results | settings, sums, ROWS[:1])
    other = write_part(tmp_path / "other.json", results | change, sums, ROWS[1:2])
    with pytest.raises(UserError, match=message) as error:
        merge([first, other])
    assert "other.json" in str(error.value)


def test_the_merged_files_are_complete_before_anything_is_printed_and_have_the_notes_of_a_report(tmp_path, monkeypatch, capsys):
    rows = [
        report_row("courier", "vector", (0.69, 0.69), 0.7, selected=True),
        report_row("simclr", "vector", (0.69, 0.69), 0.6, selected=True),
    ]
    shared = {"shop": "abc", "gauc_weight": "session", "gauc_key": "session", "users": 2, "seconds": {"this_call": 1.0}}
    sums = {(row["encoder"], "vector"): GaucSums(won=np.full((2, 2), 0.69), weight=np.ones(2)) for row in rows}
    for n, row in enumerate(rows):
        write_json(tmp_path / f"{n}.json", {**REPORTED, **shared, "rows": [row], "pairs": [], "commit": f"c{n}", "pictures_unreadable": n})
        write_users(users_file(tmp_path / f"{n}.json"), {(row["encoder"], "vector"): sums[row["encoder"], "vector"]}, SEEDS)

    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr("eval.report.table.print_table", closed)
    compare(["--from", f"{tmp_path}/0.json,{tmp_path}/1.json", "--out", str(tmp_path / "merged")])
    merged = json.loads((tmp_path / "merged/merged.json").read_text())
    page = (tmp_path / "merged/merged.html").read_text()
    assert [row["encoder"] for row in merged["rows"]] == ["courier", "simclr"]
    assert page.rstrip().endswith("</html>")
    for note in notes(merged):
        assert note in page
    assert "1 picture could not be read and counts as missing" in page
    assert "made by different code (commits c0, c1)" in page


def test_a_row_with_two_results_is_refused(complete, tmp_path):
    results, sums = complete[:2]
    first = write_part(tmp_path / "first.json", results, sums, ROWS[:1])
    changed = json.loads(json.dumps(results))
    changed["rows"][0]["gauc"]["per_seed"][0] += 0.01
    with pytest.raises(UserError, match="courier as sim_score has another result"):
        merge([first, write_part(tmp_path / "second.json", changed, sums, ROWS[:1])])


def test_a_row_with_one_result_in_two_parts_counts_once(complete, tmp_path):
    results, sums = complete[:2]
    files = [write_part(tmp_path / "first.json", results, sums, ROWS[:2]), write_part(tmp_path / "second.json", results, sums, ROWS[1:])]
    assert merge(files)["rows"] == results["rows"]


def test_a_part_given_twice_is_refused(complete, tmp_path, monkeypatch, capsys):
    results, sums = complete[:2]
    first = write_part(tmp_path / "first.json", results, sums, ROWS[:1])
    (tmp_path / "link.json").symlink_to(first)
    with pytest.raises(UserError, match=r"link\.json: is given twice, also as .*first\.json; name each part once"):
        merge([first, tmp_path / "link.json"])
    monkeypatch.chdir(tmp_path)
    assert compare(["--from", "first.json, first.json", "--out", "merged"]) == 2
    assert capsys.readouterr().err == "error: first.json: is given twice; name each part once\n"
    assert not (tmp_path / "merged/merged.json").exists()
    assert compare(["--from", " ,", "--out", "merged"]) == 2
    assert "give at least one results.json" in capsys.readouterr().err


def test_files_that_are_not_results_are_refused(complete, tmp_path):
    results, sums = complete[:2]
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(UserError, match="holds no 'data'"):
        merge([tmp_path / "x.json"])
    path = write_part(tmp_path / "y.json", results, sums, ROWS[:1])
    pl.DataFrame({"weight": [1.0]}).write_parquet(users_file(path))
    with pytest.raises(DataError, match=r"y.users.parquet: column 'courier\|sim_score\|0'"):
        merge([path])
    users_file(path).unlink()
    with pytest.raises(UserError, match=r"y.users.parquet: no such file"):
        merge([path])


def pair(a, b, mean, low, high):
    return {"a": [a, "vector"], "b": [b, "vector"], "delta_gauc": {"mean": mean, "ci95": [low, high], "p_value": 0.1}}


def test_of_many_pairs_only_those_of_the_best_row_are_shown_from_its_side():
    names = ["a", "b", "c", "d"]
    rows = [{"encoder": n, "image_feature": "vector", "selected": True, "valid_gauc": 0.6 + 0.1 * (n == "c")} for n in names]
    pairs = [pair(a, b, 0.01, -0.01, 0.03) for i, a in enumerate(names) for b in names[i + 1 :]]
    shown = pairs_shown({"rows": rows, "pairs": pairs})
    assert [(p["a"][0], p["b"][0]) for p in shown] == [("c", "d"), ("c", "a"), ("c", "b")]
    assert shown[0]["delta_gauc"]["ci95"] == [-0.01, 0.03]
    assert shown[1]["delta_gauc"] == {"mean": -0.01, "ci95": [-0.03, 0.01], "p_value": 0.1}


def test_with_three_of_its_encoders_or_more_the_papers_numbers_have_a_column():
    assert not has_published({"rows": [{"encoder": name} for name in ("courier", "simclr", "random")]})
    assert has_published({"rows": [{"encoder": name} for name in ("courier", "simclr", "clip")]})
    assert max(TABLE_5, key=lambda name: TABLE_5[name].gauc) == "courier"
