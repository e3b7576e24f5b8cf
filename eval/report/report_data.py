"""The parts of a comparison's report other than its numbers, gathered from its stages: training curves, pictures of clusters, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.log.histories import click_history, padded
from data.log.shop_folder import Shop
from data.pictures.reader import Pictures
from eval.report.report import AttentionExample, ClusterPictures, write_report
from eval.row_feature import clusters_of
from eval.rows import BASELINE, Row, encoder_of, is_control
from eval.stages import Comparison, ctr_stage, feature_of
from features.encoder_stages import encoder_stage
from features.forms.form import ITEM_TABLE
from features.forms.table import places_of
from pretrain.methods.table import attended_history, method_of, with_own_settings
from pretrain.page_views import newest
from run.folder import read_metrics
from run.randomness import permutation

_LEAST_PICTURES = 3  # of a cluster, to see what its items share


def write_comparison_report(comparison: Comparison, shop: Shop, results: dict[str, Any]) -> None:
    """Write `report.html` into the run folder, with curves, clusters and attention of the first seed."""
    rows = [(row["encoder"], row["image_feature"]) for row in results["rows"]]
    shown = [row for row in rows if not is_control(row[0])]
    clusters, no_clusters, attention, first = [], "", [], ""
    if shown:
        store = comparison.source.pictures(comparison.root, size=comparison.pretrain.store_size, jobs=1)
        attending = [encoder for encoder, _ in shown if attended_history(encoder, comparison.pretrain)]
        first = next(iter([*attending, shown[0][0]]))  # clusters are shown of one encoder: the one whose attention is shown, if any
        clusters, no_clusters = cluster_examples(comparison, shop, store, first, shown)
        attention = attention_examples(comparison, shop, store, first, 0) if attending else []
    path = comparison.root / "report.html"
    write_report(
        path, results, curves=curves(comparison, rows, 0), encoder=first, clusters=clusters, no_clusters=no_clusters, attention=attention
    )  # fmt: skip


def curves(comparison: Comparison, rows: Sequence[Row], seed: int) -> dict[str, list[dict[str, Any]]]:
    """name -> lines of metrics.jsonl, for every encoder and CTR model of one seed."""
    found = {}
    for encoder in dict.fromkeys(encoder_of(row[0]) for row in rows if row[1] != "none"):
        stage = encoder_stage(comparison, encoder, seed)
        found[f"encoder {encoder}"] = read_metrics(stage.folder / "metrics.jsonl")
    for row in [BASELINE, *rows]:
        name = row[0] if row[1] == "none" else " ".join(row)
        found[f"ctr {name}"] = read_metrics(ctr_stage(comparison, row, seed).folder / "metrics.jsonl")
    return {name: lines for name, lines in found.items() if lines}


def cluster_examples(
    comparison: Comparison, shop: Shop, store: Pictures, encoder: str, rows: Sequence[Row]
) -> tuple[list[ClusterPictures], str]:
    """Pictures of an encoder's clusters; or none, and a sentence that says why."""
    row = next((row for row in rows if row[0] == encoder and ITEM_TABLE in places_of(row[1])), None)
    if row is None:
        return [], "No clusters are shown: no image feature was made of clusters."
    cluster, clusters = clusters_of(feature_of(comparison, shop, row, 0))
    assert cluster is not None
    why_none = too_small(store, cluster, clusters)
    return ([], why_none) if why_none else (cluster_pictures(store, cluster, clusters), "")


def cluster_pictures(store: Pictures, cluster: np.ndarray, clusters: int, *, wanted: int = 6, each: int = 12) -> list[ClusterPictures]:
    """Six clusters, evenly spaced in size from the largest to the median, with pictures drawn from each."""
    sizes = np.bincount(cluster[store.present], minlength=clusters)[:clusters]
    by_size = np.argsort(-sizes, kind="stable")
    by_size = by_size[: max(wanted, len(by_size) // 2)]
    chosen = by_size[np.unique(np.linspace(0, len(by_size) - 1, min(wanted, len(by_size))).astype(int))]
    shown = []
    for number in chosen:
        members = np.flatnonzero((cluster == number) & store.present)
        members = members[permutation(len(members), 0, "gallery", int(number))[:each]]
        shown.append(ClusterPictures(cluster=int(number), size=int(sizes[number]), pictures=store.read(members)))
    return shown


def too_small(store: Pictures, cluster: np.ndarray, clusters: int) -> str:
    """Why pictures of clusters would show nothing, in a sentence; "" if at least half of them hold enough pictures to compare.

    Args:
        cluster: (N,) each item's cluster, in [0, clusters) where it has a picture.
    """
    sizes = np.bincount(cluster[store.present], minlength=clusters)[:clusters]
    small = int((sizes < _LEAST_PICTURES).sum())
    if 2 * small <= len(sizes):
        return ""
    return f"No clusters are shown: {small} of {len(sizes)} hold fewer than {_LEAST_PICTURES} pictures. Lower --clusters."


def attention_examples(
    comparison: Comparison, shop: Shop, store: Pictures, encoder: str, seed: int, *, wanted: int = 5
) -> list[AttentionExample]:
    """Clicked test items with the history that the encoder compared them with, and the attention weights (paper, Fig. 1)."""
    import torch

    from pretrain.backbones.backbone import backbone_of
    from pretrain.views import resized

    stage = encoder_stage(comparison, encoder, seed)
    config, length = with_own_settings(encoder, comparison.pretrain), attended_history(encoder, comparison.pretrain)
    net = backbone_of(config, seed, stage.folder / "best.safetensors").eval()
    test = shop.rows("test")
    rows = test[(shop.click[test] == 1) & store.present[shop.item[test]]]
    clicks = click_history(shop, max_items=2 * length)
    rows = rows[permutation(len(rows), 0, "attention")[:200]]
    history = padded(clicks, shop.session[rows], length=2 * length)
    history = newest(history, (history >= 0) & store.present[history], length)
    full = (history >= 0).all(1)
    examples = []
    for row, seen in zip(rows[full][:wanted], history[full][:wanted], strict=True):
        items = np.concatenate([[shop.item[row]], seen])
        with torch.no_grad():
            embeddings = net(resized(torch.from_numpy(store.read(items)), config.image_size))
        weights = method_of(encoder).attention_weights(embeddings[0], embeddings[1:], config).numpy()
        examples.append(AttentionExample(target=store.read(items[:1])[0], history=store.read(seen), weights=weights))
    return examples
