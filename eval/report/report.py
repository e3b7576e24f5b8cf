"""A comparison as one self-contained HTML file: no script, no external address, pictures embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.caveats import notes
from eval.report.page import render
from eval.report.plots import ForestRow, forest
from eval.report.sections import (
    AttentionExample,
    ClusterPictures,
    Curves,
    attention_cards,
    cluster_cards,
    encoder_colours,
    training_charts,
)
from eval.report.wording import (
    DELTA,
    OWN_MODEL,
    SELECTED,
    SIMULATED,
    Results,
    Row,
    alone,
    alone_shown,
    answer,
    basis,
    best_row,
    bounds,
    caution,
    count,
    headroom,
    is_selected,
    level,
    over_own_model,
    p_value,
    pairs_shown,
    percentage_points,
    purpose,
    settings,
    verdict,
)
from eval.rows import is_control, row_name
from run.files import write_atomic

__all__ = ["AttentionExample", "ClusterPictures", "write_report"]

_LIFTS = (("delta_gauc", "GAUC"), ("delta_auc", "AUC"))
_HEADINGS = ("encoder", "image feature", "AUC", "ΔAUC (pp)", "GAUC", "ΔGAUC (pp)", "p (ΔGAUC)", "valid. GAUC")


def write_report(
    path: str | Path,
    results: Results,
    *,
    curves: Curves | None = None,
    encoder: str = "",
    clusters: Sequence[ClusterPictures] = (),
    no_clusters: str = "",
    attention: Sequence[AttentionExample] = (),
) -> None:
    """Write the report. Empty sections are left out.

    Args:
        path: the HTML file; replaced atomically.
        results: as in `results.json`; optional are "simulated" and "oracle", the AUC and GAUC of the probabilities
            that a simulated world's clicks were drawn from.
        curves: name -> lines with "step" or "pictures" and any of "loss", "valid_gauc", "valid_log_loss". Names that
            start with "ctr " are CTR models, all others encoders; a first word "encoder" or "ctr" is not shown.
        encoder: whose clusters and attention are shown.
        clusters: shown with up to 12 pictures each.
        no_clusters: why there are none, a sentence.
        attention: one card each.
    """
    text = render(
        "report.html",
        purpose=purpose(results),
        answer=answer(results),
        caution=caution(results),
        basis=basis(results),
        simulated=SIMULATED if results.get("simulated") else "",
        tiles=_tiles(results),
        ceiling=" ".join(sentence(results) for key, sentence in (("own_model", over_own_model), ("oracle", headroom)) if results.get(key)),
        delta=DELTA,
        chosen=SELECTED,
        headings=_HEADINGS,
        rows=_rows(results),
        forests=_forests(results),
        pairs=_pairs(results),
        alone=alone(results),
        alone_axis=_alone(results),
        charts=training_charts(curves or {}, results),
        shown_of=encoder,
        seeds=len(results["seeds"]),
        clusters=cluster_cards(clusters),
        no_clusters=no_clusters,
        attention=attention_cards(attention),
        notes=notes(results),
        facts=_facts(results),
        seconds=_seconds(results),
    )
    write_atomic(Path(path), text.encode(errors="backslashreplace"))


def _tiles(results: Results) -> list[dict[str, str]]:
    """The four numbers to remember."""
    base, best, oracle = results["baseline"], best_row(results), results.get("oracle")
    tiles = []
    if best is not None:
        for name, what in _LIFTS:
            more = f"{bounds(best[name])}, p {p_value(best[name].get('p_value'))}"
            tiles.append({"what": f"{what} lift (pp)", "value": percentage_points(best[name]["mean"]), "more": more})
    tiles.append({"what": "Baseline GAUC", "value": level(base["gauc"]["mean"]), "more": f"AUC {level(base['auc']['mean'])}"})
    if oracle:
        tiles.append({"what": "Ceiling GAUC", "value": level(oracle["gauc"]), "more": f"AUC {level(oracle['auc'])}"})
    return tiles


def _rows(results: Results) -> list[dict[str, Any]]:
    """The table's rows, the baseline first."""
    base, nothing = results["baseline"], {"value": "", "small": []}
    valid = {"value": level(base.get("valid_gauc")), "small": []}
    rows: list[dict[str, Any]] = [
        {"kind": "", "encoder": "baseline", "form": "none",
         "cells": [_metric(base["auc"]), nothing, _metric(base["gauc"]), nothing, nothing, valid]}
    ]  # fmt: skip
    if (own := results.get("own_model")) is not None:
        cells = [{"value": level(own["auc"]), "small": []}, _lift(own["delta_auc"]), {"value": level(own["gauc"]), "small": []}]
        rows.insert(0, {"kind": "", "encoder": OWN_MODEL, "form": "none", "cells": [*cells, _lift(own["delta_gauc"]), nothing, nothing]})
    for row in results["rows"]:
        p, valid = p_value(row["delta_gauc"].get("p_value")), level(row.get("valid_gauc"))
        cells = [_metric(row["auc"]), _lift(row["delta_auc"]), _metric(row["gauc"]), _lift(row["delta_gauc"])]
        rows.append({
            "kind": "selected" if is_selected(row) else "control" if is_control(row["encoder"]) else "",
            "encoder": row["encoder"],
            "form": row["image_feature"],
            "cells": [*cells, {"value": p, "small": []}, {"value": valid, "small": []}],
        })  # fmt: skip
    return rows


