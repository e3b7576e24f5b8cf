"""Checks before the first training: whatever can be known to fail is refused here, in one place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.readiness import require_ready
from eval.rows import BOOSTED, Row
from features.encoder_stages import is_external
from pretrain.methods.table import check_needs
from run.errors import SettingError, UserError

if TYPE_CHECKING:
    from ctr.config import CtrConfig
    from data.log.shop_folder import Shop
    from pretrain.config import PretrainConfig


def check_settings(*, start: str, ctr: CtrConfig) -> None:
    """Refuse settings that contradict each other, and missing files; reads no data.

    Raises:
        SettingError: a warm start from a baseline of this comparison and from a given run at once.
        UserError: a file of weights is missing.
    """
    if start == "warm" and ctr.init_from is not None:
        fix = "takes --start cold: with --start warm, CTR models start from a baseline that the comparison trains"
        raise SettingError("ctr.init_from", ctr.init_from, fix)
    if ctr.start is not None and not ctr.start.is_file():
        raise UserError(f"--ctr.init-from {ctr.init_from}: no such file: {ctr.start}; give a run of ctr.train, or its best.safetensors")


def note_missing_controls(rows: Sequence[Row], *, controls: bool) -> None:
    """Say on stderr how to get the row BOOSTED, if controls are wanted and it is missing."""
    if controls and BOOSTED not in rows:
        print(f"note: no row {BOOSTED[0]!r}: the package lightgbm is not installed; pip install '.[lightgbm]'", file=sys.stderr)


def check_shop(shop: Shop, encoders: Sequence[str], pretrain: PretrainConfig) -> None:
    """Refuse a shop on which nothing can be measured, or from which an encoder can learn nothing.

    Raises:
        UserError: names the folder, what is missing and the fix.
    """
    require_ready(shop, trains_encoders=not all(map(is_external, encoders)))
    for encoder in encoders:
        if not is_external(encoder):
            check_needs(encoder, shop, pretrain)
