"""Is a difference between two models real? Paired bootstrap over users, and over training seeds if there are several.

One resample draws as many users as there are, with replacement, and takes all impressions of a user together, because
the impressions of one user are not independent. Both models are measured on the same resamples, so what they share
cancels. `Resamples` is drawn once and `auc_draws` / `gauc_draws` run once for each model; `difference` is then cheap,
and many pairs of models cost little.

With K > 1 paired seeds, each resample also draws K of the K seed differences with replacement (both factors at once:
Owen 2007, "The pigeonhole bootstrap", arXiv:0712.1111, which errs on the wide side if seeds and users interact). Few
seeds make a plain bootstrap too narrow twice over (Hesterberg 2015, "What teachers should know about the bootstrap",
arXiv:1411.5279, on narrowness bias), and both are fixed here:
- their spread is short by sqrt((K-1)/K), so each seed's deviation from the mean is scaled by sqrt(K/(K-1)) first;
- their tails are a normal's, where a spread known from K numbers needs Student's t. Each draw's deviation is divided by
  sqrt(chi2/df) of its own, with Satterthwaite's degrees of freedom df = (V_users + V_seeds)^2 / (V_seeds^2 / (K-1)). As
  the seeds agree, df grows and the division fades; with one seed there is none.
The interval is symmetric about the observed difference: on either side the 95 % quantile of the draws' absolute
deviations. The p-value counts the deviations at least as large as the difference, so p < 0.05 if the interval excludes
0. Percentile, basic and symmetric intervals covered alike in simulation; the symmetric one merely changes its sign
when the models are swapped. Simulated coverage of the 95 % interval with 3 seeds (as in tests/test_intervals.py): 0.94-
0.96 without seed noise and with as much of it as user noise (a plain percentile bootstrap: 0.91), 0.92 with three times
as much (plain: 0.79). With 2 seeds 0.95-0.97, at the price of wide intervals. One seed gives no information about other seeds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from metrics.auc import checked, negatives_below, sort_key
from metrics.gauc import Weight, dense_codes, group_auc, group_weights

MAX_POOLS = 20_000  # more users than this are pooled at random: 20,000 pools give the spread to within 0.5 %
MAX_WEIGHTED_ROWS = 400_000_000  # rows x resamples of one AUC; beyond it, fewer resamples
MIN_RESAMPLES = 200  # of an AUC, however many rows
CHUNK = 2_000_000  # numbers held at once


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference with its 95 % interval and two-sided p-value (never 0: at least 1 / (resamples + 1))."""

    mean: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One metric of K seeds: on the data itself and on each resample of the users."""

    point: np.ndarray  # (K,) float64
    drawn: np.ndarray  # (K, R) float64; nan if a resample has one class only
    seed: int  # of the resamples; draws of different resamples cannot be compared


@dataclass(frozen=True, kw_only=True)
class GaucSums:
    """Sums that give GAUC on any resample of the users: one per pool, over its scored groups (a pool is a user, up to 20,000 users)."""

    won: np.ndarray  # (K, P) of weight x AUC, for each seed
    weight: np.ndarray  # (P,) of weights, the same for every seed

    @property
    def point(self) -> np.ndarray:
        """(K,) GAUC of each seed on the data itself."""
        total = self.weight.sum()
        return self.won.sum(1) / total if total > 0 else np.full(len(self.won), np.nan)


class Resamples:
    """How often each user occurs in each resample: multinomial counts, the same for every model that is compared.

    Users are numbered in the order of their ids, so the order of the rows never matters. Memory: at most
    resamples x 20,000 bytes; more users are pooled at random, and complete pools drawn (pools of independent users are
    independent too).

    Args:
        user: (I,) ids of any sortable kind.
        resamples: how many.
        seed: the same seed and users give the same resamples.

    Raises:
        ValueError: fewer than two users, or fewer than one resample.
    """

    def __init__(self, user: np.ndarray, resamples: int = 2000, seed: int = 0):
        ids, self.user = dense_codes(np.asarray(user))  # (I,)
        if len(ids) < 2:
            raise ValueError(f"{len(ids)} user: an interval resamples users and needs at least 2")
        if resamples < 1:
            raise ValueError(f"{resamples} resamples; give at least 1")
        random = np.random.default_rng([seed, 0])
        pools = min(len(ids), MAX_POOLS)
        self.pool_of_user = np.arange(len(ids)) if pools == len(ids) else random.permutation(len(ids)) % pools  # (U,)
        self.seed = seed
        # uint8 is enough: with P pools a count above 255 has probability below P^-255 / 256!
        self.counts = np.empty((resamples, pools), np.uint8)  # (R, P)
        for row in self.counts:
            row[:] = np.bincount(random.integers(pools, size=pools), minlength=pools)


def auc_draws(click: np.ndarray, predictions: np.ndarray, resamples: Resamples) -> Draws:
    """Exact AUC of each seed, weighted by how often a row's user was drawn, on every resample.

    Predictions are sorted once per seed. Above 200,000 rows x 2000 resamples only the first resamples are used (never fewer
    than 200), which bounds time and memory.

    Args:
        click: (I,) 0 or 1.
        predictions: (K, I), or (I,) for one seed.
        resamples: over the users of the same I rows.
    """
    predictions = _two_axes(predictions, resamples)
    used = max(MIN_RESAMPLES, MAX_WEIGHTED_ROWS // predictions.shape[1])
    pairs = [_weighted_auc(click, score, resamples, resamples.counts[:used]) for score in predictions]
    return Draws(point=np.array([point for point, _ in pairs]), drawn=np.stack([d for _, d in pairs]), seed=resamples.seed)


def gauc_draws(click: np.ndarray, predictions: np.ndarray, group: np.ndarray, resamples: Resamples, *, weight: Weight = "session") -> Draws:
    """GAUC of each seed on every resample: `gauc_sums`, resampled."""
    return resampled(gauc_sums(click, predictions, group, resamples, weight=weight), resamples)


def gauc_sums(
    click: np.ndarray, predictions: np.ndarray, group: np.ndarray, resamples: Resamples, *, weight: Weight = "session"
) -> GaucSums:
    """The sums over users' groups from which GAUC is computed. All groups of a user are drawn together.

    Args:
        click: (I,) 0 or 1.
        predictions: (K, I), or (I,) for one seed.
        group: (I,) ids; each group belongs to one user.
        resamples: over the users of the same I rows.
        weight: as in `metrics.gauc.gauc`.

    Raises:
        ValueError: a group holds rows of two users.
    """
    predictions = _two_axes(predictions, resamples)
    ids, code = dense_codes(np.asarray(group))
    owner = np.zeros(len(ids), np.int64)
    owner[code] = resamples.user
    if (owner[code] != resamples.user).any():
        raise ValueError(f"group {ids[code[(owner[code] != resamples.user).argmax()]]} holds rows of two users")
    pool, pools = resamples.pool_of_user[owner], resamples.counts.shape[1]
    won, total = [], np.zeros(pools)
    for score in predictions:
        groups = group_auc(click, score, group)
        scored = ~np.isnan(groups.auc)
        weights = np.where(scored, group_weights(groups, weight), 0.0)
        won.append(np.bincount(pool, weights=np.where(scored, groups.auc, 0.0) * weights, minlength=pools))
        total = np.bincount(pool, weights=weights, minlength=pools)
    return GaucSums(won=np.stack(won), weight=total)


def resampled(sums: GaucSums, resamples: Resamples) -> Draws:
    """GAUC of each seed on every resample: one matrix product, a ratio of sums."""
    per_pool = np.stack([*sums.won, sums.weight], axis=1)  # (P, K + 1)
    drawn = np.concatenate([counts.astype(np.float64) @ per_pool for counts in _chunks(resamples.counts, len(per_pool))])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = drawn[:, :-1] / drawn[:, -1:]
    return Draws(point=sums.point, drawn=ratio.T, seed=resamples.seed)


def difference(a: Draws, b: Draws, *, confidence: float = 0.95) -> Interval:
    """Interval of a minus b over paired seeds, as described in the module's docstring. nan if either metric is undefined.

    Raises:
        ValueError: the draws are not of the same resamples and number of seeds.
    """
    if a.drawn.shape != b.drawn.shape or a.seed != b.seed:
        raise ValueError(
            f"draws differ: {a.drawn.shape} with seed {a.seed}, {b.drawn.shape} with seed {b.seed}; pair the seeds of "
            "both models and draw both from one Resamples"
        )
    point = a.point - b.point  # (K,)
    mean = float(point.mean())
    drawn = a.drawn - b.drawn
    drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if np.isnan(mean) or drawn.shape[1] == 0:
        return Interval(mean=mean, low=float("nan"), high=float("nan"), p_value=float("nan"))
    deviation = np.abs(_deviations(point, drawn, seed=a.seed))
    half = float(np.quantile(deviation, confidence))
    p_value = (1 + int((deviation >= abs(mean)).sum())) / (1 + len(deviation))
    return Interval(mean=mean, low=mean - half, high=mean + half, p_value=p_value)


def difference_of_auc(
    click: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    user: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """AUC of a minus AUC of b: predictions (K, I) or (I,), click and user (I,). For many pairs share the `Resamples`."""
    shared = Resamples(user, resamples, seed)
    return difference(auc_draws(click, predictions_a, shared), auc_draws(click, predictions_b, shared))


def difference_of_gauc(
    click: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    group: np.ndarray,
    user: np.ndarray,
    *,
    weight: Weight = "session",
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """GAUC of a minus GAUC of b: predictions (K, I) or (I,), the rest (I,). For many pairs share the `Resamples`."""
    shared = Resamples(user, resamples, seed)
    a = gauc_draws(click, predictions_a, group, shared, weight=weight)
    return difference(a, gauc_draws(click, predictions_b, group, shared, weight=weight))


def _deviations(point: np.ndarray, drawn: np.ndarray, *, seed: int) -> np.ndarray:
    """(R,) how far the difference would fall from the truth in each resample: point (K,), drawn (K, R)."""
    seeds, count = drawn.shape
    over_users = drawn.mean(axis=0) - point.mean()
    if seeds == 1:
        return over_users
    random = np.random.default_rng([seed, 1])
    picked = random.integers(seeds, size=(count, seeds))
    apart = (drawn - drawn.mean(axis=0)) * np.sqrt(seeds / (seeds - 1))
    deviation = over_users + np.take_along_axis(apart.T, picked, axis=1).mean(axis=1)
    of_users, of_seeds = over_users.var(), point.var(ddof=1) / seeds
    if of_seeds == 0:
        return deviation
    freedom = (seeds - 1) * (1 + of_users / of_seeds) ** 2
    return deviation / np.sqrt(random.chisquare(freedom, size=count) / freedom)


def _weighted_auc(click: np.ndarray, score: np.ndarray, resamples: Resamples, counts: np.ndarray) -> tuple[float, np.ndarray]:
    """The AUC itself and, (R,), with each row weighted by its user's count."""
    click, score = checked(click, score)
    pool = resamples.pool_of_user[resamples.user]
    key = sort_key(np.zeros(len(click), np.uint64), score, click)
    _, below, below_or_tied = negatives_below(key)
    # The keys carry no row numbers: sort the rows of each class by score, which is the order of the keys.
    of_clicks, of_others = (pool[rows][np.argsort(score[rows], kind="stable")] for rows in (click, ~click))
    tied = not np.array_equal(below, below_or_tied)
    exact = np.int32 if int(counts.max()) * len(click) < 2**31 else np.int64

    drawn = []
    for chunk in _chunks(counts, len(click)):
        seen = np.zeros((len(chunk), len(of_others) + 1), exact)  # weight of the non-clicks with smaller scores
        np.cumsum(np.take(chunk, of_others, axis=1), axis=1, dtype=exact, out=seen[:, 1:])
        weight = np.take(chunk, of_clicks, axis=1)
        won = np.einsum("rp,rp->r", weight, np.take(seen, below, axis=1), dtype=np.float64)
        if tied:
            also = np.einsum("rp,rp->r", weight, np.take(seen, below_or_tied, axis=1), dtype=np.float64)
            won = (won + also) / 2
        with np.errstate(invalid="ignore"):
            drawn.append(won / (weight.sum(axis=1, dtype=np.float64) * seen[:, -1]))
    pairs = len(of_clicks) * len(of_others)
    point = (int(below.sum()) + int(below_or_tied.sum())) / (2 * pairs) if pairs else float("nan")
    return point, np.concatenate(drawn)


def _chunks(counts: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """The resamples in pieces; with `width` numbers per resample, a piece stays within CHUNK numbers."""
    step = max(1, CHUNK // max(1, width))
    return (counts[start : start + step] for start in range(0, len(counts), step))


def _two_axes(predictions: np.ndarray, resamples: Resamples) -> np.ndarray:
    predictions = np.atleast_2d(np.asarray(predictions))
    if predictions.ndim != 2 or predictions.shape[1] != len(resamples.user):
        rows = len(resamples.user)
        raise ValueError(f"predictions have shape {predictions.shape}; give (seeds, {rows}), a column per impression")
    return predictions
