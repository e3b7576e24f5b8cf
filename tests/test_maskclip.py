"""Masked self-distillation and masked words: by closed forms and slow sums; text methods in chunks, and resumed after a stop."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from data.log.shop_folder import load_shop
from data.pictures.store import build_store
from pretrain.backbones.backbone import backbone
from pretrain.config import PretrainConfig
from pretrain.feed import feed
from pretrain.gradient_cache import loss_of_step
from pretrain.loop import first_weights, take_step, train_encoder
from pretrain.methods.clip import ClipConfig
from pretrain.methods.courier import CourierConfig
from pretrain.methods.maskclip import MaskClipConfig, masked_words
from pretrain.methods.table import make_method
from pretrain.parts.distillation import FeatureDecoder, HiddenPatches, Quantiser, Teacher, at_masked, distillation_loss, masked_places
from pretrain.parts.text import read_titles
from pretrain.training import prepare
from run.checkpoint import load_checkpoint
from run.devices import set_up
from run.errors import SettingError, UserError
from run.folder import read_metrics
from tests.shops import write_shop
from tests.trainings import train_with_a_stop

CONFIG = PretrainConfig(
    weights="random",
    image_size=24,
    store_size=36,
    dim=8,
    pictures=480,
    checkpoints=3,
    batch_pictures=24,
    checkpoint_seconds=0.01,
    courier=CourierConfig(batch_size=16, with_clip=True),
    clip=ClipConfig(width=8, layers=1, heads=2, words=6),
    maskclip=MaskClipConfig(codewords=16, code_width=8, word_layers=1, ema_first=0.9, ema_last=0.99),
)
COLOURS, STUFFS = ("red", "green", "blue", "grey", "pink"), ("wool", "linen", "silk")
TEXT_METHODS = ["clip", "maskclip", "courier"]  # courier with clip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Items of one category differ in their titles, except for a few that are equal."""

    def titled(frame):
        titles = [f"{COLOURS[n // 3 % 5]} thing of {STUFFS[n // 4 % 3]}" for n in range(frame.height - 1)]
        return frame.with_columns(title=pl.Series([*titles, None]))

    return load_shop(write_shop(tmp_path_factory.mktemp("maskclip") / "shop", sessions=300, items_frame=titled))


@pytest.fixture(scope="module")
def store(shop, tmp_path_factory):
    return build_store(shop, tmp_path_factory.mktemp("store"), size=36, workers=1)


def a_training(name, shop, store, config=CONFIG, seed=0):
    method = make_method(name, shop, store.present, config, seed)
    net = first_weights(method.head_common, shop, store, config, seed=seed)
    return prepare(name, net, method, shop, config, seed=seed, fabric=set_up(1))


def pictures_of(method, store, step, config=CONFIG):
    return method.view(torch.from_numpy(store.read(step.items)), (0, "view", step.number, step.items, step.view), config.image_size)


@pytest.mark.parametrize(("name", "size", "places"), [("small_cnn", 32, 4), ("resnet18", 64, 4), ("swin_t", 64, 4)])
def test_a_feature_map_pooled_and_projected_is_the_embedding(name, size, places):
    net = backbone(name, dim=6, seed=0).eval()
    pictures = torch.rand(2, 3, size, size)
    with torch.no_grad():
        features = net.feature_map(pictures)
        torch.testing.assert_close(net.head(features.mean((2, 3))), net(pictures), atol=1e-5, rtol=1e-4)
        assert torch.equal(torch.compile(net).feature_map(pictures), features)
    assert features.shape[2] * features.shape[3] == places


def test_three_in_four_positions_are_masked_by_a_draw_keyed_by_the_picture():
    items = np.arange(50)
    masked = masked_places(items, 16, 0.75, seed=1, number=3)
    assert (masked.sum(1) == 12).all()
    assert (masked_places(items[7:9], 16, 0.75, seed=1, number=3) == masked[7:9]).all()
    assert (masked != masked_places(items, 16, 0.75, seed=1, number=4)).any()
    assert masked.mean(0).min() > 0.6
    for share, count in ((0.01, 1), (0.99, 3)):  # at least one is masked and one is seen, whatever the share
        assert (masked_places(items, 4, share, seed=1, number=3).sum(1) == count).all()


def test_only_masked_patches_become_the_learned_tile():
    pictures = torch.randn(2, 3, 24, 24)
    hidden = HiddenPatches(torch.zeros(1, 3, 1, 1))
    torch.nn.init.normal_(hidden.tile)
    masked = torch.tensor([[True, False, False, False], [False, True, True, False]])
    seen = hidden(pictures, masked, 2)
    tile = hidden.tile.repeat(1, 3, 3)
    for picture, gaps in ((0, [(0, 0)]), (1, [(0, 1), (1, 0)])):
        for row, column in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            part = (picture, slice(None), slice(12 * row, 12 * row + 12), slice(12 * column, 12 * column + 12))
            assert torch.equal(seen[part], tile if (row, column) in gaps else pictures[part])


