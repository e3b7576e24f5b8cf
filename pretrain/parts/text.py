"""Titles as tokens, and a text tower over them: a small transformer trained from scratch, or a Hugging Face encoder from a local folder.

Shapes: N items, T titles, L tokens, W width of the tower's states, D embedding length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.arrays.words import words_of
from data.log.shop_folder import Shop
from run.errors import DataError, UserError
from run.randomness import integer_seed, keyed_init

PADDING, UNKNOWN, MASK = 0, 1, 2  # of the vocabulary learned here; words follow
_FEWEST = 2  # titles that a word must occur in to be known: words of a single title train the unknown word
_SMALL = 0.1  # of the deviation of a word's initial vector: that of its position


class TextSettings(Protocol):
    """The settings of a method that titles and their tower depend on (see ClipConfig)."""

    @property
    def text_model(self) -> Path | None: ...
    @property
    def words(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Titles:
    """The distinct titles of a catalogue as tokens; titles with equal tokens are one."""

    of_item: np.ndarray  # (N,) row of each item's title; 0: none
    tokens: np.ndarray  # (T, L) int64, left-aligned; row 0 is the empty title
    lengths: np.ndarray  # (T,) tokens of each title
    words: np.ndarray  # (T, L) bool: tokens that are words or parts of words; neither padding nor special tokens
    size: int  # of the table of tokens
    mask: int | None  # the token that replaces a masked word; None: the tokeniser has none

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens (T', L') of the titles `rows`, and which are real (bool); L' is the longest title's length; the empty title's is one."""
        longest = max(1, int(self.lengths[rows].max(initial=0)))
        present = np.arange(longest) < np.maximum(self.lengths[rows], 1)[:, None]
        return torch.as_tensor(self.tokens[rows, :longest], device=device), torch.as_tensor(present, device=device)


def read_titles(shop: Shop, known: np.ndarray, config: TextSettings) -> Titles:
    """The catalogue's titles, as words known from some items' titles, or as tokens of `config.text_model`.

    Args:
        known: (M,) item indices whose titles the vocabulary is learned from; all other words are one unknown word.

    Raises:
        UserError: there are no titles, or the tokeniser cannot be loaded.
    """
    require_titles(shop)
    return tokens_of(shop.items["title"].cast(pl.String), known, config)


def tokens_of(texts: pl.Series, known: np.ndarray, config: TextSettings) -> Titles:
    """Texts as words known from some of them (M,), or as tokens of `config.text_model`; of titles, or of queries."""
    return _own_tokens(texts, known, config) if config.text_model is None else _external_tokens(texts, config, config.text_model)


def require_titles(shop: Shop) -> None:
    """Refuse a catalogue without titles for a text tower to learn from."""
    if "title" not in shop.items.columns:
        raise DataError("items.parquet", column="title", fix="there is no such column, and a text tower learns from titles; add one")


def _own_tokens(titles: pl.Series, known: np.ndarray, config: TextSettings) -> Titles:
    words = words_of(titles, config.words)
    each = words[known].explode(empty_as_null=False).rename("word")
    counts = each.value_counts(name="count").filter(pl.col("count") >= _FEWEST)
    # the result must not depend on how items are sorted
    kept = counts.sort(["count", "word"], descending=[True, False])["word"].head(config.vocabulary)
    code = {word: MASK + 1 + place for place, word in enumerate(kept)}
    coded = [[code.get(word, UNKNOWN) for word in title] for title in words.to_list()]
    return _titles(coded, config.words, marks=(), size=MASK + 1 + len(code), mask=MASK)


def _external_tokens(titles: pl.Series, config: TextSettings, folder: Path) -> Titles:
    tokenizer = _from_folder(folder, "AutoTokenizer")
    texts = titles.fill_null("").str.strip_chars().to_list()
    distinct = sorted(set(texts) - {""})
    found = tokenizer(distinct, truncation=True, max_length=config.words)["input_ids"] if distinct else []
    code = dict(zip(distinct, found, strict=True))
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    coded = [code.get(text, []) for text in texts]
    return _titles(coded, config.words, marks=tuple(marks), size=len(tokenizer), mask=tokenizer.mask_token_id)


def _titles(coded: list[list[int]], longest: int, *, marks: tuple[int, ...], size: int, mask: int | None) -> Titles:
    """Titles from the tokens of each item; `marks` are special tokens, which are not words."""
    table = np.full((len(coded) + 1, longest), -1, dtype=np.int64)  # its last row guarantees an empty title, the smallest row
    for row, tokens in zip(table, coded, strict=False):
        row[: len(tokens)] = tokens
    distinct, of_item = np.unique(table, axis=0, return_inverse=True)
    there = distinct >= 0
    return Titles(
        of_item=of_item.reshape(-1)[:-1],
        tokens=np.where(there, distinct, PADDING),
        lengths=there.sum(1),
        words=there & ~np.isin(distinct, marks),
        size=size,
        mask=mask,
    )


