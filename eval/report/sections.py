"""What the report shows beside numbers: training curves, pictures of clusters, what the attention picked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from eval.report.page import card, cards, image, section
from eval.report.plots import DASHES, Line, colour, legend, line_chart
from eval.wording import Results, count, is_control, is_selected

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # name -> lines of a metrics.jsonl

GREY = "var(--soft)"  # the baseline and controls
_MOST_PICTURES = 12  # of a cluster
_CLUSTERS = "What a cluster holds"


@dataclass(frozen=True, kw_only=True)
class ClusterPictures:
    """Some pictures of one cluster."""

    cluster: int
    size: int  # items in it
    pictures: np.ndarray  # (n, H, W, 3) uint8


@dataclass(frozen=True, kw_only=True)
class AttentionExample:
    """What an encoder's attention picked from a history to rebuild a clicked picture."""

    target: np.ndarray  # (H, W, 3) uint8
    history: np.ndarray  # (k, H, W, 3) uint8, oldest first
    weights: np.ndarray  # (k,) that sum to 1


def encoder_colours(results: Results) -> dict[str, str]:
    """encoder -> its CSS colour in every chart; controls are grey."""
    names = list(dict.fromkeys(row["encoder"] for row in results["rows"]))
    trained = [name for name in names if not is_control(name)]
    return dict.fromkeys(names, GREY) | {name: colour(number) for number, name in enumerate(trained)}


def training(curves: Curves, results: Results) -> str:
    """Curves of the encoders and of the CTR models: the baseline and the selected forms, or all if none is selected."""
    others = [row for row in results["rows"] if not is_selected(row)]
    if len(others) < len(results["rows"]):  # a dozen CTR models on top of each other show nothing
        hidden = {f"ctr {row['encoder']} {row['image_feature']}" for row in others}
        hidden |= {f"ctr {row['encoder']}" for row in others}
        curves = {name: lines for name, lines in curves.items() if name not in hidden}
    encoders = {name.removeprefix("encoder "): lines for name, lines in curves.items() if not name.startswith("ctr ")}
    models = {name.removeprefix("ctr "): lines for name, lines in curves.items() if name.startswith("ctr ")}
    colours = encoder_colours(results)
    unknown = [name for name in encoders if name not in colours]
    colours |= {name: colour(len(colours) + number) for number, name in enumerate(unknown)}
    pieces = [
        _chart("Pre-training loss", encoders, colours, "loss"),
        _chart("SimScore GAUC, validation", encoders, colours, "valid_gauc", best=True),
        _chart("CTR log loss, validation", models, colours, "valid_log_loss"),
    ]
    lead = (
        "The first seed. Losses of different methods have different units: read their shape, not their height. A dot "
        "marks the checkpoint that was kept. CTR models: the baseline and the selected forms."
    )
    return section("Training", lead, cards([piece for piece in pieces if piece], 280))


def _chart(heading: str, curves: Curves, colours: Mapping[str, str], key: str, *, best: bool = False) -> str:
    """A card with one curve a name, as far as the name's lines hold the key; "" where none does."""
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
    chart = line_chart(drawn, x_label="pictures encoded" if unit == "pictures" else unit, label=heading)
    return card(heading, chart + legend([(name, *styles[name]) for name in found])) if chart else ""


def _styles(names: Sequence[str], colours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """name -> colour and dash: the colour is its encoder's, the dash tells apart what shares a colour."""
    styles, used = {}, {}
    for name in names:
        encoders = [known for known in colours if name == known or name.startswith(f"{known} ")]
        shade = colours[max(encoders, key=len)] if encoders else GREY
        styles[name] = (shade, DASHES[used.get(shade, 0) % len(DASHES)])
        used[shade] = used.get(shade, 0) + 1
    return styles


def cluster_gallery(clusters: Sequence[ClusterPictures], why_none: str = "") -> str:
    """A card for each cluster, with up to 12 of its pictures; the sentence `why_none` where there are no clusters."""
    if not clusters and why_none:
        return section(_CLUSTERS, "", f'<p class="lead">{escape(why_none)}</p>')
    pieces = []
    for shown in clusters:
        alt = f"item of cluster {shown.cluster}"
        pictures = "".join(image(picture, alt) for picture in shown.pictures[:_MOST_PICTURES])
        heading = f"Cluster {shown.cluster}: {count(shown.size)} item{'s' * (shown.size != 1)}"
        pieces.append(card(heading, f'<div class="pictures">{pictures}</div>'))
    lead = "Items that share a cluster ID, from large clusters to middling ones, drawn at random within each."
    return section(_CLUSTERS, lead, cards(pieces, 280))


def attention_gallery(examples: Sequence[AttentionExample]) -> str:
    """For each example the clicked picture and the history, each history picture as strong as its weight."""
    pieces = []
    for example in examples:
        most = max(float(np.max(example.weights, initial=0.0)), 1e-9)
        figures = []
        for picture, weight in zip(example.history, example.weights, strict=True):
            share = float(weight) / most  # of the largest weight
            figures.append(
                f'<figure><div style="opacity:{0.25 + 0.75 * share:.2f}">{image(picture, "earlier click")}</div>'
                f'<div class="share"><i style="width:{100 * share:.1f}%"></i></div>{100 * float(weight):.0f} %</figure>'
            )
        target = f"<figure>{image(example.target, 'clicked item')}clicked</figure>"
        history = f'<div class="history">{"".join(figures)}</div>'
        pieces.append(f'<div class="card attention">{target}<div class="arrow">←</div>{history}</div>')
    lead = (
        "A clicked test item, and the user's earlier clicks that the encoder rebuilt it from, oldest first. The bar "
        "and the strength of a picture are its attention weight. Equal weights would mean that it looks at nothing in "
        "particular."
    )
    return section("What the encoder looks at", lead, cards(pieces, 440))
