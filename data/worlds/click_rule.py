"""How users of the built-in worlds behave: what they like, and with what probability they click what they see.

One rule for all worlds. A world brings a `WorldCatalogue`; where its taste space comes from (the style a picture was drawn
in, or properties measured on a photo) is up to the world. Every constant is explained; all were set to
look like a real shop log (one impression in seven clicked, clicks mostly noise) and never to favour an encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

START = 1_704_067_200  # Unix s, Monday 1 January 2024, midnight UTC: the first moment of every world
DAYS = 60  # length of the log
SPAN = DAYS * 86_400  # in seconds

CTR = 0.15  # share of impressions clicked, reached through the bias
# Standard deviation that each reason adds to the click logit: the first two among the items of a session.
STYLE_SPREAD = 0.9  # the item's look is near one of the user's looks: the largest reason, and visible only in pictures
PRICE_SPREAD = 0.4  # the price is near what the user spends in the category
QUALITY_SPREAD = 0.4  # some items are simply better; hidden, but the popular ones mostly are
CATEGORY_SPREAD = 0.4  # the user likes this category more than others
KEENNESS_SPREAD = 0.4  # some users click on more of everything
POSITION_SLOPE = 0.4  # logit lost with each e-fold of the position: the tenth place has 0.9 less logit than the first

POPULARITY_EXPONENT = 0.8  # Zipf: how often an item is shown falls with its rank in the category to this power
LATE_SHARE = 0.2  # of items are launched during the log, evenly over its last 60 %
LATE_CATEGORY_AT = 0.45  # of the time: when the late category opens, with 60 % of its items
MAX_LOOKS = 3
CART_RATE = 0.25  # of clicks put the item into the cart
UNCART_RATE = 0.2  # of cart items are taken out again
PURCHASE_RATE = 0.4  # of cart items that stay are bought


@dataclass(frozen=True, kw_only=True)
class WorldCatalogue:
    """The items of a world, one per row."""

    item_id: np.ndarray  # (N,) int64
    category: np.ndarray  # (N,) int64 index into category_names
    category_names: list[str]
    taste: np.ndarray  # (N, D) float32 positions in taste space
    price_level: np.ndarray  # (N,) float32 log price, standardised within the category
    quality: np.ndarray  # (N,) float32 standard normal
    popularity: np.ndarray  # (N,) float64 weight with which the item is shown, within its category
    launch: np.ndarray  # (N,) int64 Unix s: not shown before
    query_words: list[list[str]]  # per category, ways to search for it
    terms: np.ndarray  # (N, K) int64 index into term_names: title words people also search by; K may be 0
    term_names: list[str]


@dataclass(frozen=True, kw_only=True)
class People:
    """The users of a world, one per row."""

    user_id: np.ndarray  # (U,) int64
    age_band: np.ndarray  # (U,) int64 index into AGE_BANDS
    activity: np.ndarray  # (U,) float64 share of sessions; log-normal, at most 60 times the smallest
    category_taste: np.ndarray  # (U, C) float64 probability of searching each category
    category_liking: np.ndarray  # (U, C) float32 what the category adds to the click logit, standardised
    price_level: np.ndarray  # (U,) float32 where the user's prices lie, in standard deviations of the category's
    keenness: np.ndarray  # (U,) float32 standard normal
    looks: np.ndarray  # (U, MAX_LOOKS, D) float32 liked positions in taste space; unused rows repeat the first
    look_count: np.ndarray  # (U,) int64 1 .. MAX_LOOKS


AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")


@dataclass(frozen=True, kw_only=True)
class ClickRule:
    """The click logit, with scales measured once to make the spreads above hold in any world."""

    catalogue: WorldCatalogue
    people: People
    bias: float
    match_scale: tuple[float, float]  # mean of `style_match`, and its standard deviation within sessions
    price_scale: tuple[float, float]  # the same of `price_match`

    def parts(self, user: np.ndarray, item: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
        """Each reason's part of the logit, (n,) float32, for impressions of `item` to `user` at `position` (from 1)."""
        shop, people = self.catalogue, self.people
        match = (style_match(shop, people, user, item) - self.match_scale[0]) / self.match_scale[1]
        price = (price_match(shop, people, user, item) - self.price_scale[0]) / self.price_scale[1]
        return {
            "style": STYLE_SPREAD * match,
            "price": PRICE_SPREAD * price,
            "quality": QUALITY_SPREAD * shop.quality[item],
            "category": CATEGORY_SPREAD * people.category_liking[user, shop.category[item]],
            "keenness": KEENNESS_SPREAD * people.keenness[user],
            "position": -POSITION_SLOPE * np.log(position, dtype=np.float32),
        }

    def probability(self, user: np.ndarray, item: np.ndarray, position: np.ndarray) -> np.ndarray:
        """(n,) float32 click probability."""
        return sigmoid(self.bias + _sum(self.parts(user, item, position))).astype(np.float32)


