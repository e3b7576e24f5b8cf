"""Latency of an exported model: one user, 500 candidates, histories of 1000 + 1000 + 200, with and without new pictures.

python benchmarks/serving.py [--quick]. The models have random weights, the paper's history lengths and the widths of preset small; a
request is scored by `ctr.score.Scorer.score`, from ids to probabilities, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

ITEMS, USERS, CANDIDATES, PICTURES = 20_000, 1_000, 500, 10
LENGTHS = {"clicks": 1000, "purchases": 1000, "cart": 200}
NOW = 1_800_000_000  # Unix s of a request
FORMS = {  # what is served -> the form, and settings of the CTR model
    **{form: (form, {}) for form in ("none", "cluster_id", "semantic_id", "vector", "sim_tier", "sim_attention")},
    "sim_attention, buckets": ("sim_attention", {"similarity_place": "buckets"}),
    "sim_score, after the attention": ("sim_score", {"score_place": "after"}),
    "sim_score, before the attention, 50 retrieved": ("sim_score", {"retrieve": 50}),
    "target attention, 50 retrieved": ("none", {"pooling": "target", "retrieve": 50}),
    "sim_score, before the attention": ("sim_score", {}),
}


def main() -> None:
    """Print a table of p50 and p99, then eager and exported, then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests; ends within 5 minutes")
    options = parser.parse_args()
    import torch

    from benchmarks.side_by_side import in_turn, line, show

    torch.set_num_threads(1)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (form, settings) in FORMS.items():
            scorer, eager = exported(Path(folder) / name, form, settings)
            slow = form == "sim_score" and not settings  # attention over a history per candidate: seconds per request
            requests = (3 if slow else 100) if options.quick else (30 if slow else 400)
            for pictures in (0,) if form == "none" or slow else (0, PICTURES):
                seconds = latency(scorer, requests, pictures)
                print(json.dumps(percentiles(name, pictures, seconds)), flush=True)
            model_inputs, _ = scorer.catalogue.model_inputs(scorer.catalogue.check(request(0, 0)), {})
            with torch.inference_mode():
                rounds = 1 if slow else 5 if form == "sim_score" else 20
                ours, peer = in_turn(lambda: scorer.program(*model_inputs), lambda: eager(*model_inputs), rounds=rounds)  # noqa: B023
            lines.append(line(f"serve {name}, exported vs eager", 1000 * ours, 1000 * peer, "ms", higher_is_better=False))
    show(lines)


def latency(scorer: Any, requests: int, pictures: int) -> np.ndarray:
    """(requests,) seconds of different requests, after two to warm up."""
    seconds = []
    for number in range(requests + 2):
        asked = request(number, pictures)
        began = time.perf_counter()
        scorer.score(**asked)
        seconds.append(time.perf_counter() - began)
    return np.array(seconds[2:])


def percentiles(form: str, pictures: int, seconds: np.ndarray) -> dict[str, Any]:
    """The figures of one kind of request, in ms."""
    p50, p99 = (round(1000 * float(np.quantile(seconds, share)), 1) for share in (0.5, 0.99))
    return {"form": form, "new pictures": pictures, "p50 ms": p50, "p99 ms": p99, "requests": len(seconds)}


def request(number: int, pictures: int) -> dict[str, Any]:
    """A user's request; the first `pictures` candidates are new items with new pictures."""
    rng = np.random.default_rng(number)
    candidates: list[Any] = rng.choice(ITEMS, CANDIDATES, replace=False).tolist()
    shown = {}
    for place in range(pictures):
        item = ITEMS + 1000 * number + place
        candidates[place] = {"item_id": item, "title": "red wool dress", "category": "dress", "price": 20.0}
        shown[item] = jpeg(item)
    return {
        "user": int(rng.integers(USERS)),
        "timestamp": NOW,
        "history_times": {name: np.sort(NOW - rng.integers(1, 10**6, size=length)).tolist() for name, length in LENGTHS.items()},
        "history": {name: rng.integers(ITEMS, size=length).tolist() for name, length in LENGTHS.items()},
        "candidates": candidates,
        "query": "red dress",
        "context": {"position": list(range(CANDIDATES))},
        "pictures": shown,
    }


