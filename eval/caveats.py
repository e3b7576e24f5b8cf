"""What speaks against believing a result, a sentence each: alike in the report and the terminal, from results.json alone."""

from __future__ import annotations

from eval.wording import Results, count, level

CHANCE = 0.52  # a baseline's AUC or GAUC below this is hardly better than the 0.5 of a coin
LEAST_SESSIONS, LEAST_USERS = 200, 50  # scored; with fewer, an interval is rough


def caveats(results: Results) -> list[str]:
    """The sentences that apply, the gravest first; keys that `results` lacks raise no doubt."""
    said = [_chance(results), _few(results), _tiny(results), _short(results), _unordered(results)]
    return [sentence for sentence in said if sentence]


def _chance(results: Results) -> str:
    base = results["baseline"]
    auc, gauc = (base[name]["mean"] for name in ("auc", "gauc"))
    if auc is None or gauc is None or min(auc, gauc) >= CHANCE:
        return ""
    return (
        f"The baseline hardly ranks better than chance (AUC {level(auc)}, GAUC {level(gauc)}; chance is 0.5): "
        "it has learned next to nothing, and a lift over it means next to nothing."
    )


def _few(results: Results) -> str:
    sessions = results["sessions_scored"] if results.get("gauc_key", "session") == "session" else LEAST_SESSIONS
    users = results.get("users_scored", LEAST_USERS)
    few = [f"{count(sessions)} sessions"] * (sessions < LEAST_SESSIONS) + [f"{count(users)} users"] * (users < LEAST_USERS)
    if not few:
        return ""
    return f"Only {' of '.join(few)} scored: an interval from fewer than {LEAST_SESSIONS} sessions or {LEAST_USERS} users is rough."


def _tiny(results: Results) -> str:
    if results.get("preset") != "tiny":
        return ""
    return "Preset tiny only shows that everything runs: its encoders and CTR models are too small and too briefly trained to be believed."


def _short(results: Results) -> str:
    """Said where at least half of the CTR trainings were best at their last step; a few among many are no sign."""
    rows = [results["baseline"], *results["rows"]]
    ends = [best == last for row in rows for best, last in zip(row.get("best_step", []), row.get("steps", []), strict=True)]
    if not ends or 2 * sum(ends) < len(ends):
        return ""
    return (
        f"{sum(ends)} of {len(ends)} CTR trainings were best at their last step: they may have been trained too briefly. "
        "Give --ctr.epochs more, or more data."
    )


def _unordered(results: Results) -> str:
    if results.get("split_is_ordered", True):
        return ""
    return "The split column goes back in time (--allow-unordered-split): later clicks may have helped to predict earlier ones."
