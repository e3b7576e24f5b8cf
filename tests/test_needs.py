"""A shop that a method can learn nothing from is refused before training; one that it can learn little from causes a warning."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from data.log.shop_folder import load_shop
from pretrain import loop
from pretrain.config import PretrainConfig
from pretrain.methods import table
from pretrain.methods.courier import CourierConfig
from pretrain.methods.simclr import nt_xent
from pretrain.methods.supervised import SupervisedConfig
from pretrain.methods.table import check_needs
from pretrain.needs import lonely_clicks, lonely_pictures, lonely_titles, none_of
from run.errors import DataError, SettingError, UserError
from tests.shops import write_shop

CONFIG = PretrainConfig(weights="random", dim=8, batch_pictures=32)
CONTRASTS = ["simclr", "courier", "clip", "maskclip"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    colours = pl.Series([("red", "blue", "green", "grey", "pink")[n % 5] for n in range(40)])
    titled = {"items_frame": lambda frame: frame.with_columns(title=pl.format("{} {}", "category", colours))}
    return load_shop(write_shop(tmp_path_factory.mktemp("shop"), sessions=300, **titled))


def with_items(shop, **columns):
    return replace(shop, items=shop.items.with_columns(**columns))


def leaves(shop):
    """The shop with its own category for each item."""
    return replace(shop, item_category=np.arange(len(shop.items)))


@pytest.mark.parametrize("name", [*CONTRASTS, "simsiam", "supervised", "random"])
def test_a_sound_shop_is_accepted_without_a_message(shop, name, capsys):
    check_needs(name, shop, CONFIG)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_contrast_in_which_each_category_holds_one_item_is_refused_with_the_fix(shop, name):
    with pytest.raises(UserError, match=rf"^{name}: no (clicked )?picture has a competitor.*--pretrain\.negatives batch"):
        check_needs(name, leaves(shop), CONFIG)
    check_needs(name, leaves(shop), replace(CONFIG, negatives="batch"))


@pytest.mark.parametrize("name", ["simsiam", "supervised"])
def test_a_method_without_a_contrast_is_refused_for_the_initial_encoder_alone(shop, name):
    check_needs(name, leaves(shop), CONFIG)
    with pytest.raises(UserError, match=rf"simclr, whose weights {name} starts from: no picture has a competitor"):
        check_needs(name, leaves(shop), replace(CONFIG, weights="pictures"))


def test_a_shop_whose_contrast_is_refused_has_a_loss_of_zero():
    import torch

    views = torch.randn(2, 6, 4)
    assert nt_xent(views[0], views[1], temperature=0.1, group=torch.arange(6)).item() == 0


def test_courier_without_a_contrast_needs_no_competitors(shop):
    check_needs("courier", leaves(shop), replace(CONFIG, courier=CourierConfig(without="contrast")))
    with pytest.raises(UserError, match="no clicked picture has a competitor"):
        check_needs("courier", leaves(shop), replace(CONFIG, courier=CourierConfig(loss="hinge")))
    check_needs("courier", leaves(shop), replace(CONFIG, courier=CourierConfig(loss="hinge"), mask_same_item=False))


def test_a_large_share_of_pictures_without_competitors_is_reported(shop, capsys, monkeypatch):
    monkeypatch.setattr(table, "_warned", set())
    category = np.arange(len(shop.items))
    category[:4] = 0
    few = replace(shop, item_category=category)
    for name in CONTRASTS:
        check_needs(name, few, replace(CONFIG, batch_pictures=100))
        message = capsys.readouterr().err
        assert message.startswith(f"warning: {name}: ")
        assert "% of" in message
        assert "have no competitor in their category" in message
    check_needs("simclr", few, replace(CONFIG, batch_pictures=100))
    assert capsys.readouterr().err == ""  # a warning is printed once


@pytest.mark.parametrize("name", ["clip", "maskclip", "simclr", "simsiam"])
def test_a_batch_of_one_picture_is_refused(shop, name):
    with pytest.raises(SettingError, match="batch_pictures"):
        check_needs(name, shop, replace(CONFIG, batch_pictures=1))


@pytest.mark.parametrize("title", ["", "   ", None])
@pytest.mark.parametrize("name", ["clip", "maskclip", "courier --with-clip"])
def test_empty_titles_are_refused(shop, name, title):
    config = replace(CONFIG, courier=CourierConfig(with_clip="with" in name))
    with pytest.raises(UserError, match=r"0 items with a picture and a title.*fill the column 'title'"):
        check_needs(name.split()[0], with_items(shop, title=pl.lit(title, dtype=pl.String)), config)
    with pytest.raises(UserError, match="all titles are the same"):
        check_needs(name.split()[0], with_items(shop, title=pl.lit("a shoe")), config)
    with pytest.raises(DataError, match="column 'title'"):
        check_needs(name.split()[0], replace(shop, items=shop.items.drop("title")), config)


def test_a_pretraining_period_without_clicks_is_refused(shop):
    unclicked = replace(shop, click=np.where(shop.session_split[shop.session] == 0, 0, shop.click))
    with pytest.raises(UserError, match="courier: 0 page views of the pretraining period have both a click and earlier clicks"):
        check_needs("courier", unclicked, CONFIG)
    with pytest.raises(UserError, match="supervised: no item of the pretraining period's page views was clicked"):
        check_needs("supervised", unclicked, CONFIG)


@pytest.mark.parametrize("name", ["courier", "simclr", "simsiam", "clip", "maskclip", "supervised"])
def test_one_picture_is_refused(shop, name):
    one = with_items(shop, image=pl.when(pl.int_range(pl.len()) == 3).then("image"))
    with pytest.raises(UserError, match=rf"^{name}: "):
        check_needs(name, one, CONFIG)
    check_needs("random", one, CONFIG)


def test_settings_that_do_not_fit_are_refused_before_training(shop):
    with pytest.raises(SettingError, match=r"supervised\.heads"):
        check_needs("supervised", shop, replace(CONFIG, supervised=SupervisedConfig(heads=3)))
    with pytest.raises(SettingError, match="image_size"):
        check_needs("maskclip", shop, replace(CONFIG, backbone="resnet18"))
    with pytest.raises(UserError, match=r"nowhere\.pt: no such file of weights"):
        check_needs("simclr", shop, replace(CONFIG, weights="nowhere.pt"))


@pytest.mark.parametrize(("marked", "drawn", "total"), [(0, 2, 5), (1, 2, 5), (2, 2, 5), (3, 3, 5), (4, 1, 4), (2, 0, 3)])
def test_the_chance_of_none_is_the_share_of_draws_without_one(marked, drawn, total):
    draws = list(combinations(range(total), drawn))
    assert none_of(marked, drawn, total) == pytest.approx(np.mean([not any(thing < marked for thing in draw) for draw in draws]))


def test_shares_equal_those_counted_by_hand():
    group = np.array([0, 0, 1, 2, 3, 4])
    assert lonely_pictures(np.arange(6), 6, group)[0].startswith("67 % of pictures of an average step")
    assert lonely_pictures(np.arange(6), 6, group // 2) == []
    # item 0's only competitor, item 1, is among the 2 others of a step of 3 with chance 2/5
    assert lonely_pictures(np.arange(6), 3, group)[0].startswith(f"{100 * (4 + 2 * 3 / 5) / 6:.0f} %")
    assert lonely_pictures(np.arange(6), 6, None) == []
    assert lonely_clicks(np.array([0, 2, 3, 4]), np.arange(6), group)[0].startswith("75 % of clicks")
    assert lonely_clicks(np.array([0, 1, 1, 4]), np.arange(6), group) == []
    assert lonely_titles(np.array([1, 1, 2, 3]), np.array([0, 0, 1, 1])) == [
        "50 % of titled pictures have no competitor in their category, and nothing is learned from them; "
        "--pretrain.negatives batch would let pictures of different categories compete"
    ]
    with pytest.raises(UserError, match="all page views show one item"):
        lonely_clicks(np.array([2, 2]), np.array([2, 2]), None)


def test_the_learning_rate_is_not_blamed_where_nothing_competes(capsys):
    class Run:
        name, config = "mine", CONFIG

    loop._warn_of_collapse(Run(), 0.0, 0.0)  # type: ignore[arg-type]
    assert "do not compete" in capsys.readouterr().err
    loop._warn_of_collapse(Run(), 0.0, 1.0)  # type: ignore[arg-type]
    assert "lower the learning rate" in capsys.readouterr().err
    loop._warn_of_collapse(Run(), 0.3, 0.0)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_courier_within_pages_is_refused_where_every_page_is_clicked_whole(shop):
    rows = replace(shop, click=np.ones_like(shop.click))
    own = CourierConfig(pv_weight=0, ucs_weight=0, page_weight=1)
    check_needs("courier", shop, replace(CONFIG, courier=own))
    with pytest.raises(UserError, match=r"^courier: no page view keeps an unclicked item.*--pretrain\.pv-weight 1"):
        check_needs("courier", rows, replace(CONFIG, courier=own))
    check_needs("courier", rows, replace(CONFIG, courier=replace(own, pv_weight=1)))
