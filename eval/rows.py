"""The rows of a comparison by name: an encoder fed in one form, the baseline, and the controls that test the comparison itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

Row = tuple[str, str]  # encoder, image feature ("none" for the baselines)

BASELINE: Row = ("baseline", "none")
OTHER_SEEDS: Row = ("baseline (other seeds)", "none")  # the A/A row
BOOSTED: Row = ("LightGBM (check)", "none")  # trees on the baseline's features: how good is the baseline?
WARM: Row = ("baseline (start)", "none")  # with --start warm, trained first; all rows including the baseline start from its weights
ALONE = "alone"  # in place of a form: an encoder's similarities, without a CTR model
BESIDE = "beside popularity"  # in place of a form: these and an item's popularity together
POPULARITY: Row = ("popularity", BESIDE)  # of items, without an encoder or a CTR model
SHUFFLED = "shuffled "  # before an encoder's name: its embeddings assigned to the wrong items


def rows_of(encoders: Sequence[str], forms: Sequence[str], *, controls_of: str | None = None, boosted: bool = False) -> list[Row]:
    """Every row except the baseline, controls last.

    Args:
        controls_of: the encoder whose embeddings are shuffled for the controls; None: no controls.
        boosted: the controls include LightGBM.
    """
    rows = [(encoder, form) for encoder in encoders for form in forms]
    if controls_of is not None:
        rows += [(SHUFFLED + controls_of, form) for form in forms] + [OTHER_SEEDS] + [BOOSTED] * boosted
    return rows


def has_lightgbm() -> bool:
    """Whether the package that BOOSTED needs is installed; it is not imported here."""
    return find_spec("lightgbm") is not None


def encoder_of(name: str) -> str:
    """The encoder behind a row's name, shuffled or not."""
    return name.removeprefix(SHUFFLED)


def is_shuffled(name: str) -> bool:
    """True for rows with shuffled embeddings."""
    return name.startswith(SHUFFLED)


def is_control(name: str) -> bool:
    """True for rows that test the comparison itself: the A/A row, shuffled embeddings and LightGBM.

    >>> is_control("shuffled courier"), is_control("courier")
    (True, False)
    """
    return name == BOOSTED[0] or name.startswith(("baseline (", SHUFFLED))


def row_name(encoder: str, image_feature: str) -> str:
    """`courier as cluster_id`; only the encoder if there is no image feature."""
    return encoder if image_feature in ("", "none") else f"{encoder} as {image_feature}"
