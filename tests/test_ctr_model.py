"""The CTR model: sharing and ordering change no result; only the image feature differs between forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ctr.inputs.length_buckets as length_module
import ctr.model.attention as attention_module
from ctr.config import PRESETS, CtrConfig, settings_read
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.sampler import SplitSessions, split_sessions
from ctr.model.ctr_model import build
from ctr.model.places import Cosines, Reading, pair_feature, pairs_of
from ctr.training.weights import of_image
from run.errors import SettingError
from tests.ctr_naive import naive_logits, window_of
from tests.ctr_shop import FORMS, KINDS, PLACES, begun_at_zero, items_of, make_shop, pictures

SESSIONS = 10  # with histories of many lengths, and pages of one impression


def setting(form="none", pooling="self", place="before", **shop_settings):
    shop, style = make_shop(**shop_settings)
    config = CtrConfig(**PRESETS["tiny"], pooling=pooling, **PLACES[place])
    inputs = encode(shop, pictures(style, form), config)
    model = build(inputs.layout, config, seed=3).eval()
    with torch.no_grad():
        for _, table in model.tables.named_tables():
            table.mul_(10)  # large enough for every input to matter in the logits
        begun_at_zero(model)
    return shop, inputs, model


def by_row(model, batch):
    return dict(zip(batch.row.tolist(), model(batch).tolist(), strict=True))


@pytest.mark.parametrize(("form", "pooling", "place"), KINDS)
def test_users_without_any_history_have_finite_logits_and_gradients(form, pooling, place):
    shop, inputs, model = setting(form, pooling, place, events=0)
    batch = assemble(inputs, split_sessions(shop, "train"), np.arange(20))
    assert all(run.item.numel() == 0 for history in batch.histories for run in history.buckets)
    logits = model(batch)
    F.binary_cross_entropy_with_logits(logits, batch.click).backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("form", "pooling", "place"), KINDS)
def test_loss_and_gradients_are_those_of_impressions_read_one_by_one(form, pooling, place, monkeypatch):
    shop, inputs, model = setting(form, pooling, place)
    weights = dict(model.named_parameters())

    def differentiated(logits, click):
        loss = F.binary_cross_entropy_with_logits(logits, click)
        return loss.item(), torch.autograd.grad(loss, list(weights.values()), allow_unused=True)

    naive = None
    for call in (100, 40_000):  # in many buckets, and in few
        monkeypatch.setattr(length_module, "_CALL", call)
        monkeypatch.setattr(attention_module, "_PAIRS_AT_ONCE", call)
        batch = assemble(inputs, split_sessions(shop, "train"), np.arange(SESSIONS))
        lengths = [len(items_of(history, session)) for history in batch.histories for session in range(SESSIONS)]
        assert {0, 1, 2, 3} < set(lengths)
        assert 1 in np.bincount(batch.session)
        assert (len(batch.histories[0].buckets) > 1) == (call == 100)
        if naive is None:
            naive = naive_logits(model, inputs, batch.row.tolist())
            naive_loss, alone = differentiated(naive, batch.click)
        logits = model(batch)
        assert logits.std() > 0.003
        torch.testing.assert_close(logits, naive, atol=1e-5, rtol=0)
        loss, shared = differentiated(logits, batch.click)
        assert loss == pytest.approx(naive_loss, abs=1e-5)
        for name, one, two in zip(weights, shared, alone, strict=True):
            assert one is not None, name
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("form", "pooling", "place"), KINDS)
def test_bf16_changes_the_logits_by_its_rounding_alone(form, pooling, place):
    shop, inputs, model = setting(form, pooling, place)
    batch = assemble(inputs, split_sessions(shop, "train"), np.arange(25))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch)
        F.binary_cross_entropy_with_logits(logits, batch.click).backward()
    assert (logits.float() - model(batch)).abs().max() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_impressions_in_another_order_have_the_same_logits(form):
    shop, inputs, model = setting(form)
    part = split_sessions(shop, "train")
    turned = SplitSessions(
        rows=np.concatenate([part.rows[a : a + n][::-1] for a, n in zip(part.start, part.count, strict=True)]),
        sessions=part.sessions, start=part.start, count=part.count,
    )  # fmt: skip
    one, two = assemble(inputs, part, np.arange(25)), assemble(inputs, turned, np.arange(25)[::-1])
    assert one.row.tolist() != two.row.tolist()
    assert by_row(model, two) == pytest.approx(by_row(model, one), abs=1e-5)


@pytest.mark.parametrize("form", FORMS[1:])
def test_everything_except_the_image_feature_has_the_same_names_shapes_and_initial_weights(form):
    _, _, plain = setting("none")
    _, _, model = setting(form)
    weights = dict(model.named_parameters())
    for name, weight in plain.named_parameters():
        assert torch.equal(weights.pop(name), weight), name
    assert weights
    assert all(of_image(name) for name in weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adapter", "mlp"),
        ("cluster_size", 32),
        ("score_place", "after"),
        ("similarity_place", "buckets"),
        ("tiers", 7),
        ("tier_edges", "equal"),
    ],
)
def test_a_setting_changes_no_model_of_a_form_that_does_not_read_it(name, value):
    shop, style = make_shop()
    config, same = CtrConfig(**PRESETS["tiny"]), {}
    for form in FORMS:
        logits = [logits_of(shop, pictures(style, form), each) for each in (config, replace(config, **{name: value}))]
        same[form] = torch.equal(*logits)
    assert all(same[form] for form in FORMS if name not in settings_read(config, form))
    assert not all(same.values()) or name == "similarity_place"


def logits_of(shop, feature, config):
    """Of one batch, by a model whose every weight is drawn."""
    inputs = encode(shop, feature, config)
    model = build(inputs.layout, config, seed=3).eval()
    with torch.no_grad():
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(weight.numel()))
        return model(assemble(inputs, split_sessions(shop, "train"), np.arange(15)))


@pytest.mark.parametrize("form", FORMS[1:])
def test_every_form_begins_as_the_baseline(form):
    shop, style = make_shop()
    config, logits = CtrConfig(**PRESETS["tiny"]), []
    for each in ("none", form):
        inputs = encode(shop, pictures(style, each), config)
        batch = assemble(inputs, split_sessions(shop, "train"), np.arange(20))
        logits.append(build(inputs.layout, config, seed=3).eval()(batch))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMS[1:])
def test_the_image_feature_reaches_the_logits(form):
    shop, inputs, model = setting(form)
    batch = assemble(inputs, split_sessions(shop, "train"), np.arange(30))
    before = model(batch)
    image = [p for name, p in model.named_parameters() if of_image(name)]
    with torch.no_grad():
        for weight in image:
            weight.zero_()
    assert (model(batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize(("mask", "mean", "spread"), [(False, 0.0, 1.0), (True, 0.0, 1.0), (True, 0.3, 0.2)])
def test_sim_score_is_equation_8_for_every_pair_and_zero_without_a_picture(mask, mean, spread):
    shop, inputs, model = setting("sim_score")
    model.cosines = Cosines(mean, spread, mask)
    batch = assemble(inputs, split_sessions(shop, "train"), np.arange(30))
    missing = repeats = seen = 0
    for log, history in zip(inputs.histories, batch.histories, strict=True):
        for run, pairs in zip(history.buckets, pairs_of(batch.unit, batch.present, Reading(history, batch.grid, batch.slot)), strict=True):
            for place, row in zip(run.impression.tolist(), run.row.tolist(), strict=True):
                shown = int(batch.row[place])
                window = window_of(log, shop, shop.session[shown])
                target = inputs.unit[shop.item[shown]]
                wanted = np.zeros((run.item.shape[1], 2))
                for k, item in enumerate(window):
                    other = inputs.unit[item]
                    if target.any() and other.any():
                        cosine = target @ other / np.linalg.norm(target) / np.linalg.norm(other)
                        same = item == shop.item[shown]
                        wanted[k] = 0 if same and mask else (cosine - mean) / spread, 1
                        repeats += same
                    else:
                        missing += 1
                np.testing.assert_allclose(pair_feature(pairs, model.cosines)[row, batch.slot[place]].numpy(), wanted, atol=1e-6)
                seen += len(window)
    assert seen > 100
    assert missing > 0
    assert repeats > 0


def test_score_place_after_needs_self_attention():
    with pytest.raises(SettingError, match="score_place"):
        CtrConfig(pooling="target", score_place="after")


def test_the_signal_reaches_the_logits_of_an_untrained_model():
    shop, inputs, _ = setting()
    wide = CtrConfig(hidden=(64, 64, 64, 64, 64, 64))
    deep = build(inputs.layout, wide, seed=0)
    batch = assemble(inputs, split_sessions(shop, "train"), np.arange(60))
    seen = []
    for layer in deep.hidden:
        layer.register_forward_hook(lambda _, x, y: seen.append(y.std(0).mean().item()))
    deep(batch)
    assert seen[-1] > seen[0] / 4  # torch's own initial weights: a factor of 2.4 lost in each of the five layers


def test_a_tables_rows_do_not_depend_on_how_many_there_are():
    _, _, small = setting(items=80)
    _, _, large = setting(items=160, sessions=800)
    one, two = dict(small.tables.named_tables())["item"], dict(large.tables.named_tables())["item"]
    assert len(one) < len(two)
    assert torch.equal(two[: len(one)], one)
