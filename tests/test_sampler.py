"""The order of sessions: each once per epoch, a full permutation if they fit one pool, else pools of blocks; ranks share each batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.inputs.sampler import BLOCK, POOL, Epoch, in_order, share, shuffled, split_sessions
from data.log.ingest import ingest
from data.log.shop_folder import SPLITS, load_shop
from run.randomness import permutation
from tests.ctr_shop import make_shop
from tests.shops import write_shop

sizes = {"places": st.integers(0, 90), "batch": st.integers(2, 20), "pool": st.integers(1, 40), "block": st.integers(1, 12)}


@settings(max_examples=50, deadline=None)
@given(**sizes, seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_each_session_is_in_one_batch_of_an_epoch_and_all_except_the_last_are_full(places, batch, pool, block, seed, epoch):
    batches = list(Epoch(places, batch, seed=seed, epoch=epoch, pool=pool, block=block))
    assert sorted(np.concatenate([*batches, np.zeros(0, np.int64)]).tolist()) == list(range(places))
    assert [len(found) for found in batches[:-1]] == [batch] * (len(batches) - 1)
    assert all(0 < len(found) <= batch for found in batches)


@settings(max_examples=50, deadline=None)
@given(**sizes, seed=st.integers(0, 3))
def test_batches_can_be_read_in_any_order(places, batch, pool, block, seed):
    epoch = Epoch(places, batch, seed=seed, epoch=1, pool=pool, block=block)
    forwards = [found.tolist() for found in epoch]
    for number in reversed(range(len(epoch))):
        fresh = Epoch(places, batch, seed=seed, epoch=1, pool=pool, block=block)
        assert fresh[number].tolist() == epoch[number].tolist() == forwards[number]
    with pytest.raises(IndexError):
        epoch[len(epoch)]


@settings(max_examples=50, deadline=None)
@given(places=st.integers(1, 200), batch=st.integers(1, 50), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_sessions_that_fit_one_pool_get_a_full_permutation(places, batch, seed, epoch):
    found = np.concatenate(list(Epoch(places, batch, seed=seed, epoch=epoch, pool=places)))
    assert found.tolist() == permutation(places, seed, "ctr order", epoch).tolist()


@settings(max_examples=50, deadline=None)
@given(**sizes)
def test_a_pool_holds_complete_blocks_and_stays_within_its_size(places, batch, pool, block):
    epoch = Epoch(places, batch, seed=0, epoch=0, pool=pool, block=block)
    positions = np.concatenate([*epoch, np.zeros(0, np.int64)]).astype(int)
    if places > pool:
        for members in np.split(positions, epoch.ends[:-1]):
            assert len(members) <= max(pool, block)
            blocks, count = np.unique(members // block, return_counts=True)
            assert all(n == min(block, places - b * block) for b, n in zip(blocks, count, strict=True))


def test_epochs_and_seeds_differ_and_sessions_of_a_block_are_far_apart_in_its_pool():
    orders = [np.concatenate(list(Epoch(4000, 64, seed=s, epoch=e, pool=1000, block=100))) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert all((a != b).any() for a, b in zip(orders, orders[1:] + orders[:1], strict=True))
    where = np.argsort(orders[0])  # of each session
    spread = [np.ptp(where[first : first + 100]) for first in range(0, 4000, 100)]
    assert min(spread) > 800


def test_an_epoch_of_a_billion_sessions_is_never_listed():
    epoch = Epoch(10**9, 4096, seed=0, epoch=0)
    assert len(epoch) == 244_141
    assert len(epoch.blocks) == 976_563
    middle = epoch[100_000]
    assert len(middle) == 4096
    assert np.unique(middle // BLOCK).size > 950  # of the 1024 blocks of a pool
    assert len(epoch.latest[1]) <= POOL


@settings(max_examples=50, deadline=None)
@given(places=st.integers(0, 40), ranks=st.integers(1, 9))
def test_shares_of_a_batch_are_contiguous_and_differ_by_one_session_at_most(places, ranks):
    batch = np.arange(places) * 3
    shares = [share(batch, rank, ranks) for rank in range(ranks)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    lengths = [len(part) for part in shares]
    assert max(lengths) - min(lengths) <= 1


def test_shares_are_empty_only_if_ranks_outnumber_sessions():
    assert [len(share(np.arange(3), rank, 4)) for rank in range(4)].count(0) == 1
    assert all(len(share(np.arange(4), rank, 4)) == 1 for rank in range(4))


# parts


@pytest.mark.parametrize("split", SPLITS)
def test_a_part_has_the_rows_of_each_session_of_its_split(split):
    shop, _ = make_shop()
    part = split_sessions(shop, split)
    assert part.sessions.tolist() == np.flatnonzero(shop.session_split == SPLITS.index(split)).tolist()
    for session, start, count in zip(part.sessions, part.start, part.count, strict=True):
        assert part.rows[start : start + count].tolist() == np.flatnonzero(shop.session == session).tolist()
    assert part.count.sum() == len(part.rows)


@pytest.mark.parametrize("pieces", [("train", "valid", "test"), ("train", "valid", "train", "test")])
def test_parts_of_an_ingested_log_equal_those_of_one_in_memory(pieces, tmp_path):
    """The second division goes back in time: a split's sessions are then not contiguous."""

    def change(frame):
        rows = np.array(pieces)[np.arange(600) // (600 // len(pieces))]
        return frame.with_columns(split=rows.astype(str)).sample(fraction=1.0, shuffle=True, seed=1)

    folder = write_shop(tmp_path / "shop", pictures=False, impressions_frame=change)
    shops = load_shop(folder, allow_unordered_split=True), ingest(folder, tmp_path / "log", allow_unordered_split=True, stretch=64)
    for split in ("pretrain", *pieces):
        one, two = (split_sessions(shop, split) for shop in shops)
        for name in ("rows", "sessions", "start", "count"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())


def test_unshuffled_batches_hold_all_sessions_oldest_first():
    shop, _ = make_shop()
    part = split_sessions(shop, "train")
    assert np.concatenate(list(in_order(part, 7))).tolist() == list(range(len(part.sessions)))
    assert np.concatenate(shuffled(part, 7, seed=0, epoch=0)).tolist() == permutation(len(part.sessions), 0, "ctr order", 0).tolist()
