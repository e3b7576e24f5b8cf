"""A request to a scorer, checked before anything is computed: an error names the field, the value and the fix."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import le
from typing import Any, NamedTuple

from ctr.inputs.encode import HISTORIES
from data.log.checks import LATEST_SECOND
from features.picture_encoder import Picture
from run.errors import UserError

Id = int | str
FIELDS = ("user", "history", "candidates", "query", "context", "pictures", "timestamp", "history_times", "own_score")
_ANYWHERE = ("image",)  # a column of items.parquet that is not a feature
_ABSENT = object()


class RequestError(UserError):
    """A field of a request holds an invalid value.

    Args:
        field: where it is, such as history.clicks[3].
        fix: what to do about it.
        value: what it holds; left out of the message if not given.

    Attributes:
        detail: the message without its first word, "request: "; for a request in a file, the file's name takes its place.
    """

    def __init__(self, field: str, fix: str, *, value: object = _ABSENT):
        text = "" if value is _ABSENT else f"value {_shown(value)}; "
        self.detail = f"{field}: {text}{fix}"
        super().__init__(f"request: {self.detail}")


@dataclass(frozen=True, kw_only=True)
class RequestColumns:
    """The columns of items, users or impressions that a model reads: name -> text | true/false | integers | numbers."""

    kind: str  # item | user | context
    text_id: bool = False
    columns: Mapping[str, str]


class Item(NamedTuple):
    """An item: known by its id alone, or described. A request has thousands: hence a tuple, which is cheap to make."""

    id: Id
    overrides: Mapping[str, Any] | None  # its columns as the request gives them; None: as the export knows it


@dataclass(frozen=True, kw_only=True)
class User:
    """A user: known by the id alone, or described."""

    id: Id | None  # None: a visitor without one
    overrides: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One user's candidates."""

    user: User
    histories: tuple[tuple[Item, ...], ...]  # in the order of HISTORIES, oldest first
    candidates: tuple[Item, ...]
    query: str = ""
    context: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # a value for each candidate
    pictures: Mapping[Id, Picture] = field(default_factory=dict)
    own_score: Sequence[float] | None = None  # the user's own model's probability for each candidate
    timestamp: int | None = None  # Unix s of the request
    times: tuple[tuple[int, ...] | None, ...] = (None,) * len(HISTORIES)  # Unix s of each history's events, as long as it; None: not given


def check_request(asked: Mapping[str, Any], item: RequestColumns, user: RequestColumns, context: RequestColumns) -> Request:
    """A request from plain values, as JSON gives them.

    Args:
        asked: `user` (id or object; null: a visitor without an id), `candidates` (ids or objects), and optionally `history` (an object of
            clicks, purchases and cart, or the list of clicks), `query`, `context` (a column's value, or a list of one for each candidate),
            `pictures` (item id -> path), `own_score` (the user's own model's probability, for each candidate or for all), `timestamp`
            (Unix s of the request) and `history_times` (Unix s of each history's events).

    Raises:
        RequestError: a field is missing, unknown, or of the wrong type.
    """
    if not isinstance(asked, Mapping):
        raise RequestError("all of it", "give an object with user and candidates", value=asked)
    _known("", asked, FIELDS)
    for needed in ("user", "candidates"):
        if needed not in asked:
            raise RequestError(needed, f"missing; give {'an id, or null' if needed == 'user' else 'a list of item ids'}")
    candidates = _items("candidates", asked["candidates"], item)
    if not candidates:
        raise RequestError("candidates", "give at least one item", value=[])
    history = asked.get("history") or {}
    histories = {"clicks": history} if isinstance(history, list | tuple) else history
    if not isinstance(histories, Mapping):
        raise RequestError("history", "give a list of clicked items, or an object of clicks, purchases and cart", value=history)
    _known("history.", histories, HISTORIES)
    timestamp = asked.get("timestamp")
    if timestamp is not None:
        _second("timestamp", timestamp)
    query = asked.get("query")
    if not isinstance(query, str | None):
        raise RequestError("query", "give a text", value=query)
    return Request(
        user=_user(asked["user"], user),
        histories=tuple(_items(f"history.{name}", histories.get(name) or [], item) for name in HISTORIES),
        candidates=candidates,
        query=query or "",
        context=_context(asked.get("context") or {}, context, len(candidates)),
        pictures=_pictures(asked.get("pictures") or {}, item),
        own_score=_own_score(asked.get("own_score"), len(candidates)),
        timestamp=timestamp,
        times=_times(asked.get("history_times") or {}, histories, timestamp),
    )


def _items(where: str, listed: Any, of: RequestColumns) -> tuple[Item, ...]:
    if not isinstance(listed, list | tuple):
        raise RequestError(where, "give a list of item ids or objects", value=listed)
    if set(map(type, listed)) == {str if of.text_id else int} and (of.text_id or (min(listed) >= -(2**63) and max(listed) < 2**63)):
        return tuple(Item(value, None) for value in listed)  # plain ids, thousands of them in a history
    found = (_described(f"{where}[{place}]", given, of) for place, given in enumerate(listed))
    return tuple(Item(id=_id(place, value, of), overrides=overrides) for place, value, overrides in found)


