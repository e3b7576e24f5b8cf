"""What the report shows beside numbers: training curves, pictures of clusters, what the attention picked from a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data.log.histories import click_history, padded
from data.log.shop_folder import Shop
from data.pictures.reader import Pictures
from eval.caveats import caveats
from eval.report.report import AttentionExample, ClusterPictures
from eval.stages import SHUFFLED, Comparison, ctr_stage
from features.encoder_stages import encoder_stage
from pretrain.page_views import newest
from run.folder import read_metrics
from run.randomness import permutation

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[str, str]
_LEAST_PICTURES = 3  # of a cluster in which one can see what its items share


def curves(comparison: Comparison, rows: Sequence[Row], seed: int) -> dict[str, list[dict[str, Any]]]:
    """name -> lines of metrics.jsonl, for every encoder and CTR model of one seed."""
    found = {}
    for encoder in dict.fromkeys(row[0].removeprefix(SHUFFLED) for row in rows if row[1] != "none"):
        stage = encoder_stage(comparison, encoder, seed)
        found[f"encoder {encoder}"] = read_metrics(stage.folder / "metrics.jsonl")
    for encoder, form in [("baseline", "none"), *rows]:
        name = encoder if form == "none" else f"{encoder} {form}"
        found[f"ctr {name}"] = read_metrics(ctr_stage(comparison, encoder, form, seed).folder / "metrics.jsonl")
    return {name: lines for name, lines in found.items() if lines}


def cluster_pictures(store: Pictures, cluster: np.ndarray, clusters: int, *, wanted: int = 6, each: int = 12) -> list[ClusterPictures]:
    """Six clusters, evenly spaced in size from the largest to the median, with pictures drawn from each."""
    sizes = np.bincount(cluster[store.present], minlength=clusters)[:clusters]
    order = np.argsort(-sizes, kind="stable")
    order = order[: max(wanted, len(order) // 2)]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(wanted, len(order))).astype(int))]
    shown = []
    for number in chosen:
        members = np.flatnonzero((cluster == number) & store.present)
        members = members[permutation(len(members), 0, "gallery", int(number))[:each]]
        shown.append(ClusterPictures(cluster=int(number), size=int(sizes[number]), pictures=store.read(members)))
    return shown


def too_small(store: Pictures, cluster: np.ndarray, clusters: int) -> str:
    """Why a gallery would show nothing, in a sentence; "" where at least half of the clusters hold enough pictures to compare.

    Args:
        cluster: (N,) each item's cluster, in [0, clusters) where it has a picture.
    """
    sizes = np.bincount(cluster[store.present], minlength=clusters)[:clusters]
    small = int((sizes < _LEAST_PICTURES).sum())
    if 2 * small <= len(sizes):
        return ""
    return f"No clusters are shown: {small} of {len(sizes)} hold fewer than {_LEAST_PICTURES} pictures. Give --clusters less."


def attention_examples(comparison: Comparison, shop: Shop, store: Pictures, seed: int, *, wanted: int = 5) -> list[AttentionExample]:
    """Clicked test items with the history COURIER rebuilt them from, and the attention's weights (paper, Fig. 1)."""
    import torch

    from pretrain.backbones.backbone import backbone
    from pretrain.methods.reconstruction import attention
    from pretrain.views import whole

    stage = encoder_stage(comparison, "courier", seed)
    config, own = comparison.pretrain, comparison.pretrain.courier
    net = backbone(config.backbone, dim=config.dim, seed=seed, weights=str(stage.folder / "best.safetensors")).eval()
    test = shop.rows("test")
    rows = test[(shop.click[test] == 1) & store.present[shop.item[test]]]
    clicks = click_history(shop, max_items=2 * own.history_items)
    rows = rows[permutation(len(rows), 0, "attention")[:200]]
    history = padded(clicks, shop.session[rows], length=2 * own.history_items)
    history = newest(history, (history >= 0) & store.present[history], own.history_items)
    full = (history >= 0).all(1)
    examples = []
    for row, seen in zip(rows[full][:wanted], history[full][:wanted], strict=True):
        items = np.concatenate([[shop.item[row]], seen])
        with torch.no_grad():
            embeddings = net(whole(torch.from_numpy(store.read(items)), config.image_size))
        present = torch.ones(1, len(seen), dtype=torch.bool)
        weights = attention(embeddings[None, :1], embeddings[None, 1:], present, scale=own.scale_attention)[0, 0]
        examples.append(AttentionExample(target=store.read(items[:1])[0], history=store.read(seen), weights=weights.numpy()))
    return examples


def notes(results: dict[str, Any], store: Pictures | None) -> list[str]:
    """What a reader should know before believing the table; that clicks are simulated, the banner above it says."""
    said = caveats(results)
    if store is not None and store.bad:
        said.append(f"{len(store.bad)} pictures could not be read and count as missing; bad_pictures.csv lists them.")
    said.append(
        "A form is selected by its GAUC in validation sessions. Intervals: paired bootstrap over users"
        + (" and seeds." if len(results["seeds"]) > 1 else ".")
    )
    return said


def report(comparison: Comparison, shop: Shop, results: dict[str, Any]) -> None:
    """Write `report.html` into the run folder."""
    from eval.report.report import write_report
    from eval.stages import feature_of
    from eval.wording import is_control

    rows = [(row["encoder"], row["image_feature"]) for row in results["rows"]]
    encoders = [row for row in rows if not is_control(row[0])]
    store, clusters, no_clusters, attended = None, [], "", []
    if encoders:
        store = comparison.source.pictures(comparison.root, size=comparison.pretrain.store_size, jobs=1)
        first = "courier" if any(row[0] == "courier" for row in encoders) else encoders[0][0]
        if (first, "cluster_id") in rows:
            feature = feature_of(comparison, shop, first, "cluster_id", 0)
            assert feature.rows is not None
            no_clusters = too_small(store, feature.rows, feature.table_size - 1)
            clusters = [] if no_clusters else cluster_pictures(store, feature.rows, feature.table_size - 1)
        else:
            no_clusters = "No clusters are shown: cluster_id was not among the image features."
        if first == "courier" and comparison.pretrain.courier.attention == "dot":
            attended = attention_examples(comparison, shop, store, 0)
    path = comparison.root / "report.html"
    parts = {"curves": curves(comparison, rows, 0), "clusters": clusters, "no_clusters": no_clusters, "attention": attended}
    write_report(path, results, **parts, notes=notes(results, store))
