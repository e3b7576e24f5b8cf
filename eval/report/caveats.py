"""Reasons not to believe a result, one sentence each: the same in the report and the terminal, from results.json only."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose

from data.origin import negatives_of
from eval.report.wording import Results, bounds, count, level, percentage_points, verdict
from eval.rows import BOOSTED, OTHER_SEEDS, is_shuffled, row_name

CHANCE = 0.52  # a baseline's AUC or GAUC below this is hardly better than chance, 0.5
LEAST_SESSIONS, LEAST_USERS = 200, 50  # scored; with fewer, an interval is rough
HEALTHY = 0.1  # share of 1/sqrt(D), the spread of D-dimensional unit vectors in all directions, below which they have collapsed


def caveats(results: Results) -> list[str]:
    """The sentences that apply, the most serious first; those about keys missing from `results` are left out."""
    checks = (
        _chance, _weak, _controls, _still, _untaught, _collapsed, _clusters, _few, _tiny, _short, _own_model, _unreadable, _sampled,
        _unordered, _code,
    )  # fmt: skip
    return [sentence for check in checks for sentence in check(results)]


def notes(results: Results) -> list[str]:
    """The report's notes: the caveats, and how forms are selected and intervals computed."""
    seeds = " and seeds" * (len(results["seeds"]) > 1)
    return [
        *caveats(results),
        *_codes(results),
        f"A form is selected by its GAUC in validation sessions. Intervals: paired bootstrap over users{seeds}.",
    ]


def _chance(results: Results) -> Iterator[str]:
    auc, gauc = (results["baseline"][name]["mean"] for name in ("auc", "gauc"))
    if auc is not None and gauc is not None and min(auc, gauc) < CHANCE:
        yield (
            f"The baseline hardly ranks better than chance (AUC {level(auc)}, GAUC {level(gauc)}; chance is 0.5): "
            "it has learned next to nothing, and a lift over it means next to nothing."
        )


def _weak(results: Results) -> Iterator[str]:
    """The baseline ranks worse than trees on the same features."""
    for row in results["rows"]:
        delta = row["delta_gauc"]
        if (row["encoder"], row["image_feature"]) == BOOSTED and verdict(delta) == "lifts":
            yield (
                f"Lifts are measured over a weak baseline: without pictures, LightGBM ranks better by "
                f"{percentage_points(delta.get('mean'))} percentage points of GAUC {bounds(delta)}. Part of a lift may be ranking that a "
                "better baseline would have; tune --ctr settings first."
            )


def _controls(results: Results) -> Iterator[str]:
    """Rows that should show no effect, but do."""
    for row in results["rows"]:
        delta = row["delta_gauc"]
        moved = f"{percentage_points(delta.get('mean'))} percentage points {bounds(delta)}"
        if (row["encoder"], row["image_feature"]) == OTHER_SEEDS and verdict(delta):
            yield (
                f"The A/A row is significant: the baseline with other seeds moves GAUC by {moved}. "
                "Lifts of that size may be due to the seeds alone; give more --seeds."
            )
        elif is_shuffled(row["encoder"]) and verdict(delta) == "lifts":
            name = row_name(row["encoder"], row["image_feature"])
            yield f"{name} lifts GAUC by {moved} though its embeddings belong to other items: lifts of that size need no picture."


def _sampled(results: Results) -> Iterator[str]:
    if (origin := results.get("origin")) is not None:
        what = negatives_of(origin)
        yield (
            f"{what[0].upper()}{what[1:]}: the log ({origin['source']}) has no impressions, and nobody skipped these items. "
            "Compare rows with each other; levels of AUC and GAUC depend on the sampling."
        )


def _still(results: Results) -> Iterator[str]:
    for trained in results.get("encoders", []):
        loss = trained["loss"]
        still = [isclose(low, high, rel_tol=1e-6, abs_tol=1e-9) for low, high in zip(loss["lowest"], loss["highest"], strict=True)]
        if any(still):
            yield (
                f"The training loss of {trained['encoder']} never moved ({loss['lowest'][still.index(True)]:.4g} from the first step to "
                "the last): it has learned nothing from its data, whatever its rows show."
            )


def _untaught(results: Results) -> Iterator[str]:
    """Validation chose what an encoder began as, in at least half of its trainings."""
    for trained in results.get("encoders", []):
        nothing = [best == 0 for best in trained.get("best_pictures", [])]
        if nothing and 2 * sum(nothing) >= len(nothing):
            seeds = "" if all(nothing) else f" in {sum(nothing)} of {len(nothing)} trainings"
            kept = "the frozen features stand" if trained["body"] == "frozen" else "the weights it began with stand"
            yield f"{trained['material']} taught {trained['encoder']} nothing{seeds}: by validation, {kept}."


