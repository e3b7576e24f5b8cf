"""No leak: nothing that happens at or after a session's time reaches what is known of it."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.batches import assemble
from ctr.inputs.encode import encode
from ctr.inputs.sampler import split_sessions
from ctr.model.ctr_model import build
from data.log.histories import cart_history, click_history, padded, purchase_history
from data.log.shop_folder import SPLITS, load_shop
from features.forms.table import FORM_NAMES, FormSettings
from features.image_feature import image_feature
from features.learned.shown_and_clicked import shown_and_clicked
from pretrain.page_views import page_views
from pretrain.similarity import normalise, sim_scores
from tests.ctr_shop import begun_at_zero
from tests.shops import write_shop


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A shop, the same shop with everything changed from some moment onwards, and that moment."""
    folder = tmp_path_factory.mktemp("leak")
    shop = load_shop(write_shop(folder / "shop", sessions=300, pictures=False))
    moment = int(np.quantile(shop.session_time, 0.5))

    def clicks(frame):
        late = frame["timestamp"] >= moment
        return frame.with_columns(click=pl.when(late).then(1 - pl.col("click")).otherwise(pl.col("click")))

    def events(frame):
        late = frame.filter(pl.col("timestamp") >= moment)
        other = late.with_columns(item_id=late["item_id"].reverse(), user_id=late["user_id"].reverse())
        return pl.concat([frame.filter(pl.col("timestamp") < moment), other])

    changed = load_shop(write_shop(folder / "changed", sessions=300, pictures=False, impressions_frame=clicks, events_frame=events))
    assert (changed.session_time == shop.session_time).all()
    return shop, changed, moment


@pytest.mark.parametrize("kind", [click_history, purchase_history, cart_history])
def test_a_history_holds_nothing_from_its_own_time_or_later(pair, kind):
    shop, changed, moment = pair
    known = np.flatnonzero(shop.session_time <= moment)
    assert len(known) > 100
    one, two = (padded(kind(s, max_items=50), known, length=50, session_time=s.session_time) for s in (shop, changed))
    assert (one == two).all()
    later_sessions = np.flatnonzero(shop.session_time > moment)
    one, two = (padded(kind(s, max_items=50), later_sessions, length=50, session_time=s.session_time) for s in (shop, changed))
    assert (one != two).any()


def test_an_items_later_click_never_reaches_its_own_score(pair):
    shop, changed, moment = pair
    rows = np.flatnonzero(shop.session_time[shop.session] <= moment)
    vectors = np.random.default_rng(0).normal(size=(len(shop.items), 4))
    assert (sim_scores(shop, vectors, rows, history_items=20) == sim_scores(changed, vectors, rows, history_items=20)).all()


def test_pretraining_sees_no_click_after_its_period(tmp_path):
    shop = load_shop(write_shop(tmp_path / "shop", sessions=300, pictures=False))
    end = int(shop.session_time[shop.session_split == SPLITS.index("pretrain")].max())
    cut = load_shop(
        write_shop(tmp_path / "cut", sessions=300, pictures=False, events_frame=lambda frame: frame.filter(pl.col("timestamp") < end))
    )
    has_picture = np.ones(len(shop.items), dtype=bool)
    one, two = (page_views(s, page_items=5, history_items=5, has_picture=has_picture) for s in (shop, cut))
    assert (one.page == two.page).all()
    assert (one.history == two.history).all()


def test_no_form_sees_anything_at_or_after_a_sessions_time(pair):
    shop, changed, moment = pair
    vectors = normalise(np.random.default_rng(0).normal(size=(len(shop.items), 8))).astype(np.float32)
    feature = image_feature("+".join(FORM_NAMES), vectors, FormSettings(clusters=5, codes=3), seed=0, pairs=shown_and_clicked(shop, seed=0))
    config = CtrConfig(**PRESETS["tiny"], retrieve=4)
    inputs = encode(shop, feature, config)
    model = build(inputs.layout, config, seed=0).eval()
    begun_at_zero(model)
    part = split_sessions(shop, "train")
    early = np.flatnonzero(shop.session_time[part.sessions] <= moment)
    assert len(early) > 5
    with torch.no_grad():
        one, two = (model(assemble(each, part, early)) for each in (inputs, encode(changed, feature, config, inputs.vocabularies)))
    torch.testing.assert_close(one, two, atol=0, rtol=0)
