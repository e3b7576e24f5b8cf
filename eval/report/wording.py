"""The words of the report, the terminal and the README, the same in all three: numbers, and the answer in a sentence."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, TypeGuard

from eval.rows import is_control, row_name
from pretrain.methods.table import REFERENCE

Results = Mapping[str, Any]  # what results.json holds
Row = Mapping[str, Any]  # one of its rows

SIMULATED = (
    "The clicks of this data set are simulated. Its lifts show how the methods compare in that world, not what a real shop would gain."
)

ONE_SEED = "One seed: interval and p-value say nothing about how much another training would differ. Use --seeds 3 before believing a lift."
UNADJUSTED = "p-values are not adjusted for the number of rows."
SELECTED = "the form of its encoder with the highest GAUC in validation sessions"
DELTA = f"Δ: difference from the baseline in percentage points (pp), with its 95 % interval; {UNADJUSTED}"


def level(value: float | None) -> str:
    """An AUC or GAUC in [0, 1] with four digits."""
    return f"{value:.4f}" if _known(value) else "n/a"


def percentage_points(value: float | None) -> str:
    """A difference of two AUCs in percentage points, with its sign.

    >>> percentage_points(0.0082)
    '+0.82'
    """
    if not _known(value):
        return "n/a"
    return f"{round(100 * value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 turns -0.0 into 0.0


def bounds(delta: Row) -> str:
    """The 95 % interval of a difference, in percentage points."""
    low, high = delta.get("ci95") or (None, None)
    return f"[{percentage_points(low)}, {percentage_points(high)}]" if _known(low) and _known(high) else "[n/a]"


def p_value(value: float | None) -> str:
    """`0.012`, or `<0.001`."""
    if not _known(value):
        return "n/a"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int) -> str:
    """With commas: 1,020."""
    return f"{value:,}"


def verdict(delta: Row) -> str:
    """A difference in a word: "lifts", "lowers", or "" if its interval includes 0."""
    low, high = delta.get("ci95") or (None, None)
    if _known(low) and low > 0:
        return "lifts"
    return "lowers" if _known(high) and high < 0 else ""


def is_selected(row: Row) -> bool:
    """True for the form that validation chose for its encoder; controls are never chosen."""
    return bool(row.get("selected")) and not is_control(row["encoder"])


def best_row(results: Results) -> Row | None:
    """The row that validation chose: the selected form of the encoder with the highest validation GAUC; no control."""
    rows = [row for row in results["rows"] if not is_control(row["encoder"])]
    selected = [row for row in rows if is_selected(row)] or rows
    return max(selected, key=_valid_gauc, default=None)


def purpose(results: Results) -> str:
    """The question that the comparison answers."""
    rows = [row for row in results["rows"] if not is_control(row["encoder"])]
    if not rows:
        return f"How well does the CTR model without pictures rank on {results['data']}?"
    encoders = ", ".join(dict.fromkeys(row["encoder"] for row in rows))
    forms = ", ".join(dict.fromkeys(row["image_feature"] for row in rows))
    return f"Do pictures lift the CTR model on {results['data']}? Encoders: {encoders}. Fed as: {forms}."


def answer(results: Results) -> str:
    """The answer in a sentence: the row that validation chose, its lift on test data, and whether it is real."""
    row = best_row(results)
    if row is None:
        base = results["baseline"]
        return f"The baseline alone: AUC {level(base['auc']['mean'])}, GAUC {level(base['gauc']['mean'])}."
    delta = row["delta_gauc"]
    name = row_name(row["encoder"], row["image_feature"])
    numbers = f"{percentage_points(delta['mean'])} percentage points {bounds(delta)} (p {_is(delta.get('p_value'))})"
    shows = verdict(delta)
    once = len(results["seeds"]) == 1  # its p-value ignores other trainings, so the sentence must be hedged
    if shows:
        return f"{'In this one training ' * once}{name} {shows} GAUC by {numbers}."
    return f"No lift shown{' in this one training' * once}: {name} moves GAUC by {numbers}, and the interval includes 0."


def caution(results: Results) -> str:
    """The caution directly under the answer; "" if there is more than one seed, or only the baseline."""
    return ONE_SEED if len(results["seeds"]) == 1 and best_row(results) is not None else ""


def basis(results: Results) -> str:
    """The basis of the answer: seeds, groups scored, groups left out, and users, which the intervals resample."""
    seeds = len(results["seeds"])
    groups = f"{results.get('gauc_key', 'session')}s"
    known = groups == "sessions" and "users_scored" in results
    users = f"; users scored {count(results['users_scored'])}" if known else ""
    return (
        f"{seeds} seed{'s' * (seeds != 1)}; test {groups} scored {count(results['sessions_scored'])}, "
        f"one-class {count(results['sessions_one_class'])} left out{users}"
    )


def settings(results: Results) -> str:
    """The settings that are not the preset's, as flags; "" where there is none, or an older file does not say."""
    return " ".join(f"--{name} {value}" for name, value in (results.get("settings") or {}).items())


