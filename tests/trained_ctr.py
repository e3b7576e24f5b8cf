"""CTR models trained on a tiny shop with pictures, and requests made from its sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.torch import save_file

from ctr.config import PRESETS, CtrConfig
from ctr.train import main as train
from data.log.histories import cart_history, click_history, jagged_events, purchase_history
from data.log.shop_folder import Shop, load_shop
from data.pictures.store import build_store
from features.encoder_stages import embed_catalogue
from pretrain.backbones.backbone import backbone
from pretrain.config import PretrainConfig
from run.config import as_dict, to_toml
from tests.shops import write_shop

TINY = CtrConfig(**PRESETS["tiny"])
ENCODER = PretrainConfig(image_size=16, store_size=24, dim=8)
TRAINING = (  # noqa: SIM905 - as typed in a shell; long enough that every input affects the predictions
    "--preset tiny --epochs 6 --patience 99 --ema 0 --batch-sessions 8 --clusters 6 --min-count 1 --table-learning-rate 0.5 "
    "--learning-rate 0.005 --schedule cosine --id-dropout 0 --no-click-rate-start --no-image-gate --validations-per-epoch 1 --threads 1"
).split()


def make_encoder(folder: Path, shop_folder: Path) -> Path:
    """An encoder's run folder with random weights, and the shop's embeddings in `embeddings`."""
    shop = load_shop(shop_folder)
    net = backbone(ENCODER.backbone, dim=ENCODER.dim, seed=5)
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "best.safetensors")
    (folder / "config.toml").write_text(to_toml({"pretrain": as_dict(ENCODER)}))
    store = build_store(shop, folder / "store", size=ENCODER.store_size, workers=1)
    embed_catalogue(folder / "best.safetensors", shop, store, ENCODER, encoder="simclr", seed=5, out=folder / "embeddings")
    return folder


def run_folder(folder: Path, form: str, *flags: str) -> Path:
    """Where `make_run` puts a run."""
    return folder / "-".join([form, *(flag.strip("-") for flag in flags)])


def make_run(folder: Path, form: str, *flags: str) -> Path:
    """A run of ctr.train on `folder/shop` with the embeddings of `folder/encoder`; each is made only if missing."""
    if not (folder / "shop").exists():
        write_shop(folder / "shop", sessions=160)
        make_encoder(folder / "encoder", folder / "shop")
    run = run_folder(folder, form, *flags)
    pictures = [] if form == "none" else ["--embeddings", str(folder / "encoder/embeddings")]
    assert train([*TRAINING, "--image-feature", form, "--data", str(folder / "shop"), "--out", str(run), *pictures, *flags]) == 0
    return run


def sessions_of(shop: Shop, split: str = "test") -> list[int]:
    """The sessions of a split."""
    return np.unique(shop.session[shop.rows(split)]).tolist()


def asked_of(shop: Shop, session: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows of a session's impressions, and a request with its user, histories, candidates and context."""
    rows = np.flatnonzero(shop.session == session)
    ids = shop.items["item_id"]
    histories, times, now = {}, {}, int(shop.session_time[session])
    for build, name, most in (
        (click_history, "clicks", TINY.click_items),
        (purchase_history, "purchases", TINY.purchase_items),
        (cart_history, "cart", TINY.cart_items),
    ):
        history = build(shop, max_items=most)
        events, _ = jagged_events(history, np.array([session]), session_time=shop.session_time)
        histories[name] = ids.gather(history.item[events]).to_list()
        times[name] = history.time[events].tolist()
    frame = shop.impressions[rows]
    return rows, {
        "user": shop.users["user_id"][int(shop.session_user[session])],
        "timestamp": now,
        "history": histories,
        "history_times": times,
        "candidates": ids.gather(shop.item[rows]).to_list(),
        "query": frame["query"][0],
        "context": {name: frame[name].to_list() for name in ("category", "position", "discount")},
    }


def as_object(shop: Shop, item: int) -> dict[str, Any]:
    """An item as a JSON object: its columns except the picture."""
    return shop.items.filter(pl.col("item_id") == item).drop("image").row(0, named=True)
