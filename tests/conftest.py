"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shops import write_shop


@pytest.fixture
def shop_folder(tmp_path: Path) -> Path:
    """A tiny valid shop folder with pictures and integer ids; see `tests.shops.write_shop`."""
    return write_shop(tmp_path / "shop")
