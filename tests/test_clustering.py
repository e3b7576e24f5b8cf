"""Cluster ID: nearest centres, empty clusters, missing pictures."""

import numpy as np
import pytest

from features.forms.table import FormSettings
from features.image_feature import image_feature
from features.learned.clustering import assigned, distinct_rows, fit_centres, nearest
from pretrain.similarity import centred, collapse, history_cosines, normalise


def blobs(rng, centres=4, each=30, dim=8):
    middles = normalise(rng.normal(size=(centres, dim)))
    return normalise(np.repeat(middles, each, 0) + 0.01 * rng.normal(size=(centres * each, dim))).astype(np.float32)


def cluster_ids(vectors, *, clusters, seed, fit_on=None):
    """The cluster of every row, and the centres."""
    learn = vectors.any(1) if fit_on is None else np.isin(np.arange(len(vectors)), fit_on)
    centres, _ = fit_centres(vectors[learn], clusters=clusters, seed=seed)
    return assigned(vectors, centres), centres


def test_well_separated_groups_become_the_clusters():
    ids, centres = cluster_ids(blobs(np.random.default_rng(0)), clusters=4, seed=0)
    assert len(centres) == 4
    groups = ids.reshape(4, 30)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0])) == 4


def test_the_nearest_centre_is_that_of_brute_force_and_of_the_cosine_order():
    rng = np.random.default_rng(1)
    vectors, centres = normalise(rng.normal(size=(50, 6))), normalise(rng.normal(size=(9, 6)))
    got = nearest(vectors, centres)
    assert (got == ((vectors[:, None] - centres[None]) ** 2).sum(-1).argmin(1)).all()
    assert (got == (vectors @ centres.T).argmax(1)).all()  # Eq. 10


def test_items_without_a_picture_share_an_id_of_their_own():
    vectors = blobs(np.random.default_rng(2))
    vectors[[3, 77]] = 0
    ids, centres = cluster_ids(vectors, clusters=5, seed=0)
    assert (ids[[3, 77]] == len(centres)).all()
    assert (np.delete(ids, [3, 77]) < len(centres)).all()


def test_no_cluster_is_empty_even_with_more_centres_than_distinct_pictures():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 10, 0)
    ids, centres = cluster_ids(vectors, clusters=50, seed=0)
    assert len(centres) == 3
    assert set(ids) == {0, 1, 2}
    centres, _ = fit_centres(blobs(np.random.default_rng(3)), clusters=60, seed=1)
    assert len(np.unique(nearest(blobs(np.random.default_rng(3)), centres))) == len(centres)


def test_new_items_take_the_nearest_centre_and_move_none():
    vectors = blobs(np.random.default_rng(4))
    known = np.arange(100)
    ids, _ = cluster_ids(vectors, clusters=4, seed=0, fit_on=known)
    changed = vectors.copy()
    changed[100:] = -vectors[100:]
    again, _ = cluster_ids(changed, clusters=4, seed=0, fit_on=known)
    assert (ids[:100] == again[:100]).all()


def test_a_catalogue_without_any_picture_has_one_id():
    feature = image_feature("cluster_id", np.zeros((5, 3)), FormSettings(clusters=4), seed=0)
    assert feature.parts["cluster_id"].table_sizes[0] == 1
    assert (feature.rows == 0).all()


def test_sim_score_is_the_cosine_of_equation_8_and_zero_where_a_picture_is_missing():
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(6, 4))
    raw[5] = 0
    history = np.array([[1, 5, -1]])
    got = history_cosines(normalise(raw), np.array([0]), history)
    expected = raw[0] @ raw[1] / (np.linalg.norm(raw[0]) * np.linalg.norm(raw[1]))
    np.testing.assert_allclose(got, [[expected, 0.0, 0.0]], atol=1e-12)


def test_spread_is_one_over_root_of_the_dimension_when_healthy_and_zero_when_collapsed():
    rng = np.random.default_rng(6)
    assert abs(collapse(rng.normal(size=(20_000, 16))) - 0.25) < 0.002
    assert collapse(np.ones((50, 16))) < 1e-12


