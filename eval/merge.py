"""A comparison made in parts, one per encoder, say, and merged from their files.

Next to each `results.json` is `users.parquet`: for every row and seed, the sums per user (by number, not by id) from which GAUC's intervals
are resampled. With it, rows of different parts are compared as reliably as rows of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eval.rows import ALONE, BESIDE, POPULARITY, Row, is_control, row_name
from metrics.intervals import Draws, GaucSums, Interval, Resamples, difference, resampled
from run.errors import DataError, UserError
from run.files import read_json, write_with

_BETWEEN = "|"  # between the words of a column's name
# what parts of one comparison must agree on; the data set is identified by its content (shop), wherever it is
_SHARED = (
    "preset",
    "seeds",
    "shop",
    "gauc_weight",
    "gauc_key",
    "sessions_scored",
    "sessions_one_class",
    "users",
)


def interval(value: Interval) -> dict[str, Any]:
    """An interval as `results.json` holds it."""
    return {"mean": value.mean, "ci95": [value.low, value.high], "p_value": value.p_value}


def select_forms(valid_gauc: Mapping[Row, float], rows: Sequence[Row]) -> dict[str, Row]:
    """encoder -> its row with the highest GAUC in validation sessions (the first of ties)."""
    selected: dict[str, Row] = {}
    for row in rows:
        best = selected.get(row[0])
        if best is None or valid_gauc[row] > valid_gauc[best]:
            selected[row[0]] = row
    return selected


def pairs_of(selected: Mapping[str, Row], draws: Mapping[Row, Draws]) -> list[dict[str, Any]]:
    """Each pair of encoders: the paired difference of their selected forms."""
    pairs = combinations(selected.values(), 2)
    return [{"a": list(a), "b": list(b), "delta_gauc": interval(difference(draws[a], draws[b]))} for a, b in pairs]


def summary(draws: Draws) -> dict[str, Any]:
    """A metric's value by seed, as `results.json` holds it."""
    return {"mean": float(draws.point.mean()), "per_seed": [float(value) for value in draws.point]}


def alone_entries(draws: Mapping[Row, Draws]) -> dict[str, Any]:
    """What `results.json` holds of encoders without a CTR model: GAUC alone and beside popularity, and the paired difference of each pair;
    nothing where there is no encoder.

    Args:
        draws: (encoder, ALONE), (encoder, BESIDE) and POPULARITY -> GAUC on all resamples.
    """
    encoders = [encoder for encoder, how in draws if how == ALONE]
    if not encoders:
        return {}
    entries = [
        {
            "encoder": encoder,
            "gauc": summary(draws[encoder, ALONE]),
            "beside_popularity": summary(draws[encoder, BESIDE]),
            "over_popularity": interval(difference(draws[encoder, BESIDE], draws[POPULARITY])),
        }
        for encoder in encoders
    ]
    pairs = [
        {
            "a": a,
            "b": b,
            "delta_gauc": interval(difference(draws[a, ALONE], draws[b, ALONE])),
            "delta_beside_popularity": interval(difference(draws[a, BESIDE], draws[b, BESIDE])),
        }
        for a, b in combinations(encoders, 2)
    ]
    return {"popularity": summary(draws[POPULARITY]), "alone": entries, "alone_pairs": pairs}


def write_users(path: Path, sums: Mapping[Row, GaucSums], seeds: Sequence[int]) -> None:
    """Write the sums of all rows: one line per user (or pool of users), one column per row and seed."""
    columns = {"weight": next(iter(sums.values())).weight}
    columns |= {_BETWEEN.join((*row, str(seed))): of_row.won[place] for row, of_row in sums.items() for place, seed in enumerate(seeds)}
    write_with(path, lambda file: pl.DataFrame(columns).write_parquet(file, compression="zstd"))


def users_file(results: Path) -> Path:
    """The path of the sums that belong to a file of results: `users.parquet` to `results.json`, `NAME.users.parquet` to `NAME.json`."""
    return results.with_name("users.parquet" if results.name == "results.json" else f"{results.stem}.users.parquet")


