"""The commands from a shop folder to embeddings: they share the decoded pictures."""

import numpy as np
import polars as pl

from features.embed import main as embed
from pretrain.train import main as train
from tests.shops import write_shop

SETTINGS = (  # noqa: SIM905 - as typed in a shell
    "--encoder simclr --weights random --image-size 16 --store-size 24 --dim 8 --pictures 200 --batch-pictures 32 --checkpoints 1"
).split()


def test_a_trained_encoder_embeds_its_own_shop_and_another(tmp_path):
    shop = write_shop(tmp_path / "shop", sessions=300)
    assert train([*SETTINGS, "--data", str(shop), "--out", str(tmp_path / "run")]) == 0
    assert embed(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "own")]) == 0
    lengths = np.linalg.norm(np.load(tmp_path / "own/vectors.npy"), axis=1)
    images = pl.read_parquet(shop / "items.parquet")["image"]
    np.testing.assert_allclose(lengths, images.is_not_null().to_numpy(), rtol=1e-5)
    assert len(list(tmp_path.rglob("pixels.npy"))) == 1  # decoded once, for training

    other = write_shop(tmp_path / "other", items=20, seed=1)
    assert embed(["--run", str(tmp_path / "run"), "--data", str(other), "--out", str(tmp_path / "elsewhere")]) == 0
    assert len(np.load(tmp_path / "elsewhere/vectors.npy")) == 20
    assert len(list((tmp_path / "run").rglob("pixels.npy"))) == 1  # nothing is added to the encoder's run
