"""Vocabularies and standardisation: fitted, applied and stored; hashed ids."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.config import PRESETS, CtrConfig
from ctr.inputs.encode import IMAGE_TABLES, encode
from ctr.inputs.id_hash import hash64
from ctr.inputs.rules import Rules, Table
from ctr.inputs.vocabulary import Hashed, Ragged, Vocabulary, fit_ids, fit_scale, fit_values, fit_words, word_rows
from ctr.inputs.vocabulary_files import read_model_spec, write_model_spec
from data.arrays.words import words_of
from data.log.columns import IMPRESSION_RESERVED, ITEM_RESERVED, USER_RESERVED, feature_columns
from features.forms.table import FormSettings
from features.image_feature import digest, image_feature, no_image
from run.errors import DataError, SettingError, UserError
from tests.ctr_shop import make_shop, pictures

TINY = CtrConfig(**PRESETS["tiny"])
PINNED_INTEGERS = [14795979229280269310, 15494992588091626020, 10701133595091071907]
PINNED_TEXTS = [14795979229280269310, 7416890410717197571, 14120563727619882872, 5192974054898951868]


def by_rank(column, weight, min_count):
    """A table's rows computed directly, as ranks of the sorted values: fitting and applying must give the same."""
    codes = column.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    known = np.bincount(codes, weights=weight) >= min_count
    return np.where(known, np.cumsum(known), 0).astype(np.int32)[codes], int(known.sum()) + 1