def jpeg(seed: int) -> bytes:
    """A picture file of 400 x 400 pixels."""
    import io

    from PIL import Image

    rng, content = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    small.resize((400, 400)).save(content, "JPEG", quality=85)
    return content.getvalue()


def exported(folder: Path, form: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """A scorer of an exported model with random weights, and the same model unexported."""
    import polars as pl
    from safetensors.torch import save_file

    from ctr.config import CtrConfig
    from ctr.inputs.encode import encode
    from ctr.inputs.vocabulary_files import write_model_spec
    from ctr.model.ctr_model import build
    from ctr.score import Scorer
    from ctr.serving.exporter import export
    from ctr.serving.serving_model import ServingModel
    from ctr.serving.trained_run import open_run
    from ctr.training.weights import save_weights
    from data.log.shop_folder import load_shop
    from features.embeddings import write_embeddings
    from features.image_feature import image_feature, no_image
    from pretrain.backbones.backbone import backbone
    from pretrain.config import PretrainConfig
    from pretrain.similarity import normalise
    from run.config import as_dict, to_toml
    from run.folder import file_hash

    rng = np.random.default_rng(0)
    for name in ("shop", "run", "encoder"):
        (folder / name).mkdir(parents=True)
    words = np.array(["red", "blue", "wool", "silk", "dress", "shoe", "bag", "long", "new", "soft"])
    ids = np.arange(ITEMS)
    pl.DataFrame(
        {
            "item_id": ids,
            "image": [f"{item}.jpg" for item in ids],
            "title": [" ".join(title) for title in words[rng.integers(len(words), size=(ITEMS, 8))]],
            "category": words[4 + ids % 3],
            "price": rng.lognormal(3, 1, ITEMS),
        }
    ).write_parquet(folder / "shop/items.parquet")
    impressions = 100_000
    user = np.repeat(np.arange(impressions // 10) % USERS, 10)
    pl.DataFrame(
        {
            "session_id": np.arange(impressions) // 10,
            "user_id": user,
            "item_id": rng.integers(ITEMS, size=impressions),
            "timestamp": 1_700_000_000 + np.arange(impressions) // 10 * 60,
            "click": rng.integers(2, size=impressions),
            "query": "red dress",
            "position": np.arange(impressions) % 10,
        }
    ).write_parquet(folder / "shop/impressions.parquet")
    shop = load_shop(folder / "shop")
    config = CtrConfig(click_items=1000, purchase_items=1000, cart_items=200, **settings)
    encoder = PretrainConfig()
    net = backbone(encoder.backbone, dim=encoder.dim, seed=0)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "encoder/best.safetensors")
    (folder / "encoder/config.toml").write_text(to_toml({"pretrain": as_dict(encoder)}))
    vectors = normalise(rng.normal(size=(ITEMS, encoder.dim)).astype(np.float32))
    meta = {"encoder": "random", "hash": file_hash(folder / "encoder/best.safetensors"), "normalised": True}
    write_embeddings(folder / "encoder/embeddings", shop.items["item_id"], vectors, meta)
    feature = no_image(ITEMS) if form == "none" else image_feature(form, vectors, seed=0, centre=True)
    inputs = encode(shop, feature, config)
    model = build(inputs.layout, config, 0)
    save_weights(folder / "run/best.safetensors", model.state_dict(), inputs)
    write_model_spec(folder / "run", inputs, config)
    trained_run = open_run(folder / "run", data=str(folder / "shop"), embeddings=folder / "encoder/embeddings")
    export(trained_run, folder / "export")
    return Scorer.load(folder / "export"), ServingModel(trained_run.spec.layout, trained_run.spec.config, trained_run.weights)


if __name__ == "__main__":
    main()
