"""Encoders by name, each checked before anything is trained: those trained here, and external ones.

Made elsewhere: `timm:NAME`, `open_clip:NAME/TAG`, a torchvision name, `file:PATH` (their embeddings alone). After a name of timm's,
open_clip's or torchvision's, `@FILE` gives weights in place of the download, and `@random` random weights. docs/external-encoders.md
says what each form reads.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pretrain.backbones import names as backbone_names
from pretrain.methods.table import METHODS
from pretrain.methods.user_methods import FORM, PREFIX, is_user_method, own_settings, parse_name
from run.errors import SettingError, UserError

DOWNLOAD, RANDOM = "download", "random"
INSTALL = {"timm": "pip install '.[timm]'", "open_clip": "pip install '.[open_clip]'"}
_LONGEST = 60  # letters of a folder's name, before its hash


@dataclass(frozen=True, kw_only=True)
class External:
    """An encoder's name, parsed."""

    name: str  # as the user wrote it
    library: str  # timm | open_clip | torchvision | file
    model: str = ""  # in that library; "" for file
    tag: str = ""  # which of a model's weights; timm has it in the model's name
    weights: str = DOWNLOAD  # DOWNLOAD | RANDOM | the path of a file: of weights, or of embeddings for the library "file"

    @property
    def file(self) -> Path | None:
        """The file or folder that the embeddings depend on."""
        return Path(self.weights) if self.library == "file" or self.weights not in (DOWNLOAD, RANDOM) else None


def encoder_names(setting: str, value: str, own: Iterable[str]) -> list[str]:
    """A comma-separated flag as a list without repeats: encoders trained here (`own`, a user's method) or external ones, each checked.

    Raises:
        SettingError: no name, or one unknown to this toolkit and to the library it names.
        UserError: a library is not installed, a file is missing, or a user's method cannot be loaded.
    """
    found = [part.strip() for part in value.split(",") if part.strip()]
    if not found:
        raise SettingError(setting, value, "give at least one name")
    own = list(own)
    for name in found:
        if is_user_method(name):
            own_settings(name)  # raises for a method that cannot be loaded
        elif name not in own:
            check(parse_external(name), setting, own)
    return list(dict.fromkeys(found))


def parse_external(name: str) -> External:
    """Parse a name; whether there is such a model is for `check`.

    >>> parse_external("open_clip:ViT-B-32/openai@/weights/clip.safetensors").model
    'ViT-B-32'
    """
    library, colon, rest = name.partition(":")
    if library == "file" and colon:
        return External(name=name, library="file", weights=rest)
    if library not in INSTALL or not colon:
        library, rest = "torchvision", name
    model, at, weights = rest.partition("@")
    tag = ""
    if library == "open_clip":
        model, _, tag = model.partition("/")
    return External(name=name, library=library, model=model, tag=tag, weights=weights if at else DOWNLOAD)


def resolved_name(name: str) -> str:
    """The same encoder with the path in its name made absolute, as a run folder notes it.

    >>> resolved_name("file:/vectors/a.npy"), resolved_name("timm:resnet18@random"), resolved_name("courier")
    ('file:/vectors/a.npy', 'timm:resnet18@random', 'courier')
    """
    if is_user_method(name):
        path = str(parse_name(name).path)
    else:
        path = "" if (file := parse_external(name).file) is None else str(file)
    head, found, tail = name.rpartition(path) if path else (name, "", "")
    return f"{head}{Path(found).absolute()}{tail}" if found else name


