"""Where a shop folder comes from, if `data.convert` wrote it: what of it was sampled stands by every result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run.errors import UserError
from run.files import read_json

ORIGIN = "origin.json"


def origin_of(folder: Path) -> dict[str, Any] | None:
    """The source, the negatives and the rows refused; None for a folder that was not converted.

    Raises:
        UserError: the file is not what `data.convert` writes.
    """
    path = folder / ORIGIN
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        origin = {"source": str(content["source"]), "negatives": dict(content["negatives"]), "rows_refused": dict(content["rows_refused"])}
        negatives_of(origin)  # raises if a part of it is missing
        sum(origin["rows_refused"].values())
        return origin
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{path}: not written by data.convert; delete it, or convert again") from None


def is_sampled(folder: Path) -> bool:
    """True if a shop folder's impressions without a click were drawn by `data.convert`: nobody saw them.

    Raises:
        UserError: as `origin_of`.
    """
    return origin_of(folder) is not None


def negatives_of(origin: dict[str, Any]) -> str:
    """What was sampled.

    >>> negatives_of({"negatives": {"per_positive": 9, "by": "popularity", "window_seconds": 1_209_600}})
    'negatives sampled: 9 per click, by popularity within 14 days'
    """
    negatives = origin["negatives"]
    text = f"negatives sampled: {negatives['per_positive']} per click, by {negatives['by']}"
    days = negatives.get("window_seconds", 0) / 86_400
    return text if negatives["by"] == "uniform" else f"{text} within {days:g} day{'s' * (days != 1)}"
