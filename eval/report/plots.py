"""Charts as small pieces of HTML and SVG, drawn with the page's own colours so that light and dark both read well.

No chart needs a script, a font or an address; every name is escaped here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np

COLOURS = 8  # CSS variables --c1 ... --c8; a ninth series starts again
DASHES = ("", "6 3", "2 2", "8 3 2 3")
_WIDTH, _HEIGHT = 330, 230  # viewBox; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 8, 38
_MOST_POINTS = 120  # a longer line is averaged in bins


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: x and y (n,), points with a y that is not finite left out."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str  # any CSS colour
    dash: str = ""  # SVG stroke-dasharray
    best: bool = False  # mark the highest point


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One difference with its interval, all in points of %."""

    label: str
    mean: float
    low: float
    high: float
    text: str  # the numbers, as said at the right
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


def line_chart(lines: Sequence[Line], *, x_label: str, label: str) -> str:
    """An SVG of curves over one x axis; `label` says to a screen reader what it shows. "" when there is no point."""
    lines = [binned(line) for line in lines]
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    x_low, x_high = (float(pick(pick(line.x) for line in lines)) for pick in (min, max))
    y_low, y_high = (float(pick(pick(line.y) for line in lines)) for pick in (min, max))
    x_high = x_high if x_high > x_low else x_low + 1
    room = 0.06 * (y_high - y_low) or max(abs(y_high), 1e-6) * 0.1
    y_low, y_high = y_low - room, y_high + room
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x):
        return _LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT)

    def down(y):
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - _TOP)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for y in ticks(y_low, y_high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down(y) + 3.5:.1f}" text-anchor="end">{number_text(y)}</text>')
    for x in ticks(x_low, x_high, 4):
        parts.append(f'<text x="{across(x):.1f}" y="{bottom + 15}" text-anchor="middle">{number_text(x)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    for line in lines:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        style = f'stroke="{line.colour}"' + f' stroke-dasharray="{line.dash}"' * bool(line.dash)
        parts.append(f'<polyline class="curve" points="{path}" {style}><title>{escape(line.name)}</title></polyline>')
        if line.best or len(line.x) == 1:
            top = int(np.argmax(line.y))
            parts.append(
                f'<circle class="dot" cx="{across(line.x[top]):.1f}" cy="{down(line.y[top]):.1f}" r="4" '
                f'fill="{line.colour}"><title>{escape(line.name)}: {line.y[top]:.4f}</title></circle>'
            )
    return "".join(parts) + "</svg>"


def binned(line: Line) -> Line:
    """The line without points that are not finite, averaged in equal runs of points where it is long."""
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) > _MOST_POINTS:
        edges = np.linspace(0, len(x), _MOST_POINTS + 1).astype(int)
        sizes = np.diff(edges)
        x, y = (np.add.reduceat(values, edges[:-1]) / sizes for values in (x, y))
    return Line(name=line.name, x=x, y=y, colour=line.colour, dash=line.dash, best=line.best)


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """Names with a sample of their line: (name, colour, dash)."""
    items = []
    for name, line_colour, dash in entries:
        style = f'stroke="{line_colour}"' + f' stroke-dasharray="{dash}"' * bool(dash)
        sample = f'<svg width="26" height="8" aria-hidden="true"><line x1="1" x2="25" y1="4" y2="4" {style}/></svg>'
        items.append(f"<li>{sample}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def forest(rows: Sequence[ForestRow], *, unit: str, brief: bool = False) -> str:
    """Differences under each other on one axis with a line at 0: HTML, so that its text stays readable on a phone.

    A row whose numbers are not finite shows its text only. `brief` leaves the text out where the page is wide.
    """
    known = [value for row in rows for value in (row.mean, row.low, row.high) if isfinite(value)]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = 0.05 * (high - low) or 0.1
    low, high = low - room, high + room

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    parts = [f'<div class="forest{" brief" * brief}">']
    for row in rows:
        bar = mark = ""
        if isfinite(row.low) and isfinite(row.high):
            width = 100 * (row.high - row.low) / (high - low)
            bar = f'<i class="bar" style="left:{at(row.low)};width:{width:.2f}%;background:{row.colour}"></i>'
        if isfinite(row.mean):
            fill = row.colour if row.strong else "var(--card)"
            mark = f'<i class="mark" style="left:{at(row.mean)};border-color:{row.colour};background:{fill}"></i>'
        parts.append(
            f'<div class="row"><span class="label">{escape(row.label)}</span>'
            f'<span class="track"><i class="zero" style="left:{at(0)}"></i>{bar}{mark}</span>'
            f'<span class="numbers">{escape(row.text)}</span></div>'
        )
    labels = "".join(f'<i style="left:{at(x)}">{number_text(round(x, 9))}</i>' for x in ticks(low, high, 4))
    parts.append(f'<div class="row axis"><span class="label">{escape(unit)}</span><span class="track">{labels}</span></div>')
    return "".join(parts) + "</div>"
