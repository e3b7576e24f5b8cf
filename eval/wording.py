"""How results are said, alike in the report, the terminal and the README: numbers, and the answer in a sentence."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeGuard

Results = Mapping[str, Any]  # what results.json holds
Row = Mapping[str, Any]  # one of its rows

SIMULATED = (
    "The clicks of this data set are simulated. Its lifts say how the methods compare in that world, not what a real shop would gain."
)

ONE_SEED = "One seed: interval and p-value say nothing of how much another training would differ. Use --seeds 3 before believing a lift."
UNADJUSTED = "p-values are not adjusted for the number of rows."


def is_control(encoder: str) -> bool:
    """True for rows that test the comparison itself: the A/A row and shuffled embeddings."""
    return encoder.startswith(("baseline (", "shuffled "))


def row_name(encoder: str, image_feature: str) -> str:
    """`courier as cluster_id`; the encoder alone where there is no image feature."""
    return encoder if image_feature in ("", "none") else f"{encoder} as {image_feature}"


def level(value: float | None) -> str:
    """An AUC or GAUC in [0, 1] with four digits."""
    return f"{value:.4f}" if _known(value) else "n/a"


def points(value: float | None) -> str:
    """A difference of two AUCs in points of %, with its sign: 0.0082 is said +0.82."""
    if not _known(value):
        return "n/a"
    return f"{round(100 * value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 turns -0.0 into 0.0


def bounds(delta: Row) -> str:
    """The 95 % interval of a difference, in points of %."""
    low, high = delta.get("ci95") or (None, None)
    return f"[{points(low)}, {points(high)}]" if _known(low) and _known(high) else "[n/a]"


def p_value(value: float | None) -> str:
    """`0.012`, or `<0.001`."""
    if not _known(value):
        return "n/a"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int) -> str:
    """1,020"""
    return f"{value:,}"


def verdict(delta: Row) -> str:
    """What a difference shows: "lifts", "lowers", or "" where its interval holds 0."""
    low, high = delta.get("ci95") or (None, None)
    if _known(low) and low > 0:
        return "lifts"
    return "lowers" if _known(high) and high < 0 else ""


def is_selected(row: Row) -> bool:
    """True for the form that validation chose for its encoder; controls are not in the running."""
    return bool(row.get("selected")) and not is_control(row["encoder"])


def best_row(results: Results) -> Row | None:
    """The row that validation chose: the selected form of the encoder with the highest validation GAUC; no control."""
    rows = [row for row in results["rows"] if not is_control(row["encoder"])]
    selected = [row for row in rows if is_selected(row)] or rows
    return max(selected, key=_valid_gauc, default=None)


def question(results: Results) -> str:
    """What was asked, in a sentence."""
    rows = [row for row in results["rows"] if not is_control(row["encoder"])]
    if not rows:
        return f"How well does the CTR model without pictures rank on {results['data']}?"
    encoders = ", ".join(dict.fromkeys(row["encoder"] for row in rows))
    forms = ", ".join(dict.fromkeys(row["image_feature"] for row in rows))
    return f"Do pictures lift the CTR model on {results['data']}? Encoders: {encoders}. Fed as: {forms}."


def answer(results: Results) -> str:
    """The answer in a sentence: the row that validation chose, its lift on test data, and whether that is real."""
    row = best_row(results)
    if row is None:
        base = results["baseline"]
        return f"The baseline alone: AUC {level(base['auc']['mean'])}, GAUC {level(base['gauc']['mean'])}."
    delta = row["delta_gauc"]
    name = row_name(row["encoder"], row["image_feature"])
    numbers = f"{points(delta['mean'])} points {bounds(delta)} (p {_is(delta.get('p_value'))})"
    shows = verdict(delta)
    once = len(results["seeds"]) == 1  # a p-value that knows nothing of other trainings must not stand there unhedged
    if shows:
        return f"{'In this one training ' * once}{name} {shows} GAUC by {numbers}."
    return f"No lift shown{' in this one training' * once}: {name} moves GAUC by {numbers}, and the interval holds 0."


def caution(results: Results) -> str:
    """What must stand directly under the answer; "" where there is more than one seed, or nothing but the baseline."""
    return ONE_SEED if len(results["seeds"]) == 1 and best_row(results) is not None else ""


def basis(results: Results) -> str:
    """What the answer rests on: seeds, groups scored, groups left out, users (whom the intervals resample)."""
    seeds = len(results["seeds"])
    groups = f"{results.get('gauc_key', 'session')}s"
    known = groups == "sessions" and "users_scored" in results
    users = f"; users scored {count(results['users_scored'])}" if known else ""
    return (
        f"{seeds} seed{'s' * (seeds != 1)}; test {groups} scored {count(results['sessions_scored'])}, "
        f"one-class {count(results['sessions_one_class'])} left out{users}"
    )


def against(results: Results) -> list[str]:
    """One sentence for each of the pairs to be said: the paired difference of two encoders' selected forms."""
    said = []
    for pair in pairs_to_say(results):
        delta = pair["delta_gauc"]
        said.append(
            f"{row_name(*pair['a'])} minus {row_name(*pair['b'])}: {points(delta['mean'])} points of GAUC {bounds(delta)} "
            f"(p {_is(delta.get('p_value'))})."
        )
    return said


def pairs_to_say(results: Results) -> list[Row]:
    """All pairs of up to three encoders; of more, those of the best row and each other encoder, the best one first."""
    pairs = list(results.get("pairs") or [])
    best = best_row(results)
    if len(pairs) <= 3 or best is None:
        return pairs
    name = [best["encoder"], best["image_feature"]]
    first = [pair for pair in pairs if pair["a"] == name]
    return first + [_swapped(pair) for pair in pairs if pair["b"] == name]


def _swapped(pair: Row) -> Row:
    """The same pair, b minus a."""
    delta = pair["delta_gauc"]
    low, high = delta["ci95"]
    return {"a": pair["b"], "b": pair["a"], "delta_gauc": {**delta, "mean": -delta["mean"], "ci95": [-high, -low]}}


def headroom(results: Results) -> str:
    """How far the ceiling of a simulated world lies above the baseline, and how much of that the best row takes."""
    ceiling, base = results["oracle"], results["baseline"]
    room = ceiling["gauc"] - base["gauc"]["mean"]
    text = (
        f"Ceiling: the probabilities that the clicks were drawn from score AUC {level(ceiling['auc'])}, GAUC "
        f"{level(ceiling['gauc'])}, which is {points(room)} points of GAUC above the baseline."
    )
    row = best_row(results)
    if row is None or not room > 0:
        return text
    name = row_name(row["encoder"], row["image_feature"])
    return f"{text} {name} takes {100 * row['delta_gauc']['mean'] / room:.0f} % of that room."


def _is(p: float | None) -> str:
    text = p_value(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def _valid_gauc(row: Row) -> float:
    value = row.get("valid_gauc")
    return value if _known(value) else float("-inf")