def test_scores_and_vectors_are_standardised_on_known_pictures():
    rng = np.random.default_rng(7)
    vectors = normalise(rng.normal(size=(400, 6)) + np.array([3, 0, 0, 0, 0, 0]))
    vectors[5] = 0
    feature = image_feature("sim_score", vectors, seed=0)
    present = vectors[np.arange(400) != 5]
    cosines = present @ present.T
    assert abs(feature.parts["sim_score"].constants["mean"][0] - cosines.mean()) < 1e-6
    assert abs(feature.parts["sim_score"].constants["spread"][0] - cosines.std()) < 1e-6
    as_vector = image_feature("vector", vectors, seed=0)
    np.testing.assert_allclose(as_vector.numbers[np.arange(400) != 5].mean(0), 0, atol=1e-5)
    assert abs(as_vector.numbers[np.arange(400) != 5].std() - 1) < 1e-5
    assert (as_vector.numbers[5] == 0).all()
    assert not as_vector.present[5]


def test_centred_embeddings_have_no_mean_over_known_items_and_unit_length():
    rng = np.random.default_rng(8)
    vectors = normalise(rng.normal(size=(300, 5)) + np.array([4, 0, 0, 0, 0]))
    vectors[7] = 0
    known = np.arange(200)
    got = centred(vectors, known)
    shifted = vectors - vectors[known[known != 7]].mean(0)
    np.testing.assert_allclose(got[8], shifted[8] / np.linalg.norm(shifted[8]))
    np.testing.assert_allclose(np.linalg.norm(got[np.arange(300) != 7], axis=1), 1)
    assert (got[7] == 0).all()


def test_one_direction_up_to_rounding_is_one_cluster_with_or_without_the_common_part():
    rng = np.random.default_rng(9)
    vectors = normalise((rng.normal(size=64)[None] * rng.uniform(0.5, 2, (60, 1))).astype(np.float32))
    assert len(np.unique(vectors, axis=0)) > 1
    for centre in (False, True):
        feature = image_feature("cluster_id", vectors, FormSettings(clusters=40), seed=0, centre=centre)
        assert feature.parts["cluster_id"].table_sizes[0] == 2
        assert (feature.rows == 0).all()
        assert abs(image_feature("vector", vectors, seed=0, centre=centre).numbers).max() < 1e-5
        assert image_feature("sim_score", vectors, seed=0, centre=centre).parts["sim_score"].constants["spread"] == (1.0,)


@pytest.mark.parametrize("share", [0, 50, 80, 95])
def test_copies_of_one_placeholder_leave_as_many_clusters_as_distinct_pictures_can_fill(share, capsys):
    rng = np.random.default_rng(10)
    vectors = normalise(rng.normal(size=(1000, 16))).astype(np.float32)
    vectors[: share * 10] = vectors[0]
    vectors[1 : share * 10 : 2] *= np.float32(1 - 6e-8)  # the same picture in another batch
    for centre in (False, True):
        feature = image_feature("cluster_id", vectors, FormSettings(clusters=40), seed=0, centre=centre)
        assert feature.parts["cluster_id"].table_sizes[0] - 1 == 40
        assert share == 0 or len(set(feature.rows[: share * 10, 0])) == 1
    assert capsys.readouterr().err == ""


def test_fewer_clusters_than_wanted_are_explained(capsys):
    image_feature("cluster_id", np.repeat(np.eye(3), 10, 0), FormSettings(clusters=50), seed=0)
    assert "3 clusters, not 50: the 30 pictures they are learned from have 3 distinct embeddings" in capsys.readouterr().err


def test_rows_that_differ_by_more_than_rounding_are_all_learned_from():
    vectors = blobs(np.random.default_rng(11))
    first, group = distinct_rows(vectors)
    assert (first == np.arange(len(vectors))).all()
    assert (group == np.arange(len(vectors))).all()
