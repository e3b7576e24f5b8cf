"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from data.worlds.build import make_world
from tests.made_worlds import SIZES, write_photos
from tests.shops import write_shop

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # workers share the cores: with a thread for each core, they wait for each other at every small product
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

# the same examples in every run; `pytest --hypothesis-profile default` looks for new ones
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """Hashes of test files stay out of the user's cache; matplotlib keeps its list of fonts, which takes seconds to make."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(users / "matplotlib"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's own random numbers are the same in every run, whatever the order of the tests."""
    torch.manual_seed(0)


@pytest.fixture
def shop_folder(tmp_path: Path) -> Path:
    """A tiny valid shop folder with pictures and integer ids; see `tests.shops.write_shop`."""
    return write_shop(tmp_path / "shop")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of files in Fashion-MNIST's format."""
    return write_photos(tmp_path_factory.mktemp("fashion") / "photos")


@pytest.fixture(scope="session", params=["shop", "fashion"])
def world(request, tmp_path_factory, photos) -> Path:
    """Each built-in world, of size `tests.made_worlds.SIZES`; the folder has the world's name."""
    folder = tmp_path_factory.mktemp("worlds") / request.param
    return make_world(request.param, folder, **SIZES, seed=3, fashion_dir=photos)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """tests/exports.py: from a form and training flags to a shop, a run on it and its export."""
    from tests.exports import exports_in

    return exports_in(tmp_path_factory)


@pytest.fixture(scope="module")
def scorer_of():
    """tests/exports.py: from an export to its scorer."""
    from tests.exports import scorers

    return scorers()
