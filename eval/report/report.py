"""A comparison as one HTML file that stands alone: no script, no address, pictures inside, every name escaped."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from eval.report.page import bullets, card, cards, grid, section
from eval.report.plots import ForestRow, forest
from eval.report.sections import (
    AttentionExample,
    ClusterPictures,
    Curves,
    attention_gallery,
    cluster_gallery,
    encoder_colours,
    training,
)
from eval.wording import (
    SIMULATED,
    UNADJUSTED,
    Results,
    Row,
    answer,
    basis,
    best_row,
    bounds,
    caution,
    count,
    headroom,
    is_control,
    is_selected,
    level,
    p_value,
    pairs_to_say,
    points,
    question,
    row_name,
    verdict,
)
from run.files import write_atomic

__all__ = ["AttentionExample", "ClusterPictures", "write_report"]

_LIFTS = (("delta_gauc", "GAUC"), ("delta_auc", "AUC"))


def write_report(
    path: str | Path,
    results: Results,
    *,
    curves: Curves,
    clusters: Sequence[ClusterPictures],
    no_clusters: str = "",
    attention: Sequence[AttentionExample],
    notes: Sequence[str],
) -> None:
    """Write the report. A part that has nothing to show is left out.

    Args:
        path: the HTML file; replaced atomically.
        results: as in `results.json`; optional are "simulated" and "oracle", the AUC and GAUC of the very probabilities
            that a simulated world's clicks were drawn from.
        curves: name -> lines with "step" or "pictures" and any of "loss", "valid_gauc", "valid_log_loss". Names that
            start with "ctr " are CTR models, all others encoders; a first word "encoder" or "ctr" is not shown.
        clusters: shown up to 12 pictures each.
        no_clusters: why there are none, where that is to be said.
        attention: a card each.
        notes: what a reader should know before believing the table.
    """
    sections = [
        _tiles(results),
        _table(results),
        _forests(results),
        _pairs(results),
        training(curves, results),
        cluster_gallery(clusters, no_clusters),
        attention_gallery(attention),
        section("Before believing it", "", bullets(notes)),
        _made(results),
    ]
    template = Template(Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=escape(answer(results)),
        question=escape(question(results)),
        answer=escape(answer(results)),
        caution=f'<p class="caution">{escape(caution(results))}</p>' if caution(results) else "",
        basis=escape(basis(results)),
        banner=f'<p class="banner">{escape(SIMULATED)}</p>' if results.get("simulated") else "",
        body="\n".join(piece for piece in sections if piece),
    )
    write_atomic(Path(path), text.encode())


def _tiles(results: Results) -> str:
    """The four numbers to remember, and how much of a simulated world's ceiling was reached."""
    base, best, oracle = results["baseline"], best_row(results), results.get("oracle")
    tiles = []
    if best is not None:
        for name, what in _LIFTS:
            more = f"{bounds(best[name])}, p {p_value(best[name].get('p_value'))}"
            tiles.append((f"{what} lift, points", points(best[name]["mean"]), more))
    tiles.append(("Baseline GAUC", level(base["gauc"]["mean"]), f"AUC {level(base['auc']['mean'])}"))
    if oracle:
        tiles.append(("Ceiling GAUC", level(oracle["gauc"]), f"AUC {level(oracle['auc'])}"))
    pieces = [
        f'<div class="card tile"><div class="what">{escape(what)}</div><div class="value">{escape(value)}</div>'
        f'<div class="more">{escape(more)}</div></div>'
        for what, value, more in tiles
    ]
    ceiling = f'<p class="lead below">{escape(headroom(results))}</p>' if oracle else ""
    return f'<section class="tiles">{cards(pieces, 160)}{ceiling}</section>'


def _table(results: Results) -> str:
    base = results["baseline"]
    rows = [
        f"<tr><td>baseline</td><td>none</td>{_metric(base['auc'])}<td></td>{_metric(base['gauc'])}<td></td><td></td>"
        f"<td>{level(base.get('valid_gauc'))}</td></tr>"
    ]
    for row in results["rows"]:
        kind = "selected" if is_selected(row) else "control" if is_control(row["encoder"]) else ""
        tag = '<span class="tag">selected</span>' if is_selected(row) else ""
        rows.append(
            f'<tr class="{kind}"><td>{escape(row["encoder"])}</td><td>{escape(row["image_feature"])}{tag}</td>'
            f"{_metric(row['auc'])}{_lift(row['delta_auc'])}{_metric(row['gauc'])}{_lift(row['delta_gauc'])}"
            f"<td>{escape(p_value(row['delta_gauc'].get('p_value')))}</td><td>{level(row.get('valid_gauc'))}</td></tr>"
        )
    headings = ("encoder", "image feature", "AUC", "ΔAUC", "GAUC", "ΔGAUC", "p (ΔGAUC)", "valid. GAUC")
    lead = (
        "Δ is the difference from the baseline in points of %, with its 95 % interval below. Small numbers under a "
        "metric are its seeds, one by one. Bold: selected, the form of its encoder with the highest GAUC in "
        f"validation sessions. {UNADJUSTED}"
    )
    return section("Every encoder and form", lead, grid(headings, rows))