def draw_people(catalogue: WorldCatalogue, users: int, rng: np.random.Generator) -> People:
    """Users with tastes; age moves category tastes a little, and no other attribute of a user is informative."""
    categories = len(catalogue.category_names)
    age = rng.choice(len(AGE_BANDS), users, p=(0.16, 0.26, 0.22, 0.16, 0.12, 0.08))
    general = rng.normal(0, 0.4, categories)
    leaning = general + rng.normal(0, 0.35, (len(AGE_BANDS), categories))[age] + rng.normal(0, 1.1, (users, categories))
    taste = np.exp(leaning)
    liking = leaning - general
    count = rng.choice(np.arange(1, MAX_LOOKS + 1), users, p=(0.35, 0.4, 0.25))
    # users like what exists: a look is some item's position in taste space, moved a little
    looks = catalogue.taste[rng.integers(len(catalogue.taste), size=(users, MAX_LOOKS))]
    looks = looks + rng.normal(0, 0.1, looks.shape).astype(np.float32)
    looks = np.where(np.arange(MAX_LOOKS)[None, :, None] < count[:, None, None], looks, looks[:, :1])
    activity = np.exp(np.clip(rng.normal(0, 1.0, users), -2.05, 2.05))
    return People(
        user_id=200_000 + np.arange(users, dtype=np.int64),
        age_band=age,
        activity=activity / activity.sum(),
        category_taste=taste / taste.sum(axis=1, keepdims=True),
        category_liking=(liking / liking.std()).astype(np.float32),
        price_level=rng.normal(0, 1, users).astype(np.float32),
        keenness=rng.normal(0, 1, users).astype(np.float32),
        looks=looks,
        look_count=count,
    )


def draw_market(category: np.ndarray, late_category: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quality, popularity and launch of every item; see the fields of `WorldCatalogue`."""
    n = len(category)
    quality = rng.normal(0, 1, n)
    fame = 0.6 * quality + 0.8 * rng.normal(0, 1, n)
    popularity = np.empty(n)
    for index in range(category.max() + 1):
        rows = np.flatnonzero(category == index)
        rank = np.empty(len(rows))
        rank[np.argsort(-fame[rows], kind="stable")] = np.arange(1, len(rows) + 1)
        popularity[rows] = rank**-POPULARITY_EXPONENT
    late = rng.random(n) < LATE_SHARE
    launch = START + np.where(late, rng.uniform(0.4, 1.0, n) * SPAN, 0).astype(np.int64)
    opening = START + int(LATE_CATEGORY_AT * SPAN)
    after_opening = START + (rng.uniform(LATE_CATEGORY_AT, 1.0, n) * SPAN).astype(np.int64)
    newcomer = category == late_category
    launch[newcomer] = np.where(rng.random(n) < 0.6, opening, after_opening)[newcomer]
    best = popularity == 1.0  # each category's best item is there from its opening: no search is empty
    launch[best] = np.where(newcomer, opening, START)[best]
    return quality.astype(np.float32), popularity, launch


def style_match(catalogue: WorldCatalogue, people: People, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """(n,) float32 minus the distance in taste space from the item to the user's nearest look; not yet scaled."""
    place, looks = catalogue.taste[item], people.looks[user]
    squares = (looks**2).sum(axis=2) - 2 * np.einsum("nld,nd->nl", looks, place) + (place**2).sum(axis=1)[:, None]
    return -np.sqrt(np.maximum(squares.min(axis=1), 0))


def price_match(catalogue: WorldCatalogue, people: People, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """(n,) float32 minus the distance between the item's price level and the user's; not yet scaled."""
    return -np.abs(catalogue.price_level[item] - people.price_level[user])


def calibrate(
    catalogue: WorldCatalogue,
    people: People,
    *,
    session: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    position: np.ndarray,
) -> ClickRule:
    """Measure the rule's scales on sample impressions, and set its bias so that they are clicked at the rate `CTR`."""
    match, price = style_match(catalogue, people, user, item), price_match(catalogue, people, user, item)
    match_scale, price_scale = _scale(match, session), _scale(price, session)
    unbiased = ClickRule(catalogue=catalogue, people=people, bias=0.0, match_scale=match_scale, price_scale=price_scale)
    logit = _sum(unbiased.parts(user, item, position)).astype(np.float64)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logit + middle).mean() < CTR else (low, middle)
    return replace(unbiased, bias=low)


def _sum(parts: dict[str, np.ndarray]) -> np.ndarray:
    return np.sum(list(parts.values()), axis=0)


def _scale(values: np.ndarray, session: np.ndarray) -> tuple[float, float]:
    """Mean of all, and standard deviation within sessions."""
    count = np.maximum(np.bincount(session), 1)
    within = values - (np.bincount(session, values) / count)[session]
    freedom = max(len(values) - len(np.unique(session)), 1)
    return float(values.mean()), max(float(np.sqrt((within**2).sum() / freedom)), 1e-6)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)); logits here are far from overflow."""
    return 1 / (1 + np.exp(-logit))