def _times(given: Any, histories: Mapping[str, Any], timestamp: int | None) -> tuple[tuple[int, ...] | None, ...]:
    """The times of each history's events."""
    if isinstance(given, list | tuple):
        given = {"clicks": given}
    if not isinstance(given, Mapping):
        raise RequestError("history_times", "give an object of clicks, purchases and cart, each a list of Unix seconds", value=given)
    _known("history_times.", given, HISTORIES)
    if given and timestamp is None:
        raise RequestError("timestamp", "missing; history_times need the request's own time, in Unix seconds")
    found: list[tuple[int, ...] | None] = []
    for name in HISTORIES:
        times, events = given.get(name), histories.get(name) or []
        if times is None:
            found.append(None)
            continue
        if not isinstance(times, list | tuple) or len(times) != len(events):
            count = len(times) if isinstance(times, list | tuple) else "no"
            raise RequestError(f"history_times.{name}", f"{count} times for {len(events)} items; give a time for each", value=times)
        for place, time in enumerate(() if _ascending(times, timestamp or 0) else times):
            _second(f"history_times.{name}[{place}]", time)
            if time >= (timestamp or 0):
                fix = f"is not before the request's timestamp {timestamp}; a history ends before its request"
                raise RequestError(f"history_times.{name}[{place}]", fix, value=time)
            if place and time < times[place - 1]:
                fix = f"is earlier than the one before, {times[place - 1]}; a history is oldest first"
                raise RequestError(f"history_times.{name}[{place}]", fix, value=time)
        found.append(tuple(times))
    return tuple(found)


def _ascending(times: Sequence[Any], end: int) -> bool:
    """Whether these are integers in order, from 0 to below `end`."""
    return set(map(type, times)) == {int} and times[0] >= 0 and times[-1] < end and all(map(le, times, times[1:]))


def _own_score(given: Any, count: int) -> list[float] | None:
    """A probability for each candidate; None where none is given."""
    if given is None:
        return None
    each = list(given) if isinstance(given, list | tuple) else [given] * count
    if len(each) != count:
        raise RequestError("own_score", f"{len(each)} values for {count} candidates; give one for each, or one for all", value=given)
    for place, value in enumerate(each):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise RequestError(f"own_score[{place}]", "give your model's predicted probability of a click, from 0 to 1", value=value)
    return [float(value) for value in each]


def _second(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LATEST_SECOND:
        raise RequestError(where, "give Unix seconds, an integer", value=value)


def _user(given: Any, of: RequestColumns) -> User:
    where, value, overrides = _described("user", given, of)
    return User(id=None if value is None else _id(where, value, of), overrides=overrides)


def _described(where: str, given: Any, of: RequestColumns) -> tuple[str, Any, dict[str, Any] | None]:
    """Where the id of an item or user is, the id as given, and the columns if it is given as an object."""
    name = f"{of.kind}_id"
    if not isinstance(given, Mapping):
        return where, given, None
    if name not in given:
        raise RequestError(f"{where}.{name}", f"missing; give the {of.kind}'s id")
    _known(f"{where}.", given, (name, *of.columns, *_ANYWHERE))
    values = {column: _value(f"{where}.{column}", given.get(column), kind) for column, kind in of.columns.items()}
    return f"{where}.{name}", given[name], values


def _id(where: str, value: Any, of: RequestColumns) -> Id:
    if isinstance(value, bool) or not isinstance(value, str if of.text_id else int):
        fix = f"{of.kind} ids of this model are {'texts' if of.text_id else 'integers'}"
        raise RequestError(where, fix + (", or null for a visitor without one" if of.kind == "user" else ""), value=value)
    if isinstance(value, int):
        _check_integer(where, value)
    return value


def _check_integer(where: str, value: int) -> None:
    if not -(2**63) <= value < 2**63:
        raise RequestError(where, "integers must fit 64 bits with sign", value=value)


def _value(where: str, value: Any, kind: str) -> Any:
    """A column's value; None is a missing one."""
    if value is None:
        return None
    types = {"text": (str,), "true/false": (bool,), "integers": (int,), "numbers": (int, float)}[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "true/false"):
        raise RequestError(where, f"the model was trained on {kind}; write it as that, or null where it is not known", value=value)
    if kind == "numbers" and not abs(value) <= sys.float_info.max and value == value:  # an integer may exceed every float
        raise RequestError(where, "give a finite number, or null where it is not known", value=value)
    if kind == "integers":
        _check_integer(where, value)
    return value


def _context(given: Any, of: RequestColumns, count: int) -> dict[str, list[Any]]:
    if not isinstance(given, Mapping):
        raise RequestError("context", "give an object: a column's value, or a list of one for each candidate", value=given)
    _known("context.", given, of.columns)
    out = {}
    for name, kind in of.columns.items():
        values = given.get(name)
        if isinstance(values, list | tuple) and len(values) != count:
            fix = f"{len(values)} values for {count} candidates; give one for each, or one for all"
            raise RequestError(f"context.{name}", fix, value=values)
        each = values if isinstance(values, list | tuple) else [values] * count
        out[name] = [_value(f"context.{name}[{place}]", value, kind) for place, value in enumerate(each)]
    return out


def _pictures(given: Any, of: RequestColumns) -> dict[Id, Picture]:
    import os

    if not isinstance(given, Mapping):
        raise RequestError("pictures", "give an object: the item's id, and the path of its picture", value=given)
    out: dict[Id, Picture] = {}
    for key, picture in given.items():
        if not of.text_id and isinstance(key, str) and key.lstrip("-").isdigit():
            key = int(key)  # JSON's keys are texts
        if picture is None:
            continue
        if not isinstance(picture, bytes | str | os.PathLike):
            raise RequestError(f"pictures.{key}", "give a path, the bytes of a file, or null for no picture", value=picture)
        out[_id(f"pictures.{key}", key, of)] = picture
    return out


def _known(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
            raise RequestError(f"{where}{name}", f"no such field; {fix}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