def test_the_distillation_loss_is_the_mean_cross_entropy_of_soft_codes():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 3, 4, 5))
    slow = np.zeros(3)
    for p in range(3):
        for m in range(4):
            q = [math.exp(t / 0.4) for t in teacher[p, m]]
            s = [math.exp(t / 0.7) for t in student[p, m]]
            slow[p] -= sum(a / sum(q) * math.log(b / sum(s)) for a, b in zip(q, s, strict=True)) / 4
    fast = distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), student_temperature=0.7, teacher_temperature=0.4)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-5)


def test_a_uniform_student_has_a_loss_of_log_codewords_and_a_perfect_one_the_entropy_of_the_codes():
    teacher = torch.randn(2, 3, 8)
    loss = distillation_loss(torch.ones(2, 3, 8), teacher, student_temperature=0.1, teacher_temperature=0.5)
    torch.testing.assert_close(loss, torch.full((2,), math.log(8)))
    entropy = torch.distributions.Categorical(logits=teacher / 0.5).entropy().mean(1)
    torch.testing.assert_close(distillation_loss(teacher, teacher, student_temperature=0.5, teacher_temperature=0.5), entropy)


def test_the_decoder_predicts_masked_positions_from_the_others_alone():
    decoder = FeatureDecoder(32, 4)
    masked = torch.tensor([[True, False, True, False], [False, True, True, False]])
    features = torch.randn(2, 4, 32)
    found = decoder(features, masked)
    assert found.shape == (2, 2, 32)
    torch.testing.assert_close(decoder(torch.where(masked[:, :, None], 99.0, features), masked), found)
    changed = decoder(torch.where(masked[:, :, None], features, features + 1), masked)
    assert (changed - found).abs().amax((1, 2)).min() > 1e-3
    assert torch.equal(at_masked(features, masked)[0], features[0, [0, 2]])
    assert torch.equal(at_masked(features, masked)[1], features[1, [1, 2]])


def test_a_common_part_of_all_projections_makes_no_difference_to_codes():
    quantiser = Quantiser(4, 3, 6)
    projected, common = torch.randn(5, 3), torch.tensor([9.0, -7.0, 5.0])
    torch.testing.assert_close(quantiser(projected + common, common), quantiser(projected, torch.zeros(3)), atol=1e-5, rtol=1e-4)
    assert quantiser(projected, torch.zeros(3)).abs().max() <= 1 + 1e-6


def test_a_teacher_follows_by_the_formula_and_its_centre_a_step_late():
    student, quantiser = backbone("small_cnn", dim=4, seed=0), Quantiser(128, 3, 6)
    teacher = Teacher(backbone("small_cnn", dim=4, seed=1), quantiser, 3)
    before = {name: weight.clone() for name, weight in teacher.backbone.named_parameters()}
    torch.nn.init.ones_(quantiser.codewords.weight)
    codewords = teacher.quantiser.codewords.weight.clone()
    teacher.observe(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), 0.75)
    assert (teacher.centre == 0).all()
    teacher.follow(student, quantiser, 0.9)
    for name, weight in student.named_parameters():
        torch.testing.assert_close(dict(teacher.backbone.named_parameters())[name], 0.9 * before[name] + 0.1 * weight)
    torch.testing.assert_close(teacher.quantiser.codewords.weight, 0.9 * codewords + 0.1)
    torch.testing.assert_close(teacher.centre, 0.25 * torch.tensor([2.0, 2.0, 2.0]))


def test_a_teacher_starts_as_its_student_and_gets_no_gradient(shop, store):
    run = a_training("maskclip", shop, store)
    student, teacher = run.parts["backbone"], run.method.teacher
    body = dict(teacher.backbone.named_parameters())
    start = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    assert all(torch.equal(body[name], weight) for name, weight in start.items())
    trained = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    assert not trained & {id(weight) for weight in teacher.parameters()}
    line = take_step(run, feed(run.method, store, first=0, rank=0, ranks=1, chunk=0), None)
    assert all(weight.grad is None for weight in teacher.parameters())
    decay = 0.9 + 0.09 * line["pictures"] / CONFIG.pictures
    for name, weight in student.named_parameters():
        torch.testing.assert_close(body[name], decay * start[name] + (1 - decay) * weight)
    quantiser = run.method.quantiser.codewords.weight
    assert (teacher.quantiser.codewords.weight - quantiser).abs().max() > 0
    assert not teacher.training


def test_one_word_in_five_is_masked_and_at_least_one(shop):
    config = replace(CONFIG.clip, words=20)
    long = shop.items.with_columns(title=np.array([" ".join(f"w{n % 7}" for n in range(item % 20)) for item in range(len(shop.items))]))
    titles = read_titles(replace(shop, items=long), np.arange(40), config)
    rows = np.arange(len(titles.lengths))
    masked = masked_words(titles, rows, 0.2, seed=0, number=0)
    assert masked.sum(1).tolist() == [0 if n == 0 else max(1, round(0.2 * n)) for n in titles.lengths]
    assert not (masked & ~titles.words).any()
    assert (masked_words(titles, rows[3:5], 0.2, seed=0, number=0) == masked[3:5]).all()
    assert (masked != masked_words(titles, rows, 0.2, seed=0, number=1)).any()


