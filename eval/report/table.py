"""The table of a comparison for the terminal and, as Markdown, for a README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.report.caveats import caveats
from eval.report.published import TABLE_5, has_published
from eval.report.wording import (
    DELTA,
    OWN_MODEL,
    SELECTED,
    SIMULATED,
    Results,
    alone,
    answer,
    basis,
    bounds,
    caution,
    headroom,
    is_selected,
    level,
    over_own_model,
    p_value,
    pair_sentences,
    percentage_points,
    settings,
)

if TYPE_CHECKING:
    from rich.console import Console

_HEADINGS = ("encoder", "image feature", "AUC", "ΔAUC (pp)", "GAUC", "ΔGAUC (pp)", "p (GAUC)")
_PUBLISHED = "the paper's ΔGAUC"
_WIDTH = 120  # columns, if the output is not a terminal


def print_table(results: Results, console: Console | None = None) -> None:
    """Print every row of the results, then the answer, its basis and the caveats. Names are never read as markup.

    Args:
        results: as in `results.json`.
        console: where to print; None: standard output, at 120 columns if that is not a terminal.
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
    above = [
        answer(results),
        *filter(None, [caution(results)]),
        *pair_sentences(results),
        *filter(None, [alone(results)]),
        f"{basis(results)}. {DELTA}",
        *_settings(results),
    ]
    lines = ["", *above, *_legend(results, "*")]
    against = caveats(results)
    if against:
        lines += ["", "Before believing it:", *(f"- {sentence}" for sentence in against)]
    for line in lines:
        out.print(Text(line))


def markdown_table(results: Results) -> str:
    """The same table as GitHub Markdown, with the answer above, its basis and the caveats below; ends in a newline."""
    headings = _headings(results)
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "--:|" * (len(headings) - 2)]
    for cells, selected in _rows(results):
        bold = "**" if selected else ""
        lines.append("| " + " | ".join(f"{bold}{_plain(cell)}{bold}" if cell else "" for cell in cells) + " |")
    below = [
        *pair_sentences(results),
        *filter(None, [alone(results)]),
        f"{basis(results)}.",
        DELTA,
        *_settings(results),
        *_legend(results, "Bold:"),
    ]
    above = " ".join(filter(None, [answer(results), caution(results)]))
    text = _plain(above) + "\n\n" + "\n".join(lines) + "\n\n" + _list(below)
    against = caveats(results)
    return text + ("\nBefore believing it:\n\n" + _list(against) if against else "")


def _list(sentences: list[str]) -> str:
    return "".join(f"- {_plain(sentence)}\n" for sentence in sentences)


def _headings(results: Results) -> list[str]:
    return [*_HEADINGS, *[_PUBLISHED] * has_published(results)]


def _legend(results: Results, mark: str) -> list[str]:
    """The meaning of the mark on selected rows, and a note on simulated clicks."""
    lines = [f"{mark} {SELECTED}."] if any(map(is_selected, results["rows"])) else []
    lines += [over_own_model(results)] if results.get("own_model") else []
    lines += [headroom(results)] if results.get("oracle") else []
    return lines + [SIMULATED] * bool(results.get("simulated"))


def _settings(results: Results) -> list[str]:
    return [f"Settings that are not the preset's: {settings(results)}."] if settings(results) else []


def _rows(results: Results) -> list[tuple[list[str], bool]]:
    """Cells of each row, the user's own model and the baseline first, and whether its form was selected."""
    base = results["baseline"]
    published = has_published(results)
    rows = [([*own_cells(results["own_model"]), *[""] * published], False)] if results.get("own_model") else []
    rows += [(["baseline", "none", level(base["auc"]["mean"]), "", level(base["gauc"]["mean"]), "", "", *[""] * published], False)]
    for row in results["rows"]:
        delta_auc, delta_gauc = (f"{percentage_points(row[name]['mean'])} {bounds(row[name])}" for name in ("delta_auc", "delta_gauc"))
        levels = level(row["auc"]["mean"]), level(row["gauc"]["mean"])
        p = p_value(row["delta_gauc"].get("p_value"))
        in_paper = TABLE_5.get(row["encoder"]) if is_selected(row) else None
        last = [percentage_points(in_paper.gauc) if in_paper else ""] * published
        rows.append(([row["encoder"], row["image_feature"], levels[0], delta_auc, levels[1], delta_gauc, p, *last], is_selected(row)))
    return rows


def own_cells(own: Results) -> list[str]:
    """The cells of the user's own model, as differences from the baseline."""
    deltas = [f"{percentage_points(own[name]['mean'])} {bounds(own[name])}" for name in ("delta_auc", "delta_gauc")]
    return [OWN_MODEL, "none", level(own["auc"]), deltas[0], level(own["gauc"]), deltas[1], p_value(own["delta_gauc"].get("p_value"))]


def _plain(text: str) -> str:
    """Text with all Markdown and HTML markup escaped."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    for sign in "\\|`*":
        text = text.replace(sign, "\\" + sign)
    return text.replace("](", "]\\(")
