"""Interactions -> a shop folder: sessions, negatives, tables, pictures, and `origin.json`, which says what was made up.

Legend: P interactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.log.tables import index_of
from data.origin import ORIGIN
from data.readers.interactions import Interactions, selected, without_repeats
from data.readers.negatives import Negatives
from data.readers.pictures import found_pictures, shrink_pictures, with_pictures
from data.readers.sessions import Sessions, sessions_of
from run.errors import UserError
from run.files import naming, replacing_folder, write_json
from run.folder import commit
from run.progress import Progress
from run.randomness import permutation, uniform

_FILTERS = ("repeats", "since", "users", "min_clicks", "only_with_pictures", "picture_size")  # settings recorded as they are
_AT_ONCE = 1 << 19  # positives that become impressions at a time


@dataclass(frozen=True, kw_only=True)
class ShopOptions:
    """How interactions become a shop."""

    negatives: int  # sampled for each positive
    negatives_by: str  # popularity | uniform
    negatives_window: int  # seconds
    sessions: str  # count | gap | day
    session_size: int  # of "count"
    session_gap: int  # seconds, of "gap"
    repeats: bool  # a user's later interactions with the same item stay
    since: int | None  # Unix s: earlier interactions are left out
    users: int  # sampled; 0: all
    min_clicks: int  # users with fewer interactions are left out
    only_with_pictures: bool  # items without a picture are left out
    picture_size: int  # pixels of a picture's shorter side
    seed: int
    workers: int


def write_shop(found: Interactions, out: Path, pictures: Path | None, options: ShopOptions, about: dict[str, Any]) -> dict[str, Any]:
    """Write the shop folder, complete or not at all; returns the content of origin.json.

    Args:
        pictures: folder of the source's pictures; None: no item has one.
        about: what origin.json says of the source.

    Raises:
        UserError: nothing is left after the filters, or `out` holds something else.
    """
    refuse_existing(out)
    everything = found
    found, names = _filtered(found, pictures, options)
    with replacing_folder(out) as folder:
        images: list[str | None] = [None] * len(names)
        if pictures is not None:
            images = shrink_pictures(pictures, names, folder / "images", size=options.picture_size, workers=options.workers)
        (folder / "images").mkdir(exist_ok=True)
        _write(folder / "items.parquet", with_pictures(found.items, images))
        _write(folder / "users.parquet", found.users)
        of = sessions_of(found.user, found.time, by=options.sessions, size=options.session_size, gap=options.session_gap)
        missing = _write_impressions(found, _taken(everything, found), of, folder, options)
        origin = about | {
            "rows": found.rows, "rows_refused": found.refused, "interactions": len(found.user), "days_only": found.days_only,
            "sessions": {"by": options.sessions, "count": len(of.time), "size": options.session_size, "gap_seconds": options.session_gap},
            "negatives": {
                "per_positive": options.negatives, "by": options.negatives_by, "window_seconds": options.negatives_window,
                "missing": missing,
            },
            "pictures": {
                "items_with": sum(image is not None for image in images),
                "items_without": sum(name is None for name in names),
                "items_unreadable": sum(name is not None and image is None for name, image in zip(names, images, strict=True)),
            },
            "options": {name: value for name, value in asdict(options).items() if name in _FILTERS}, "seed": options.seed,
            "commit": commit(),
        }  # fmt: skip
        write_json(folder / ORIGIN, origin)
    return origin


def refuse_existing(out: Path) -> None:
    """Refuse to overwrite anything.

    Raises:
        UserError: `out` is a file, or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "holds a converted shop already" if (out / ORIGIN).exists() else "is not empty, and holds no converted shop"
        raise UserError(f"{out}: {what}; nothing is overwritten, so delete it or give another --out")


def _filtered(found: Interactions, pictures: Path | None, options: ShopOptions) -> tuple[Interactions, list[str | None]]:
    """The interactions that the options leave, and the name of each item's picture."""
    if options.since is not None:
        found = _some(found, found.time >= options.since, "--since leaves nothing; give an earlier date")
    if not options.repeats:
        found = without_repeats(found)
    names = _pictures_of(found, pictures)
    if options.only_with_pictures:
        has = np.array([name is not None for name in names], dtype=bool)
        fix = "--only-with-pictures leaves nothing; give the folder of pictures as --pictures"
        found = _some(found, has[found.item], fix)
    if options.min_clicks > 1:
        count = np.bincount(found.user, minlength=len(found.users))
        found = _some(found, count[found.user] >= options.min_clicks, "--min-clicks leaves nobody; give a lower number")
    if 0 < options.users < len(found.users):
        chosen = np.zeros(len(found.users), dtype=bool)
        chosen[permutation(len(chosen), options.seed, "users")[: options.users]] = True
        found = _some(found, chosen[found.user], "--users leaves nobody; give a higher number")
    return found, _pictures_of(found, pictures)


