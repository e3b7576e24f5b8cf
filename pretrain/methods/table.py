"""The encoders that can be trained here, by name: the only list of them. A line here and a file next to this one add another."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pretrain.backbones.names import NAMED_WEIGHTS
from pretrain.methods.clip import Clip
from pretrain.methods.courier import Courier
from pretrain.methods.imagenet import ImageNet
from pretrain.methods.maskclip import MaskClip
from pretrain.methods.method import Method, Untrained
from pretrain.methods.pairs import Pairs
from pretrain.methods.simclr import SimClr
from pretrain.methods.simsiam import SimSiam
from pretrain.methods.supervised import Supervised
from pretrain.methods.user_methods import PART, is_user_method, load_method, own_settings, user_code
from pretrain.settings import PACE, CommonConfig
from run.errors import SettingError, UserError
from run.folder import file_hash, folder_hash
from run.source_code import code_hash

if TYPE_CHECKING:
    import numpy as np

    from data.log.shop_folder import Shop

METHODS: dict[str, type[Method]] = {
    "courier": Courier,
    "pairs": Pairs,
    "simclr": SimClr,
    "simsiam": SimSiam,
    "clip": Clip,
    "maskclip": MaskClip,
    "supervised": Supervised,
    "imagenet": ImageNet,
    "random": Untrained,
}
INITIAL_METHOD = "simclr"  # trained first where `weights` is "pictures": all encoders of a seed start from its weights
UNTRAINED = "random"
REFERENCE = "imagenet"  # frozen and pretrained: what the others are held against
# what selects methods or names their data, and computes nothing: the settings and the data themselves are in a stage's key
_NAMES_ONLY = ("pretrain.methods.table", "pretrain.config", "pretrain.methods.user_methods", "data.source")
_warned: set[str] = set()
Config = TypeVar("Config", bound=CommonConfig)


def default_encoders() -> tuple[str, ...]:
    """The encoders of a comparison that names none; the first is the default of commands that take one."""
    return tuple(name for name, method in METHODS.items() if method.by_default)


def method_of(name: str) -> type[Method]:
    """The class of a method in the table, or of a user's (`module:PATH.py:NAME`).

    Raises:
        UserError: the user's cannot be loaded.
    """
    return load_method(name) if is_user_method(name) else METHODS[name]


def is_trained_here(name: str) -> bool:
    """True for names of methods; False for external encoders."""
    return name in METHODS or is_user_method(name)


def settings_classes() -> list[type[Any]]:
    """The settings of all methods, in the order of the table, each once."""
    found = [kind for method in METHODS.values() for kind in (method.settings, *method.also_reads) if kind is not None]
    return sorted(dict.fromkeys(found), key=found.index)


def make_method(name: str, shop: Shop, has_picture: np.ndarray, config: CommonConfig, seed: int) -> Method | None:
    """The method of this name on a shop's pretraining period; None: the encoder stays untrained.

    Raises:
        UserError: the period holds too little for it.
    """
    method = method_of(name)
    if not method.trained:
        return None
    with _named(name):
        return method.build(shop, has_picture, with_own_settings(name, config), seed)


def with_own_settings(name: str, config: CommonConfig) -> CommonConfig:
    """The settings, with those of a user's method as one more part."""
    own = own_settings(name) if is_user_method(name) else None
    return config if own is None else config.with_part(PART, own)


def attended_history(name: str, config: CommonConfig) -> int:
    """How many clicks of a history `method_of(name).attention_weights` weighs; 0: the encoder has no attention to show."""
    return method_of(name).attended_history(with_own_settings(name, config)) if is_trained_here(name) else 0


def is_trained(name: str) -> bool:
    """False for the untrained encoder."""
    return method_of(name).trained


def own_config(name: str, config: Config) -> Config:
    """The settings of all encoders, as this one has them."""
    found: Any = method_of(name).own_config(config)
    return found


def uses_initial_weights(name: str, config: CommonConfig) -> bool:
    """True for a method that starts from the weights of the initial encoder."""
    return is_trained(name) and config.weights == "pictures"


