"""Choosing what to show while learning: bandits on a shop front whose truth is known.

Every policy here is a table of probabilities, a row for each kind of visitor and a column for
each item, made from what a learner believes. So propensities are known, and the value of what is
shown is computed, not drawn. All policies share one learner; they differ in what they do with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from recbal_utils import _inputs, bandit
from recbal_utils.errors import RecbalError

Choice = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
TASTE, APPEAL = 0.7, 0.6  # standard deviations of the parts of the true log-odds


@dataclass(frozen=True)
class Shop:
    """A world with features of its visitors, and the log it starts from.

    Parameters
    ----------
    world : bandit.World
    features : ndarray of shape (n_kinds, d)
        The first column is 1.
    first : ndarray of shape (n_kinds, n_items)
        The policy that made the first log: popular items first, whoever comes.
    tail : ndarray of bool, shape (n_items,)
        The half of the items which that policy shows least.
    """

    world: bandit.World
    features: np.ndarray
    first: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True)
class Run:
    """What a policy showed.

    Attributes
    ----------
    rounds : DataFrame indexed by round, from 1
        `value` (true click rate of what the policy shows), `regret` (clicks missed in the round
        against the best item for everyone), `tail` (share of impressions).
    log : DataFrame
        `round`, `kind`, `item`, `propensity`, `click`: the first log is not in it.
    shown, clicks : ndarray of shape (n_items,)
        Totals of `log`.
    mean : ndarray of shape (n_kinds, n_items)
        What the learner believes in the end.
    """

    rounds: pd.DataFrame
    log: pd.DataFrame
    shown: np.ndarray
    clicks: np.ndarray
    mean: np.ndarray


def shop(n_kinds=20, n_items=40, *, dimension=4, rate=0.03, zipf=1.5, seed=0) -> Shop:
    """Draw a shop: log-odds are an item's appeal plus the visitor's features times its taste.

    Parameters
    ----------
    n_kinds, n_items, dimension : int
        `dimension` features beside the constant.
    rate : float in (0, 1)
        Mean click rate of items shown at random.
    zipf : float
        The first log shows the item of rank r in proportion to r to the power -zipf. Ranks are
        drawn without regard to appeal.
    seed : int

    Raises
    ------
    RecbalError
        If a number is out of range.
    """
    n_kinds, n_items = _inputs.count(n_kinds, "n_kinds", 2), _inputs.count(n_items, "n_items", 2)
    dimension = _inputs.count(dimension, "dimension", 1)
    if not 0 < rate < 1 or not 0 <= zipf < np.inf:
        raise RecbalError(f"rate is {rate!r}, zipf {zipf!r}: give a rate in (0, 1), zipf from 0.")
    rng = np.random.default_rng([_inputs.count(seed, "seed", 0), 18])
    features = np.hstack([np.ones((n_kinds, 1)), rng.standard_normal((n_kinds, dimension))])
    tastes = TASTE * rng.standard_normal((dimension, n_items)) / np.sqrt(dimension)
    log_odds = features[:, 1:] @ tastes + APPEAL * rng.standard_normal(n_items)
    share = rng.dirichlet(np.full(n_kinds, 5.0))
    intercept = np.log(rate)
    for _ in range(50):
        intercept += np.log(rate / (share @ expit(log_odds + intercept).mean(axis=1)))
    weight = rng.permutation(np.arange(1, n_items + 1) ** -float(zipf))
    first = np.tile(weight / weight.sum(), (n_kinds, 1))
    tail = np.argsort(np.argsort(weight)) < n_items // 2
    return Shop(bandit.World(share, expit(log_odds + intercept)), features, first, tail)


# --- policies -------------------------------------------------------------------------------


def greedy(mean, sd, rng) -> np.ndarray:
    """Show each kind the item of the highest mean: exploit, never explore."""
    return _one_hot(mean)


def uniform(mean, sd, rng) -> np.ndarray:
    """Show every item alike."""
    return np.full(mean.shape, 1 / mean.shape[1])


def linucb(alpha=1.0) -> Choice:
    """Show the item of the highest upper bound, mean + alpha sd.

    References
    ----------
    L. Li, W. Chu, J. Langford and R. E. Schapire, "A Contextual-Bandit Approach to Personalized
    News Article Recommendation", WWW 2010 (the disjoint model).
    """
    alpha = _at_least_zero(alpha, "alpha")
    return lambda mean, sd, rng: _one_hot(mean + alpha * sd)


def thompson(scale=1.0, *, draws=100) -> Choice:
    """Show an item as often as its rate is the largest among rates drawn from what is believed.

    Parameters
    ----------
    scale : float
        Factor of the standard deviations, at least 0.
    draws : int
        Draws for each kind in a round. The policy of the round is the share of them in which an
        item is the largest: a table, so that the propensity of what is shown is known exactly.

    References
    ----------
    S. Agrawal and N. Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs",
    ICML 2013.
    """
    scale, draws = _at_least_zero(scale, "scale"), _inputs.count(draws, "draws", 1)

    def choice(mean, sd, rng):
        drawn = rng.standard_normal((draws, *mean.shape), dtype=np.float32)
        drawn *= (scale * sd).astype(np.float32)
        drawn += mean.astype(np.float32)
        best = drawn.argmax(axis=2)
        n_kinds, n_items = mean.shape
        cell = (best + n_items * np.arange(n_kinds)).ravel()
        return np.bincount(cell, minlength=mean.size).reshape(mean.shape) / draws

    return choice


def with_floor(choice: Choice, share: float) -> Choice:
    """Leave a share of the impressions to chance, the rest to another policy.

    Raises
    ------
    RecbalError
        If the share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise RecbalError(f"share is {share!r}; it must lie in [0, 1].")
    return lambda *seen: (1 - share) * choice(*seen) + share * uniform(*seen)