def read_users(path: Path, rows: Sequence[Row], seeds: Sequence[int]) -> dict[Row, GaucSums]:
    """The sums that `write_users` wrote for these rows.

    Raises:
        UserError: the file is missing or unreadable.
        DataError: it lacks a row, or a value is not a number.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a part is a results.json with its users.parquet (NAME.json with NAME.users.parquet)")
    try:
        table = pl.read_parquet(path, glob=False)
    except Exception as error:  # polars raises many kinds of errors for a broken file
        raise UserError(f"{path}: not readable ({type(error).__name__})") from None

    def numbers(name: str) -> np.ndarray:
        if name not in table.columns or not table[name].dtype.is_numeric():
            raise DataError(path, column=name, fix="no such column of numbers; it belongs to another results.json")
        values = table[name].to_numpy().astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(path, column=name, fix="not a finite number")
        return values

    weight = numbers("weight")
    return {row: GaucSums(won=np.stack([numbers(_BETWEEN.join((*row, str(seed)))) for seed in seeds]), weight=weight) for row in rows}


def merge(files: Sequence[Path]) -> dict[str, Any]:
    """Merge parts of one comparison: the rows of all, with forms selected and encoders paired among all of them.

    Args:
        files: each a `results.json` with its `users.parquet` next to it. A row may be in several of them if its result is the same.

    Raises:
        UserError: a file is given twice, or parts are not of one comparison; names the file and what differs.
    """
    _refuse_repeats(files)
    parts = [_read_part(file) for file in files]
    first = parts[0]
    entries: dict[Row, dict[str, Any]] = {}
    sums: dict[Row, GaucSums] = {}
    for file, part in zip(files, parts, strict=True):
        _refuse_another(file, part, files[0], first)
        own = {(row["encoder"], row["image_feature"]): row for row in part["rows"]}
        own |= _without_ctr_model(part)
        for name, of_row in read_users(users_file(file), list(own), part["seeds"]).items():
            if name in entries and own[name]["gauc"]["per_seed"] != entries[name]["gauc"]["per_seed"]:
                what = f"{name[0]} without a CTR model" if name[1] in (ALONE, BESIDE) else row_name(*name)
                raise UserError(f"{file}: {what} has another result than in an earlier file; leave one of them out")
            entries.setdefault(name, own[name])
            sums.setdefault(name, of_row)
    rows = {name: each for name, each in entries.items() if name[1] not in (ALONE, BESIDE)}
    alone = [name for name in entries if name not in rows]
    complete = all(_without_ctr_model(part) for part in parts if any(row["image_feature"] != "none" for row in part["rows"]))
    ranked = sorted(rows, key=lambda name: is_control(name[0]))
    selected = select_forms({name: rows[name]["valid_gauc"] for name in ranked}, [name for name in ranked if not is_control(name[0])])
    resamples = Resamples(np.arange(first["users"]))
    return {
        **{key: value for key, value in first.items() if key not in ("popularity", "alone", "alone_pairs", "settings")},
        **({"settings": first["settings"]} if all("settings" in part for part in parts) else {}),
        "rows": [rows[name] | {"selected": name in selected.values()} for name in ranked],
        "pairs": pairs_of(selected, {name: resampled(sums[name], resamples) for name in selected.values()}),
        **(alone_entries({name: resampled(sums[name], resamples) for name in alone}) if complete else {}),
        **_merged_facts(parts),
    }


def _without_ctr_model(part: dict[str, Any]) -> dict[Row, dict[str, Any]]:
    """The entries of a part's encoders without a CTR model, as those of rows; none in an older part, which lacks popularity."""
    if "popularity" not in part:
        return {}
    found: dict[Row, dict[str, Any]] = {POPULARITY: {"gauc": part["popularity"]}}
    for each in part["alone"]:
        found |= {(each["encoder"], ALONE): {"gauc": each["gauc"]}, (each["encoder"], BESIDE): {"gauc": each["beside_popularity"]}}
    return found


def _merged_facts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fields of all parts other than rows; values that differ are joined by commas, which the notes point out."""
    encoders = {each["encoder"]: each for part in parts for each in part.get("encoders", [])}
    packages = dict.fromkeys(name for part in parts for name in part.get("versions") or {})
    facts: dict[str, Any] = {
        "encoders": list(encoders.values()),
        "pictures_unreadable": max(part.get("pictures_unreadable", 0) for part in parts),
        "versions": {name: _listed(part["versions"][name] for part in parts if name in (part.get("versions") or {})) for name in packages},
        "commit": _listed(part["commit"] for part in parts),
        "seconds": {"this_call": sum(part["seconds"]["this_call"] for part in parts)},
    }
    return facts


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _refuse_repeats(files: Sequence[Path]) -> None:
    given: dict[Path, Path] = {}
    for file in files:
        same = given.setdefault(file.resolve(), file)
        if same is not file:
            raise UserError(f"{file}: is given twice{'' if same == file else f', also as {same}'}; name each part once")


def _read_part(file: Path) -> dict[str, Any]:
    part = read_json(file)
    held = set(part) if isinstance(part, dict) else set()
    absent = [name for name in ("data", *_SHARED, "rows", "baseline", "commit", "seconds") if name not in held]
    if absent:
        raise UserError(f"{file}: holds no {absent[0]!r}; give a results.json that eval.compare wrote")
    return part


def _refuse_another(file: Path, part: dict[str, Any], first_file: Path, first: dict[str, Any]) -> None:
    """Refuse a part of another comparison than the first part's."""
    for name in _SHARED:
        if part[name] != first[name]:
            data = f" (of {part['data']} and {first['data']})" * (name == "shop")
            raise UserError(f"{file}: '{name}' is {part[name]!r}, and {first[name]!r} in {first_file}{data}; give parts of one comparison")
    if "settings" in part and "settings" in first:  # older results lack them
        for name in dict.fromkeys([*part["settings"], *first["settings"]]):
            of_part, of_first = (results["settings"].get(name, "the preset's") for results in (part, first))
            if of_part != of_first:
                raise UserError(f"{file}: its --{name} is {of_part}, that of {first_file} {of_first}; merge parts with equal settings")
    start, first_start = (results.get("start", "cold") for results in (part, first))
    if start != first_start:
        raise UserError(
            f"{file}: its CTR models had a {start} start, those of {first_file} a {first_start} one; merge parts with equal starts"
        )
    for metric in ("auc", "gauc"):
        per_seed, first_per_seed = (results["baseline"][metric]["per_seed"] for results in (part, first))
        if not all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(per_seed, first_per_seed, strict=True)):
            raise UserError(
                f"{file}: its baseline is not that of {first_file} ({metric} {per_seed} and {first_per_seed}); "
                "parts need the same CTR settings, versions and threads"
            )