def check(encoder: External, setting: str = "encoders", own: Iterable[str] = ()) -> None:
    """Refuse an encoder that cannot be used, before anything is trained.

    Args:
        setting: the flag's name.
        own: names of encoders trained here, to suggest for a misspelled name.

    Raises:
        SettingError: an unknown name, with the nearest ones.
        UserError: a library is not installed, or a file is missing.
    """
    prefix = encoder.name.partition(":")[0]
    if encoder.library == "torchvision" and ":" in encoder.name.partition("@")[0]:
        near = difflib.get_close_matches(prefix, [*INSTALL, "file", PREFIX[:-1]], n=1)
        meant = f"did you mean '{near[0]}:'? " if near else ""
        raise SettingError(setting, encoder.name, f"{meant}before the colon, give one of {', '.join([*INSTALL, 'file', PREFIX[:-1]])}")
    if encoder.library in INSTALL and importlib.util.find_spec(encoder.library) is None:
        raise UserError(f"{encoder.name}: the package {encoder.library} is not installed; {INSTALL[encoder.library]}")
    if encoder.library != "file":
        _check_model(encoder, setting, list(own))
    file = encoder.file
    if file is not None and (str(encoder.weights) == "" or not file.exists()):
        what = "embeddings" if encoder.library == "file" else "weights"
        other = "" if encoder.library == "file" else ", or write @random for random weights"
        raise UserError(f"{encoder.name}: no such file of {what}: {encoder.weights!r}; give the path of one{other}")


def _check_model(encoder: External, setting: str, own: list[str]) -> None:
    known = models_of(encoder.library)
    if encoder.model not in known:
        choices = own + known if encoder.library == "torchvision" else known
        near = difflib.get_close_matches(encoder.model, choices, n=3, cutoff=0.5)
        raise SettingError(setting, encoder.name, _instead(encoder, near, own))
    if encoder.library != "open_clip" or (not encoder.tag and encoder.weights != DOWNLOAD):
        return
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(encoder.model)
    if encoder.tag not in tags:
        near = difflib.get_close_matches(encoder.tag, tags, n=1)
        meant = f"did you mean '{near[0]}'?" if near else f"its tags are: {', '.join(tags) or 'none'}; or give {encoder.model}@FILE"
        raise SettingError(setting, encoder.name, f"{encoder.model} has no weights with the tag {encoder.tag!r}; {meant}")


def _instead(encoder: External, near: list[str], own: list[str]) -> str:
    """A hint about what an unknown name may have meant."""
    if encoder.name in METHODS:
        return "is trained here: give the run folder of its pretrain.train as --run"
    if encoder.library == "torchvision" and encoder.model.startswith(backbone_names.NOT_TAKEN):
        return f"torchvision's {', '.join(backbone_names.NOT_TAKEN)} are not supported; timm has them"
    where = "" if encoder.library == "torchvision" else f"{encoder.library} has no such model; "
    if near:
        return where + f"did you mean {' or '.join(repr(name) for name in near)}?"
    return where + f"there are: {', '.join([*own, 'a torchvision name', 'timm:NAME', 'open_clip:NAME/TAG', 'file:PATH', FORM])}"


@functools.lru_cache
def models_of(library: str) -> list[str]:
    """The names that a library knows: open_clip's, or as for backbones."""
    if library == "open_clip":
        import open_clip

        return open_clip.list_models()
    return backbone_names.models_of(library)


def safe_name(encoder: str) -> str:
    """An encoder's name as part of a folder's name: no slash or colon, of bounded length; for a file, the last part of its path.

    >>> safe_name("shuffled open_clip:ViT-B-32/openai@/home/me/clip.pt")
    'shuffled-open_clip-ViT-B-32-openai-clip.pt'
    """
    before, found, _ = encoder.partition(PREFIX)
    if found:
        method = parse_name(encoder.removeprefix(before))
        encoder = " ".join([f"{before}{method.path.stem}", method.attribute, *(word for pair in method.given for word in pair)])
    for mark in ("file:", "@"):
        before, found, path = encoder.partition(mark)
        if found:
            encoder = f"{before}{mark}{Path(path).name}"
            break
    name = re.sub(r"[^\w.-]+", "-", encoder, flags=re.ASCII).strip("-.")
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}-{name[-_LONGEST // 2 + 1 :]}"
