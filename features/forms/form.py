"""The interface of a form: how picture embeddings become an input of the CTR model, and the place in the model where it enters.

Light to import, as are the forms themselves: commands read names and settings before any numbers are touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

# Places in the CTR model. ctr/ knows these, but no form by name.
ITEM_NUMBERS = "item numbers"  # dense columns of the target and of every history item, with a flag for "has a picture"
ITEM_TABLE = "item table"  # a row of an embedding table for the target and for every history item
PAIR = "pair"  # the cosine of each pair of target and history item, with a flag for "both have a picture"
PLACES = (ITEM_NUMBERS, ITEM_TABLE, PAIR)


@dataclass(frozen=True, kw_only=True)
class PlaceValues:
    """A form's input to the CTR model for P pictures; which fields are set depends on the place."""

    vectors: np.ndarray | None = None  # item numbers, pair: (P, D) float32, zero rows without a picture; unit rows for pair
    rows: np.ndarray | None = None  # item table: (P,) int64 in [0, table_size); the last row means "no picture"
    table_size: int = 0  # item table: rows of the table
    pair_mean: float = 0.0  # pair: the mean cosine of two pictures of the catalogue and its standard deviation;
    pair_spread: float = 1.0  # the CTR model standardises cosines with them


class Form(ABC):
    """One form; its module, named features.forms.NAME, holds everything about it."""

    place: ClassVar[str]  # one of PLACES
    settings: ClassVar[type | None] = None  # a frozen dataclass of the form's own settings, a base of table.FormSettings

    @abstractmethod
    def learn(self, vectors: np.ndarray, settings: Any, *, seed: int) -> dict[str, np.ndarray]:
        """The form's constants, as arrays by name, stored in the run folder.

        Args:
            vectors: (M, D) float32 unit embeddings of the items that it may learn from; M may be 0.
            settings: `table.FormSettings`; a form reads its own.
            seed: of whatever is drawn at random.
        """

    @abstractmethod
    def values(self, vectors: np.ndarray, constants: dict[str, np.ndarray]) -> PlaceValues:
        """The feature of any P pictures, including new ones.

        Args:
            vectors: (P, D) float32 unit embeddings, zero rows without a picture.
            constants: what `learn` returned.
        """
