"""A method from a file outside these packages: `module:PATH.py:NAME`, with settings as `module:PATH.py:NAME?temperature=0.1&hidden=64`.

NAME is a subclass of `pretrain.methods.method.Method` (docs/your-own-encoder.md). The file is run as the user's own code, in every process
that trains with it; it is a single file, which may import these packages and installed ones.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pretrain.methods.method import Method
from run.errors import UserError
from run.source_code import PACKAGES, ROOT, code_hash

PREFIX = "module:"
FORM = "module:PATH.py:NAME"
PART = "own"  # the name of its settings in a PretrainConfig
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class UserMethod:
    """A method's name, parsed."""

    name: str  # as the user wrote it
    path: Path
    attribute: str  # the class's name
    given: tuple[tuple[str, str], ...]  # settings and their values, as text


def is_user_method(name: str) -> bool:
    """True for names of the form `module:...`."""
    return name.startswith(PREFIX)


def parse_name(name: str) -> UserMethod:
    """Parse a name.

    >>> parse_name("module:my/barlow.py:Barlow?weight=0.1").given
    (('weight', '0.1'),)

    Raises:
        UserError: it does not have this form.
    """
    place, _, query = name.removeprefix(PREFIX).partition("?")
    path, colon, attribute = place.rpartition(":")
    pairs = [word.partition("=") for word in query.split("&") if word]
    if not colon or not path or not attribute.isidentifier() or not all(equals for _, equals, _ in pairs):
        raise UserError(f"{name}: give {FORM}, and settings after it as ?temperature=0.1&hidden=64")
    return UserMethod(name=name, path=Path(path), attribute=attribute, given=tuple((key, value) for key, _, value in pairs))


def load_method(name: str) -> type[Method]:
    """The class that a name stands for.

    Raises:
        UserError: there is no such file or class, it cannot be imported, or it is not a method or an incomplete one.
    """
    wanted = parse_name(name)
    module = _module(wanted.path.absolute(), _source(wanted.path))
    found = getattr(module, wanted.attribute, None)
    if found is None:
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
        near = difflib.get_close_matches(wanted.attribute, own, n=1) or own
        raise UserError(f"{wanted.path}: no class {wanted.attribute!r}; it has {', '.join(near) or 'none'}")
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise UserError(f"{wanted.path}: {wanted.attribute} is not a subclass of pretrain.methods.method.Method")
    if inspect.isabstract(found):
        raise UserError(f"{wanted.path}: {wanted.attribute} lacks {', '.join(sorted(found.__abstractmethods__))}")
    kind = found.settings
    if kind is not None and not (dataclasses.is_dataclass(kind) and all(_has_default(field) for field in dataclasses.fields(kind))):
        raise UserError(f"{wanted.path}: {wanted.attribute}.settings must be a dataclass whose fields all have a default")
    return found


def own_settings(name: str) -> Any:
    """The method's settings with the values given in its name; None: it has no settings.

    Raises:
        UserError: a setting is unknown, or its value has the wrong type.
    """
    kind, wanted = load_method(name).settings, parse_name(name)
    known = {} if kind is None else {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}
    values = {}
    for key, text in wanted.given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or list(known)
            raise UserError(f"{name}: {wanted.attribute} has no setting {key!r}; there is {', '.join(near) or 'none'}")
        try:
            values[key] = _TRUTH[text.lower()] if isinstance(known[key], bool) else type(known[key])(text)
        except (KeyError, ValueError, TypeError):
            raise UserError(f"{name}: {key} = {text!r} is not of the type of {known[key]!r}") from None
    return None if kind is None else kind(**values)


def file_code(name: str) -> tuple[str, tuple[str, ...]]:
    """A hash of a method's own file, regardless of layout and comments, and the modules of these packages that it imports."""
    tree = ast.parse(_source(parse_name(name).path))
    found: set[str] = set()
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{name}" for name in names)]
        found |= {name for name in names if name.split(".")[0] in PACKAGES and _is_module(name)}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], tuple(sorted(found))


def user_code(name: str, *modules: str, without: Collection[str] = ()) -> str:
    """`code_hash` of some modules, of the method's file, and of what that imports."""
    own, imported = file_code(name)
    return f"{own} {code_hash(*modules, *imported, without=set(without) - set(imported))}"


def _is_module(name: str) -> bool:
    base = ROOT.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _source(path: Path) -> str:
    """The text of a method's file.

    Raises:
        UserError: it is missing, unreadable or not Python.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give {FORM}")
    try:
        text = path.read_text(encoding="utf-8")
        ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as Python ({error})") from None
    return text


@cache
def _module(path: Path, source: str) -> Any:
    """The module in a file, run once per process."""
    name = f"user_method_{hashlib.sha256(f'{path} {source}'.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module here
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from None
    return module
