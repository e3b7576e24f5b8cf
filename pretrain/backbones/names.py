"""Names of backbones, checked without loading a network: small_cnn, timm:NAME, or a torchvision classifier."""

from __future__ import annotations

import difflib
import functools

from run.errors import SettingError

PREFIX = "timm:"
HEAD_SHAPES = ("linear", "mlp", "residual")  # pretrain/backbones/heads.py
NAMED_WEIGHTS = ("pictures", "imagenet", "registry", "random")  # values of `weights` that are not files
COMPONENTS = {  # what a head may begin as the components of (pretrain/backbones/heads.py): name -> in words
    "all": "all layers",
    "last": "the last layer",
    "alike": "all layers, each of equal weight",
}
_KNOWN = ("small_cnn", "resnet18", "swin_t", "timm:tf_efficientnet_lite0")  # accepted without importing the libraries
# families whose torchvision weights need more than a state with the same keys (other keys, a transformed input, no linear layer)
NOT_TAKEN = ("densenet", "googlenet", "inception", "mnasnet", "squeezenet")


def is_timm(name: str) -> bool:
    """True for the name of one of timm's networks.

    >>> is_timm("timm:resnet18"), is_timm("resnet18")
    (True, False)
    """
    return name.startswith(PREFIX)


def model_of(name: str) -> str:
    """A backbone's name in its library.

    >>> model_of("timm:resnet18.a1_in1k")
    'resnet18.a1_in1k'
    """
    return name.removeprefix(PREFIX)


def check_backbone(setting: str, name: str) -> None:
    """Refuse an unknown name.

    Raises:
        SettingError: with the nearest names.
    """
    if name in _KNOWN:
        return
    known = models_of("timm" if is_timm(name) else "torchvision")
    if model_of(name) in known:
        return
    near = difflib.get_close_matches(model_of(name), known, n=3, cutoff=0.5)
    prefix = PREFIX if is_timm(name) else ""
    meant = f"did you mean {' or '.join(repr(prefix + one) for one in near)}?" if near else ""
    raise SettingError(setting, name, meant or "give small_cnn, timm:NAME or a torchvision classifier")


@functools.lru_cache
def models_of(library: str) -> list[str]:
    """The names that a library knows: timm's with and without a tag, torchvision's only of supported families.

    Args:
        library: timm | torchvision.
    """
    if library == "timm":
        import timm

        return timm.list_models() + timm.list_models(pretrained=True)
    from torchvision import models

    return [name for name in models.list_models(module=models) if not name.startswith(NOT_TAKEN)]
