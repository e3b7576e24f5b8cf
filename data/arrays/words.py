"""Texts as words, the same for every reader of titles and queries."""

from __future__ import annotations

import polars as pl

# a word is a run of letters and digits; scripts written without spaces give one word per character
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}"
_WORD = rf"[{_SPACELESS}]|[\w--[{_SPACELESS}_]]+"


def words_of(texts: pl.Series, most: int) -> pl.Series:
    """Lower-case words of each text, the first `most`; null has none.

    >>> words_of(pl.Series(["Red DRESS, size-10", None]), 3).to_list()
    [['red', 'dress', 'size'], []]
    """
    words = pl.first().cast(pl.String).fill_null("").str.to_lowercase().str.extract_all(_WORD).list.head(most)
    return texts.to_frame().select(words).to_series()  # as one expression: a request cannot wait for five
