"""Caveats: each is given where it should be, and none for a sound comparison."""

import pytest

from eval.report.caveats import caveats, notes
from eval.rows import BOOSTED, OTHER_SEEDS
from tests.reports import CALIBRATION, RESULTS, SOUND, delta, metric, printed, row, trained


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


def test_a_caveat_is_given_once_half_of_the_ctr_models_were_best_at_their_last_step():
    def results(*best):
        rows = [one | {"best_step": [best[1 + n]], "steps": [750]} for n, one in enumerate(RESULTS["rows"][: len(best) - 1])]
        return RESULTS | {"baseline": RESULTS["baseline"] | {"best_step": [best[0]], "steps": [750]}, "rows": rows}

    assert caveats(results(375, 375, 750)) == []
    (found,) = caveats(results(750, 375))
    assert found.startswith("1 of 2 CTR trainings were best at their last step")


def test_the_quality_of_codes_stands_in_the_notes_once_for_each_encoder_and_is_no_caveat():
    codes = {"unique": 0.9, "collisions": 0.1, "used": [1.0, 0.5], "entropy": [0.9, 0.8], "error": [0.4, 0.2]}
    rows = [row("a", form, (0.69, 0.69), 0.6) | {"codes": [codes]} for form in ("semantic_id", "semantic_id+sim_tier")]
    rows.append(row("shuffled a", "semantic_id", (0.6, 0.6), 0.6) | {"codes": [codes]})
    found = [note for note in notes(RESULTS | SOUND | {"rows": rows}) if "codes" in note]
    assert found == [
        "a as semantic_id: 90% of the pictures have codes that no other has (10% share all of theirs). Codes used, level by level: "
        "100%, 50%; the pictures' variance left: 40%, 20%."
    ]
    assert not any("codes" in caveat for caveat in caveats(RESULTS | SOUND | {"rows": rows}))
