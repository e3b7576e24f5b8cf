"""A plain value, from a recipe or a preset, as the type that a config's field declares."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

NONE = "None"  # how a recipe writes a setting that is None, as the flags do: TOML has no null

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path, as text", types.NoneType: '"None"'}
_MANY = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths, as texts"}


class UnfitError(ValueError):
    """The value is of another type; the message says what is expected."""


def fitting(hint: Any, value: Any) -> Any:
    """`value` as an instance of the type `hint`.

    Raises:
        UnfitError: it is of another type.
    """
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _fitting_one_of(hint, value)
    if origin is Literal:
        if any(value == known and type(value) is type(known) for known in arguments):
            return value
    elif origin in (tuple, list, set, frozenset) and isinstance(value, (list, tuple, set, frozenset)):
        variadic = origin is not tuple or arguments[1:] == (...,)
        if variadic or len(arguments) == len(value):
            kinds = [arguments[0]] * len(value) if variadic else arguments
            return origin(_fitting_part(hint, kind, part) for kind, part in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        return {name: fitting(arguments[1], part) for name, part in value.items()}
    elif origin is None:
        return _fitting_plain(hint, value)
    raise UnfitError(words_for(hint))


def words_for(hint: Any) -> str:
    """The values that a user may give for a type, in words."""
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words_for(part) for part in arguments if part is not types.NoneType)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (tuple, list, set, frozenset) and arguments:
        count = f"{len(arguments)} " if origin is tuple and arguments[1:] != (...,) else ""
        return f"a list of {count}{_MANY.get(_bare(arguments[0]), 'values')}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _fitting_plain(hint: Any, value: Any) -> Any:
    if hint is types.NoneType and value in (None, NONE):
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1024:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is int):
        return value
    raise UnfitError(words_for(hint))


def _fitting_one_of(hint: Any, value: Any) -> Any:
    """The first of a union's types that fits, None and the value's own type before types that need a conversion."""
    members = typing.get_args(hint)
    for member in sorted(members, key=lambda one: (_bare(one) is not types.NoneType, type(value) is not _bare(one))):
        try:
            return fitting(member, value)
        except UnfitError:
            continue
    raise UnfitError(words_for(hint))


def _fitting_part(expected: Any, hint: Any, value: Any) -> Any:
    try:
        return fitting(hint, value)
    except UnfitError:
        raise UnfitError(words_for(expected)) from None


def _bare(hint: Any) -> Any:
    """A type without tyro's annotations."""
    return _bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Annotated else hint
