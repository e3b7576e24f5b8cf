"""Sharded tables: fused optimizers equal the plain ones, learning rates reach them, and initial rows are keyed by (seed, table, row)."""

import dataclasses

import numpy as np
import pytest
import torch

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.feed import Share, batches_per_epoch
from ctr.inputs.sampler import split_sessions
from ctr.model.ctr_model import build
from ctr.model.tables import draw_rows
from ctr.training.training import averaged, begin_at_click_rate, prepare, take_step
from run.devices import set_up
from run.errors import SettingError
from tests.ctr_shop import make_shop, pictures

TINY = CtrConfig(**PRESETS["tiny"])
RATE = 0.05 * 0.05  # of the tables in the first warm-up step


def one_step(config, batches=1):
    """A training after some steps, its plain copy before them, and the batches."""
    shop, style = make_shop()
    inputs = encode(shop, pictures(style, "cluster_id"), config)
    train = split_sessions(shop, "train")
    steps = config.epochs * batches_per_epoch(train, config)
    run = prepare(inputs, config, seed=3, steps=steps, fabric=set_up(1), settings={})
    taken = [assemble(inputs, train, np.arange(30 * n, 30 * n + 30)) for n in range(batches)]
    for batch in taken:
        take_step(run, Share(batch, True, len(batch.click)))
    plain = build(inputs.layout, config, seed=3)
    begin_at_click_rate(plain.logit.bias, shop.click[shop.rows("train")])
    return run, plain, taken


def plain_gradients(model, batch):
    """The tables and their gradients, by plain autograd."""
    model.train()
    torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.click).backward()
    return {f"{name}": table for name, table in model.tables.named_tables()}


def rows_of(run):
    return {part.table: part.weight for part in run.parts}


@pytest.mark.parametrize(("name", "kind"), [("adagrad", torch.optim.Adagrad), ("sgd", torch.optim.SGD)])
def test_a_fused_step_is_that_of_torch(name, kind):
    run, model, (batch,) = one_step(dataclasses.replace(TINY, table_optimizer=name))
    tables = plain_gradients(model, batch)
    kind(tables.values(), lr=RATE).step()
    for table, rows in rows_of(run).items():
        torch.testing.assert_close(rows, tables[table].detach(), atol=1e-6, rtol=0, msg=table)


def test_rowwise_adagrad_divides_a_rows_gradient_by_its_root_mean_square():
    run, model, (batch,) = one_step(dataclasses.replace(TINY, table_optimizer="rowwise_adagrad"))
    for name, table in plain_gradients(model, batch).items():
        assert table.grad is not None
        size = table.grad.square().mean(1, keepdim=True).sqrt()
        wanted = table.detach() - RATE * table.grad / (size + 1e-10)
        torch.testing.assert_close(rows_of(run)[name], wanted, atol=1e-6, rtol=0, msg=name)


def test_rows_that_no_batch_looks_up_stay_as_drawn():
    run, model, batches = one_step(TINY, batches=2)
    looked_up = torch.cat([batch.ids["user"].values() for batch in batches]).unique()
    drawn = dict(model.tables.named_tables())["user"].detach()
    moved = (rows_of(run)["user"] != drawn).any(1)
    assert 0 < len(looked_up) < len(drawn)
    assert moved.nonzero()[:, 0].tolist() == looked_up.tolist()


@pytest.mark.parametrize("ema_tables", [True, False])
def test_the_average_replaces_the_weights_until_they_are_restored(ema_tables):
    run, _, _ = one_step(dataclasses.replace(TINY, ema_tables=ema_tables), batches=3)
    name, weight = next(iter(run.network.items()))
    table = run.parts[0].weight
    before, rows, kept = weight.detach().clone(), table.clone(), run.average[name].clone()
    with averaged(run):
        assert torch.equal(weight, kept)
        assert not torch.equal(weight, before)
        assert torch.equal(table, rows) != ema_tables
    assert torch.equal(weight, before)
    assert torch.equal(table, rows)


def test_initial_rows_depend_on_their_position_in_the_full_table():
    full, part = torch.empty(9000, 4), torch.empty(3000, 4)
    draw_rows(full, 5, "item")
    draw_rows(part, 5, "item", first=4321)
    assert torch.equal(part, full[4321:7321])
    assert full.min() < -0.049
    assert full.max() > 0.049
    assert full.abs().max() <= 0.05


def test_half_precision_tables_train_and_bf16_is_refused_on_a_cpu():
    half = dataclasses.replace(TINY, table_precision="fp16", ema_tables=False)
    run, model, (batch,) = one_step(half)
    assert rows_of(run)["item"].dtype == torch.float16
    tables = plain_gradients(model, batch)
    torch.optim.Adagrad(tables.values(), lr=RATE).step()
    torch.testing.assert_close(rows_of(run)["item"].float(), tables["item"].detach(), atol=1e-3, rtol=0)
    with pytest.raises(SettingError, match="bf16"):
        one_step(dataclasses.replace(half, table_precision="bf16"))
    with pytest.raises(SettingError, match="turn ema_tables off"):
        dataclasses.replace(TINY, table_precision="fp16")


def test_a_width_that_the_kernels_cannot_handle_is_refused():
    with pytest.raises(SettingError, match="multiple of 4"):
        CtrConfig(id_size=6)
