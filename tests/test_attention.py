"""Histories in length buckets: each in exactly one, cut where it costs least; attention and pooling equal those of their papers."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import ctr.inputs.length_buckets as length_module
from ctr.inputs.length_buckets import BucketedHistory, cut, length_buckets
from ctr.model import attention
from ctr.model.attention import HistoryNetwork, SelfAttention, TargetAttention

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=12)


@given(LENGTHS, st.randoms(use_true_random=False), st.booleans())
def test_every_history_is_in_one_bucket_with_its_items_in_order_and_all_impressions(lengths, random, each_impression):
    lengths = np.array(lengths)
    count = np.array([random.randint(1, 4) for _ in lengths])
    place = np.array([random.randint(0, 9) for _ in range(lengths.sum())], dtype=np.int64)
    found, shown = {}, {}
    for run in length_buckets(place, np.arange(len(place)), lengths, count, each_impression=each_impression):
        real = torch.ones_like(run.item, dtype=torch.bool) if run.real is None else run.real
        assert run.real is None or not real.all()
        for row, session in enumerate(run.session.tolist()):
            assert session not in found
            found[session] = run.item[row][real[row]].tolist()
            shown[session] = run.impression[run.row == row].tolist()
    ends = np.cumsum(lengths)
    wanted = {s: place[ends[s] - n : ends[s]].tolist() for s, n in enumerate(lengths) if n}
    assert found == wanted
    first = np.cumsum(count) - count
    assert shown == {s: list(range(first[s], first[s] + count[s])) for s in wanted}


def price(lengths, times, ends):
    begins = [0, *ends[:-1]]
    return sum(
        length_module._CALL + times[a:b].sum() * (lengths[b - 1] ** 2 + length_module._ITEM * lengths[b - 1])
        for a, b in zip(begins, ends, strict=True)
    )


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=1, max_size=7))
def test_no_other_cut_costs_less(sessions):
    lengths, times = np.array(sorted(sessions)).T
    ends = cut(lengths, times)
    size = len(lengths)
    every = [[*inner, size] for n in range(size) for inner in combinations(range(1, size), n)]
    assert price(lengths, times, ends) == min(price(lengths, times, other) for other in every)


def test_many_lengths_are_cut_into_few_buckets_with_little_padding():
    lengths = np.sort(np.random.default_rng(0).integers(1, 1001, size=2000))
    ends = cut(lengths, np.ones(2000, int))
    padded = sum((b - a) * lengths[b - 1] ** 2 for a, b in zip([0, *ends[:-1]], ends, strict=True))
    assert len(ends) <= length_module._CUTS
    assert padded < 1.15 * (lengths**2).sum()


def attended(pool, x, real=None):
    return pool(x, F.linear(x, *pool.reader()), real)


def test_self_attention_equals_torchs():
    torch.manual_seed(0)
    ours = SelfAttention(8, 2)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias,
        }
    )  # fmt: skip
    torch.nn.init.normal_(ours.norm.weight)
    torch.nn.init.normal_(ours.norm.bias)
    x, real = torch.randn(3, 5, 8), torch.arange(5)[None] < torch.tensor([[5], [2], [1]])
    mixed, _ = theirs(x, x, x, key_padding_mask=~real)
    wanted = torch.stack([ours.norm(x + mixed)[b, : int(real[b].sum())].mean(0) for b in range(3)])
    torch.testing.assert_close(attended(ours, x, real), wanted)
    torch.testing.assert_close(attended(ours, x[:1]), wanted[:1])


@pytest.mark.parametrize("padded", [False, True])
def test_scores_after_the_attention_are_added_before_the_norm(padded):
    torch.manual_seed(0)
    pool = SelfAttention(8, 2).double()
    torch.nn.init.normal_(pool.norm.weight)
    torch.nn.init.normal_(pool.norm.bias)
    x, pair, weight = torch.randn(2, 5, 8).double(), 3 * torch.randn(2, 3, 5, 2).double(), torch.randn(8, 2).double()
    length = [5, 3] if padded else [5, 5]
    real = torch.arange(5)[None] < torch.tensor(length)[:, None] if padded else None
    read = F.linear(x, *pool.reader())
    z = pool.attend(x, read, real)
    wanted = torch.stack(
        [torch.stack([pool.norm(z[s, :n] + pair[s, p, :n] @ weight.T).mean(0) for p in range(3)]) for s, n in enumerate(length)]
    )
    found = pool.with_scores(x, read, real, pair, weight)
    torch.testing.assert_close(found, wanted.to(found.dtype), atol=1e-5, rtol=1e-5)


def test_target_attention_weighs_by_an_mlp_over_the_four_parts():
    torch.manual_seed(0)
    pool = TargetAttention(4)
    x, t = torch.randn(2, 3, 4), torch.randn(2, 4)
    h, target = x, t[:, None].expand(2, 3, 4)
    weight = pool.last(torch.relu(pool.first(torch.cat([h, target, h - target, h * target], dim=-1))))
    read = F.linear(x, *pool.reader())
    torch.testing.assert_close(pool(x, read, None, t), (weight * x).sum(1))
    real = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(pool(x, read, real, t), (weight * x * real[..., None]).sum(1))


@pytest.mark.parametrize("pooling", ["self", "target"])
def test_impressions_read_a_few_at_a_time_give_the_same_result_and_gradients(pooling, monkeypatch):
    torch.manual_seed(0)
    network = HistoryNetwork(6, 0, 2, width=8, heads=2, pooling=pooling, score_place="before")
    lengths, count = np.array([4, 0, 3, 4]), np.array([3, 1, 2, 1])
    place = np.arange(lengths.sum())
    history = BucketedHistory(torch.arange(11), length_buckets(place, np.zeros(11), lengths, count, each_impression=True))
    pairs = [torch.randn(len(run.item), 3, run.item.shape[1], 2) for run in history.buckets]
    batch = Impressions(count)
    items = torch.randn(11, 6)

    def done():
        out = network(items, None, pairs, history, batch)
        return out, torch.autograd.grad(out.square().sum(), list(network.parameters()))

    full, gradients = done()
    monkeypatch.setattr(attention, "_AT_ONCE", 8)
    few, same = done()
    assert full.shape == (7, 8)
    assert (full[3] == 0).all()
    torch.testing.assert_close(few, full)
    torch.testing.assert_close(same, gradients)


class Impressions:
    """What a network reads from a batch: the session, slot and target of each impression."""

    def __init__(self, count):
        self.session = torch.from_numpy(np.repeat(np.arange(len(count)), count))
        self.slot = torch.from_numpy(np.concatenate([np.arange(n) for n in count]))
        self.target = torch.arange(len(self.session))
        self.grid = torch.zeros(len(count), int(count.max()), dtype=torch.int64)
