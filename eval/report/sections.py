"""The parts of the report other than its numbers, ready for its templates: training curves, pictures of clusters, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.report.page import data_uri
from eval.report.plots import DASHES, Line, colour, line_chart
from eval.report.wording import Results, count, is_selected
from eval.rows import is_control

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # name -> lines of a metrics.jsonl

GREY = "var(--soft)"  # the baseline and controls
_MOST_PICTURES = 12  # of a cluster


@dataclass(frozen=True, kw_only=True)
class ClusterPictures:
    """Some pictures of one cluster."""

    cluster: int
    size: int  # items in it
    pictures: np.ndarray  # (n, H, W, 3) uint8


@dataclass(frozen=True, kw_only=True)
class AttentionExample:
    """The attention weights of a history for a clicked picture."""

    target: np.ndarray  # (H, W, 3) uint8
    history: np.ndarray  # (k, H, W, 3) uint8, oldest first
    weights: np.ndarray  # (k,) that sum to 1


def encoder_colours(results: Results) -> dict[str, str]:
    """encoder -> its CSS colour in every chart; controls are grey."""
    names = list(dict.fromkeys(row["encoder"] for row in results["rows"]))
    trained = [name for name in names if not is_control(name)]
    return dict.fromkeys(names, GREY) | {name: colour(number) for number, name in enumerate(trained)}


def training_charts(curves: Curves, results: Results) -> list[dict[str, Any]]:
    """Charts of the encoders and of the CTR models: the baseline and the selected forms, or all if none is selected."""
    others = [row for row in results["rows"] if not is_selected(row)]
    if len(others) < len(results["rows"]):  # a dozen overlapping curves show nothing
        hidden = {f"ctr {row['encoder']} {row['image_feature']}" for row in others}
        hidden |= {f"ctr {row['encoder']}" for row in others}
        curves = {name: lines for name, lines in curves.items() if name not in hidden}
    encoders = {name.removeprefix("encoder "): lines for name, lines in curves.items() if not name.startswith("ctr ")}
    models = {name.removeprefix("ctr "): lines for name, lines in curves.items() if name.startswith("ctr ")}
    colours = encoder_colours(results)
    unknown = [name for name in encoders if name not in colours]
    colours |= {name: colour(len(colours) + number) for number, name in enumerate(unknown)}
    charts = [
        _chart("Pre-training loss", encoders, colours, "loss"),
        _chart("GAUC of SimScore beside popularity, validation", encoders, colours, "valid_gauc", best=True),
        _chart("CTR log loss, validation", models, colours, "valid_log_loss"),
    ]
    return [chart for chart in charts if chart]


def _chart(heading: str, curves: Curves, colours: Mapping[str, str], key: str, *, best: bool = False) -> dict[str, Any] | None:
    """One curve for each name whose lines hold the key; None if none does."""
    found = {name: [line for line in lines if line.get(key) is not None] for name, lines in curves.items()}
    found = {name: lines for name, lines in found.items() if lines}
    unit = "pictures" if all("pictures" in line for lines in found.values() for line in lines) else "step"
    styles = _styles(list(found), colours)
    drawn = [
        Line(
            name=name,
            x=np.array([line.get(unit, number) for number, line in enumerate(lines)], float),
            y=np.array([line[key] for line in lines], float),
            colour=styles[name][0],
            dash=styles[name][1],
            best=best,
        )
        for name, lines in found.items()
    ]
    return line_chart(drawn, x_label="pictures encoded" if unit == "pictures" else unit, heading=heading)


def _styles(names: Sequence[str], colours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """name -> colour and dash: the colour is its encoder's; dashes distinguish curves of one colour."""
    styles, used = {}, {}
    for name in names:
        encoders = [known for known in colours if name == known or name.startswith(f"{known} ")]
        shade = colours[max(encoders, key=len)] if encoders else GREY
        styles[name] = (shade, DASHES[used.get(shade, 0) % len(DASHES)])
        used[shade] = used.get(shade, 0) + 1
    return styles


def cluster_cards(clusters: Sequence[ClusterPictures]) -> list[dict[str, Any]]:
    """Each cluster with up to 12 of its pictures."""
    return [
        {
            "number": shown.cluster,
            "size": count(shown.size),
            "pictures": [data_uri(picture) for picture in shown.pictures[:_MOST_PICTURES]],
        }
        for shown in clusters
    ]


def attention_cards(examples: Sequence[AttentionExample]) -> list[dict[str, Any]]:
    """Each example's clicked picture and history, each history picture as opaque as its weight."""
    return [{"target": data_uri(example.target), "history": _history(example)} for example in examples]


def _history(example: AttentionExample) -> list[dict[str, str]]:
    most = max(float(np.max(example.weights, initial=0.0)), 1e-9)
    shown = []
    for picture, weight in zip(example.history, example.weights, strict=True):
        share = float(weight) / most  # of the largest weight
        shown.append({
            "picture": data_uri(picture),
            "opacity": f"{0.25 + 0.75 * share:.2f}",
            "width": f"{100 * share:.1f}",
            "percent": f"{100 * float(weight):.0f}",
        })  # fmt: skip
    return shown
