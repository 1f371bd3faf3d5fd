"""A simulated social feed with known truth: what a recommender does to authors and readers.

Communities of readers, authors with a heavy tail of followers, posts that are passed on, and a
recommender that learns from the clicks on what it showed. How likely a community likes an author
is known, so what readers get can be told from what the log says. Authors' quality is independent of
their followers: a recommender that knew the truth would not care who is big.

>>> world = make_world(seed=0)
>>> learnt = play(world, by_rate(), explore=0.1, seed=0)
>>> bool(learnt.rounds["welfare"].iloc[-1] > learnt.rounds["welfare"].iloc[0])
True
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from recbal_utils import _inputs
from recbal_utils._inequality import gini
from recbal_utils.errors import RecbalError

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
GENERATIONS = 6  # how often a post is passed on at most
SKEW = 1.0  # standard deviation of the logarithm of a post's reach
ABROAD = 0.2  # share of those it reaches that belong to any other community


@dataclass(frozen=True)
class World:
    """What is true, whatever a recommender shows.

    Attributes
    ----------
    like : ndarray of shape (n_communities, n_authors)
        Probability that a reader of the community likes, and so clicks, a post of the author.
    followers : ndarray of shape (n_authors,)
        Shares of all followers, summing to 1.
    small : ndarray of bool, shape (n_authors,)
        The half with the fewest followers.
    readers : int
        In each community.
    """

    like: np.ndarray
    followers: np.ndarray
    small: np.ndarray
    readers: int


@dataclass(frozen=True)
class Run:
    """What happened.

    Attributes
    ----------
    rounds : DataFrame indexed by round, from 1
        Of the places the recommender filled in the round: `welfare` (mean of the true
        probability of a like), `small` (share that small authors got), `authors` (shown at all),
        `gini` (over authors).
    places, views, clicks : ndarray of shape (n_communities, n_authors)
        Totals over the rounds: places filled; views and clicks in the log, those before the
        first round and those by sharing included.
    passed_on : ndarray of shape (n_rounds, n_authors)
        Views that each post got by sharing: an author writes one post a round.
    """

    rounds: pd.DataFrame
    places: np.ndarray
    views: np.ndarray
    clicks: np.ndarray
    passed_on: np.ndarray


def make_world(
    *,
    n_authors: int = 300,
    n_communities: int = 20,
    readers: int = 50,
    topics: int = 10,
    tail: float = 1.0,
    quality: float = 0.7,
    taste: float = 0.8,
    base: float = -3.0,
    seed: int = 0,
) -> World:
    """Draw a world.

    Parameters
    ----------
    n_authors, n_communities, readers, topics : int
        `readers` in each community; each author writes on one topic.
    tail : float
        The author of rank r has followers in proportion to r to the power -tail.
    quality, taste : float
        Standard deviation, in log-odds of a like, of authors and of a community's liking for a
        topic.
    base : float
        Log-odds of a like of an average author.
    seed : int

    Raises
    ------
    RecbalError
        If a number is out of range.
    """
    n_authors = _inputs.count(n_authors, "n_authors", 2)
    n_communities = _inputs.count(n_communities, "n_communities", 1)
    rng = np.random.default_rng([seed, 1])
    followers = np.arange(1, n_authors + 1) ** -_at_least_zero(tail, "tail")
    followers = rng.permutation(followers / followers.sum())
    topic = rng.integers(_inputs.count(topics, "topics", 1), size=n_authors)
    likings = rng.normal(0, _at_least_zero(taste, "taste"), (n_communities, topics))
    merit = rng.normal(0, _at_least_zero(quality, "quality"), n_authors)
    like = expit(base + merit + likings[:, topic])
    small = np.argsort(np.argsort(followers)) < n_authors // 2
    return World(like, followers, small, _inputs.count(readers, "readers", 1))


# --- what a recommender learns --------------------------------------------------------------


def by_clicks(power: float = 0.0, prior: float = 0.01) -> Score:
    """Learn from clicks alone, each author's weighted by 1 / (its clicks) to a power.

    Parameters
    ----------
    power : float
        0: every click counts alike. 1: a sample balanced over authors, in which each has the
        same total weight.
    prior : float
        Clicks added to each pair of community and author, above 0. The more, the less a balanced
        sample trusts authors of few clicks.

    Returns
    -------
    callable (clicks, views) -> scores, all of shape (n_communities, n_authors)

    Raises
    ------
    RecbalError
        If power is negative, or prior not above 0.
    """
    power, prior = _at_least_zero(power, "power"), _at_least_zero(prior, "prior")
    if prior == 0:
        raise RecbalError("prior is 0, which makes shares of no clicks: give a small number.")

    def score(clicks, views):
        known = clicks + prior
        return known / known.sum(axis=0) ** power

    return score


def by_rate(strength: float = 20.0) -> Score:
    """Learn from clicks and views: the share of views that were clicked, shrunk.

    Parameters
    ----------
    strength : float
        Views by which a community's rate is pulled to the author's rate over all communities,
        and that to the rate of everything.

    Returns
    -------
    callable (clicks, views) -> scores
    """
    strength = _at_least_zero(strength, "strength")

    def score(clicks, views):
        overall = clicks.sum() / max(views.sum(), 1)
        author = (clicks.sum(axis=0) + strength * overall) / (views.sum(axis=0) + strength)
        return (clicks + strength * author) / (views + strength)

    return score


def knowing(world: World) -> Score:
    """Score by the truth, which no recommender has: the best that can be done."""
    return lambda clicks, views: world.like


def blindly(clicks, views) -> np.ndarray:
    """Score all alike, so that places go to authors at random."""
    return np.zeros_like(clicks, dtype=float)


# --- the loop -------------------------------------------------------------------------------


def play(
    world: World,
    score: Score,
    *,
    rounds: int = 20,
    places: int = 10,
    explore: float = 0.0,
    before: int = 3,
    spread: float = 2.0,
    seed: int = 0,
) -> Run:
    """Let a recommender show, collect clicks, learn, and show again.

    Parameters
    ----------
    world : World
    score : callable (clicks, views) -> scores of shape (n_communities, n_authors)
        See `by_clicks`, `by_rate`. Equal scores are ordered at random.
    rounds : int
    places : int
        Posts shown to each reader in a round, each of another author but for explored ones.
    explore : float in [0, 1]
        Share of places filled by authors drawn at random, rounded to whole places.
    before : int
        Rounds before the first one in which authors are shown in proportion to followers.
    spread : float
        Mean number of readers to whom a click passes the post on; by post it is log-normal, so
        that few posts go far. One in five is of any community. Nobody
        sees a post twice in a round.
    seed : int
        One seed gives runs of different scores the same start.

    Returns
    -------
    Run

    Raises
    ------
    RecbalError
        If a setting is out of range.
    """
    rounds, places = _inputs.count(rounds, "rounds", 1), _inputs.count(places, "places", 1)
    if not 0 <= explore <= 1 or places > world.like.shape[1]:
        raise RecbalError(
            f"explore is {explore!r} and places {places}: explore must lie in [0, 1], and there "
            f"are {world.like.shape[1]} authors to show."
        )
    spread = _at_least_zero(spread, "spread")
    rng = np.random.default_rng([seed, 2])
    views, clicks = np.zeros((2, *world.like.shape))
    for _ in range(_inputs.count(before, "before", 0)):
        _see(world, _drawn(world, places, world.followers, rng), spread, views, clicks, rng)
    shown, told, passed_on = np.zeros(world.like.shape), [], []
    for _ in range(rounds):
        filled = _filled(world, score(clicks, views), places, explore, rng)
        total = _see(world, filled, spread, views, clicks, rng)
        shown += filled
        told.append(_told(world, filled))
        passed_on.append((total - filled).sum(axis=0))
    index = pd.RangeIndex(1, rounds + 1, name="round")
    return Run(pd.DataFrame(told, index=index), shown, views, clicks, np.array(passed_on))


def _filled(world, scores, places, explore, rng):
    """How many readers of each community get each author in a round."""
    free = round(explore * places)
    order = np.lexsort((rng.random(scores.shape), -scores), axis=1)
    filled = np.zeros(world.like.shape)
    np.put_along_axis(filled, order[:, : places - free], world.readers, axis=1)
    everyone = np.full(world.like.shape[1], 1 / world.like.shape[1])
    return np.minimum(filled + _drawn(world, free, everyone, rng), world.readers)


def _drawn(world, places, chance, rng):
    """Readers who get each author when every place is drawn; nobody gets an author twice."""
    drawn = rng.multinomial(places * world.readers, chance, size=len(world.like))
    return np.minimum(drawn, world.readers).astype(float)


def _see(world, filled, spread, views, clicks, rng):
    """Add the views and clicks of a round, those by sharing included; return the views."""
    reach = spread * rng.lognormal(-(SKEW**2) / 2, SKEW, world.like.shape[1])
    seen, total = filled, np.zeros_like(filled)
    for _ in range(GENERATIONS):
        liked = rng.binomial(seen.astype(int), world.like)
        total += seen
        clicks += liked
        reached = (1 - ABROAD) * liked + ABROAD * liked.mean(axis=0)
        seen = np.minimum(rng.poisson(reached * reach), world.readers - total)
    views += total
    return total


def _told(world, filled):
    by_author = filled.sum(axis=0)
    return {
        "welfare": (filled * world.like).sum() / filled.sum(),
        "small": by_author[world.small].sum() / by_author.sum(),
        "authors": int((by_author > 0).sum()),
        "gini": gini(by_author),
    }


def _at_least_zero(value, name):
    if not 0 <= value < np.inf:
        raise RecbalError(f"{name} is {value!r}; give a number of 0 or more.")
    return float(value)
