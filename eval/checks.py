"""Whatever can be known before the first training is refused before it: here, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.encoder_stages import is_external
from pretrain.methods.table import check_needs
from pretrain.settings import NAMED_WEIGHTS
from run.errors import SettingError, UserError

if TYPE_CHECKING:
    from ctr.config import CtrConfig
    from data.log.shop_folder import Shop
    from pretrain.config import PretrainConfig


def check_settings(*, start: str, pretrain: PretrainConfig, ctr: CtrConfig) -> None:
    """Refuse settings that contradict each other, and files that are not there; reads no data.

    Raises:
        SettingError: a warm start from a baseline of this comparison and from a given run at once.
        UserError: a file of weights is missing.
    """
    if start == "warm" and ctr.init_from is not None:
        fix = "takes --start cold: with --start warm, CTR models start from a baseline that the comparison trains"
        raise SettingError("ctr.init_from", ctr.init_from, fix)
    if ctr.start is not None and not ctr.start.is_file():
        raise UserError(f"--ctr.init-from {ctr.init_from}: no such file: {ctr.start}; give a run of ctr.train, or its best.safetensors")
    if pretrain.weights not in NAMED_WEIGHTS and not Path(pretrain.weights).is_file():
        fix = f"no such file; give one of weights, or {', '.join(NAMED_WEIGHTS)}"
        raise UserError(f"--pretrain.weights {pretrain.weights}: {fix}")


def check_shop(shop: Shop, encoders: Sequence[str], pretrain: PretrainConfig) -> None:
    """Refuse a shop that cannot be measured on, or that an encoder can learn nothing from.

    Raises:
        UserError: names the folder, what is missing and the fix.
    """
    require_measurable(shop)
    for encoder in encoders:
        if not is_external(encoder):
            check_needs(encoder, shop, pretrain)


def require_measurable(shop: Shop) -> None:
    """Refuse a log on which no CTR model can be trained, chosen or compared.

    Raises:
        UserError: a split of one class, without a session to rank, or test impressions of one user.
    """
    from data.log.split import NEEDED, check_scorable

    for split in NEEDED:
        click = shop.click[shop.rows(split)]
        if not len(click) or click.min() == click.max():
            what = "no impressions" if not len(click) else "only clicks" if click[0] else "no click"
            raise UserError(f"{shop.folder}: the {split} split has {what}; log more, or give other --split-fractions")
    check_scorable(shop, "valid")
    check_scorable(shop, "test")
    if len(np.unique(shop.user[shop.rows("test")])) < 2:
        raise UserError(
            f"{shop.folder}: all test impressions are of one user; intervals resample users and need at least two: "
            "check that user_id tells people apart, or give test a larger share by --split-fractions"
        )
