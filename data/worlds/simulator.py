"""Sessions of a built-in world: who searches what and when, what is shown, clicked, put into the cart and bought.

Simulated in chunks of complete sessions, each with its own generator: memory stays bounded however long the log is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data.worlds.click_rule import (
    AGE_BANDS,
    CART_RATE,
    MAX_LOOKS,
    PURCHASE_RATE,
    SPAN,
    START,
    UNCART_RATE,
    ClickRule,
    People,
    WorldCatalogue,
    calibrate,
    draw_people,
)
from run.progress import Progress

CHUNK = 1 << 15  # sessions
SHOWN = (8, 12)  # fewest and most impressions of a session, where the category has enough items
_DRAWS = 24  # items drawn per session, with repeats, to find enough different ones
_TERM_QUERIES = 0.35  # share of queries that name a brand or material besides the category
_TERM_RESULTS = 0.6  # share of their results that have it
_PILOT = 20_000  # sessions simulated first to set the rule's scales and bias
# How busy the shop is in each hour of the day (UTC), midnight first; Saturdays and Sundays have a quarter more.
_HOURS = np.array([9.0, 5, 3, 2, 2, 3, 6, 12, 18, 22, 25, 28, 32, 30, 27, 26, 28, 33, 41, 50, 56, 52, 37, 20])
_WEEK = np.array([1, 1, 1, 1, 1, 1.25, 1.25])


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Impressions of a chunk of sessions, each (I,)."""

    session: np.ndarray  # index within the chunk
    item: np.ndarray
    position: np.ndarray  # from 1
    time: np.ndarray  # Unix s