class Block(nn.Module):
    """A layer of a transformer: attention, then a network of two layers, each with a layer norm before and a residual connection around it.

    Args:
        width: W.
        heads: a divisor of `width`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states_TLW: Tensor, present_TL: Tensor | None = None) -> Tensor:
        """(T, L, W) -> (T, L, W); attention goes to the places that are `present` (bool), at least one in each row."""
        parts = self.inward(self.before(states_TLW)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if present_TL is None else present_TL[:, None, None, :]
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
        states_TLW = states_TLW + self.outward(mixed.transpose(1, 2).flatten(-2))
        return states_TLW + self.network(self.between(states_TLW))


class SmallTransformer(nn.Module):
    """Tokens -> states, through `layers` layers; no dropout."""

    def __init__(self, size: int, config: TextSettings):
        super().__init__()
        self.word, self.place = nn.Embedding(size, config.width), nn.Embedding(config.words, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens_TL: Tensor, present_TL: Tensor) -> Tensor:
        states_TLW = self.word(tokens_TL) + _SMALL * self.place.weight[: tokens_TL.shape[1]]
        for block in self.blocks:
            states_TLW = block(states_TLW, present_TL)
        return self.norm(states_TLW)


class WordDecoder(nn.Module):
    """States of a text tower -> logits of each token; half as wide as the tower."""

    def __init__(self, states: int, heads: int, layers: int, size: int):
        super().__init__()
        width = max(1, states // 2)
        self.inward = nn.Linear(states, width)
        self.blocks = nn.ModuleList(Block(width, math.gcd(width, heads)) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)

    def forward(self, states_TLW: Tensor, present_TL: Tensor, masked_TL: Tensor) -> Tensor:
        """Logits (M, size) of the masked tokens, in their order."""
        inner_TLV = self.inward(states_TLW)
        for block in self.blocks:
            inner_TLV = block(inner_TLV, present_TL)
        return self.out(self.norm(inner_TLV[masked_TL]))


class HuggingFaceText(nn.Module):
    """A Hugging Face encoder as a function of tokens. Its dropout stays off: a title has one embedding in a step."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> HuggingFaceText:
        return super().train(False)

    def forward(self, tokens_TL: Tensor, present_TL: Tensor) -> Tensor:
        return self.model(input_ids=tokens_TL, attention_mask=present_TL.long()).last_hidden_state


class TextTower(nn.Module):
    """Titles -> embeddings: the mean of the states of a title's tokens, projected to the length of the pictures' embeddings."""

    def __init__(self, model: nn.Module, width: int, dim: int):
        super().__init__()
        self.model, self.width, self.projection = model, width, nn.Linear(width, dim)

    def forward(self, tokens_TL: Tensor, present_TL: Tensor) -> Tensor:
        """(T, L) tokens and which of them are real -> (T, D)."""
        present_TL1 = present_TL[:, :, None]
        return self.projection((self.model(tokens_TL, present_TL) * present_TL1).sum(1) / present_TL1.sum(1))


def text_tower(titles: Titles, config: TextSettings, *, dim: int, seed: int) -> TextTower:
    """A tower with its initial weights.

    Raises:
        UserError: `config.text_model` is not the folder of an encoder that runs on these titles.
    """
    if config.text_model is None:
        tower = TextTower(SmallTransformer(titles.size, config), config.width, dim)
        keyed_init(tower, seed)
        return tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "text model"))  # of layers that the folder has no weights for
        model = HuggingFaceText(_from_folder(config.text_model, "AutoModel")).eval()
    try:
        with torch.no_grad():
            width = model(*titles.batch(np.array([np.argmax(titles.lengths)]), torch.device("cpu"))).shape[-1]
    except Exception as error:  # a model of another kind fails in its own way
        raise UserError(
            f"{config.text_model}: not an encoder of titles of {config.words} tokens ({type(error).__name__}: {error}); give a model "
            "such as BERT, or fewer --clip.words"
        ) from None
    tower = TextTower(model, width, dim)
    keyed_init(tower.projection, seed)
    return tower


def embed_titles(tower: TextTower, titles: Titles, items: np.ndarray, device: torch.device) -> Tensor:
    """(P, D) embeddings of the titles of (P,) items; each title goes through the tower once."""
    rows, where = np.unique(titles.of_item[items], return_inverse=True)
    return F.embedding(torch.as_tensor(where, device=device), tower(*titles.batch(rows, device)))


def _from_folder(folder: Path, what: str) -> Any:
    """A tokeniser or model (transformers' AutoTokenizer, AutoModel) from this folder's files only: no download, no pickle, no code."""
    try:
        import transformers
    except ImportError:
        raise UserError("--clip.text-model needs the package transformers: pip install transformers==5.24.0") from None
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --clip.text-model takes the folder of a Hugging Face text encoder")
    options = {"use_safetensors": True, "dtype": torch.float32} if what == "AutoModel" else {"padding_side": "right"}
    try:
        return getattr(transformers, what).from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # broken and unrelated files fail in many ways
        raise UserError(
            f"{folder}: no Hugging Face text encoder ({what}: {type(error).__name__}); the folder needs config.json, model.safetensors and "
            "the tokeniser's files, as save_pretrained writes them"
        ) from None