def test_masked_words_are_predicted_from_the_others_alone_and_a_uniform_guess_costs_log_vocabulary(shop, store):
    method = make_method("maskclip", shop, store.present, CONFIG, 0)
    step = method.step(0)
    torch.nn.init.zeros_(method.words.out.weight)
    torch.nn.init.zeros_(method.words.out.bias)
    loss = method._words_loss(step, torch.device("cpu"))
    torch.testing.assert_close(loss, torch.full((24,), math.log(method.titles.size)))
    rows, words = np.array([1, 2]), torch.tensor([[False, True, False, False], [True, False, False, False]])
    tokens, present = method.titles.batch(rows, torch.device("cpu"))
    hidden = tokens.masked_fill(words, method.titles.mask)
    torch.nn.init.normal_(method.words.out.weight)
    logits = method.words(method.tower.model(hidden, present), present, words)
    assert logits.shape == (2, method.titles.size)
    other = torch.where(words, 3, tokens).masked_fill(words, method.titles.mask)
    assert torch.equal(method.words(method.tower.model(other, present), present, words), logits)


def test_the_loss_is_clips_plus_a_twentieth_of_each_other_part(shop, store):
    method = make_method("maskclip", shop, store.present, CONFIG, 0)
    step = method.step(0)
    outputs = method.encode(backbone("small_cnn", dim=8, seed=0), pictures_of(method, store, step), step)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "embedding": (24, 8), "text": (24, 8), "loss_patches": (24,), "loss_words": (24,), "projected": (24, 8),
    }  # fmt: skip
    total, parts = method.loss(outputs, step)
    expected = parts["loss_clip"] + 0.05 * parts["loss_patches"] + 0.05 * parts["loss_words"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(method.teacher.next_centre, outputs["projected"].mean(0).detach())  # of step 0 it is the mean itself


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_a_step_in_chunks_has_the_gradients_of_the_full_step(name, shop, store):
    begun = a_training(name, shop, store)
    take_step(begun, feed(begun.method, store, first=0, rank=0, ranks=1, chunk=0), None)  # a teacher and a centre of its own
    found = {}
    for chunk in (0, 7):
        run = a_training(name, shop, store, replace(CONFIG, chunk=chunk))
        run.parts.load_state_dict(begun.parts.state_dict())
        _, loss, parts, _ = loss_of_step(run, feed(run.method, store, first=1, rank=0, ranks=1, chunk=chunk))
        assert parts.get("loss_clip", loss) > 0.5  # titles compete
        found[chunk] = loss, {name: weight.grad for name, weight in run.parts.named_parameters() if weight.grad is not None}
    assert found[0][0].item() == pytest.approx(found[7][0].item(), rel=1e-5)
    assert found[0][1].keys() == found[7][1].keys()
    for weight, gradient in found[0][1].items():
        torch.testing.assert_close(found[7][1][weight], gradient, atol=1e-5, rtol=1e-4, msg=weight)
    assert any(weight.startswith("heads.") and "word" in weight for weight in found[0][1])


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_a_run_stopped_anywhere_ends_with_the_same_bits(name, shop, store, tmp_path):
    full_run = train_encoder(name, shop, store, CONFIG, seed=1, folder=tmp_path / "full", threads=1)
    method = type(make_method(name, shop, store.present, CONFIG, 1))
    resumed = train_with_a_stop(name, method, 9, shop, store, CONFIG, tmp_path / "killed")
    assert {**resumed, "seconds": 0} == {**full_run, "seconds": 0}
    assert (tmp_path / "full/best.safetensors").read_bytes() == (tmp_path / "killed/best.safetensors").read_bytes()
    assert read_metrics(tmp_path / "full/metrics.jsonl") == read_metrics(tmp_path / "killed/metrics.jsonl")
    ends = [load_checkpoint(tmp_path / end / "last.pt")["parts"] for end in ("full", "killed")]
    assert all(torch.equal(weight, ends[1][key]) for key, weight in ends[0].items())


def test_a_feature_map_of_one_position_is_refused_with_the_fix(shop, store):
    with pytest.raises(SettingError, match="value 24; maskclip masks places of the last feature map, and resnet18's has one; give more"):
        make_method("maskclip", shop, store.present, replace(CONFIG, backbone="resnet18"), 0)


@pytest.mark.parametrize("name", ["clip", "maskclip", "courier"])
def test_a_shop_whose_titles_are_empty_is_refused_with_the_fix(name, shop, store):
    bare = replace(shop, items=shop.items.with_columns(title=np.array([" "] * len(shop.items))))
    with pytest.raises(UserError, match="0 items with a picture and a title"):
        make_method(name, bare, store.present, CONFIG, 0)


def test_courier_alone_needs_no_titles(shop, store):
    bare = replace(shop, items=shop.items.drop("title"))
    method = make_method("courier", bare, store.present, replace(CONFIG, courier=replace(CONFIG.courier, with_clip=False)), 0)
    assert "title" not in method.step(0).places