def _collapsed(results: Results) -> Iterator[str]:
    for trained in results.get("encoders", []):
        healthy = trained["dim"] ** -0.5
        if min(trained["std"]) < HEALTHY * healthy:
            yield (
                f"The embeddings of {trained['encoder']} have collapsed (spread {min(trained['std']):.2g}, {healthy:.2g} if they used all "
                "directions): they hardly distinguish one picture from another."
            )


def _clusters(results: Results) -> Iterator[str]:
    for row in results["rows"]:
        clusters = row.get("clusters")
        if clusters and 2 * min(clusters["found"]) < clusters["wanted"]:
            yield (
                f"{row_name(row['encoder'], row['image_feature'])}: {count(min(clusters['found']))} clusters were found, but "
                f"{count(clusters['wanted'])} were requested; its pictures are too few or too similar. Lower --clusters."
            )


def _codes(results: Results) -> Iterator[str]:
    """How good semantic IDs are, with the first seed: no reason for doubt, so it stands among the notes alone."""
    said = set()
    for row in results["rows"]:
        if not row.get("codes") or is_shuffled(row["encoder"]) or row["encoder"] in said:
            continue
        said.add(row["encoder"])  # its other rows have the same codes
        codes = row["codes"][0]
        used, error = (", ".join(f"{share:.0%}" for share in codes[name]) for name in ("used", "error"))
        yield (
            f"{row_name(row['encoder'], row['image_feature'])}: {codes['unique']:.0%} of the pictures have codes that no other has "
            f"({codes['collisions']:.0%} share all of theirs). Codes used, level by level: {used}; the pictures' variance left: {error}."
        )


def _few(results: Results) -> Iterator[str]:
    sessions = results["sessions_scored"] if results.get("gauc_key", "session") == "session" else LEAST_SESSIONS
    users = results.get("users_scored", LEAST_USERS)
    few = [f"{count(sessions)} sessions"] * (sessions < LEAST_SESSIONS) + [f"{count(users)} users"] * (users < LEAST_USERS)
    if few:
        yield f"Only {' of '.join(few)} scored: an interval from fewer than {LEAST_SESSIONS} sessions or {LEAST_USERS} users is rough."


def _tiny(results: Results) -> Iterator[str]:
    if results.get("preset") == "tiny":
        yield (
            "Preset tiny only shows that everything runs: its encoders and CTR models are too small and too briefly trained to be trusted."
        )


def _short(results: Results) -> Iterator[str]:
    """Reported if at least half of the CTR trainings were best at their last step; a few are no sign."""
    rows = [results["baseline"], *results["rows"]]
    ends = [best == last for row in rows for best, last in zip(row.get("best_step", []), row.get("steps", []), strict=True)]
    if ends and 2 * sum(ends) >= len(ends):
        yield (
            f"{sum(ends)} of {len(ends)} CTR trainings were best at their last step: they may have been trained too briefly. "
            f"{'Use preset small' if results.get('preset') == 'tiny' else 'Raise --ctr.epochs'}, or give more data."
        )


def _own_model(results: Results) -> Iterator[str]:
    """The user's own model ranks worse than chance."""
    own = results.get("own_model")
    if own is not None and own["gauc"] is not None and own["gauc"] < 0.5:
        yield (
            f"Your own model ranks below chance within sessions (GAUC {level(own['gauc'])}): check that own_score is the probability of a "
            "click, in the order of the rows."
        )


def _unreadable(results: Results) -> Iterator[str]:
    if unreadable := results.get("pictures_unreadable", 0):
        what = "picture could not be read and counts" if unreadable == 1 else "pictures could not be read and count"
        yield f"{count(unreadable)} {what} as missing; listed in bad_pictures.csv, in the run folder below pictures/."


def _unordered(results: Results) -> Iterator[str]:
    if not results.get("split_is_ordered", True):
        yield "The split column goes back in time (--allow-unordered-split): later clicks may have helped to predict earlier ones."


def _code(results: Results) -> Iterator[str]:
    """Merged parts list their differences."""
    mixed = [f"{name} {number}" for name, number in (results.get("versions") or {}).items() if ", " in number]
    if ", " in results.get("commit", ""):
        yield f"The parts were made by different code (commits {results['commit']}): a lift may come from that."
    if mixed:
        yield f"The parts were made with different versions ({'; '.join(mixed)}): a lift may come from that."
