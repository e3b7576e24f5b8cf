"""All warnings of a shop, in one list."""

from __future__ import annotations

from collections.abc import Iterator

from data.log.shop_folder import Shop
from data.suspicions import columns, leaks, names, rows


def warnings(shop: Shop) -> Iterator[str]:
    """What a comparison would accept but is probably a mistake; each sentence says how it was found."""
    yield from leaks.warnings(shop)
    yield from columns.warnings(shop)
    yield from rows.warnings(shop)
    yield from names.warnings(shop)
