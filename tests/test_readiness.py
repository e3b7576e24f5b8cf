"""What a comparison needs is required before any training, with the messages of `data.validate`."""

from __future__ import annotations

import re

import polars as pl
import pytest

from data.log.shop_folder import load_shop
from data.readiness import check_learnable, check_scorable, problems, require_ready
from run.errors import UserError
from tests.shops import write_shop

SESSION = pl.int_range(pl.len()) // 5  # 120 sessions: 48 pretrain, 48 train, 12 valid, 12 test
TRAIN, TEST = (SESSION >= 48) & (SESSION < 96), SESSION >= 108


def shop(folder, **changes):
    columns = changes.pop("columns", {})
    return load_shop(write_shop(folder / "shop", pictures=False, impressions_frame=lambda f: f.with_columns(**columns), **changes))


def clicks(where: pl.Expr, value: int) -> pl.Expr:
    return pl.when(where).then(value).otherwise("click")


LACKS = [
    ("clicks in training", {"click": clicks(TRAIN, 0)}, "clicks and skipped items in the train split, and it has no click:"),
    ("skips in training", {"click": clicks(TRAIN, 1)}, "clicks and skipped items in the train split, and it has no impression without a"),
    ("clicks in the test", {"click": clicks(TEST, 0)}, "a test session with both a click and a skipped item"),
    ("skips in the test", {"click": clicks(TEST, 1)}, "a test session with both a click and a skipped item"),
    ("users in the test", {"user_id": pl.when(TEST).then(7).otherwise("user_id")}, "test impressions of at least two users"),
    ("sessions", {"session_id": pl.int_range(pl.len())}, "sessions in which items compete"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "words"), [pytest.param(columns, words, id=name) for name, columns, words in LACKS])
@pytest.mark.parametrize("trains_encoders", [True, False])
def test_an_unready_shop_is_refused_with_the_message_of_its_first_problem(columns, words, trains_encoders, tmp_path):
    lacking = shop(tmp_path, columns=columns)
    first = next(problems(lacking, trains_encoders=trains_encoders))
    assert words in first
    with pytest.raises(UserError, match="^" + re.escape(f"{tmp_path / 'shop'}: {first}") + "$"):
        require_ready(lacking, trains_encoders=trains_encoders)


def test_a_ready_shop_is_accepted(tmp_path):
    ready = shop(tmp_path)
    assert list(problems(ready)) == []
    require_ready(ready, trains_encoders=True)


def test_a_shop_without_pictures_is_refused_only_if_encoders_are_trained_on_it(tmp_path):
    bare = shop(tmp_path, items_frame=lambda f: f.with_columns(image=pl.lit(None, pl.String)))
    require_ready(bare, trains_encoders=False)
    with pytest.raises(UserError, match="at least 2 items with a picture shown in the pretraining period, and there are 0"):
        require_ready(bare, trains_encoders=True)


def test_a_ctr_model_needs_a_train_split_of_both_classes_and_a_split_that_can_be_ranked(tmp_path):
    check_learnable(shop(tmp_path / "a"))
    with pytest.raises(UserError, match="the train split, and it has no click"):
        check_learnable(shop(tmp_path / "b", columns={"click": clicks(TRAIN, 0)}))
    with pytest.raises(UserError, match="no test session has both"):
        check_scorable(shop(tmp_path / "c", columns={"click": clicks(TEST, 0)}), "test")
