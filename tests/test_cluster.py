"""The export of cluster IDs: the CTR model's clusters, and the centres that assign new pictures to them."""

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import load_shop
from features.cluster import main
from features.embeddings import write_embeddings
from features.forms.table import FormSettings
from features.image_feature import image_feature, items_shown_before
from features.learned.clustering import nearest
from features.learned.residual_codes import codes_of, quality
from pretrain.similarity import normalise
from tests.shops import write_shop


@pytest.fixture
def shop(tmp_path):
    return load_shop(write_shop(tmp_path / "shop", sessions=300, pictures=False))


@pytest.fixture
def vectors(shop):
    """Unit embeddings with a large common part; item 5 has none."""
    found = normalise(np.random.default_rng(0).normal(size=(len(shop.items), 6)) + np.array([3, 0, 0, 0, 0, 0])).astype(np.float32)
    found[5] = 0
    return found


@pytest.fixture
def embeddings(shop, vectors, tmp_path):
    write_embeddings(tmp_path / "embeddings", shop.items["item_id"], vectors, {"encoder": "made up", "normalised": True})
    return tmp_path / "embeddings"


def test_the_clusters_are_those_of_the_ctr_model(shop, vectors, embeddings, capsys):
    assert main(["--embeddings", str(embeddings), "--data", str(shop.folder), "--clusters", "7", "--seed", "2"]) == 0
    feature = image_feature("cluster_id", vectors, FormSettings(clusters=7), seed=2, fit_on=items_shown_before(shop, "valid"), centre=True)
    table = pl.read_parquet(embeddings / "clusters.parquet")
    assert table["item_id"].equals(shop.items["item_id"])
    assert (table["cluster"].to_numpy() == feature.rows[:, 0]).all()
    assert table["cluster"][5] == feature.parts["cluster_id"].table_sizes[0] - 1
    assert "1 items without a picture have ID 7" in capsys.readouterr().out


@pytest.mark.parametrize("centre", [True, False])
def test_the_centres_give_the_cluster_of_any_picture(vectors, embeddings, centre):
    assert main(["--embeddings", str(embeddings), "--clusters", "7", "--centre" if centre else "--no-centre"]) == 0
    cluster = pl.read_parquet(embeddings / "clusters.parquet")["cluster"].to_numpy()
    with np.load(embeddings / "centres.npz", allow_pickle=False) as arrays:
        centres, common = arrays["centres"], arrays["common"]
    assert len(centres) == 7
    assert bool(common.any()) == centre
    present = np.arange(len(vectors)) != 5
    assert (nearest(normalise(vectors[present] - common), centres) == cluster[present]).all()


def test_semantic_ids_are_those_of_the_ctr_model_and_their_quality_is_shown(shop, vectors, embeddings, capsys):
    words = ["--embeddings", str(embeddings), "--data", str(shop.folder), "--clusters", "4", "--levels", "3", "--seed", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    known = items_shown_before(shop, "valid")
    feature = image_feature("semantic_id", vectors, FormSettings(codes=4, levels=3), seed=2, fit_on=known, centre=True)
    table = pl.read_parquet(embeddings / "semantic_ids.parquet")
    assert table["item_id"].equals(shop.items["item_id"])
    assert table["codes"][5] is None
    with np.load(embeddings / "semantic_ids.npz", allow_pickle=False) as arrays:
        levels, common = [arrays[f"centres-{level}"] for level in range(3)], arrays["common"]
    present = np.arange(len(vectors)) != 5
    codes = codes_of(normalise(vectors[present] - common), levels)
    assert table["codes"].drop_nulls().to_list() == codes.tolist()
    sizes = feature.parts["semantic_id"].table_sizes
    assert [len(set(map(tuple, codes[:, : level + 1]))) for level in range(3)] <= list(sizes)
    assert "1 items without a picture have none" in printed
    assert f"{quality(feature.unit[present], levels).unique:.1%} of the pictures have codes that no other has" in printed
    assert len([line for line in printed.splitlines() if line.startswith("level ")]) == 3


def test_new_embeddings_remove_the_clusters_of_the_old_ones(shop, vectors, embeddings):
    assert main(["--embeddings", str(embeddings), "--clusters", "7"]) == 0
    assert main(["--embeddings", str(embeddings), "--clusters", "7", "--levels", "2"]) == 0
    write_embeddings(embeddings, shop.items["item_id"], -vectors, {"encoder": "another"})
    assert sorted(path.name for path in embeddings.iterdir()) == ["items.parquet", "meta.json", "vectors.npy"]


def test_a_folder_that_holds_no_embeddings_is_refused(tmp_path, capsys):
    assert main(["--embeddings", str(tmp_path)]) == 2
    assert "give the folder that features.embed wrote" in capsys.readouterr().err
