"""A comparison made in slices, by encoder say, and put together from their files.

Beside each `results.json` lies `users.parquet`: for every row and seed, what GAUC's intervals are resampled from, a sum for each user (by
number, not by id). With it, rows of different slices are compared as surely as rows of one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eval.wording import is_control
from metrics.intervals import Draws, GaucSums, Interval, Resamples, difference, resampled
from run.errors import DataError, UserError
from run.files import read_json, write_atomic

Row = tuple[str, str]  # encoder, image feature
_BETWEEN = "|"  # words of a column's name
# what slices of one comparison agree in
_SHARED = (
    "data",
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
    """encoder -> its row with the highest GAUC in validation sessions (the first of equals)."""
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


def write_users(path: Path, sums: Mapping[Row, GaucSums], seeds: Sequence[int]) -> None:
    """Write the sums of all rows, a line a user (or pool of users), a column a row and seed."""
    columns = {"weight": next(iter(sums.values())).weight}
    columns |= {_BETWEEN.join((*row, str(seed))): of_row.won[place] for row, of_row in sums.items() for place, seed in enumerate(seeds)}
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def users_beside(results: Path) -> Path:
    """`users.parquet` beside `results.json`; `NAME.users.parquet` beside `NAME.json`."""
    return results.with_name("users.parquet" if results.name == "results.json" else f"{results.stem}.users.parquet")


def read_users(path: Path, rows: Sequence[Row], seeds: Sequence[int]) -> dict[Row, GaucSums]:
    """What `write_users` wrote of these rows.

    Raises:
        UserError: the file is missing or unreadable.
        DataError: a row is not in it, or a value is not a number.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a slice is a results.json with its users.parquet (NAME.json with NAME.users.parquet)")
    try:
        table = pl.read_parquet(path)
    except Exception as error:  # polars raises many kinds for a broken file
        raise UserError(f"{path}: not readable ({type(error).__name__})") from None

    def numbers(name: str) -> np.ndarray:
        if name not in table.columns or not table[name].dtype.is_numeric():
            raise DataError(path, column=name, fix="no such column of numbers; it is not of this results.json")
        values = table[name].to_numpy().astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(path, column=name, fix="not a finite number")
        return values

    weight = numbers("weight")
    return {row: GaucSums(won=np.stack([numbers(_BETWEEN.join((*row, str(seed)))) for seed in seeds]), weight=weight) for row in rows}


def merge(files: Sequence[Path]) -> dict[str, Any]:
    """Slices of one comparison as one: rows of all, forms selected and encoders paired among all of them.

    Args:
        files: each a `results.json` with its `users.parquet` beside it. A row may stand in several of them, if with one result.

    Raises:
        UserError: a file is given twice, or slices are not of one comparison; it names the file and what differs.
    """
    given: dict[Path, Path] = {}
    for file in files:
        same = given.setdefault(file.resolve(), file)
        if same is not file:
            raise UserError(f"{file}: is given twice{'' if same == file else f', also as {same}'}; name each slice once")
    slices = [read_json(file) for file in files]
    for file, one in zip(files, slices, strict=True):
        absent = [name for name in (*_SHARED, "rows", "baseline") if name not in one]
        if absent:
            raise UserError(f"{file}: holds no {absent[0]!r}; give a results.json that eval.compare wrote")
    first = slices[0]
    rows: dict[Row, dict[str, Any]] = {}
    sums: dict[Row, GaucSums] = {}
    for file, one in zip(files, slices, strict=True):
        _refuse_another(file, one, files[0], first)
        own = [(row["encoder"], row["image_feature"]) for row in one["rows"]]
        for name, row, of_row in zip(own, one["rows"], read_users(users_beside(file), own, one["seeds"]).values(), strict=True):
            if name in rows and row["gauc"]["per_seed"] != rows[name]["gauc"]["per_seed"]:
                raise UserError(f"{file}: {' as '.join(name)} has another result than in a file before it; leave one of them out")
            rows.setdefault(name, row)
            sums.setdefault(name, of_row)
    ordered = sorted(rows, key=lambda name: is_control(name[0]))
    valid = {name: rows[name]["valid_gauc"] for name in ordered}
    selected = select_forms(valid, [name for name in ordered if not is_control(name[0])])
    merged = {**first, "rows": [rows[name] | {"selected": name in selected.values()} for name in ordered]}
    resamples = Resamples(np.arange(first["users"]))
    merged["pairs"] = pairs_of(selected, {name: resampled(sums[name], resamples) for name in selected.values()})
    merged["commit"] = ", ".join(dict.fromkeys(one["commit"] for one in slices))
    merged["seconds"] = {"this_call": sum(one["seconds"]["this_call"] for one in slices)}
    return merged


def _refuse_another(file: Path, one: dict[str, Any], first_file: Path, first: dict[str, Any]) -> None:
    for name in _SHARED:
        if one[name] != first[name]:
            raise UserError(f"{file}: '{name}' is {one[name]!r}, and {first[name]!r} in {first_file}; slices are of one comparison")
    begun, first_begun = (results.get("start", "cold") for results in (one, first))
    if begun != first_begun:
        raise UserError(f"{file}: its CTR models had a {begun} start, those of {first_file} a {first_begun} one; merge like with like")
    for metric in ("auc", "gauc"):
        pairs = zip(one["baseline"][metric]["per_seed"], first["baseline"][metric]["per_seed"], strict=True)
        if not all(math.isclose(a, b, abs_tol=1e-9) for a, b in pairs):
            raise UserError(
                f"{file}: its baseline is not that of {first_file} ({metric} {one['baseline'][metric]['per_seed']} and "
                f"{first['baseline'][metric]['per_seed']}); slices need the same CTR settings, versions and threads"
            )