def standardised(frame, columns, known):
    parts = [np.zeros((len(frame), 0))]
    for name in columns:
        value = frame[name].cast(pl.Float64).to_numpy()
        seen = value[known & ~np.isnan(value)]
        mean, deviation = (seen.mean(), seen.std()) if len(seen) else (0.0, 0.0)
        scaled = (value - mean) / (deviation if deviation > 0 else 1.0)
        parts.append(np.nan_to_num(np.clip(scaled, -10, 10))[:, None])
        if len(seen) < known.sum():
            parts.append(np.isnan(value)[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def seen_of(shop, train):
    events = shop.events.rows()
    before = events.time < shop.session_time[shop.session[train]].max()
    for of_impression, of_event, size in ((shop.item, events.item, len(shop.items)), (shop.user, events.user, len(shop.users))):
        yield np.bincount(of_impression[train], minlength=size) + np.bincount(of_event[before], minlength=size)


@pytest.mark.parametrize("columns", [True, False])
def test_fitting_and_applying_equal_ranks_of_sorted_values_to_the_bit(columns):
    shop, style = make_shop(columns=columns)
    inputs = encode(shop, pictures(style, "none"), TINY)
    train = shop.rows("train")
    item_seen, user_seen = seen_of(shop, train)
    trained = np.bincount(train, minlength=len(shop.impressions))
    for frame, reserved, seen, got, identity in (
        (shop.items, ITEM_RESERVED, item_seen, inputs.items, True),
        (shop.users, USER_RESERVED, user_seen, inputs.users, True),
        (shop.impressions, IMPRESSION_RESERVED, trained, inputs.context, False),
    ):
        known = seen >= TINY.min_count
        wanted = [(np.where(known, np.cumsum(known), 0), known.sum() + 1)] if identity else []
        found = feature_columns(frame, reserved=reserved)
        wanted += [by_rank(frame[name], seen, TINY.min_count) for name in found.categorical]
        assert [table.size for table in got.tables] == [size for _, size in wanted]
        assert got.rows.dtype == np.int32
        assert len(got.rows) == len(wanted)
        assert all((rows == right).all() for rows, (right, _) in zip(got.rows, wanted, strict=True))
        assert got.numeric.tobytes() == standardised(frame, found.numeric, seen > 0).tobytes()
    if columns:
        queries = shop.impressions["query"].unique().sort()
        query = shop.impressions["query"].rank("dense").to_numpy().astype(np.int64) - 1
        assert (inputs.query == query).all()
        lists = [words_of(text, TINY.words) for text in (shop.items["title"], queries)]
        lengths = [words.list.len().to_numpy() for words in lists]
        weight = [item_seen, np.bincount(query, weights=trained, minlength=len(queries))]
        each = pl.concat([words.explode().drop_nulls() for words in lists])
        rows, size = by_rank(each, np.concatenate([np.repeat(w, n) for w, n in zip(weight, lengths, strict=True)]), TINY.min_count)
        assert np.concatenate([inputs.titles.rows, inputs.queries.rows]).tolist() == rows.tolist()
        assert inputs.layout.words == size
        for ragged, n in zip((inputs.titles, inputs.queries), lengths, strict=True):
            assert np.diff(ragged.start).tolist() == n.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(*(st.lists(st.none() | values, min_size=1) for values in (st.text(max_size=3), st.integers(-5, 5), st.booleans()))),
    st.integers(1, 3),
    st.randoms(),
)
def test_any_column_gets_the_rows_of_its_ranks(values, min_count, random):
    column = pl.Series(values, dtype=None if any(value is not None for value in values) else pl.String)
    weight = np.array([random.randrange(3) for _ in values])
    rows, size = by_rank(column, weight, min_count)
    vocabulary = fit_values(column, weight, min_count)
    assert vocabulary.rows(column).tolist() == rows.tolist()
    assert vocabulary.size == size


def test_an_enum_keeps_the_order_of_its_ranks():
    column = pl.Series(["m", "k", "m", None, "k"], dtype=pl.Enum(["z", "m", "k"]))
    rows, size = by_rank(column, np.ones(5), 1)
    vocabulary = fit_values(column, np.ones(5), 1)
    assert vocabulary.rows(column).tolist() == rows.tolist()
    assert vocabulary.size == size


def test_values_seen_too_rarely_share_row_0_and_the_others_keep_their_order():
    ids = pl.Series([30, 10, 20, 40])
    vocabulary = fit_ids(ids, np.array([5, 1, 2, 0]), min_count=2)
    assert vocabulary.rows(ids).tolist() == [1, 0, 2, 0]
    assert vocabulary.size == 3


@pytest.mark.parametrize("values", [list("b-ab-"), [7, "-", -3, 7, "-"], [True, "-", False, True, "-"]])
def test_null_is_an_ordinary_value(values):
    column = pl.Series([None if value == "-" else value for value in values])
    assert fit_values(column, np.ones(5), 2).rows(column).tolist() == [2, 1, 0, 2, 1]


def test_a_value_of_later_splits_moves_no_row():
    early = pl.Series(["m", "k", "m", "k"])
    late = pl.Series(["m", "k", "m", "k", "a", "l", "z"])
    fitted = fit_values(late, np.array([1, 1, 1, 1, 0, 0, 0]), 1)
    rows = fit_values(early, np.ones(4), 1).rows(early).tolist()
    assert fitted.rows(late).tolist() == [*rows, 0, 0, 0]
    assert fitted.size == 3


def test_an_integer_that_the_vocabulary_cannot_hold_is_unknown_not_null():
    fitted = fit_values(pl.Series([None, 3, 3, None], dtype=pl.Int8), np.ones(4), 1)
    assert fitted.rows(pl.Series([None, 3, 400])).tolist() == [1, 2, 0]


@pytest.mark.parametrize("late", [pl.Series("colour", ["3"]), pl.Series("colour", [True]), pl.Series("colour", [3.0])])
def test_a_column_of_another_kind_is_refused_by_name(late):
    fitted = fit_values(pl.Series([3, 3]), np.ones(2), 1)
    with pytest.raises(DataError, match=r"items\.parquet: column 'colour': type .*trained on integers"):
        fitted.rows(late, "items.parquet")


def test_a_missing_column_is_named():
    shop, style = make_shop()
    without_position = dataclasses.replace(shop, impressions=shop.impressions.drop("position"))
    with pytest.raises(DataError, match=r"impressions\.parquet: column 'position': no such column"):
        encode(without_position, pictures(style, "none"), TINY, encode(shop, pictures(style, "none"), TINY).vocabularies)


def test_words_are_runs_of_letters_and_single_characters_of_scripts_without_spaces():
    found = words_of(pl.Series(["Red DRESS, size-10", "a_b", "长裙 new", "", None]), 5).to_list()
    assert found == [["red", "dress", "size", "10"], ["a", "b"], ["长", "裙", "new"], [], []]


@pytest.mark.parametrize("chunk", [1, 2, 1 << 20])
def test_words_of_titles_and_queries_share_a_table_and_texts_keep_their_positions(monkeypatch, chunk):
    monkeypatch.setattr("ctr.inputs.vocabulary._CHUNK", chunk)
    titles, queries = pl.Series(["red dress", None, "red shoe"]), pl.Series(["dress", "hat"])
    words = fit_words([titles, queries], [np.ones(3), np.ones(2)], 8, 2)
    dress, red = 1, 2
    assert words.size == 3
    of_titles, of_queries = (word_rows(words, texts, 8) for texts in (titles, queries))
    assert [of_titles.rows[a:b].tolist() for a, b in zip(of_titles.start, of_titles.start[1:], strict=False)] == [
        [red, dress],
        [],
        [red, 0],
    ]
    assert of_queries.rows.tolist() == [dress, 0]


def test_taking_lists_is_indexing():
    lists = [[3, 4], [], [5], [6, 7, 8]]
    ragged = Ragged(rows=np.concatenate(lists).astype(np.int32), start=np.array([0, 2, 2, 3, 6]))
    rows, lengths = ragged.take(np.array([3, 1, 0, 3]))
    assert rows.tolist() == [6, 7, 8, 3, 4, 6, 7, 8]
    assert lengths.tolist() == [3, 0, 2, 3]


def test_numbers_are_standardised_on_known_rows_and_a_missing_one_is_the_mean_with_a_flag():
    frame = pl.DataFrame({"x": [1.0, 3.0, None, 100.0], "y": [2.0, 2.0, 2.0, float("nan")]})
    x, y = (fit_scale(frame[name], np.array([True, True, True, False])) for name in "xy")
    scaled, missing = x.numbers(frame["x"])
    assert scaled.tolist() == [-1, 1, 0, 10]  # (1 - 2) / 1, (3 - 2) / 1, missing, cut at 10 deviations
    assert missing.tolist() == [0, 0, 1, 0]
    assert [part.tolist() for part in y.numbers(frame["y"])] == [[0, 0, 0, 0]]  # y lacks no known value: no flag


def splitmix(seed, *words):
    """run.randomness.hashed with Python integers."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(state):
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
        return state ^ state >> 31

    state = mix(seed + golden & mask)
    for word in words:
        state = mix(state * golden + word + golden & mask)
    return state


def test_hashes_never_change():
    assert hash64(pl.Series([0, 1, -1]), "item").tolist() == PINNED_INTEGERS
    assert hash64(pl.Series(["", "a", "abcdefgh", "日本語のテスト"]), "item").tolist() == PINNED_TEXTS


def test_a_text_hashes_as_its_length_and_its_bytes_in_words_of_eight():
    from zlib import crc32

    for text in ("", "a", "abcdefgh", "abcdefghi", "日本語のテスト"):
        content = text.encode()
        padded = content + bytes(-len(content) % 8)
        words = [int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)]
        assert int(hash64(pl.Series([text]), "user")[0]) == splitmix(230605001, crc32(b"user"), len(content), *words)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text()))
def test_a_hash_depends_on_its_own_value_alone(texts):
    column = pl.Series(texts, dtype=pl.String)
    alone = [int(hash64(column[i : i + 1], "item")[0]) for i in range(len(texts))]
    assert hash64(column, "item").tolist() == alone
    assert len(set(alone)) == len(set(texts))


@pytest.mark.parametrize("ids", [pl.Series(range(20_000)), pl.Series([f"item-{n}" for n in range(20_000)])])
def test_as_many_ids_share_a_row_as_chance_predicts(ids):
    rows = Hashed(key="item", size=10_000).rows(ids)
    assert rows.min() >= 0
    assert rows.max() < 10_000
    taken = len(np.unique(rows))
    expected = 10_000 * (1 - np.exp(-2.0))  # balls into bins: 20,000 into 10,000
    assert abs(taken - expected) < 5 * np.sqrt(10_000 * np.exp(-2.0) * (1 - 3 * np.exp(-2.0)))


def test_with_hashed_ids_an_unseen_item_has_a_row_and_none_is_reserved_for_unknown_ids():
    shop, style = make_shop()
    config = dataclasses.replace(TINY, hash_ids=1000)
    inputs = encode(shop, pictures(style, "none"), config)
    assert [table.size for table in inputs.layout.item if table.name == "item"] == [1000]
    assert [table.size for table in inputs.layout.user if table.name == "user"] == [1000]
    assert inputs.vocabularies.item.ids == Hashed(key="item", size=1000)
    new = inputs.vocabularies.item.ids.rows(pl.Series([10**15, 10**15 + 1]))
    assert len(set(new)) == 2
    assert inputs.items.rows[0].tolist() == (hash64(shop.items["item_id"], "item") % 1000).tolist()
    assert (inputs.users.rows[0] != hash64(shop.users["user_id"], "item") % 1000).any()  # users have a hash of their own


def test_an_unseen_id_has_row_0_of_a_vocabulary():
    assert Vocabulary(values=pl.Series([5, 9])).rows(pl.Series([9, 7, 5])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("hash_ids", [0, 50])
@pytest.mark.parametrize("form", ["none", "vector", "cluster_id", "sim_score"])
def test_a_runs_vocabularies_are_read_back_and_give_the_same_arrays(tmp_path, form, hash_ids):
    shop, style = make_shop()
    config = dataclasses.replace(TINY, hash_ids=hash_ids, init_from=tmp_path / "a")
    feature = learned(style, form)
    inputs = encode(shop, feature, config)
    write_model_spec(tmp_path, inputs, config)
    known = read_model_spec(tmp_path)
    assert known.config == config
    assert known.layout == inputs.layout
    assert known.feature == digest(feature)
    again = encode(shop, feature if known.rule is None else known.rule.feature(unit(style)), known.config, known.vocabularies)
    assert again.layout == inputs.layout
    for name in ("items", "users", "context"):
        assert (getattr(again, name).rows == getattr(inputs, name).rows).all()
        assert getattr(again, name).numeric.tobytes() == getattr(inputs, name).numeric.tobytes()
    for name in ("titles", "queries"):
        assert getattr(again, name).rows.tolist() == getattr(inputs, name).rows.tolist()
    assert digest(again.feature) == digest(feature)


def test_a_changed_or_missing_file_is_refused_by_name(tmp_path):
    shop, style = make_shop()
    with pytest.raises(UserError, match=r"vocabulary\.json: no such file; give the run folder"):
        read_model_spec(tmp_path)
    write_model_spec(tmp_path, encode(shop, learned(style, "cluster_id"), TINY), TINY)
    (tmp_path / "vocabulary/words.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"words\.parquet: missing, or not the file that the training wrote"):
        read_model_spec(tmp_path)


def unit(style):
    return pictures(style, "vector").numbers


def learned(style, form):
    """The image feature learned from vectors near each style's direction."""
    return no_image(len(style)) if form == "none" else image_feature(form, unit(style), FormSettings(clusters=4), seed=0, centre=True)


@pytest.mark.parametrize("extreme", [np.finfo(np.float64).max, 1e200, 1e-200, 5e-324])
def test_any_finite_numbers_are_standardised_to_finite_ones(extreme):
    values = np.random.default_rng(0).random(50) * extreme
    scale = fit_scale(pl.Series("price", values), np.ones(50, bool))
    assert 0 < scale.deviation < np.inf
    assert np.isfinite(scale.mean)
    (scaled,) = scale.numbers(pl.Series("price", [*values, -np.finfo(np.float64).max, 0.0]))
    assert np.isfinite(scaled).all()
    assert abs(scaled[:50].mean()) < 1e-6 or extreme < 1e-300
    one_sentinel = np.append(np.random.default_rng(1).random(49), extreme)
    assert np.isfinite(fit_scale(pl.Series("price", one_sentinel), np.ones(50, bool)).deviation)


def test_ordinary_numbers_have_their_plain_moments_and_a_constant_column_becomes_zeros():
    values = np.random.default_rng(2).lognormal(size=100)
    scale = fit_scale(pl.Series("price", values), np.ones(100, bool))
    assert (scale.mean, scale.deviation) == (values.mean(), values.std())
    constant = fit_scale(pl.Series("price", np.full(1000, 0.1)), np.ones(1000, bool))
    assert (constant.mean, constant.deviation) == (0.1, 1.0)


def test_columns_named_like_our_tables_have_tables_of_their_own():
    names = ["item", "word", "image_cluster", "a.b", "a_b", "a%2Eb", "", "context:x", "x/y", "long" * 100]
    rules = Rules(kind="item", ids=None, categorical={name: Vocabulary(values=pl.Series(["v"])) for name in names}, numeric=())
    tables = [table.name for table in rules.tables(TINY)]
    assert len(set(tables)) == len(names)
    assert not {"item", "user", "word", f"{IMAGE_TABLES}cluster_id:0"} & set(tables)
    assert not any("." in name for name in tables)


def test_a_table_beyond_32_bits_is_refused():
    with pytest.raises(UserError, match="rows, more than the limit of 2,147,483,647"):
        Table(name="item", size=2**31, dim=4)
    with pytest.raises(SettingError, match="hash_ids"):
        CtrConfig(hash_ids=2**31)