def _metric(metric: Row) -> dict[str, Any]:
    """A mean with its seeds below, three per line."""
    seeds = metric.get("per_seed") or []
    lines = [" ".join(map(level, seeds[first : first + 3])) for first in range(0, len(seeds), 3)] if len(seeds) > 1 else []
    return {"value": level(metric["mean"]), "small": lines}


def _lift(delta: Row) -> dict[str, Any]:
    return {"value": percentage_points(delta["mean"]), "small": [bounds(delta)]}


def _forests(results: Results) -> list[dict[str, Any]]:
    colours = encoder_colours(results)
    drawn = []
    for name, what in _LIFTS * bool(results["rows"]):
        rows = [
            _forest_row(row_name(row["encoder"], row["image_feature"]), row[name], colours[row["encoder"]], is_selected(row))
            for row in results["rows"]
        ]
        drawn.append({"heading": what, "axis": forest(rows)})
    return drawn


def _pairs(results: Results) -> dict[str, Any] | None:
    rows = []
    for pair in pairs_shown(results):
        delta, label = pair["delta_gauc"], f"{row_name(*pair['a'])} minus {row_name(*pair['b'])}"
        rows.append(_forest_row(label, delta, "var(--ink)", bool(verdict(delta))))
    return forest(rows) if rows else None


def _alone(results: Results) -> dict[str, Any] | None:
    """What encoders add to popularity without a CTR model; of older results, the differences of their cosines alone."""
    colours, rows = encoder_colours(results), []
    if "popularity" in results:
        deltas = [(f"{each['encoder']} beside popularity", each["encoder"], each["over_popularity"]) for each in results.get("alone") or []]
    else:
        deltas = [(f"{pair['a']} minus {pair['b']}", pair["a"], pair["delta_gauc"]) for pair in alone_shown(results)]
    for label, encoder, delta in deltas:
        rows.append(_forest_row(label, delta, colours.get(encoder, "var(--ink)"), bool(verdict(delta))))
    return forest(rows) if rows else None


def _forest_row(label: str, delta: Row, row_colour: str, strong: bool) -> ForestRow:
    known = [delta["mean"], *(delta.get("ci95") or (None, None))]
    mean, low, high = (float("nan") if value is None else 100 * value for value in known)
    text = f"{percentage_points(delta['mean'])} {bounds(delta)}"
    return ForestRow(label=label, mean=mean, low=low, high=high, text=text, colour=row_colour, strong=strong)


def _facts(results: Results) -> list[tuple[str, str]]:
    facts = {
        "Data": results["data"] + (" (clicks simulated)" if results.get("simulated") else ""),
        "Preset": results.get("preset"),
        "Other settings": settings(results),
        "Seeds": ", ".join(str(seed) for seed in results["seeds"]),
        "GAUC": f"over {results.get('gauc_key', 'session')}s, weight: {results.get('gauc_weight', 'session')}",
        "Test impressions": count(results["impressions_scored"]) if "impressions_scored" in results else None,
        "Shop fingerprint": results.get("shop"),
        "Commit": results.get("commit"),
        "Versions": "; ".join(f"{name} {number}" for name, number in (results.get("versions") or {}).items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _seconds(results: Results) -> dict[str, Any] | None:
    """Seconds of each row's stages; None where none were recorded."""
    rows = [("baseline", "none", results["baseline"].get("seconds") or {})]
    rows += [(row["encoder"], row["image_feature"], row.get("seconds") or {}) for row in results["rows"]]
    stages = list(dict.fromkeys(stage for *_, seconds in rows for stage in seconds))
    if not stages:
        return None
    cells = [[f"{seconds[stage]:,.1f}" if stage in seconds else "" for stage in stages] for *_, seconds in rows]
    return {
        "stages": stages,
        "rows": [{"encoder": encoder, "form": form, "cells": line} for (encoder, form, _), line in zip(rows, cells, strict=True)],
    }