def _pictures_of(found: Interactions, pictures: Path | None) -> list[str | None]:
    """The name of each item's picture.

    Raises:
        UserError: there is a folder of pictures, but none of any item.
    """
    if pictures is None:
        return [None] * len(found.items)
    names = found_pictures(found, pictures)
    if not any(names):
        expected = found.picture_names(found.items["item_id"][0])[0]
        raise UserError(f"{pictures}: has no picture of any item (such as {expected}); give the folder that holds them as --pictures")
    return names


def _taken(everything: Interactions, found: Interactions) -> np.ndarray:
    """Ascending user * N + item, as `found` numbers its N items, of all that its users took, what the filters left out included."""
    user = index_of(everything.users["user_id"], found.users["user_id"])[everything.user]
    item = index_of(everything.items["item_id"], found.items["item_id"])[everything.item]
    there = (user >= 0) & (item >= 0)
    return np.unique(user[there].astype(np.int64) * len(found.items) + item[there])


def _some(found: Interactions, chosen: np.ndarray, fix: str) -> Interactions:
    if not chosen.any():
        raise UserError(fix)
    return selected(found, chosen)


def _write_impressions(found: Interactions, taken: np.ndarray, of: Sessions, folder: Path, options: ShopOptions) -> int:
    """Write positives and negatives, session by session, in parts that are then joined; returns how many negatives are missing."""
    sampler = Negatives(
        time=found.time, item=found.item, taken=taken, items=len(found.items), by=options.negatives_by, window=options.negatives_window,
        seed=options.seed,
    )  # fmt: skip
    parts, missing = folder / ".parts", 0
    parts.mkdir()
    with Progress("sampling negatives", total=len(of.session), unit="positives") as bar:
        for number, (first, end) in enumerate(_cuts(of.session)):
            frame, lacking = _impressions(found, of, sampler, first, end, options)
            _write(parts / f"{number:06d}.parquet", frame)
            missing += lacking
            bar.advance(end - first)
    files = sorted(parts.iterdir())
    with naming(folder / "impressions.parquet"):
        pl.scan_parquet(files, glob=False).sink_parquet(folder / "impressions.parquet")
    for file in files:
        file.unlink()
    parts.rmdir()
    return missing


def _impressions(
    found: Interactions, of: Sessions, sampler: Negatives, first: int, end: int, options: ShopOptions
) -> tuple[pl.DataFrame, int]:
    """The impressions of the sessions of positives first..end, each session's in a random order; and how many negatives are missing."""
    which, session = of.ranking[first:end], of.session[first:end].astype(np.int64)
    moment, user = of.time[session], found.user[which]
    drawn = sampler.draw(user, session, moment, np.arange(first, end), options.negatives)
    got = drawn >= 0
    item = np.concatenate([found.item[which], drawn[got]])
    sessions = np.concatenate([session, np.repeat(session, options.negatives)[got.ravel()]])
    users = np.concatenate([user, np.repeat(user, options.negatives)[got.ravel()]])
    click = np.repeat(np.array([1, 0], np.int8), [len(which), int(got.sum())])
    ranking = np.lexsort((uniform(options.seed, "page", sessions, item), sessions))
    frame = pl.DataFrame(
        {
            "session_id": sessions[ranking],
            "user_id": found.users["user_id"].gather(users[ranking]),
            "item_id": found.items["item_id"].gather(item[ranking]),
            "timestamp": of.time[sessions[ranking]],
            "click": click[ranking],
        }
    )
    return frame, int((~got).sum())


def _cuts(session: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of about _AT_ONCE positives that cut no session."""
    first = 0
    while first < len(session):
        end = min(first + _AT_ONCE, len(session))
        end = int(np.searchsorted(session, session[end - 1], side="right"))
        yield first, end
        first = end


def _write(path: Path, frame: pl.DataFrame) -> None:
    with naming(path), open(path, "wb") as file:
        frame.write_parquet(file)
