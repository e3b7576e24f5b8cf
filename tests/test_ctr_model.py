"""The CTR model: padding, sharing and order change nothing; only the image feature differs between forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ctr.attention import Cosines, SelfAttention, TargetAttention
from ctr.batches import Piece, assemble
from ctr.config import PRESETS, CtrConfig
from ctr.inputs import encode
from ctr.model import build
from ctr.order import Part, part_of
from tests.ctr_shop import make_shop, pictures

FORMS = ("none", "vector", "cluster_id", "sim_score")
KINDS = [(form, pooling) for form in FORMS for pooling in ("self", "target")]


def setting(form="none", pooling="self", **shop_settings):
    shop, style = make_shop(**shop_settings)
    config = CtrConfig(**PRESETS["tiny"], pooling=pooling)
    inputs = encode(shop, pictures(style, form), config)
    model = build(inputs.layout, config, seed=3).eval()
    with torch.no_grad():
        for _, table in model.tables.named_tables():
            table.mul_(10)  # large enough for every input to tell in the logits
    return shop, inputs, model


def by_row(model, batch):
    return dict(zip(batch.row.tolist(), model(batch).tolist(), strict=True))


@pytest.mark.parametrize(("form", "pooling"), KINDS)
def test_users_without_any_history_have_finite_logits_and_gradients(form, pooling):
    shop, inputs, model = setting(form, pooling, events=0)
    batch = assemble(inputs, part_of(shop, "train"), np.arange(20))
    assert all((history < 0).all() for history in batch.histories)
    logits = model(batch)
    F.binary_cross_entropy_with_logits(logits, batch.click).backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("form", "pooling"), KINDS)
def test_more_padding_changes_no_logit(form, pooling):
    shop, inputs, model = setting(form, pooling)
    batch = assemble(inputs, part_of(shop, "train"), np.arange(30))
    assert any((history >= 0).any() for history in batch.histories)
    more = batch._replace(
        histories=tuple(F.pad(history, (0, 7), value=-1) for history in batch.histories),
        pieces=tuple(tuple(Piece(b, e, n + 7) for b, e, n in pieces) for pieces in batch.pieces),
    )
    torch.testing.assert_close(model(more), model(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("form", "pooling"), KINDS)
def test_a_session_read_once_gives_what_each_impression_gives_by_itself(form, pooling):
    shop, inputs, model = setting(form, pooling)
    part = part_of(shop, "train")
    shared = by_row(model, assemble(inputs, part, np.arange(25)))
    session = np.repeat(np.arange(25), part.count[:25])
    alone = Part(rows=part.rows, sessions=part.sessions[session], start=np.arange(len(session)), count=np.ones_like(session))
    naive = by_row(model, assemble(inputs, alone, np.arange(len(session))))
    assert len(shared) == len(session)
    assert naive == pytest.approx(shared, abs=1e-5)
    assert np.std(list(shared.values())) > 0.003


@pytest.mark.parametrize("form", FORMS)
def test_impressions_in_another_order_have_the_same_logits(form):
    shop, inputs, model = setting(form)
    part = part_of(shop, "train")
    turned = Part(
        rows=np.concatenate([part.rows[a : a + n][::-1] for a, n in zip(part.start, part.count, strict=True)]),
        sessions=part.sessions, start=part.start, count=part.count,
    )  # fmt: skip
    one, two = assemble(inputs, part, np.arange(25)), assemble(inputs, turned, np.arange(25)[::-1])
    assert one.row.tolist() != two.row.tolist()
    assert by_row(model, two) == pytest.approx(by_row(model, one), abs=1e-5)


@pytest.mark.parametrize("form", FORMS[1:])
def test_all_but_the_image_feature_has_the_same_names_shapes_and_first_weights(form):
    _, _, plain = setting("none")
    _, _, model = setting(form)
    weights = dict(model.named_parameters())
    for name, weight in plain.named_parameters():
        assert torch.equal(weights.pop(name), weight), name
    assert weights
    assert all({"image", "image_cluster"} & set(name.split(".")) for name in weights)


@pytest.mark.parametrize("form", FORMS[1:])
def test_the_image_feature_reaches_the_logits(form):
    shop, inputs, model = setting(form)
    batch = assemble(inputs, part_of(shop, "train"), np.arange(30))
    before = model(batch)
    image = [p for name, p in model.named_parameters() if {"image", "image_cluster"} & set(name.split("."))]
    with torch.no_grad():
        for weight in image:
            weight.zero_()
    assert (model(batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize(("mask", "mean", "spread"), [(False, 0.0, 1.0), (True, 0.0, 1.0), (True, 0.3, 0.2)])
def test_sim_score_is_equation_8_for_every_pair_and_zero_without_a_picture(mask, mean, spread):
    shop, inputs, model = setting("sim_score")
    model.cosines = Cosines(mean, spread, mask)
    batch = assemble(inputs, part_of(shop, "train"), np.arange(30))
    _, pairs = model._image({}, batch)
    missing = repeats = 0
    for name, pair in zip(inputs.histories, pairs, strict=True):
        for place, row in enumerate(batch.row.tolist()):
            session = shop.session[row]
            window = name.item[name.start[session] : name.end[session]]
            if name.gone is not None:
                window = window[name.gone[name.start[session] : name.end[session]] > shop.session_time[session]]
            wanted = np.zeros((pair.shape[1], 2))
            target = inputs.vectors[shop.item[row]]
            for k, item in enumerate(window):
                other = inputs.vectors[item]
                if target.any() and other.any():
                    cosine = target @ other / np.linalg.norm(target) / np.linalg.norm(other)
                    same = item == shop.item[row]
                    wanted[k] = 0 if same and mask else (cosine - mean) / spread, 1
                    repeats += same
                else:
                    missing += 1
            np.testing.assert_allclose(pair[place].numpy(), wanted, atol=1e-6)
    assert missing > 0
    assert repeats > 0


def test_self_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours = SelfAttention(8, 2)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias,
        }
    )  # fmt: skip
    x, real = torch.randn(3, 5, 8), torch.arange(5)[None] < torch.tensor([[5], [2], [1]])
    mixed, _ = theirs(x, x, x, key_padding_mask=~real)
    wanted = torch.stack([ours.norm(x + mixed)[b, : int(real[b].sum())].mean(0) for b in range(3)])
    torch.testing.assert_close(ours(x, real), wanted)


def test_target_attention_weighs_by_an_mlp_over_the_four_parts():
    torch.manual_seed(0)
    pool = TargetAttention(4)
    x, t = torch.randn(2, 3, 4), torch.randn(2, 4)
    h, target = x, t[:, None].expand(2, 3, 4)
    weight = pool.last(torch.relu(pool.first(torch.cat([h, target, h - target, h * target], dim=-1))))
    torch.testing.assert_close(pool(x, torch.ones(2, 3, dtype=torch.bool), t), (weight * x).sum(1))


def test_the_signal_reaches_the_logits_of_an_untrained_model():
    shop, inputs, _ = setting()
    wide = CtrConfig(hidden=(64, 64, 64, 64, 64, 64))
    deep = build(inputs.layout, wide, seed=0)
    batch = assemble(inputs, part_of(shop, "train"), np.arange(60))
    seen = []
    for layer in deep.hidden:
        layer.register_forward_hook(lambda _, x, y: seen.append(y.std(0).mean().item()))
    deep(batch)
    assert seen[-1] > seen[0] / 4  # torch's own first weights: a factor of 2.4 lost in each of the five layers


def test_a_tables_rows_do_not_depend_on_how_many_there_are():
    _, _, small = setting(items=80)
    _, _, large = setting(items=160, sessions=800)
    one, two = dict(small.tables.named_tables())["item"], dict(large.tables.named_tables())["item"]
    assert len(one) < len(two)
    assert torch.equal(two[: len(one)], one)