# --- learning -------------------------------------------------------------------------------


class Ridge:
    """A linear model of the click rate for each item, and how sure it is.

    Parameters
    ----------
    features : ndarray of shape (n_kinds, d)
    n_items : int
    centre : float
        Click rate believed of an item never shown.
    noise : float
        Standard deviation of a click around its rate.
    prior : float
        Standard deviation, before any click, of each coefficient.

    Notes
    -----
    The posterior of Bayesian linear regression with normal noise, an approximation for clicks.
    """

    def __init__(self, features, n_items, *, centre, noise, prior):
        self.features, self.centre, self.noise = features, centre, noise
        d = features.shape[1]
        self.ridge = (noise / prior) ** 2 * np.eye(d)
        self._squares = (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
        self.shown, self.clicks = np.zeros((2, len(features), n_items))

    def learn(self, shown, clicks):
        """Add counts of shape (n_kinds, n_items)."""
        self.shown, self.clicks = self.shown + shown, self.clicks + clicks

    def beliefs(self, weight=1.0):
        """Return mean and standard deviation of each click rate, of shape (n_kinds, n_items).

        Parameters
        ----------
        weight : float or ndarray of shape (n_items,)
            How often a row of each item counts.
        """
        x = self.features
        shown, clicks = self.shown * weight, self.clicks * weight
        A = (shown.T @ self._squares).reshape(-1, *self.ridge.shape) + self.ridge
        b = (clicks - self.centre * shown).T @ x
        inverse = np.linalg.inv(A)
        mean = self.centre + x @ (inverse @ b[:, :, None])[:, :, 0].T
        variance = self._squares @ inverse.reshape(len(inverse), -1).T
        return mean, self.noise * np.sqrt(variance)


def play(
    shop: Shop,
    choice: Choice,
    *,
    rounds=100,
    visitors=200,
    before=2000,
    balance=None,
    keep_rate=1.0,
    prior=0.05,
    seed=0,
) -> Run:
    """Show, collect clicks, learn, and show again.

    Parameters
    ----------
    shop : Shop
    choice : callable (mean, sd, rng) -> policy, arrays of shape (n_kinds, n_items)
        See `greedy`, `thompson`, `linucb`.
    rounds, visitors : int
        The learner learns after each round of `visitors`.
    before : int
        Impressions of the first log.
    balance : {None, "items"}
        "items": every item shown so far has the same total weight in learning.
    keep_rate : float in (0, 1]
        Share of unclicked impressions that the learner sees, each weighted by its inverse: the
        fixed ratio, undone.
    prior : float
        As in `Ridge`.
    seed : int
        One seed gives runs of different policies the same first log.

    Raises
    ------
    RecbalError
        If a setting is out of range.
    """
    rounds, visitors = _inputs.count(rounds, "rounds", 1), _inputs.count(visitors, "visitors", 1)
    before = _inputs.count(before, "before", 1)
    if balance not in (None, "items") or not 0 < keep_rate <= 1:
        raise RecbalError(f"balance is {balance!r}, keep_rate {keep_rate!r}: see the description.")
    rng = np.random.default_rng([_inputs.count(seed, "seed", 0), 2])
    shown, clicks = _draw(shop.world, shop.first, before, rng)
    centre = (clicks.sum() + 1) / (before + 2)
    noise = np.sqrt(centre * (1 - centre))
    ridge = Ridge(shop.features, shown.shape[1], centre=centre, noise=noise, prior=prior)
    ridge.learn(*_thinned(shown, clicks, keep_rate, rng))
    told, parts, total = [], [], np.zeros((2, shown.shape[1]))
    for number in range(1, rounds + 1):
        table = choice(*ridge.beliefs(_item_weights(ridge, balance)), rng)
        shown, clicks = _draw(shop.world, table, visitors, rng)
        ridge.learn(*_thinned(shown, clicks, keep_rate, rng))
        total += shown.sum(axis=0), clicks.sum(axis=0)
        told.append(_told(shop, table, shown, visitors))
        parts.append((np.full(visitors, number), *_rows(table, shown, clicks)))
    columns = ["round", "kind", "item", "propensity", "click"]
    log = pd.DataFrame(
        dict(zip(columns, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    )
    index = pd.RangeIndex(1, rounds + 1, name="round")
    mean = ridge.beliefs(_item_weights(ridge, balance))[0]
    return Run(pd.DataFrame(told, index=index), log, *total, mean)


def summary(shop: Shop, run: Run) -> pd.Series:
    """Say what a run earned, and how evenly its log speaks of the items.

    Returns
    -------
    pandas.Series
        `regret` (clicks missed, a thousand visitors, all rounds), `last` (the same over the last
        fifth), `tail shown` and `tail clicks` (shares), `effective items` (1 over the sum of
        squared shares of impressions), `tail error` (root mean square of believed minus true
        click rate of tail items, over kinds), `tail ratio` (mean believed over mean true rate).
    """
    share = run.shown / run.shown.sum()
    visitors = len(run.log) / len(run.rounds)
    believed, true = run.mean[:, shop.tail], shop.world.click[:, shop.tail]
    weight = shop.world.share
    squared = weight @ ((believed - true) ** 2).mean(axis=1)
    missed = 1000 * run.rounds["regret"] / visitors
    return pd.Series(
        {
            "regret": missed.mean(),
            "last": missed.iloc[-max(1, len(missed) // 5) :].mean(),
            "tail shown": share[shop.tail].sum(),
            "tail clicks": run.clicks[shop.tail].sum() / run.clicks.sum(),
            "effective items": 1 / np.sum(share**2),
            "tail error": np.sqrt(squared),
            "tail ratio": (weight @ believed.mean(axis=1)) / (weight @ true.mean(axis=1)),
        }
    )


class DiscountedThompson:
    """Thompson sampling for few arms whose rewards change: old ones are forgotten.

    Parameters
    ----------
    n_arms : int
    discount : float in (0, 1]
        Weight of a reward after one more round.
    seed : int

    Notes
    -----
    Every arm is tried once. Then a mean is drawn for each from a normal distribution around its
    discounted mean, with the discounted variance of all rewards over the arm's discounted count.
    """

    def __init__(self, n_arms, *, discount=0.9, seed=0):
        self.n_arms = _inputs.count(n_arms, "n_arms", 1)
        if not 0 < discount <= 1:
            raise RecbalError(f"discount is {discount!r}; it must lie above 0, at most 1.")
        self.discount = discount
        self._rng = np.random.default_rng(seed)
        self._count, self._sum, self._square = np.zeros((3, self.n_arms))

    def choose(self) -> int:
        """Return the arm of the next round."""
        if (untried := np.flatnonzero(self._count == 0)).size:
            return int(self._rng.choice(untried))
        mean = self._sum / self._count
        overall = self._sum.sum() / self._count.sum()
        variance = max(self._square.sum() / self._count.sum() - overall**2, 1e-300)
        return int(np.argmax(self._rng.normal(mean, np.sqrt(variance / self._count))))

    def update(self, arm, reward):
        """Remember the reward of an arm."""
        for total, value in ((self._count, 1), (self._sum, reward), (self._square, reward**2)):
            total *= self.discount
            total[arm] += value


# --- how it is put together -----------------------------------------------------------------


def _one_hot(score):
    table = np.zeros(score.shape)
    table[np.arange(len(score)), np.argmax(score, axis=1)] = 1
    return table


def _draw(world, table, n, rng):
    """Impressions and clicks of each kind and item, of n visitors."""
    chance = (world.share[:, None] * table).ravel()
    shown = rng.multinomial(n, chance / chance.sum()).reshape(table.shape)
    return shown, rng.binomial(shown, world.click)


def _thinned(shown, clicks, keep_rate, rng):
    if keep_rate == 1:
        return shown, clicks
    kept = rng.binomial(shown - clicks, keep_rate)
    return clicks + kept / keep_rate, clicks


def _item_weights(ridge, balance):
    if balance is None:
        return 1.0
    per_item = ridge.shown.sum(axis=0)
    return per_item.sum() / (np.count_nonzero(per_item) * np.maximum(per_item, 1e-9))


def _told(shop, table, shown, visitors):
    value = bandit.value(shop.world, table)
    best = shop.world.share @ shop.world.click.max(axis=1)
    return {
        "value": value,
        "regret": visitors * (best - value),
        "tail": shown[:, shop.tail].sum() / visitors,
    }


def _rows(table, shown, clicks):
    """Kind, item, propensity and click of each impression, clicked ones of a pair first."""
    kind, item = np.nonzero(shown)
    times, clicked = shown[kind, item], clicks[kind, item]
    cell = np.repeat(np.arange(len(times)), times)
    place = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    click = (place < clicked[cell]).astype(np.int64)
    return kind[cell], item[cell], table[kind, item][cell], click


def _at_least_zero(value, name):
    if not 0 <= value < np.inf:
        raise RecbalError(f"{name} is {value!r}; give a number of 0 or more.")
    return float(value)
