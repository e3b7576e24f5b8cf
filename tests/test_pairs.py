"""Pairs of successive clicks, their InfoNCE by slow sums, queries, the momentum queue, and a training stopped anywhere."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from pretrain.config import PretrainConfig
from pretrain.loop import train_encoder
from pretrain.methods.clip import ClipConfig
from pretrain.methods.pairs import Pairs, PairsConfig
from pretrain.methods.table import make_method
from pretrain.parts.click_pairs import click_queries, successive_clicks
from pretrain.parts.momentum import Momentum
from run.errors import SettingError, UserError
from tests.shops import write_shop
from tests.trainings import one_step, train_with_a_stop

CONFIG = PretrainConfig(
    weights="random", image_size=24, store_size=36, dim=8, pictures=480, checkpoints=3, batch_pictures=24, checkpoint_seconds=0.01,
    pairs=PairsConfig(batch_size=16), clip=ClipConfig(width=8, layers=1, heads=2, words=6),
)  # fmt: skip
WITH_QUEUE = replace(CONFIG, pairs=PairsConfig(batch_size=16, queue=24, momentum=0.9))


def asked(frame):
    """A query a session, some of them missing."""
    session = frame["session_id"].to_numpy()
    return frame.with_columns(query=pl.Series([None if number % 5 == 0 else f"{('red', 'blue')[number % 2]} thing" for number in session]))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return load_shop(write_shop(tmp_path_factory.mktemp("pairs") / "shop", sessions=300, impressions_frame=asked))


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=36, workers=1)


@pytest.mark.parametrize("apart", [1, 3])
def test_pairs_are_a_users_clicks_in_succession(shop, store, apart):
    clicks = {}
    for row in sorted(shop.rows("pretrain"), key=lambda row: (shop.session_time[shop.session[row]], row)):
        if shop.click[row] == 1 and store.present[shop.item[row]]:
            clicks.setdefault(int(shop.session_user[shop.session[row]]), []).append(int(shop.item[row]))
    expected = sorted(
        (seen[place], seen[place + later])
        for seen in clicks.values()
        for later in range(1, apart + 1)
        for place in range(len(seen) - later)
        if seen[place] != seen[place + later]
    )
    assert expected
    assert sorted(map(tuple, successive_clicks(shop, store.present, apart=apart).tolist())) == expected


def test_an_item_draws_the_queries_that_led_to_its_clicks_by_their_number(shop, store):
    found = click_queries(shop, store.present)
    wanted = {}
    for row in shop.rows("pretrain"):
        query = shop.impressions["query"][int(row)]
        if shop.click[row] == 1 and query is not None and store.present[shop.item[row]]:
            wanted.setdefault(int(shop.item[row]), []).append(query)
    items = np.arange(len(store.present))
    drawn = [[found.queries[number] for number in found.drawn(items, 0, step)] for step in range(200)]
    for item in items:
        queries = {step[item] for step in drawn}
        assert queries == (set(wanted[int(item)]) if int(item) in wanted else {""})
    item = max(wanted, key=lambda item: len(wanted[item]))
    share = np.mean([step[item] == "red thing" for step in drawn])
    assert share == pytest.approx(np.mean([query == "red thing" for query in wanted[item]]), abs=0.12)


def cosine(one, other):
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


def slow_info_nce(embedding, keys, pairs, items, group, queue, temperature, *, once):
    """Mean of -log softmax over the step's targets and the queue's entries of other items, in both directions.

    With `once`, an item's terms are averaged and not summed.
    """
    entries = Counter(item for _, item in queue)
    losses = []
    for one, other in (pairs, pairs[:, ::-1]), (pairs[:, ::-1], pairs):
        direction = []
        for (anchor, target), _ in zip(one, other, strict=True):
            mine = cosine(embedding[anchor], keys[target]) / temperature
            total = np.exp(mine)
            shown = Counter(candidate for _, candidate in one)
            for candidate in set(shown) if once else shown.elements():
                if candidate != target and (group is None or group[items[candidate]] == group[items[target]]):
                    total += np.exp(cosine(embedding[anchor], keys[candidate]) / temperature)
            for entry, item in queue:
                if item not in items and (group is None or group[item] == group[items[target]]):
                    total += np.exp(cosine(embedding[anchor], entry) / temperature) / (entries[item] if once else 1)
            direction.append(np.log(total) - mine)
        losses.append(np.mean(direction))
    return np.mean(losses)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("queued", [True, False])
def test_the_loss_is_info_nce_over_targets_and_queue(shop, store, queued, grouped, once):
    config = replace(WITH_QUEUE if queued else CONFIG, negatives="category" if grouped else "batch")
    config = replace(config, pairs=replace(config.pairs, queries=0.0, logq=once))
    method = make_method("pairs", shop, store.present, config, 0)
    assert isinstance(method, Pairs)
    step, draw = method.step(0), torch.Generator().manual_seed(0)
    embedding, keys = (torch.randn(len(step.items), 8, generator=draw, dtype=torch.float64) for _ in range(2))
    outputs, queue = {"embedding": embedding}, []
    if queued:
        method.begin(torch.nn.Linear(2, 8).double())
        entries, items = torch.randn(20, 8, generator=draw), torch.arange(20) % 12 % len(store.present)
        method.heads["momentum"].push(entries, items)
        queue, outputs["key"] = list(zip(entries.numpy(), items.tolist(), strict=True)), keys
    loss, _ = method.loss(outputs, step)
    group = shop.item_category if grouped else None
    used = (keys if queued else embedding).numpy()
    pairs, items, temperature = step.places["pair"], step.items.tolist(), config.pairs.temperature
    expected = slow_info_nce(embedding.numpy(), used, pairs, items, group, queue, temperature, once=once)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_queue_keeps_the_newest_and_a_copy_follows_by_the_formula():
    trained = torch.nn.Linear(3, 2)
    momentum = Momentum(trained, dim=2, size=5, kept=0.75)
    assert momentum.item.tolist() == [-1] * 5
    for first in range(0, 9, 3):
        momentum.push(torch.arange(first, first + 3.0)[:, None].expand(3, 2), torch.arange(first, first + 3))
    assert sorted(momentum.item.tolist()) == [4, 5, 6, 7, 8]
    assert momentum.embedding[:, 0].tolist() == [float(item) for item in momentum.item]
    momentum.push(torch.zeros(7, 2), torch.arange(20, 27))
    assert sorted(momentum.item.tolist()) == [22, 23, 24, 25, 26]
    before = momentum.copy.weight.clone()
    with torch.no_grad():
        trained.weight.add_(1)
    momentum.follow(trained)
    torch.testing.assert_close(momentum.copy.weight, before + 0.25)
    assert not any(weight.requires_grad for weight in momentum.parameters())


@pytest.mark.parametrize("config", [CONFIG, WITH_QUEUE], ids=["batch", "queue"])
def test_gradients_in_chunks_are_those_of_the_full_batch(shop, store, config):
    (loss, gradients), (other, chunked) = (one_step("pairs", shop, store, replace(config, chunk=chunk)) for chunk in (0, 5))
    assert other == pytest.approx(loss, rel=1e-9)
    assert gradients.keys() == chunked.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("config", [CONFIG, WITH_QUEUE], ids=["batch", "queue"])
def test_a_run_stopped_anywhere_ends_with_the_same_bits(shop, store, tmp_path, config):
    full = train_encoder("pairs", shop, store, config, seed=1, folder=tmp_path / "full", threads=1)
    resumed = train_with_a_stop("pairs", Pairs, 8, shop, store, config, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**full, "seconds": 0}
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()


def test_a_log_without_successive_clicks_is_refused(shop, store):
    with pytest.raises(UserError, match="pairs: 0 pairs of successive clicks with pictures"):
        make_method("pairs", shop, np.zeros_like(store.present), CONFIG, 0)


@pytest.mark.parametrize("settings", [{"queue": -1}, {"momentum": 1.0}, {"apart": 0}, {"temperature": 0.0}, {"crop": 0.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(SettingError, match=f"pairs.{next(iter(settings))}"):
        PairsConfig(**settings)
