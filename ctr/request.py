"""What a scorer is asked, checked before anything is computed: an error names the field, the value and the mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctr.inputs import HISTORIES
from features.new_pictures import Picture
from run.errors import UserError

Id = int | str
FIELDS = ("user", "history", "candidates", "query", "context", "pictures")
_ANYWHERE = ("image",)  # a column of items.parquet that is no feature


class RequestError(UserError):
    """A field of a request holds something it must not."""

    def __init__(self, field: str, value: object, mend: str):
        text = repr(value)
        super().__init__(f"request: {field}: value {text if len(text) <= 80 else text[:77] + '...'}; {mend}")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that a model reads of items, users or impressions: name -> text | true/false | integers | number."""

    kind: str  # item | user | context
    text_id: bool = False
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An item or a user: known by its id alone, or told."""

    id: Id
    told: Mapping[str, Any] | None  # its columns; None: as the export knows it


@dataclass(frozen=True, kw_only=True)
class Request:
    """One user's candidates."""

    user: Thing
    histories: tuple[tuple[Thing, ...], ...]  # in the order of HISTORIES, oldest first
    candidates: tuple[Thing, ...]
    query: str = ""
    context: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # a value for each candidate
    pictures: Mapping[Id, Picture] = field(default_factory=dict)


def check_request(asked: Mapping[str, Any], item: Columns, user: Columns, context: Columns) -> Request:
    """A request from plain values, as JSON gives them.

    Args:
        asked: `user` (id or object), `candidates` (ids or objects), and where wanted `history` (an object of clicks, purchases and cart, or
            the list of clicks), `query`, `context` (a column's value, or a list of one for each candidate), `pictures` (item id -> path).

    Raises:
        RequestError: a field is missing, unknown, or of the wrong type.
    """
    if not isinstance(asked, Mapping):
        raise RequestError("all of it", asked, "give an object with user and candidates")
    _known("", asked, FIELDS)
    for needed in ("user", "candidates"):
        if needed not in asked:
            raise UserError(f"request: {needed}: missing; give {'an id' if needed == 'user' else 'a list of item ids'}")
    candidates = _things("candidates", asked["candidates"], item)
    if not candidates:
        raise RequestError("candidates", [], "give at least one item")
    told = asked.get("history") or {}
    histories = {"clicks": told} if isinstance(told, list | tuple) else told
    if not isinstance(histories, Mapping):
        raise RequestError("history", told, "give a list of clicked items, or an object of clicks, purchases and cart")
    _known("history.", histories, HISTORIES)
    query = asked.get("query")
    if not isinstance(query, str | None):
        raise RequestError("query", query, "give a text")
    return Request(
        user=_thing("user", asked["user"], user),
        histories=tuple(_things(f"history.{name}", histories.get(name) or [], item) for name in HISTORIES),
        candidates=candidates,
        query=query or "",
        context=_context(asked.get("context") or {}, context, len(candidates)),
        pictures=_pictures(asked.get("pictures") or {}, item),
    )


def _things(where: str, listed: Any, of: Columns) -> tuple[Thing, ...]:
    if not isinstance(listed, list | tuple):
        raise RequestError(where, listed, "give a list of item ids or objects")
    return tuple(_thing(f"{where}[{place}]", told, of) for place, told in enumerate(listed))


def _thing(where: str, told: Any, of: Columns) -> Thing:
    name = f"{of.kind}_id"
    if not isinstance(told, Mapping):
        return Thing(id=_id(where, told, of), told=None)
    if name not in told:
        raise UserError(f"request: {where}.{name}: missing; give the {of.kind}'s id")
    _known(f"{where}.", told, (name, *of.columns, *_ANYWHERE))
    values = {column: _value(f"{where}.{column}", told.get(column), kind) for column, kind in of.columns.items()}
    return Thing(id=_id(f"{where}.{name}", told[name], of), told=values)


def _id(where: str, value: Any, of: Columns) -> Id:
    if isinstance(value, bool) or not isinstance(value, str if of.text_id else int):
        raise RequestError(where, value, f"{of.kind} ids of this model are {'texts' if of.text_id else 'integers'}")
    if isinstance(value, int):
        _whole(where, value)
    return value


def _whole(where: str, value: int) -> None:
    if not -(2**63) <= value < 2**63:
        raise RequestError(where, value, "integers must fit 64 bits with sign")


def _value(where: str, value: Any, kind: str) -> Any:
    """A column's value; None is a missing one."""
    if value is None:
        return None
    types = {"text": (str,), "true/false": (bool,), "integers": (int,), "number": (int, float)}[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "true/false"):
        raise RequestError(where, value, f"the model was trained on {kind}; write it as that, or null where it is not known")
    if kind == "number" and math.isinf(value):
        raise RequestError(where, value, "give a finite number, or null where it is not known")
    if kind == "integers":
        _whole(where, value)
    return value


def _context(told: Any, of: Columns, count: int) -> dict[str, list[Any]]:
    if not isinstance(told, Mapping):
        raise RequestError("context", told, "give an object: a column's value, or a list of one for each candidate")
    _known("context.", told, of.columns)
    out = {}
    for name, kind in of.columns.items():
        values = told.get(name)
        if isinstance(values, list | tuple) and len(values) != count:
            raise RequestError(f"context.{name}", values, f"{len(values)} values for {count} candidates; give one for each, or one for all")
        each = values if isinstance(values, list | tuple) else [values] * count
        out[name] = [_value(f"context.{name}[{place}]", value, kind) for place, value in enumerate(each)]
    return out


def _pictures(told: Any, of: Columns) -> dict[Id, Picture]:
    import os

    if not isinstance(told, Mapping):
        raise RequestError("pictures", told, "give an object: the item's id, and the path of its picture")
    out: dict[Id, Picture] = {}
    for key, picture in told.items():
        if not of.text_id and isinstance(key, str) and key.lstrip("-").isdigit():
            key = int(key)  # JSON's keys are texts
        if picture is None:
            continue
        if not isinstance(picture, bytes | str | os.PathLike):
            raise RequestError(f"pictures.{key}", picture, "give a path, the bytes of a file, or null for no picture")
        out[_id(f"pictures.{key}", key, of)] = picture
    return out


def _known(where: str, told: Mapping[str, Any], known: Iterable[str]) -> None:
    names = list(known)
    for name in told:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
            raise UserError(f"request: {where}{name}: no such field; {mend}")
