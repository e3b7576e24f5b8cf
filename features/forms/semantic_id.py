"""Semantic ID: a picture's codes, from coarse to fine, as rows of tables (prefix n-grams: Zheng et al. 2025, arXiv:2504.02137)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.forms.form import ITEM_TABLE, Form, PlaceValues
from run.config import positive
from run.errors import SettingError

if TYPE_CHECKING:
    import numpy as np

MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class SemanticIdSettings:
    """Settings of Semantic ID."""

    levels: int = 3  # codes of a semantic ID, each of what the ones before it leave of the picture
    codes: int = 256  # values that each code can take; fewer if there are fewer distinct pictures

    def __post_init__(self):
        for name in ("levels", "codes"):
            positive(name, getattr(self, name))
        check_levels(self.levels, self.codes, flag="--codes")


def check_levels(levels: int, codes: int, *, flag: str) -> None:
    """Refuse so many codes that their prefixes have no number of 64 bits.

    Raises:
        SettingError: names the other setting by its flag.
    """
    if levels > MOST_LEVELS or levels * math.log2(codes) > 63:
        fix = f"give {MOST_LEVELS} or fewer; with {codes:,} codes, prefixes must fit in 64 bits (or give a lower {flag})"
        raise SettingError("levels", levels, fix)


class SemanticId(Form):
    """L codes by residual k-means (RQ-KMeans: arXiv:2411.11739), fed as L rows: of the first code, of the first two, ..., of all.

    Their embeddings are summed. A prefix has a row of its own if an item known when the codes were learned has it, so that no two prefixes
    share one (the source hashes them); all others of that length share the last row but one, and the last row means "no picture". Cluster
    ID is the case of one level.
    """

    place = ITEM_TABLE
    settings = SemanticIdSettings

    def learn(
        self, vectors: np.ndarray, settings: SemanticIdSettings, *, seed: int, cosines: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """centres-l (C, D) float32 and prefixes-l (P,) int64, ascending, of each level l from 0."""
        import numpy as np

        from features.learned.residual_codes import codes_of, fit_levels, prefixes_of

        levels = fit_levels(vectors, levels=settings.levels, codes=settings.codes, seed=seed)
        if len(levels[0]) < settings.codes:
            print(f"note: semantic_id: {len(levels[0]):,} codes, not {settings.codes:,}: too few distinct embeddings", file=sys.stderr)
        known = prefixes_of(codes_of(vectors, levels), levels)
        constants = {f"centres-{level}": centres for level, centres in enumerate(levels)}
        return constants | {f"prefixes-{level}": np.unique(known[:, level]) for level in range(len(levels))}

    def values(self, vectors: np.ndarray, constants: dict[str, Any]) -> PlaceValues:
        """The rows of each prefix of a picture's codes."""
        import numpy as np

        from features.learned.residual_codes import codes_of, levels_in, prefixes_of

        levels = levels_in(constants)
        known = [constants[f"prefixes-{level}"] for level in range(len(levels))]
        present = vectors.any(axis=1)
        rows = np.tile([len(prefixes) + 1 for prefixes in known], (len(vectors), 1)).astype(np.int64)
        found = prefixes_of(codes_of(vectors[present], levels), levels)
        for level, prefixes in enumerate(known):
            place = np.searchsorted(prefixes, found[:, level])
            there = place < len(prefixes)
            there[there] = prefixes[place[there]] == found[there, level]
            rows[present, level] = np.where(there, place, len(prefixes))
        return PlaceValues(rows=rows, table_sizes=tuple(len(prefixes) + 2 for prefixes in known))
