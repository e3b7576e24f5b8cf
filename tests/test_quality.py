"""benchmarks/quality.py gives FuxiCTR's models our columns and histories, and samples users with all that they did."""

import numpy as np
import polars as pl
import pytest

from benchmarks.fuxictr_models import LABEL, features_of
from benchmarks.quality import sampled
from ctr.config import CtrConfig
from ctr.inputs.encode import HISTORIES, encode
from data.log.histories import jagged
from data.log.shop_folder import load_shop
from features.image_feature import no_image
from tests.ctr_shop import make_shop
from tests.shops import write_shop


@pytest.fixture(scope="module")
def inputs():
    shop = make_shop()[0]
    return encode(shop, no_image(len(shop.items)), CtrConfig(click_items=7, purchase_items=3, cart_items=2))


def test_sequences_are_the_histories_with_the_newest_item_last_and_padding_in_front(inputs):
    shop, features = inputs.shop, features_of(inputs, None)
    rows = shop.rows("test")
    batch = features.batch(rows)
    assert tuple(features.histories) == HISTORIES
    for place, history in enumerate(HISTORIES):
        for number, row in enumerate(rows):
            items, _ = jagged(inputs.histories[place], shop.session[row : row + 1], session_time=shop.session_time)
            codes = (inputs.items.rows[:, items] + 1).tolist()  # one line for each column of the items, the ID first
            for column, expected in enumerate(codes):
                found = batch[f"{history}_item_{column}"][number].tolist()
                assert found == [0] * (len(found) - len(expected)) + expected
        assert batch[f"{history}_item_0"].any()  # otherwise the loop has compared padding


def test_codes_fit_their_tables_and_are_never_the_padding(inputs):
    features = features_of(inputs, None)
    batch = features.batch(np.arange(len(inputs.shop.item)))
    assert set(features.sizes) == {*features.item_codes, *features.user_codes, *features.context_codes}
    for name, size in features.sizes.items():
        assert batch[name].min() >= 1
        assert batch[name].max() < size
    np.testing.assert_array_equal(batch[LABEL], inputs.shop.click)


def test_our_numbers_are_added_after_the_tables_own(inputs):
    count = len(inputs.shop.item)
    ours = np.arange(2.0 * count).reshape(count, 2)
    plain, more = features_of(inputs, None).numbers, features_of(inputs, ours).numbers
    np.testing.assert_array_equal(more[:, : plain.shape[1]], plain)
    np.testing.assert_array_equal(more[:, plain.shape[1] :], ours)


def test_a_sample_of_users_holds_all_that_they_did_and_nothing_of_others(tmp_path):
    write_shop(tmp_path / "shop", pictures=False)
    folder = sampled(tmp_path / "shop", 9, tmp_path / "few")
    for name in ("impressions", "events"):
        every, kept = (pl.read_parquet(place / f"{name}.parquet") for place in (tmp_path / "shop", folder))
        users = pl.read_parquet(folder / "impressions.parquet")["user_id"].unique()
        assert len(users) == 9
        assert kept.equals(every.filter(pl.col("user_id").is_in(users.implode())))
    assert len(load_shop(folder).users) == 9
    assert len(pl.read_parquet(folder / "items.parquet")) == 40
