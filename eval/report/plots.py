"""The geometry of charts: numbers for the templates, which draw SVG and HTML in the page's own colours, light or dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import Any

import numpy as np

COLOURS = 8  # CSS variables --c1 ... --c8; a ninth series starts again
DASHES = ("", "6 3", "2 2", "8 3 2 3")
_WIDTH, _HEIGHT = 330, 230  # viewBox; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 8, 38
_MOST_POINTS = 120  # a longer line is averaged in bins


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: x and y (n,); points whose y is not finite are left out."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str  # any CSS colour
    dash: str = ""  # SVG stroke-dasharray
    best: bool = False  # mark the highest point


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One difference with its interval, all in percentage points."""

    label: str
    mean: float
    low: float
    high: float
    text: str  # the numbers, printed at the right
    colour: str = "var(--ink)"
    strong: bool = False  # a filled mark


def colour(number: int) -> str:
    """The CSS colour of the number-th series."""
    return f"var(--c{number % COLOURS + 1})"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers within [low, high], about `wanted` of them, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** floor(log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """A tick's label: 1200000 -> 1.2M, 20000 -> 20k, 0.15 -> 0.15."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value + 0.0:.4g}".replace("-", "−")


def line_chart(lines: Sequence[Line], *, x_label: str, heading: str) -> dict[str, Any] | None:
    """The values of the template `chart`: curves over one x axis. None if there is no point."""
    lines = [binned(line) for line in lines]
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return None
    x_low, x_high = (float(pick(pick(line.x) for line in lines)) for pick in (min, max))
    y_low, y_high = (float(pick(pick(line.y) for line in lines)) for pick in (min, max))
    x_high = x_high if x_high > x_low else x_low + 1
    room = 0.06 * (y_high - y_low) or max(abs(y_high), 1e-6) * 0.1
    y_low, y_high = y_low - room, y_high + room
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT)

    def down(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - _TOP)

    def drawn(line: Line) -> dict[str, Any]:
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        top = int(np.argmax(line.y))
        dot = {"x": f"{across(line.x[top]):.1f}", "y": f"{down(line.y[top]):.1f}", "text": f"{line.y[top]:.4f}"}
        marked = line.best or len(line.x) == 1
        return {"name": line.name, "points": points, "colour": line.colour, "dash": line.dash, "dot": dot if marked else None}

    return {
        "heading": heading, "x_label": x_label, "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": right, "bottom": bottom,
        "y_ticks": [
            {"at": f"{down(y):.1f}", "text_at": f"{down(y) + 3.5:.1f}", "text": number_text(y)} for y in ticks(y_low, y_high)
        ],
        "x_ticks": [{"at": f"{across(x):.1f}", "text": number_text(x)} for x in ticks(x_low, x_high, 4)],
        "lines": [drawn(line) for line in lines],
    }  # fmt: skip


def binned(line: Line) -> Line:
    """The line without points that are not finite, averaged over bins of equally many points if it is long."""
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) > _MOST_POINTS:
        edges = np.linspace(0, len(x), _MOST_POINTS + 1).astype(int)
        sizes = np.diff(edges)
        x, y = (np.add.reduceat(values, edges[:-1]) / sizes for values in (x, y))
    return Line(name=line.name, x=x, y=y, colour=line.colour, dash=line.dash, best=line.best)


def forest(rows: Sequence[ForestRow]) -> dict[str, Any]:
    """The values of the template `forest`: positions on the axis shared by all rows, as CSS percentages.

    A row whose numbers are not finite shows its text only.
    """
    known = [value for row in rows for value in (row.mean, row.low, row.high) if isfinite(value)]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = 0.05 * (high - low) or 0.1
    low, high = low - room, high + room

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    def placed(row: ForestRow) -> dict[str, Any]:
        has_bar = isfinite(row.low) and isfinite(row.high)
        return {
            "label": row.label,
            "text": row.text,
            "colour": row.colour,
            "fill": row.colour if row.strong else "var(--card)",
            "bar": {"left": at(row.low), "width": f"{100 * (row.high - row.low) / (high - low):.2f}%"} if has_bar else None,
            "mark": at(row.mean) if isfinite(row.mean) else None,
        }

    labels = [{"at": at(x), "text": number_text(round(x, 9))} for x in ticks(low, high, 4)]
    return {"zero": at(0), "rows": [placed(row) for row in rows], "ticks": labels}
