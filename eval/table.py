"""The table of a comparison for the terminal and, as Markdown, for a README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.caveats import caveats
from eval.published import TABLE_5, in_paper
from eval.wording import (
    SIMULATED,
    UNADJUSTED,
    Results,
    against,
    answer,
    basis,
    bounds,
    caution,
    headroom,
    is_selected,
    level,
    p_value,
    points,
)

if TYPE_CHECKING:
    from rich.console import Console

_HEADINGS = ("encoder", "image feature", "AUC", "ΔAUC, points", "GAUC", "ΔGAUC, points", "p (GAUC)")
_PAPER = "the paper's ΔGAUC"
_LEGEND = f"Δ: points of % against the baseline, 95 % interval in brackets; {UNADJUSTED}"
_SELECTED = "the form of its encoder with the highest GAUC in validation sessions"
_WIDTH = 120  # columns, where the output is no terminal


def print_table(results: Results, console: Console | None = None) -> None:
    """Print every row of the results, then the answer, what it rests on and what speaks against it. Names are never read as markup.

    Args:
        results: as in `results.json`.
        console: where to print; standard output unless given, at 120 columns where that is no terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = console or Console()
    if console is None and not out.is_terminal:
        out = Console(width=_WIDTH)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for number, heading in enumerate(_headings(results)):
        table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
    for cells, selected in _rows(results):
        cells[1] += " *" * selected
        table.add_row(*(Text(cell) for cell in cells), style="bold" if selected else None)
    out.print(table)
    lines = [answer(results), *filter(None, [caution(results)]), *against(results), f"{basis(results)}. {_LEGEND}"]
    if any(selected for _, selected in _rows(results)):
        lines.append(f"* {_SELECTED}.")
    if results.get("oracle"):
        lines.append(headroom(results))
    if results.get("simulated"):
        lines.append(SIMULATED)
    speaks_against = caveats(results)
    if speaks_against:
        lines += ["", "Before believing it:", *(f"- {sentence}" for sentence in speaks_against)]
    out.print()
    for line in lines:
        out.print(Text(line))


def markdown_table(results: Results) -> str:
    """The same table as GitHub Markdown, with the answer above and what it rests on below; ends in a newline."""
    headings = _headings(results)
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "--:|" * (len(headings) - 2)]
    for cells, selected in _rows(results):
        bold = "**" if selected else ""
        lines.append("| " + " | ".join(f"{bold}{_plain(cell)}{bold}" if cell else "" for cell in cells) + " |")
    below = [*map(_plain, against(results)), f"{basis(results)}.", _LEGEND]
    if any(selected for _, selected in _rows(results)):
        below.append(f"Bold: {_SELECTED}.")
    if results.get("oracle"):
        below.append(_plain(headroom(results)))
    if results.get("simulated"):
        below.append(SIMULATED)
    above = " ".join(filter(None, [answer(results), caution(results)]))
    return _plain(above) + "\n\n" + "\n".join(lines) + "\n\n" + "".join(f"- {sentence}\n" for sentence in below)


def _headings(results: Results) -> list[str]:
    return [*_HEADINGS, *[_PAPER] * in_paper(results)]


def _rows(results: Results) -> list[tuple[list[str], bool]]:
    """Cells of each row, the baseline first, and whether its form was selected."""
    base = results["baseline"]
    paper = in_paper(results)
    rows = [(["baseline", "none", level(base["auc"]["mean"]), "", level(base["gauc"]["mean"]), "", "", *[""] * paper], False)]
    for row in results["rows"]:
        delta_auc, delta_gauc = (f"{points(row[name]['mean'])} {bounds(row[name])}" for name in ("delta_auc", "delta_gauc"))
        levels = level(row["auc"]["mean"]), level(row["gauc"]["mean"])
        p = p_value(row["delta_gauc"].get("p_value"))
        names = [row["encoder"], row["image_feature"]]
        published = TABLE_5.get(row["encoder"]) if is_selected(row) else None
        said = [points(published.gauc) if published else ""] * paper
        rows.append(([*names, levels[0], delta_auc, levels[1], delta_gauc, p, *said], is_selected(row)))
    return rows


def _plain(text: str) -> str:
    """Text in which Markdown and HTML find nothing to act on."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    for sign in "\\|`*":
        text = text.replace(sign, "\\" + sign)
    return text.replace("](", "]\\(")
