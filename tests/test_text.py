"""Titles as tokens, and towers over them: the small one and a Hugging Face encoder from a folder."""

import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from data.log.shop_folder import load_shop
from pretrain.methods.clip import ClipConfig
from pretrain.parts.text import MASK, UNKNOWN, embed_titles, read_titles, text_tower
from run.errors import UserError
from tests.shops import write_shop

CPU = torch.device("cpu")
CONFIG = ClipConfig(words=4, width=16, layers=2, heads=2)
TITLES = ["Red coat", "red COAT, warm", "red coat!", "blue coat", "blue scarf scarf", None, "...", "a b c d e f", "lonely"]


def shop_with(titles, folder):
    """A shop whose first items have these titles and the others none."""
    return load_shop(
        write_shop(
            folder, items=30, pictures=False,
            items_frame=lambda frame: frame.with_columns(title=pl.Series(titles + [None] * (frame.height - len(titles)), dtype=pl.String)),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return shop_with(TITLES, tmp_path_factory.mktemp("titles") / "shop")


@pytest.fixture(scope="module")
def titles(shop):
    return read_titles(shop, np.arange(len(TITLES)), CONFIG)


def tokens_of(titles, item):
    row = titles.of_item[item]
    return titles.tokens[row, : titles.lengths[row]].tolist()


def test_words_are_ranked_by_frequency_and_those_of_a_single_title_are_unknown(titles):
    # titles with coat 4, red 3, blue 2, scarf 2 (twice in one of them); warm, lonely and single letters 1
    coat, red, blue, scarf = (MASK + n for n in (1, 2, 3, 4))
    assert tokens_of(titles, 1) == [red, coat, UNKNOWN]
    assert tokens_of(titles, 3) == [blue, coat]
    assert tokens_of(titles, 4) == [blue, scarf, scarf]
    assert tokens_of(titles, 8) == [UNKNOWN]
    assert titles.size == MASK + 5


def test_titles_are_cut_after_the_given_number_of_words(titles):
    assert tokens_of(titles, 7) == [UNKNOWN] * 4


def test_titles_that_read_the_same_are_one_and_a_title_without_words_is_none(titles):
    assert titles.of_item[0] == titles.of_item[2] > 0
    assert titles.of_item[5] == titles.of_item[6] == titles.of_item[20] == 0
    assert titles.lengths[0] == 0
    assert not titles.words[0].any()
    assert (titles.words.sum(1) == titles.lengths).all()


def test_only_titles_of_the_given_items_enter_the_vocabulary(shop):
    few = read_titles(shop, np.array([0, 1, 2]), CONFIG)
    assert few.size == MASK + 3  # coat and red
    assert tokens_of(few, 4) == [UNKNOWN] * 3


def test_the_vocabulary_holds_its_most_frequent_words_in_a_fixed_order(shop, tmp_path):
    short = replace(CONFIG, vocabulary=1)
    assert tokens_of(read_titles(shop, np.arange(9), short), 0) == [UNKNOWN, MASK + 1]
    turned = shop_with(TITLES[::-1], tmp_path / "shop")
    forth, back = read_titles(shop, np.arange(9), CONFIG), read_titles(turned, np.arange(9), CONFIG)
    assert [tokens_of(forth, item) for item in range(9)] == [tokens_of(back, item) for item in range(9)][::-1]


def test_a_title_has_the_same_embedding_alone_as_next_to_longer_ones(titles):
    tower = text_tower(titles, CONFIG, dim=5, seed=0)
    items = np.array([7, 0, 5, 0, 4, 8])
    together = embed_titles(tower, titles, items, CPU)
    alone = torch.cat([embed_titles(tower, titles, items[place : place + 1], CPU) for place in range(6)])
    torch.testing.assert_close(together, alone)
    assert (together[1] == together[3]).all()
    assert together.isfinite().all()


def test_the_order_of_words_matters(shop, tmp_path):
    turned = read_titles(shop_with(["red coat", "coat red", "red", "coat"], tmp_path / "shop"), np.arange(4), CONFIG)
    first, second = embed_titles(text_tower(turned, CONFIG, dim=5, seed=0), turned, np.array([0, 1]), CPU)
    assert (first - second).abs().max() > 1e-4


def test_initial_weights_depend_on_the_seed(titles):
    first, same, other = (text_tower(titles, CONFIG, dim=5, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all((first[name] == same[name]).all() for name in first)
    assert (first["model.word.weight"] != other["model.word.weight"]).any()
    assert (first["model.blocks.0.inward.weight"] != other["model.blocks.0.inward.weight"]).any()


def test_a_shop_without_titles_is_refused(tmp_path):
    shop = load_shop(write_shop(tmp_path / "shop", pictures=False, items_frame=lambda frame: frame.drop("title")))
    with pytest.raises(UserError, match=r"items\.parquet: column 'title': there is no such column"):
        read_titles(shop, np.arange(3), CONFIG)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a tiny BERT with weights from its configuration."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "coat", "blue", "sca", "##rf"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


def test_a_hugging_face_encoder_from_a_folder_reads_titles_with_its_own_tokeniser(shop, bert):
    config = replace(CONFIG, text_model=bert, words=6)
    titles = read_titles(shop, np.arange(3), config)
    assert tokens_of(titles, 4) == [2, 7, 8, 9, 8, 3]  # [CLS] blue sca ##rf sca [SEP], cut at 6
    row = titles.of_item[8]
    assert tokens_of(titles, 8) == [2, 1, 3]
    assert titles.words[row].tolist() == [False, True, False, False, False, False]  # an unknown word counts as a word, punctuation does not
    assert (titles.mask, titles.size) == (4, 10)
    tower = text_tower(titles, config, dim=5, seed=0).train()
    items = np.array([4, 0, 2, 5])
    embeddings = embed_titles(tower, titles, items, CPU)
    assert embeddings.shape == (4, 5)
    torch.testing.assert_close(embeddings[1:2], embed_titles(tower, titles, items[1:2], CPU))  # no dropout, no padding
    embeddings[:3].sum().backward()
    assert tower.model.model.embeddings.word_embeddings.weight.grad[5].abs().max() > 0  # trained end to end


def test_its_weights_are_those_of_the_folder(shop, bert):
    from safetensors.torch import load_file

    config = replace(CONFIG, text_model=bert)
    tower = text_tower(read_titles(shop, np.arange(3), config), config, dim=5, seed=3)
    stored = load_file(bert / "model.safetensors")
    found = tower.model.model.state_dict()
    assert all((found[name] == tensor).all() for name, tensor in stored.items())


def test_titles_longer_than_the_model_reads_are_refused_with_the_fix(shop, bert):
    long = shop.items.with_columns(title=pl.lit("red coat " * 9))
    config = replace(CONFIG, text_model=bert, words=20)
    titles = read_titles(replace(shop, items=long), np.arange(3), config)
    with pytest.raises(UserError, match=r"fewer --clip\.words"):
        text_tower(titles, config, dim=5, seed=0)


def test_weights_that_need_unpickling_are_refused(shop, bert, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bert / name).read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    config = replace(CONFIG, text_model=folder)
    titles = read_titles(shop, np.arange(3), config)
    with pytest.raises(UserError, match=r"the folder needs config\.json, model\.safetensors"):
        text_tower(titles, config, dim=5, seed=0)


def test_a_folder_that_is_not_a_model_is_refused_with_the_fix(shop, tmp_path):
    with pytest.raises(UserError, match=r"no such folder; --clip\.text-model takes the folder"):
        read_titles(shop, np.arange(3), replace(CONFIG, text_model=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no Hugging Face text encoder"):
        read_titles(shop, np.arange(3), replace(CONFIG, text_model=tmp_path))


def test_without_transformers_the_error_names_its_installation(shop, bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install transformers=="):
        read_titles(shop, np.arange(3), replace(CONFIG, text_model=bert))