def _metric(metric: Row) -> str:
    seeds = metric.get("per_seed") or []
    small = ""
    if len(seeds) > 1:
        lines = (seeds[start : start + 3] for start in range(0, len(seeds), 3))
        small = f"<small>{'<br>'.join(' '.join(level(value) for value in line) for line in lines)}</small>"
    return f"<td>{level(metric['mean'])}{small}</td>"


def _lift(delta: Row) -> str:
    return f"<td>{points(delta['mean'])}<small>{bounds(delta)}</small></td>"


def _forests(results: Results) -> str:
    colours = encoder_colours(results)
    pieces = []
    for name, what in _LIFTS:
        rows = [
            _forest_row(row_name(row["encoder"], row["image_feature"]), row[name], colours[row["encoder"]], is_selected(row))
            for row in results["rows"]
        ]
        if rows:
            pieces.append(card(what, forest(rows, unit="points of %", brief=True)))
    lead = "A bar is a 95 % interval; one that leaves out the line at 0 shows a difference. Filled: the selected form."
    return section("Lift over the baseline", lead, cards(pieces, 380))


def _pairs(results: Results) -> str:
    rows = []
    for pair in pairs_to_say(results):
        label = f"{row_name(*pair['a'])} minus {row_name(*pair['b'])}"
        rows.append(_forest_row(label, pair["delta_gauc"], "var(--ink)", bool(verdict(pair["delta_gauc"]))))
    lead = (
        "GAUC of one encoder's selected form minus another's, on the same test users and seeds. Right of 0 the first "
        "is better; filled where the interval leaves out 0."
    )
    content = f'<div class="card">{forest(rows, unit="points of %")}</div>' if rows else ""
    return section("Encoders against each other", lead, content)


def _forest_row(label: str, delta: Row, row_colour: str, strong: bool) -> ForestRow:
    known = [delta["mean"], *(delta.get("ci95") or (None, None))]
    mean, low, high = (float("nan") if value is None else 100 * value for value in known)
    text = f"{points(delta['mean'])} {bounds(delta)}"
    return ForestRow(label=label, mean=mean, low=low, high=high, text=text, colour=row_colour, strong=strong)


def _made(results: Results) -> str:
    said = {
        "Data": results["data"] + (" (clicks simulated)" if results.get("simulated") else ""),
        "Preset": results.get("preset"),
        "Seeds": ", ".join(str(seed) for seed in results["seeds"]),
        "GAUC": f"over {results.get('gauc_key', 'session')}s, weight: {results.get('gauc_weight', 'session')}",
        "Test impressions": count(results["impressions_scored"]) if "impressions_scored" in results else None,
        "Shop fingerprint": results.get("shop"),
        "Commit": results.get("commit"),
        "Versions": ", ".join(f"{name} {number}" for name, number in (results.get("versions") or {}).items()),
    }
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in said.items() if value]
    return section("How it was made", "", f'<dl class="card">{"".join(lines)}</dl>{_seconds(results)}')


def _seconds(results: Results) -> str:
    """Seconds of each row's stages; "" where none were recorded."""
    rows = [("baseline", "none", results["baseline"].get("seconds") or {})]
    rows += [(row["encoder"], row["image_feature"], row.get("seconds") or {}) for row in results["rows"]]
    stages = list(dict.fromkeys(stage for *_, seconds in rows for stage in seconds))
    if not stages:
        return ""
    body = []
    for encoder, form, seconds in rows:
        cells = "".join(f"<td>{seconds[s]:,.1f}</td>" if s in seconds else "<td></td>" for s in stages)
        body.append(f"<tr><td>{escape(encoder)}</td><td>{escape(form)}</td>{cells}</tr>")
    lead = (
        "Seconds of each stage, a mean over seeds. ctr: the row's own CTR model. encoder: shared by the encoder's forms. start: SimCLR on "
        "the shop's own pictures, with whose weights all encoders of a seed begin, shared by them."
    )
    return f'<p class="lead below">{escape(lead)}</p>' + grid(("encoder", "image feature", *stages), body)
