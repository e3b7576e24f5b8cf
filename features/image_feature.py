"""The pictures' input to the CTR model: embeddings in one of the forms of features/forms/."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from data.log.shop_folder import SPLITS, Shop
from features.forms.form import PlaceValues
from features.forms.table import FORMS, NO_FORM, FormSettings, check_form, forms_of, reads_pairs
from features.learned.shown_and_clicked import cosines_of, shown_and_clicked
from pretrain.similarity import common_part, without_common

SAME_DIRECTION = 1e-5  # unit rows this near to each other differ by float32's rounding alone


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """How an embedding becomes the feature: learned once from the items shown before validation, then the same for every picture."""

    form: str  # one or several joined by "+" (features/forms/table.py)
    common: np.ndarray  # (D,) float32, subtracted from the unit embeddings first; zeros: nothing
    constants: dict[str, dict[str, np.ndarray]]  # what each form learned, by its own names

    def feature(self, vectors: np.ndarray) -> ImageFeature:
        """The feature of pictures by their (P, D) unit embeddings, zero rows where there is no picture."""
        vectors = without_common(np.ascontiguousarray(vectors, dtype=np.float32), self.common)
        parts = {form: FORMS[form].values(vectors, self.constants[form]) for form in forms_of(self.form)}
        return ImageFeature(form=self.form, present=np.any(vectors, axis=1), unit=vectors, parts=parts, rule=self)


@dataclass(frozen=True, kw_only=True)
class ImageFeature:
    """One encoder's embeddings as input of the CTR model; `form` "none" is the baseline's."""

    form: str
    present: np.ndarray  # (N,) bool: the item has a picture
    unit: np.ndarray | None = None  # (N, D) float32 unit embeddings, zero rows without a picture; None for the baseline
    parts: dict[str, PlaceValues] = field(default_factory=dict)  # of each form, in the order of their names
    rule: ImageRule | None = None  # gives new pictures the same feature; None for the baseline

    @property
    def numbers(self) -> np.ndarray | None:
        """(N, D) float32 of the form that enters as item numbers."""
        return next((part.numbers for part in self.parts.values() if part.numbers is not None), None)

    @property
    def rows(self) -> np.ndarray:
        """(N, T) int64, a row of each table of the forms that have any."""
        tables = [part.rows for part in self.parts.values() if part.rows is not None]
        return np.concatenate([np.zeros((len(self.present), 0), np.int64), *tables], axis=1)


def no_image(items: int) -> ImageFeature:
    """The baseline's input for a catalogue of this many items: nothing."""
    return ImageFeature(form=NO_FORM, present=np.zeros(items, dtype=bool))


def items_shown_before(shop: Shop, split: str) -> np.ndarray:
    """(M,) items with an impression in a split before this one: what a form may learn from."""
    return np.unique(shop.item[shop.session_split[shop.session] < SPLITS.index(split)])


def image_feature(
    form: str, vectors: np.ndarray, settings: FormSettings | None = None, *, seed: int, fit_on: np.ndarray | None = None,
    centre: bool = False, pairs: np.ndarray | None = None,
) -> ImageFeature:  # fmt: skip
    """Embeddings in a form.

    Args:
        form: one of FORMS, or several joined by "+".
        vectors: (N, D) unit embeddings, zero rows where an item has no picture.
        settings: of the forms; None: the defaults.
        seed: of whatever the form draws at random.
        fit_on: (M,) items that the form's constants are learned from; other items' pictures only get features. None: all.
        centre: subtract the mean over `fit_on` from the embeddings first.
        pairs: (n, 2) items that were shown and clicked before (features/learned/shown_and_clicked.py), for forms that read them.

    Inputs are standardised, like every numeric input of the model: after training at a low temperature, embeddings share a large
    common part, and cosines that all lie near 0.75 carry little for a network (normalising inputs matters a lot: Appendix B).

    Raises:
        SettingError: an unknown form.
    """
    return learned_rule(form, vectors, settings, seed=seed, fit_on=fit_on, centre=centre, pairs=pairs).feature(vectors)


def learned_rule(
    form: str, vectors: np.ndarray, settings: FormSettings | None = None, *, seed: int, fit_on: np.ndarray | None = None,
    centre: bool = False, pairs: np.ndarray | None = None,
) -> ImageRule:  # fmt: skip
    """The rule that `image_feature` learns from embeddings; with the same arguments."""
    check_form("image_feature", form)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    known = np.any(vectors, axis=1)
    if fit_on is not None:
        known &= np.isin(np.arange(len(vectors)), fit_on)
    common = np.zeros(vectors.shape[1], np.float32)
    if centre and not all_alike(vectors[known]):
        common = common_part(vectors, np.arange(len(vectors)) if fit_on is None else fit_on)
        vectors = without_common(vectors, common)
        known &= np.any(vectors, axis=1)
    cosines, settings = None if pairs is None else cosines_of(pairs, vectors), settings or FormSettings()
    constants = {name: FORMS[name].learn(vectors[known], settings, seed=seed, cosines=cosines) for name in forms_of(form)}
    return ImageRule(form=form, common=common, constants=constants)


def feature_of_shop(
    shop: Shop, vectors: np.ndarray, form: str, settings: FormSettings | None = None, *, seed: int, centre: bool
) -> ImageFeature:
    """Embeddings of a shop's items in a form, whose constants are learned from what was shown before validation; as `image_feature`."""
    pairs = shown_and_clicked(shop, seed=seed) if reads_pairs(form) else None
    return image_feature(form, vectors, settings, seed=seed, fit_on=items_shown_before(shop, "valid"), centre=centre, pairs=pairs)


def all_alike(unit_vectors: np.ndarray) -> bool:
    """True where (M, D) unit rows are one direction up to rounding: less their mean, only rounding would be left."""
    return len(unit_vectors) > 0 and float(np.abs(unit_vectors - unit_vectors[0]).max()) < SAME_DIRECTION


def digest(feature: ImageFeature) -> str:
    """A hash of the feature's values: a run must not be resumed with another's."""
    content = hashlib.sha256(feature.form.encode())
    for values in (feature.present, feature.numbers, feature.unit, feature.rows):
        content.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return content.hexdigest()[:16]
