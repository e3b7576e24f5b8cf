"""The interface of a form: how picture embeddings become an input of the CTR model, and the place in the model where it enters.

Light to import, as are the forms themselves: commands read names and settings before any numbers are touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

# Places in the CTR model. ctr/ knows these, but no form by name.
ITEM_NUMBERS = "item numbers"  # dense columns of the target and of every history item, with a flag for "has a picture"
ITEM_TABLE = "item table"  # rows of embedding tables, summed, for the target and for every history item
PAIR = "pair"  # the cosine of each pair of target and history item, with a flag for "both have a picture"
PAIR_COUNTS = "pair counts"  # for each history, how many of its items are how similar to the target: dense columns of the impression
PAIR_ATTENTION = "pair attention"  # for each history, what an attention that knows these cosines gives: dense columns of the impression
COMPARING = frozenset({PAIR, PAIR_COUNTS, PAIR_ATTENTION})  # places that read cosines of unit embeddings


@dataclass(frozen=True, kw_only=True)
class PlaceValues:
    """A form's input to the CTR model for P pictures; which fields are set depends on the place."""

    numbers: np.ndarray | None = None  # item numbers: (P, D) float32, zero rows without a picture
    rows: np.ndarray | None = None  # item table: (P, T) int64, one of each of T tables; the last row of a table means "no picture"
    table_sizes: tuple[int, ...] = ()  # item table: rows of each of the T tables
    constants: dict[str, tuple[float, ...]] = field(default_factory=dict)  # what else the CTR model must know, by the place's names


class Form(ABC):
    """One form; its module, named features.forms.NAME, holds everything about it."""

    place: ClassVar[str]  # one of PLACES
    settings: ClassVar[type | None] = None  # a frozen dataclass of the form's own settings, a base of table.FormSettings
    reads_pairs: ClassVar[bool] = False  # it learns from the cosines of items shown and items clicked before

    @abstractmethod
    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int, cosines: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The form's constants, as arrays by name, stored in the run folder.

        Args:
            vectors: (M, D) float32 unit embeddings of the items that it may learn from; M may be 0.
            settings: `table.FormSettings`; a form reads its own.
            seed: of whatever is drawn at random.
            cosines: (n,) of an item shown in training and one clicked before, both with a picture, drawn at random; None: not known.
        """

    @abstractmethod
    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """The feature of any P pictures, including new ones.

        Args:
            vectors: (P, D) float32 unit embeddings, zero rows without a picture.
            constants: what `learn` returned.
        """