def check_needs(name: str, shop: Shop, config: CommonConfig) -> None:
    """Refuse, before anything is trained, a shop that the method can learn nothing from; partial problems are reported on stderr.

    The initial encoder's needs are checked too if the method starts from its weights.

    Raises:
        UserError: names the encoder, what is missing and the fix.
    """
    if config.weights not in NAMED_WEIGHTS and not Path(config.weights).is_file():
        raise UserError(f"{config.weights}: no such file of weights; give a safetensors or torch file, {', '.join(NAMED_WEIGHTS)}")
    if config.weights == "registry":
        from pretrain.backbones.registry import registry_file

        registry_file(config.backbone)  # raises where it is missing
    config = own_config(name, config)
    check_body(name, config)
    has_picture = shop.items["image"].is_not_null().to_numpy()
    also = [INITIAL_METHOD] if uses_initial_weights(name, config) and name != INITIAL_METHOD else []
    for each in [name, *also]:
        title = each if each == name else f"{each}, whose weights {name} starts from"
        with _named(title):
            for caution in method_of(each).check(shop, has_picture, with_own_settings(each, config)):
                if (sentence := f"warning: {each}: {caution}") not in _warned:
                    _warned.add(sentence)
                    print(sentence, file=sys.stderr)


def check_body(name: str, config: CommonConfig) -> None:
    """Refuse a method that a frozen body cannot serve.

    Raises:
        SettingError: it needs the pictures themselves.
    """
    method = method_of(name)
    own_views = method.frozen_views == "full" and method.view is not Method.view
    if config.body == "frozen" and (method.frozen_views == "none" or own_views):
        why = "makes its own views of pictures" if own_views else "needs the pictures themselves"
        raise SettingError("body", config.body, f"{name} {why}, which the features of a frozen body do not hold: give tuned")


def parts_read(name: str, config: CommonConfig) -> tuple[str, ...]:
    """The parts of the settings that an encoder depends on, by name."""
    config = with_own_settings(name, config)
    read = method_of(name).reads(config)
    return tuple(field.name for field in fields(config) if type(getattr(config, field.name)) in read)


def settings_read(name: str, config: CommonConfig) -> dict[str, Any]:
    """The settings that an encoder's numbers depend on, as plain values: no pace, no other methods, contents in place of paths."""
    config = with_own_settings(name, config)
    parts = parts_read(name, config)
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in parts:
            found[field.name] = {inner.name: _content(getattr(value, inner.name)) for inner in fields(value)}
        elif field.name not in PACE and not is_dataclass(value):
            found[field.name] = value
    return found | {"weights": weights_read(config)}


def code_read(name: str, config: CommonConfig, *modules: str, without: Collection[str] = ()) -> str:
    """A hash of the code behind an encoder: of some modules and what they import, and of its own method's, not of other methods'.

    Args:
        modules: those that every encoder's training and use runs, such as "pretrain.loop".
        without: modules to leave out.
    """
    config = with_own_settings(name, config)
    method = method_of(name)
    everyone = {one.__module__ for one in [*METHODS.values(), *settings_classes()]} - {Method.__module__}
    read = {kind.__module__ for kind in method.reads(config)}
    without = (everyone - read - {method.__module__}) | set(_NAMES_ONLY) | set(without)
    if is_user_method(name):
        read -= {method.__module__}  # its file is not a module of these packages
        return user_code(name, *modules, *read, without=without)
    return code_hash(*modules, *read, method.__module__, without=without)


def weights_read(config: CommonConfig) -> str:
    """The initial weights by name, or the hash of their file."""
    if config.weights == "registry":
        from pretrain.backbones.registry import registry_file

        return str(file_hash(registry_file(config.backbone)))
    return config.weights if config.weights in NAMED_WEIGHTS else str(file_hash(config.weights))


def _content(value: Any) -> Any:
    """A setting as a plain value; a path as the hash of its content."""
    if not isinstance(value, Path):
        return value
    return folder_hash(value) if value.is_dir() else file_hash(value)


@contextmanager
def _named(title: str) -> Iterator[None]:
    """Put an encoder's name before the errors of the block that name neither a file nor a setting."""
    try:
        yield
    except UserError as error:
        if type(error) is not UserError:
            raise
        raise UserError(f"{title}: {error}") from None