class Shelves:
    """Items by shelf (a category, or a category and a term); those launched by some time are a prefix of each shelf."""

    def __init__(self, catalogue: WorldCatalogue):
        names, terms = len(catalogue.category_names), len(catalogue.term_names)
        self.categories, self.terms = names, terms
        rows = np.arange(len(catalogue.category))
        shelf, item = [catalogue.category], [rows]
        for column in catalogue.terms.T:
            shelf.append(names + catalogue.category * terms + column)
            item.append(rows)
        shelves, items = np.concatenate(shelf), np.concatenate(item)
        since = catalogue.launch[items] - START
        ranking = np.lexsort((items, since, shelves))
        self.item = items[ranking]
        self.key = shelves[ranking] * (SPAN + 1) + since[ranking]
        self.begin = np.searchsorted(shelves[ranking], np.arange(names + names * terms + 1))
        self.weight = np.concatenate([[0.0], np.cumsum(catalogue.popularity[self.item])])

    def launched(self, shelf: np.ndarray, time: np.ndarray) -> np.ndarray:
        """How many items each shelf holds at each time."""
        return np.searchsorted(self.key, shelf * (SPAN + 1) + (time - START), side="right") - self.begin[shelf]

    def draw(self, shelf: np.ndarray, time: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One launched item for each shelf, none of which is empty, drawn by popularity."""
        begin = self.begin[shelf]
        end = begin + self.launched(shelf, time)
        low, high = self.weight[begin], self.weight[end]
        place = np.searchsorted(self.weight, low + uniform * (high - low), side="right") - 1
        return self.item[np.clip(place, begin, end - 1)]


def write_behaviour(folder: Path, catalogue: WorldCatalogue, *, users: int, sessions: int, seed: int) -> dict[str, int]:
    """Simulate the complete log into `folder`: impressions, events, users, and `truth/` about them.

    Returns:
        How many impressions and clicks there are.
    """
    people = draw_people(catalogue, users, np.random.default_rng([seed, 1]))
    shelves = Shelves(catalogue)
    rng = np.random.default_rng([seed, 2])
    rule = _pilot(catalogue, people, shelves, min(sessions, _PILOT), np.random.default_rng([seed, 3]))
    times, visitors = _visits(people, sessions, rng)
    counts, events = {"impressions": 0, "clicks": 0}, []
    parts = folder / "parts"
    parts.mkdir()
    with Progress("simulating sessions", total=sessions, unit="sessions") as bar:
        for number, start in enumerate(range(0, sessions, CHUNK)):
            chunk = slice(start, start + CHUNK)
            rng = np.random.default_rng([seed, 4, number])
            table, probability, happened = _chunk(rule, shelves, visitors[chunk], times[chunk], start, rng)
            table.write_parquet(parts / f"impressions-{number:06d}.parquet")
            pl.DataFrame({"probability": probability}).write_parquet(parts / f"truth-{number:06d}.parquet")
            events.append(happened)
            counts["impressions"] += table.height
            counts["clicks"] += int(table["click"].sum())
            bar.advance(len(times[chunk]))
    (folder / "truth").mkdir(exist_ok=True)
    _join(parts, "impressions", folder / "impressions.parquet")
    _join(parts, "truth", folder / "truth" / "impressions.parquet")
    parts.rmdir()
    pl.concat(events).sort("timestamp", maintain_order=True).write_parquet(folder / "events.parquet")
    _write_people(folder, people, np.random.default_rng([seed, 5]))
    return counts


def _pilot(catalogue: WorldCatalogue, people: People, shelves: Shelves, sessions: int, rng: np.random.Generator) -> ClickRule:
    times, visitors = _visits(people, sessions, rng)
    category, _ = _searches(catalogue, people, shelves, visitors, times, rng)
    shown = _show(shelves, category, np.full(len(category), -1), times, rng)
    visitor = visitors[shown.session]
    return calibrate(catalogue, people, session=shown.session, user=visitor, item=shown.item, position=shown.position)


def _visits(people: People, sessions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Times (S,) int64, ascending, and users (S,) of all sessions."""
    busy = np.concatenate([[0.0], np.cumsum(np.outer(_WEEK[np.arange(SPAN // 86_400) % 7], _HOURS).ravel())])
    hour = np.interp(rng.random(sessions) * busy[-1], busy, np.arange(len(busy)))
    times = START + np.sort((hour * 3600).astype(np.int64))
    visitors = np.searchsorted(np.cumsum(people.activity), rng.random(sessions), side="right")
    return times, np.minimum(visitors, len(people.activity) - 1)


def _searches(
    catalogue: WorldCatalogue, people: People, shelves: Shelves, user: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The category and the term (-1: none) that each session searches, among those launched by then."""
    every = np.arange(shelves.categories)
    opened = shelves.launched(every[None, :], time[:, None]) > 0
    chance = np.cumsum(people.category_taste[user] * opened, axis=1)
    category = (chance <= rng.random((len(user), 1)) * chance[:, -1:]).sum(axis=1)
    # a user who names a brand or a material has an item in mind
    wanted = shelves.draw(category, time, rng.random(len(user)))
    columns = catalogue.terms.shape[1]
    column, named = rng.integers(max(columns, 1), size=len(user)), rng.random(len(user)) < _TERM_QUERIES
    if columns == 0:
        return category, np.full(len(user), -1)
    return category, np.where(named, catalogue.terms[wanted, column], -1)


def _show(shelves: Shelves, category: np.ndarray, term: np.ndarray, time: np.ndarray, rng: np.random.Generator) -> Shown:
    """Distinct items of the searched category, popular ones mostly first; a named term adds its items."""
    shape = (len(category), _DRAWS)
    by_term = (term >= 0)[:, None] & (rng.random(shape) < _TERM_RESULTS)
    shelf = np.where(by_term, (shelves.categories + category * shelves.terms + term)[:, None], category[:, None])
    item = shelves.draw(shelf.ravel(), np.repeat(time, _DRAWS), rng.random(shape).ravel()).reshape(shape)
    # drawing with replacement and dropping repeats is drawing without replacement
    ranking = np.argsort(item, axis=1, kind="stable")
    ranked = np.take_along_axis(item, ranking, axis=1)
    first = np.ones(shape, dtype=bool)
    np.put_along_axis(first, ranking[:, 1:], ranked[:, 1:] != ranked[:, :-1], axis=1)
    position = np.cumsum(first, axis=1)
    wanted = rng.integers(SHOWN[0], SHOWN[1] + 1, len(category))
    kept = first & (position <= wanted[:, None])
    pause = rng.integers(0, 3, shape) * (kept & (position > 1))
    session, column = np.nonzero(kept)
    seconds = time[:, None] + np.cumsum(pause, axis=1)
    return Shown(
        session=session,
        item=item[session, column],
        position=position[session, column],
        time=seconds[session, column],
    )


def _chunk(
    rule: ClickRule, shelves: Shelves, user: np.ndarray, time: np.ndarray, start: int, rng: np.random.Generator
) -> tuple[pl.DataFrame, np.ndarray, pl.DataFrame]:
    """Impressions, their click probabilities and the events of the sessions from number `start` on."""
    catalogue, people = rule.catalogue, rule.people
    category, term = _searches(catalogue, people, shelves, user, time, rng)
    shown = _show(shelves, category, term, time, rng)
    visitor = user[shown.session]
    probability = rule.probability(visitor, shown.item, shown.position)
    click = rng.random(len(probability)) < probability
    queries = _queries(catalogue, category, term, rng)
    table = pl.DataFrame(
        {
            "session_id": 1_000_000 + start + shown.session,
            "user_id": people.user_id[visitor],
            "item_id": catalogue.item_id[shown.item],
            "timestamp": shown.time,
            "click": click.astype(np.int8),
            "position": shown.position.astype(np.int32),
            "query": queries.gather(shown.session),
            "category": pl.Series(catalogue.category_names).gather(category[shown.session]),
        }
    )
    happened = _events(people.user_id[visitor[click]], catalogue.item_id[shown.item[click]], shown.time[click], rng)
    return table, probability, happened


def _queries(catalogue: WorldCatalogue, category: np.ndarray, term: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """What each session types: words for the category, after the brand or material where one is named."""
    most = max(len(words) for words in catalogue.query_words)
    words = [choices[place % len(choices)] for choices in catalogue.query_words for place in range(most)]
    thing = pl.Series(words).gather(category * most + rng.integers(most, size=len(category)))
    prefix = pl.Series([f"{name} " for name in catalogue.term_names] + [""]).gather(np.where(term < 0, len(catalogue.term_names), term))
    return prefix + thing


def _events(user_id: np.ndarray, item_id: np.ndarray, time: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """Every click, and what some lead to: the cart within a minute and a half, then removal from it or a purchase."""
    n = len(time)
    cart = rng.random(n) < CART_RATE
    uncart = cart & (rng.random(n) < UNCART_RATE)
    purchase = cart & ~uncart & (rng.random(n) < PURCHASE_RATE)
    cart_time = time + rng.integers(4, 91, n)
    uncart_time = cart_time + np.exp(rng.uniform(np.log(10), np.log(6 * 3600), n)).astype(np.int64)
    purchase_time = cart_time + np.exp(rng.uniform(np.log(120), np.log(86_400), n)).astype(np.int64)
    parts = [
        pl.DataFrame({"user_id": user_id[rows], "item_id": item_id[rows], "timestamp": when[rows]}).with_columns(action=pl.lit(action))
        for action, rows, when in (
            ("click", np.ones(n, dtype=bool), time),
            ("cart", cart, cart_time),
            ("uncart", uncart, uncart_time),
            ("purchase", purchase, purchase_time),
        )
    ]
    return pl.concat(parts)


def _join(parts: Path, name: str, target: Path) -> None:
    """Stream the chunks' files into one, in order, and delete them."""
    files = sorted(parts.glob(f"{name}-*.parquet"))
    pl.scan_parquet(files, glob=False).sink_parquet(target, maintain_order=True)
    for file in files:
        file.unlink()


def _write_people(folder: Path, people: People, rng: np.random.Generator) -> None:
    users = len(people.user_id)
    regions = pl.Series(["north", "south", "east", "west", "coast", "islands", "hills", "city"])
    devices = pl.Series(["phone", "computer", "tablet"])
    pl.DataFrame(
        {
            "user_id": people.user_id,
            "age_band": pl.Series(list(AGE_BANDS)).gather(people.age_band),
            "region": regions.gather(rng.choice(8, users, p=(0.1, 0.12, 0.1, 0.12, 0.12, 0.04, 0.1, 0.3))),
            "device": devices.gather(rng.choice(3, users, p=(0.62, 0.28, 0.1))),
        }
    ).write_parquet(folder / "users.parquet")
    looks = {f"look_{index + 1}": pl.Series(people.looks[:, index]) for index in range(MAX_LOOKS)}
    truth = {"user_id": people.user_id, "looks": people.look_count, "price_level": people.price_level}
    pl.DataFrame({**truth, "keenness": people.keenness, **looks}).write_parquet(folder / "truth" / "users.parquet")
