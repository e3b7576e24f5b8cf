"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from data.worlds.build import make_world
from tests.made_worlds import SIZES, write_photos
from tests.shops import write_shop

# the same examples in every run; `pytest --hypothesis-profile default` looks for new ones
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's own random numbers are the same in every run and in any order of the tests."""
    torch.manual_seed(0)


@pytest.fixture
def shop_folder(tmp_path: Path) -> Path:
    """A tiny valid shop folder with pictures and integer ids; see `tests.shops.write_shop`."""
    return write_shop(tmp_path / "shop")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of files like Fashion-MNIST's."""
    return write_photos(tmp_path_factory.mktemp("fashion") / "photos")


@pytest.fixture(scope="session", params=["shop", "fashion"])
def world(request, tmp_path_factory, photos) -> Path:
    """Each built-in world, of size `tests.made_worlds.SIZES`; the folder has the world's name."""
    folder = tmp_path_factory.mktemp("worlds") / request.param
    return make_world(request.param, folder, **SIZES, seed=3, fashion_dir=photos)
