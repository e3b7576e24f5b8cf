"""A request as the exported model's tensors: known items and users from arrays on the disk, new ones by the same rules.

Legend: U distinct items of a request, K tables, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ctr.inputs.dense import NEWEST, standardised, together_features
from ctr.inputs.own_score import logit
from ctr.inputs.rules import Rules
from ctr.inputs.vocabulary import Hashed, Ragged, kind_of
from ctr.inputs.vocabulary_files import read_model_spec
from ctr.model.match import NO_AGE
from ctr.serving.lookup import Lookup, mapped, open_lookup
from ctr.serving.request import Id, Item, Request, RequestColumns, RequestError, User, check_request
from ctr.serving.snapshot import FOLDER as LOG_FOLDER
from ctr.serving.snapshot import open_snapshot
from data.arrays.words import words_of


class RequestNotes(NamedTuple):
    """What a scorer reports about a request's user and items."""

    unknown_user: bool
    unknown_items: list[Id]
    without_picture: list[Id]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The known items or users of an export, mapped from the disk."""

    place: Lookup  # of an id among them
    rows: np.ndarray  # (N, K) int32
    numeric: np.ndarray  # (N, M) float32
    words: Ragged | None  # of items: their titles
    vectors: np.ndarray | None  # of items: (N, D) float32, of a form that enters as item numbers
    unit: np.ndarray | None  # of items: (N, D) float32 unit rows, of forms that compare pictures
    present: np.ndarray | None  # of items: (N,) bool


class ExportedCatalogue:
    """An export's vocabularies, items and users.

    Args:
        folder: what ctr.export wrote.
        meta: its meta.json.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any]):
        self.spec = read_model_spec(folder, values=False)
        self.items, self.users = _stored(folder / "items"), _stored(folder / "users")
        names = sorted(path.name.removesuffix(".hashes.npy") for path in (folder / "lookup").glob("*.hashes.npy"))
        self.lookups = {name: open_lookup(folder / "lookup" / name) for name in names}
        self.log = open_snapshot(folder / LOG_FOLDER)
        self.sizes = meta["sizes"]
        known, titled = self.spec.vocabularies, {"title": "text"} if self.spec.vocabularies.titles else {}
        text_ids = meta["text_ids"]
        self.item_columns = RequestColumns(kind="item", text_id=text_ids["item"], columns=_kinds(known.item) | titled)
        self.user_columns = RequestColumns(kind="user", text_id=text_ids["user"], columns=_kinds(known.user))
        self.context_columns = RequestColumns(kind="context", columns=_kinds(known.context))

    def check(self, asked: Mapping[str, Any]) -> Request:
        """The request, checked (RequestError)."""
        return check_request(asked, self.item_columns, self.user_columns, self.context_columns)

    def model_inputs(self, request: Request, given: Mapping[Id, np.ndarray]) -> tuple[tuple[Tensor, ...], RequestNotes]:
        """The tensors of `ctr.serving.serving_model.ModelInputs`, in its order.

        Args:
            given: unit embeddings (D,) of new pictures; zeros for one that cannot be read.
        """
        config, layout = self.spec.config, self.spec.layout
        most = (config.click_items, config.purchase_items, config.cart_items)
        histories = [things[-limit:] if limit else () for things, limit in zip(request.histories, most, strict=True)]
        times = [None if given is None else given[-limit:] if limit else () for given, limit in zip(request.times, most, strict=True)]
        items = _distinct([*request.candidates, *(thing for things in histories for thing in things)])
        for item in request.pictures:
            if item not in items:
                raise RequestError(f"pictures.{item}", "neither a candidate nor an item of the histories as read; leave it out")
        numbers = self.items.place(_ids(list(items), self.item_columns))
        things = list(items.values())
        rows, numeric = self._rows(self.spec.vocabularies.item, "item", things, numbers, self.items)
        vectors, unit, present = self._pictures(things, numbers, given, rows)
        words, starts = self._titles(things, numbers)
        place = {item: number for number, item in enumerate(items)}
        user_number = self.users.place(_ids([request.user.id], self.user_columns))
        user_rows, user_numeric = self._rows(self.spec.vocabularies.user, "user", [request.user], user_number, self.users)
        context = _frame([{name: values[c] for name, values in request.context.items()} for c in range(len(request.candidates))])
        context_rows, context_numeric = self._encoded(self.spec.vocabularies.context, "context", context, len(request.candidates))
        query = self._words(pl.Series([request.query]))[0] if layout.queries else np.zeros(0, np.int64)

        def places(listed: Sequence[Item]) -> Tensor:
            return torch.tensor([place[thing.id] for thing in listed] or [-1])

        candidates = np.array([place[thing.id] for thing in request.candidates])
        codes = self._codes(things, numbers)
        clicks = np.array([place[thing.id] for thing in histories[0]], dtype=np.int64)
        if layout.own_score and request.own_score is None:
            raise RequestError("own_score", "missing; the model was trained on top of it, so give your model's probability of a click")
        own = logit(pl.Series(request.own_score or [0.5] * len(candidates), dtype=pl.Float64))
        group = codes[:, layout.group] if layout.group >= 0 else np.zeros(len(things), np.int32)
        log_numbers = self._log_numbers(request, codes, candidates, clicks, int(user_number[0]))
        arrays = (user_rows[0], user_numeric[0], rows, numeric, words, starts, vectors, unit, present, codes[:, : layout.matched], group)
        tensors = (
            *(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays),
            *(places(history) for history in histories),
            *(_ages(request.timestamp, given, len(history)) for given, history in zip(times, histories, strict=True)),
            places(request.candidates),
            *(torch.from_numpy(array) for array in (query, context_rows, context_numeric, log_numbers, own)),
        )
        unknown = [thing.id for thing, number in zip(things, numbers, strict=True) if number < 0 and thing.overrides is None]
        bare = [] if not layout.pictured else [thing.id for thing in request.candidates if not present[place[thing.id]]]
        return tensors, RequestNotes(bool(user_number[0] < 0 and request.user.overrides is None), unknown, list(dict.fromkeys(bare)))

    def _rows(
        self, rules: Rules, kind: str, things: Sequence[Item | User], numbers: np.ndarray, stored: Stored
    ) -> tuple[np.ndarray, np.ndarray]:
        """Table rows (n, K) int64 and numbers (n, M) of items or users: stored, described in the request, or unknown."""
        taken = np.array([number >= 0 and thing.overrides is None for thing, number in zip(things, numbers, strict=True)], dtype=bool)
        rows = np.zeros((len(things), stored.rows.shape[1]), dtype=np.int64)
        numeric = np.zeros((len(things), stored.numeric.shape[1]), dtype=np.float32)
        rows[taken], numeric[taken] = stored.rows[numbers[taken]], stored.numeric[numbers[taken]]
        if not taken.all():
            new = [thing for thing, known in zip(things, taken, strict=True) if not known]
            columns = self.item_columns if kind == "item" else self.user_columns
            frame = _frame([dict(thing.overrides or {}) for thing in new], columns.columns)
            ids = _ids([thing.id for thing in new], columns)
            found, numbers_of = self._encoded(rules, kind, frame, len(new), ids)
            rows[~taken, : found.shape[1]], numeric[~taken] = found, numbers_of
        return rows, numeric

    def _encoded(
        self, rules: Rules, kind: str, columns: Mapping[str, list[Any]], count: int, ids: pl.Series | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Table rows (n, K) and numbers (n, M) of new things, by the run's rules."""
        rows = []
        if ids is not None:
            rows.append(_hashed(rules.ids, ids) if isinstance(rules.ids, Hashed) else self.lookups[f"{kind}-ids"](ids))
        for place, (name, known) in enumerate(rules.categorical.items()):
            rows.append(self.lookups[f"{kind}-{place}"](pl.Series(columns.get(name, [None] * count), dtype=_plain(known.values.dtype))))
        numeric = [part for scale in rules.numeric for part in scale.numbers(pl.Series(columns[scale.column], dtype=pl.Float64))]
        stacked = np.stack(rows, axis=1).clip(min=0) if rows else np.zeros((count, 0))
        return stacked.astype(np.int64), np.stack(numeric, axis=1).astype(np.float32) if numeric else np.zeros((count, 0), np.float32)

    def _codes(self, things: Sequence[Item], numbers: np.ndarray) -> np.ndarray:
        """(U, C) int32: which item each is and which value of each categorical column it has."""
        described = np.array([thing.overrides is not None for thing in things], dtype=bool)
        frame = _frame([thing.overrides for thing in things if thing.overrides is not None], self.item_columns.columns)
        known = self.spec.vocabularies.item.categorical
        columns = [pl.Series(frame[name], dtype=_plain(values.values.dtype)) for name, values in known.items()]
        return self.log.item_codes(numbers, described, columns)

    def _log_numbers(self, request: Request, codes: np.ndarray, candidates: np.ndarray, clicks: np.ndarray, user: int) -> np.ndarray:
        """(C, K) float32 standardised statistics and co-occurrence of the candidates."""
        scales, log = self.spec.vocabularies.log_numbers, self.log
        parts = [np.zeros((len(candidates), 0), np.float32)]
        if log.counts:
            events = [len(history) for history in request.histories]
            parts.append(log.statistics(codes[candidates], user, request.timestamp, request.times[0] or (), events))
        if log.together is not None:
            newest = clicks[-max(NEWEST) :]
            values = codes[newest, 0].astype(np.int64) - 1
            known = np.array([len(values)])
            target, place = codes[candidates, 0] - 1, np.zeros(len(candidates), np.int64)
            since = log.moment if request.timestamp is None else request.timestamp
            parts.append(together_features(log.together, target, values, known, place) * np.float32(since >= log.since))
        mean, deviation = np.array([scale.mean for scale in scales]), np.array([scale.deviation for scale in scales])
        return standardised(np.concatenate(parts, axis=1), mean, deviation)

    def _titles(self, things: Sequence[Item], numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Words of the titles, concatenated, and where each title begins."""
        if self.items.words is None:
            return np.zeros(0, np.int64), np.zeros(len(things), np.int64)
        taken = np.array([number >= 0 and thing.overrides is None for thing, number in zip(things, numbers, strict=True)], dtype=bool)
        titles = [(thing.overrides or {}).get("title") for thing, known in zip(things, taken, strict=True) if not known]
        known_words, known_lengths = self.items.words.take(numbers[taken])
        new_words, new_lengths = self._words(pl.Series(titles, dtype=pl.String))
        both = Ragged(
            rows=np.concatenate([known_words, new_words]),
            start=np.concatenate([[0], np.cumsum(np.concatenate([known_lengths, new_lengths]))]).astype(np.int64),
        )
        words, lengths = both.take(np.argsort(np.argsort(~taken, kind="stable"), kind="stable"))
        return words.astype(np.int64), np.cumsum(lengths) - lengths

    def _words(self, texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """Table rows (T,) int64 of the texts' words, and how many each has."""
        words = words_of(texts, self.spec.config.words)
        each = words.explode(empty_as_null=False).cast(pl.String)
        return self.lookups["words"](each).clip(min=0), words.list.len().to_numpy().astype(np.int64)

    def _pictures(
        self, things: Sequence[Item], numbers: np.ndarray, given: Mapping[Id, np.ndarray], rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors (U, D), unit rows (U, D) and presence (U,) of the items' pictures; the columns of `rows` for image tables are set."""
        layout, in_store = self.spec.layout, numbers >= 0
        present, found = np.zeros(len(things), dtype=bool), {}
        for name, stored in (("vectors", self.items.vectors), ("unit", self.items.unit)):
            found[name] = np.zeros((len(things), self.sizes[name]), dtype=np.float32)
            if stored is not None:
                found[name][in_store] = stored[numbers[in_store]]
        if not layout.pictured:
            return found["vectors"], found["unit"], present
        assert self.items.present is not None
        present[in_store] = self.items.present[numbers[in_store]]
        tables = sum(len(image.tables) for image in layout.images)  # the last ones of the items'
        first = len(layout.item) - tables
        rows[:, first:] = [table.size - 1 for table in layout.item[first:]]
        rows[in_store, first:] = self.items.rows[numbers[in_store], first:]
        places = [number for number, thing in enumerate(things) if thing.id in given]
        if places:
            assert self.spec.rule is not None
            feature = self.spec.rule.feature(np.stack([given[things[number].id] for number in places]))
            present[places] = feature.present
            for name, values in (("vectors", feature.numbers), ("unit", feature.unit)):
                if values is not None and self.sizes[name]:
                    found[name][places] = values
            rows[np.ix_(places, range(first, len(layout.item)))] = feature.rows
        return found["vectors"], found["unit"], present


def _ages(now: int | None, times: Sequence[int] | None, length: int) -> Tensor:
    """(L,) float32 log1p of the seconds since each event, NO_AGE where not known; an empty history is one NO_AGE."""
    if now is None or times is None or not length:
        return torch.full((max(1, length),), NO_AGE)
    return torch.from_numpy(np.log1p(now - np.array(times)).astype(np.float32))


def _distinct(things: Sequence[Item]) -> dict[Id, Item]:
    """Each item once, with its first description."""
    items: dict[Id, Item] = {}
    for thing in things:
        if thing.id not in items or (items[thing.id].overrides is None and thing.overrides is not None):
            items[thing.id] = thing
    return items


def _frame(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str] | None = None) -> dict[str, list[Any]]:
    """Rows as columns; a missing value is None."""
    columns = names if names is not None else (rows[0] if rows else {})
    return {name: [row.get(name) for row in rows] for name in columns}


def _ids(ids: Sequence[Id | None], columns: RequestColumns) -> pl.Series:
    return pl.Series(ids, dtype=pl.String if columns.text_id else pl.Int64)


def _hashed(rule: Hashed, ids: pl.Series) -> np.ndarray:
    """Table rows (n,) of ids; a null has row 0, shared with others as an unknown id's row is."""
    rows = np.zeros(len(ids), dtype=np.int64)
    rows[ids.is_not_null().to_numpy()] = rule.rows(ids.drop_nulls())
    return rows


def _plain(dtype: pl.DataType) -> Any:
    return {"text": pl.String, "true/false": pl.Boolean}.get(kind_of(dtype), pl.Int64)


def _kinds(rules: Rules) -> dict[str, str]:
    kinds = {name: kind_of(values.values.dtype) for name, values in rules.categorical.items()}
    return kinds | {scale.column: "numbers" for scale in rules.numeric}


def _stored(folder: Path) -> Stored:
    def where_there(name: str) -> np.ndarray | None:
        return mapped(folder / f"{name}.npy") if (folder / f"{name}.npy").exists() else None

    start = where_there("start")
    return Stored(
        place=open_lookup(folder / "ids"),
        rows=mapped(folder / "rows.npy"),
        numeric=mapped(folder / "numeric.npy"),
        words=None if start is None else Ragged(rows=mapped(folder / "words.npy"), start=start),
        vectors=where_there("vectors"),
        unit=where_there("unit"),
        present=where_there("present"),
    )
