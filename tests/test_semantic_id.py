"""Semantic IDs: codes against a slow residual k-means, rows of prefixes, new pictures, and measures of the codes."""

import numpy as np
import pytest

from eval.row_feature import clusters_of
from features.forms.table import FormSettings
from features.image_feature import image_feature
from features.learned.residual_codes import codes_of, fit_levels, prefixes_of, quality
from pretrain.similarity import normalise
from run.errors import SettingError


@pytest.fixture(scope="module")
def vectors():
    return normalise(np.random.default_rng(0).normal(size=(300, 6))).astype(np.float32)


def slow_codes(vectors, levels):
    out = []
    for vector in vectors.astype(np.float64):
        left, codes = vector.copy(), []
        for centres in levels:
            codes.append(int(np.argmin([((left - centre) ** 2).sum() for centre in centres])))
            left = left - centres[codes[-1]]
        out.append(codes)
    return np.array(out)


def test_codes_are_the_nearest_centres_of_what_is_left(vectors):
    levels = fit_levels(vectors, levels=3, codes=8, seed=1)
    assert [len(centres) for centres in levels] == [8, 8, 8]
    codes = codes_of(vectors, levels)
    assert (codes == slow_codes(vectors, levels)).all()
    numbers = prefixes_of(codes, levels)
    assert (numbers == np.stack([codes[:, 0], codes[:, 0] * 8 + codes[:, 1], codes @ [64, 8, 1]], axis=1)).all()


def test_every_level_leaves_less(vectors):
    levels = fit_levels(vectors, levels=4, codes=8, seed=1)
    found = quality(vectors, levels)
    assert all(later < earlier for earlier, later in zip(found.error, found.error[1:], strict=False))
    left = vectors - levels[0][codes_of(vectors, levels)[:, 0]]
    assert found.error[0] == pytest.approx((left**2).sum() / ((vectors - vectors.mean(0)) ** 2).sum(), rel=1e-5)


def test_quality_of_known_codes():
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    found = quality(np.repeat(corners, [1, 1, 2, 4], axis=0), [corners, np.zeros((1, 2), np.float32)])
    assert (found.unique, found.collisions) == (2 / 8, 6 / 8)
    assert found.used == (1.0, 1.0)
    shares = np.array([1, 1, 2, 4]) / 8
    assert found.entropy == (pytest.approx(-(shares * np.log(shares)).sum() / np.log(4)), 1.0)
    assert found.error == (0, 0)


def test_one_level_is_the_cluster_id(vectors):
    vectors = np.concatenate([vectors, np.zeros((3, 6), np.float32)])
    semantic = image_feature("semantic_id", vectors, FormSettings(levels=1, codes=12), seed=0)
    cluster = image_feature("cluster_id", vectors, FormSettings(clusters=12), seed=0)
    pictured = semantic.present
    assert (semantic.rows[pictured] == cluster.rows[pictured]).all()
    assert (semantic.rows[~pictured] == 13).all()
    assert semantic.parts["semantic_id"].table_sizes == (14,)


def test_rows_are_prefixes_and_unseen_ones_share_a_row(vectors):
    settings = FormSettings(levels=2, codes=8)
    feature = image_feature("semantic_id", vectors, settings, seed=0, fit_on=np.arange(100))
    sizes = feature.parts["semantic_id"].table_sizes
    constants = feature.rule.constants["semantic_id"]
    numbers = prefixes_of(
        codes_of(vectors, [constants["centres-0"], constants["centres-1"]]), [constants["centres-0"], constants["centres-1"]]
    )
    for level in range(2):
        known = {number: row for row, number in enumerate(sorted(set(numbers[:100, level].tolist())))}
        assert sizes[level] == len(known) + 2
        assert feature.rows[:, level].tolist() == [known.get(number, len(known)) for number in numbers[:, level].tolist()]
    assert (feature.rows[100:, 1] == sizes[1] - 2).any()  # a prefix that no known item has


def test_new_pictures_get_the_rows_of_the_old_ones_and_missing_ones_the_last(vectors):
    feature = image_feature("semantic_id", vectors, FormSettings(levels=3, codes=5), seed=0, centre=True)
    again = feature.rule.feature(np.concatenate([vectors[50:60], np.zeros((1, 6), np.float32)]))
    assert (again.rows[:10] == feature.rows[50:60]).all()
    assert again.rows[10].tolist() == [size - 1 for size in feature.parts["semantic_id"].table_sizes]


def test_clusters_of_a_form_are_those_of_its_table_without_the_rows_that_are_none(vectors):
    settings = FormSettings(levels=1, codes=7, clusters=9)
    for form, wanted in (("semantic_id", 7), ("cluster_id", 9), ("semantic_id+cluster_id", 9), ("vector", 0)):
        cluster, count = clusters_of(image_feature(form, vectors, settings, seed=0))
        assert count == wanted
        assert cluster is None if not wanted else cluster.max() == wanted - 1


def test_without_pictures_there_is_one_code(capsys):
    feature = image_feature("semantic_id", np.zeros((4, 3)), FormSettings(levels=2, codes=4), seed=0)
    assert feature.parts["semantic_id"].table_sizes == (2, 2)
    assert (feature.rows == 1).all()
    assert "too few distinct embeddings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "named"), [({"levels": 0}, "levels"), ({"codes": 0}, "codes"), ({"codes": 8192, "levels": 5}, "64 bits")]
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(SettingError, match=named):
        FormSettings(**settings)
    with pytest.raises(SettingError, match="16 or fewer"):
        FormSettings(levels=2**63 - 1)  # at once, and without a number of 2^66 bits
    with pytest.raises(SettingError, match="clusters"):
        FormSettings(clusters=0)
