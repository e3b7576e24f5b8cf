"""Popularity before an impression, as a loop over the log; of sampled impressions, clicks alone."""

import json

import numpy as np
import pytest

from data.log.shop_folder import load_shop
from data.log.statistics import PRIOR, popularity
from tests.shops import write_shop

ORIGIN = {"source": "movielens", "negatives": {"per_positive": 3, "by": "popularity", "window_seconds": 86_400}, "rows_refused": {}}


@pytest.mark.parametrize("sampled", [False, True])
def test_popularity_is_counted_strictly_before_the_session(tmp_path, sampled):
    folder = write_shop(tmp_path / "shop", pictures=False)
    if sampled:
        (folder / "origin.json").write_text(json.dumps(ORIGIN))
    shop = load_shop(folder)
    rows = np.random.default_rng(0).permutation(len(shop.item))[:200]
    expected = []
    for row in rows:
        moment = shop.session_time[shop.session[row]]
        earlier = [other for other in range(len(shop.item)) if shop.time[other] < moment and (shop.click[other] == 1 or not sampled)]
        own = [other for other in earlier if shop.item[other] == shop.item[row]]
        rate = (sum(int(shop.click[other]) for other in earlier) + 1) / (len(earlier) + 2)
        clicks = sum(int(shop.click[other]) for other in own)
        expected.append((np.log1p(clicks), np.log((clicks + PRIOR * rate) / (len(own) + PRIOR) / rate)))
    found = popularity(shop, rows)
    assert len({round(float(value), 4) for value in found[:, 0]}) > 3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