def pair_sentences(results: Results) -> list[str]:
    """One sentence for each of `pairs_shown`: the paired difference of two encoders' selected forms."""
    return [
        f"{row_name(*pair['a'])} minus {row_name(*pair['b'])}: {percentage_points(pair['delta_gauc']['mean'])} percentage points of GAUC "
        f"{bounds(pair['delta_gauc'])} (p {_is(pair['delta_gauc'].get('p_value'))})."
        for pair in pairs_shown(results)
    ]


def pairs_shown(results: Results) -> list[Row]:
    """All pairs of up to three encoders; of more, those of the best row and each other encoder, the best one first."""
    pairs = list(results.get("pairs") or [])
    best = best_row(results)
    if len(pairs) <= 3 or best is None:
        return pairs
    name = [best["encoder"], best["image_feature"]]
    first = [pair for pair in pairs if pair["a"] == name]
    return first + [_swapped(pair) for pair in pairs if pair["b"] == name]


def alone(results: Results) -> str:
    """What each encoder's similarities add to popularity without a CTR model, how well they rank alone, and the differences of
    `alone_shown`; "" without encoders."""
    encoders = results.get("alone") or []
    if not encoders:
        return ""
    begins, text = "Without a CTR model, the mean cosine with the newest clicks alone has a GAUC of", ""
    if "popularity" in results:
        added = (f"{each['encoder']} {_delta(each['over_popularity'])}" for each in encoders)
        text = (
            f"Without a CTR model, popularity so far has a GAUC of {level(results['popularity']['mean'])}, to which the mean cosine with "
            f"the newest clicks adds (pp): {_and_differences(added, results, 'delta_beside_popularity')}. "
        )
        begins = "That cosine alone has"
    levels = (f"{each['encoder']} {level(each['gauc']['mean'])}" for each in encoders)
    return f"{text}{begins}: {_and_differences(levels, results, 'delta_gauc')}."


def _and_differences(levels: Iterable[str], results: Results, delta: str) -> str:
    """What encoders have without a CTR model, and how much more than each other."""
    deltas = "; ".join(f"{pair['a']} minus {pair['b']} {_delta(pair[delta])}" for pair in alone_shown(results))
    return ", ".join(levels) + (f" ({deltas})" if deltas else "")


def _delta(delta: Row) -> str:
    return f"{percentage_points(delta['mean'])} {bounds(delta)}"


def alone_shown(results: Results) -> list[Row]:
    """The pairs of encoders without a CTR model: each against the frozen reference where it is there, otherwise the first against each."""
    encoders = [each["encoder"] for each in results.get("alone") or []]
    pairs = results.get("alone_pairs") or []
    if REFERENCE in encoders:
        return [pair if pair["b"] == REFERENCE else _swapped(pair) for pair in pairs if REFERENCE in (pair["a"], pair["b"])]
    return [pair for pair in pairs if pair["a"] in encoders[:1]]


def _swapped(pair: Row) -> Row:
    """The same pair, b minus a."""
    deltas = {name: _negative(delta) for name, delta in pair.items() if name.startswith("delta")}
    return {"a": pair["b"], "b": pair["a"]} | deltas


def _negative(delta: Row) -> Row:
    low, high = (None if bound is None else -bound for bound in delta["ci95"])
    return {**delta, "mean": -delta["mean"], "ci95": [high, low]}


LEAST_ROOM = 0.001  # a GAUC this little below the ceiling leaves nothing to take a share of
OWN_MODEL = "own model"  # the row of the user's own predictions


def over_own_model(results: Results) -> str:
    """What every row starts from, where the log holds the predictions of the user's own model."""
    own = results["own_model"]
    text = (
        f"Every row, the baseline too, starts from the predictions of your own model (own_score: log loss {own['log_loss']:.4f}, "
        f"predicted clicks over clicks {own['calibration']['pcoc']:.2f}, calibration error {own['calibration']['ece']:.4f}): "
        "lifts are what pictures add to it."
    )
    if verdict(own["delta_gauc"]) == "lowers":
        text += " The baseline is ahead of it: the log holds something, pictures apart, that your model does not use."
    return text


def headroom(results: Results) -> str:
    """How far the ceiling of a simulated world is above the baseline, and how much of that the best row gains."""
    ceiling, base = results["oracle"], results["baseline"]
    room = ceiling["gauc"] - base["gauc"]["mean"]
    text = (
        f"Ceiling: the probabilities that the clicks were drawn from score AUC {level(ceiling['auc'])}, GAUC "
        f"{level(ceiling['gauc'])}, which is {percentage_points(room)} percentage points of GAUC above the baseline."
    )
    row = best_row(results)
    if row is None or not room >= LEAST_ROOM:  # which no NaN is
        return text
    name = row_name(row["encoder"], row["image_feature"])
    gain = row["delta_gauc"]["mean"] / room
    return f"{text} {name} gains {f'{100 * gain:.0f} %' if gain > 0 else 'none'} of that."


def _is(p: float | None) -> str:
    text = p_value(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def _valid_gauc(row: Row) -> float:
    value = row.get("valid_gauc")
    return value if _known(value) else float("-inf")
