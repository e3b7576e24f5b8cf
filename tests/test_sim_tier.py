"""SimTier's tiers and counts: closed forms, what they count, and what they are learned from."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.encode import encode
from ctr.model.places import Cosines, Pairs, compare, tier_counts, tier_edges, tiers_between, tiers_of
from data.log.events import CLICK
from features.image_feature import image_feature
from features.learned.shown_and_clicked import cosines_of, shown_and_clicked
from pretrain.similarity import normalise
from tests.ctr_shop import make_shop

TINY = CtrConfig(**PRESETS["tiny"])
EDGES = torch.tensor([-0.5, 0.0, 0.25, 0.5, 0.875])
TIERS = tiers_between(EDGES)
MASKED = Cosines(mask_same_item=True)


def layout(vectors, pairs):
    shop, _ = make_shop(items=len(vectors))
    return encode(shop, image_feature("sim_tier", vectors, seed=0, pairs=pairs), TINY).layout


def test_edges_are_quantiles_of_the_pairs_that_training_meets_finer_at_the_top():
    rng = np.random.default_rng(0)
    vectors = normalise(rng.normal(size=(300, 6))).astype(np.float32)
    pairs = rng.integers(300, size=(20_000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    cosines = cosines_of(pairs, vectors)
    edges = tier_edges(layout(vectors, pairs), dataclasses.replace(TINY, tiers=5)).numpy()
    shares = [(cosines < edge).mean() for edge in edges]
    np.testing.assert_allclose(shares, [1 - 0.8**2, 1 - 0.6**2, 1 - 0.4**2, 1 - 0.2**2], atol=1e-3)
    np.testing.assert_allclose(cosines, (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(1), atol=1e-6)


def test_equal_tiers_are_the_papers_and_stand_in_where_no_pairs_are_known():
    vectors = np.eye(40, 5, dtype=np.float32)
    equal = tier_edges(layout(vectors, None), dataclasses.replace(TINY, tier_edges="equal"))
    np.testing.assert_allclose(equal, np.linspace(-1, 1, 21)[1:-1], atol=1 / 4096)
    unknown = tier_edges(layout(vectors, np.zeros((0, 2), np.int64)), dataclasses.replace(TINY, tiers=2))
    np.testing.assert_allclose(unknown, [0.5], atol=1 / 4096)  # three quarters of the way from -1 to 1


def test_a_tier_holds_its_lower_edge_and_nothing_below_it():
    below, above = (torch.nextafter(EDGES, torch.full_like(EDGES, towards)) for towards in (-2, 2))
    assert tiers_of(EDGES, TIERS).tolist() == tiers_of(above, TIERS).tolist() == [1, 2, 3, 4, 5]
    assert tiers_of(below, TIERS).tolist() == [0, 1, 2, 3, 4]
    assert tiers_of(torch.tensor([-1.0000002, -1, 1, 1.0000002]), TIERS).tolist() == [0, 0, 5, 5]


@given(seed=st.integers(0, 10_000))
def test_a_cosines_tier_is_the_number_of_edges_that_are_not_above_it(seed):
    rng = np.random.default_rng(seed)
    edges = torch.from_numpy(np.sort(rng.integers(-4096, 4097, size=rng.integers(0, 30))) / 4096).float()
    cosine = torch.from_numpy(np.concatenate([rng.uniform(-1, 1, 200), edges[:100], rng.choice([-1, 0, 1e-45, -1e-45, 1], 5)])).float()
    assert torch.equal(tiers_of(cosine, tiers_between(edges)), torch.bucketize(cosine, edges, right=True))


def some_pairs(rng, targets, items):
    return Pairs(
        cosine=torch.from_numpy(rng.uniform(-1, 1, size=(1, targets, items))),
        both=torch.from_numpy(rng.random((1, targets, items)) < 0.7),
        differ=torch.from_numpy(rng.random((1, targets, items)) < 0.8),
        length=torch.tensor([items]),
    )


@given(seed=st.integers(0, 1000), items=st.integers(1, 12))
def test_order_padding_and_items_without_a_picture_move_no_count(seed, items):
    rng = np.random.default_rng(seed)
    pairs = some_pairs(rng, 3, items)
    found = tier_counts(pairs, TIERS, MASKED)
    turned = torch.from_numpy(rng.permutation(items))
    again = Pairs(pairs.cosine[..., turned], pairs.both[..., turned], pairs.differ[..., turned], pairs.length)
    torch.testing.assert_close(tier_counts(again, TIERS, MASKED), found)
    no = torch.zeros(1, 3, 2, dtype=torch.bool)
    padded = Pairs(*(torch.cat([a, b], 2) for a, b in zip(pairs[:3], (no.double(), no, ~no), strict=True)), pairs.length)
    torch.testing.assert_close(tier_counts(padded, TIERS, MASKED), found)
    bare = tier_counts(padded._replace(length=pairs.length + 2), TIERS, MASKED)  # two items without a picture
    torch.testing.assert_close(bare[..., :-2], found[..., :-2])
    torch.testing.assert_close(bare[..., -2], found[..., -2] * items / (items + 2))
    assert ((tier_counts(pairs, TIERS, Cosines()).expm1()[..., :-2].sum(-1) - pairs.both.sum(2)).abs() < 1e-4).all()


def test_a_tier_holds_its_lower_edge_and_the_top_one_a_cosine_of_one():
    cosine = torch.tensor([[[-1.0, -0.5, 0.25, 0.9, 1.0]]])
    yes = torch.ones(1, 1, 5, dtype=torch.bool)
    counts = tier_counts(Pairs(cosine, yes, yes, torch.tensor([5])), TIERS, MASKED)[0, 0].expm1().round()
    assert counts[:6].tolist() == [1, 1, 0, 1, 0, 2]


def test_an_empty_history_counts_nothing():
    padding, item = torch.zeros(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.int64)
    pairs = compare(torch.eye(3), torch.ones(3, dtype=torch.bool), torch.tensor([[0, 1]]), item, padding)
    assert not tier_counts(pairs, TIERS, MASKED).any()


def test_pairs_are_of_items_shown_in_training_and_clicked_before_by_the_same_user():
    shop, _ = make_shop()
    pairs = shown_and_clicked(shop, seed=0)
    assert len(pairs) > 300
    assert (pairs[:, 0] != pairs[:, 1]).all()
    clicked = shop.events.logs[CLICK]
    possible = set()
    for row in shop.rows("train"):
        user, time = shop.user[row], shop.session_time[shop.session[row]]
        mine = slice(clicked.start[user], clicked.start[user + 1])
        possible |= {(int(shop.item[row]), int(item)) for item in clicked.item[mine][clicked.time[mine] < time]}
    assert set(map(tuple, pairs.tolist())) <= possible
    assert (shown_and_clicked(shop, seed=0) == pairs).all()
    assert len(shown_and_clicked(shop, seed=0, most=50)) <= 50
    assert not np.array_equal(shown_and_clicked(shop, seed=1), pairs)


def test_pairs_without_pictures_are_left_out():
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = 0
    assert len(cosines_of(np.array([[0, 1], [0, 3], [3, 2]]), vectors)) == 1
    assert len(cosines_of(np.zeros((0, 2), np.int64), vectors)) == 0


@pytest.mark.parametrize(("settings", "fix"), [({"tiers": 0}, "tiers"), ({"tier_edges": "some"}, "there are: quantiles, equal")])
def test_impossible_tiers_are_refused(settings, fix):
    with pytest.raises(Exception, match=fix):
        CtrConfig(**settings)


def test_edges_that_are_cosines_of_the_log_move_no_pair_whatever_the_shape_of_the_product():
    rng = np.random.default_rng(3)
    vectors = normalise(rng.normal(size=(60, 64))).astype(np.float32)
    vectors[50:] = vectors[:10]  # pictures that occur twice
    popular = rng.zipf(1.5, size=(5000, 2)) % 60
    tiers = tiers_between(tier_edges(layout(vectors, popular), TINY))
    unit, present = torch.from_numpy(vectors), torch.ones(60, dtype=torch.bool)
    for _ in range(50):
        target, item = (torch.from_numpy(rng.integers(60, size=(1, size))) for size in (10, 50))
        together = tier_counts(compare(unit, present, target, item, None), tiers, MASKED)[0]
        alone = [tier_counts(compare(unit, present, one[None, None], item, None), tiers, MASKED)[0, 0] for one in target[0]]
        torch.testing.assert_close(together, torch.stack(alone), atol=0, rtol=0)
