"""Clicks on results pages whose true attraction and examination are known.

A shopper looks at place k of the page with probability ``k ** -position_bias``, as in `simulate`,
clicks on what was looked at with the result's attraction, and buys what was clicked with a
probability of its own. What is asked, and how often, is a knob too.
"""

import numpy as np
import pandas as pd

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

CLICK_BY_GRADE = (0.03, 0.15, 0.40, 0.70)
BUY_BY_GRADE = (0.02, 0.10, 0.30, 0.50)
COLUMNS = ("query", "position", "item", "random", "shown", "clicks", "purchases")


def by_grade(grades: np.ndarray, levels=CLICK_BY_GRADE, popularity=None) -> np.ndarray:
    """Return a probability for each grade, lowered for what is seldom bought.

    Parameters
    ----------
    grades : ndarray of int, shape (n_queries, n_items)
    levels : sequence of float in [0, 1]
        The probability of grades 0, 1, 2, ...
    popularity : array-like of shape (n_items,), optional
        The probability is halved for the least popular item and kept for the most popular one, in
        between by rank.

    Returns
    -------
    ndarray of float, shape (n_queries, n_items)

    Raises
    ------
    RecbalError
        If a grade has no level, or a level is no probability.
    """
    levels = _inputs.numbers(levels, "levels")
    _inputs.check_probabilities(levels, "levels")
    grades = np.asarray(grades)
    if grades.min() < 0 or grades.max() >= len(levels):
        raise RecbalError(f"grades reach {grades.max()}, and there are {len(levels)} levels.")
    factor = 1.0 if popularity is None else 0.5 + 0.5 * pd.Series(popularity).rank(pct=True)
    return levels[grades] * np.asarray(factor)


def traffic(interest, n_words, exponent: float = 1.0) -> np.ndarray:
    """Return the share of all sessions that each query gets, by Zipf's law.

    Queries are ordered by `interest`, ten times less for each further word: short queries for
    what is bought often come first.

    Parameters
    ----------
    interest : array-like of shape (n_queries,)
        Not negative, such as purchases of what a query means.
    n_words : array-like of int, shape (n_queries,)
    exponent : float, default 1
        The query at place r gets a share in proportion to ``r ** -exponent``; 0 makes all alike.

    Returns
    -------
    ndarray of float, shape (n_queries,), which sums to 1
    """
    wanted = _inputs.numbers(interest, "interest") * 10.0 ** (1 - np.asarray(n_words))
    place = np.argsort(np.argsort(-wanted, kind="stable"), kind="stable") + 1
    share = place.astype(float) ** -float(exponent)
    return share / share.sum()


def examination(n_places: int, position_bias: float = 1.0) -> np.ndarray:
    """Return the probability that a shopper looks at places 1 to n."""
    return np.arange(1, _inputs.count(n_places, "n_places", 1) + 1.0) ** -float(position_bias)


def click_log(
    pages,
    share,
    click,
    buy,
    n_sessions=30_000,
    *,
    position_bias=1.0,
    pools=None,
    random_share=0.0,
    seed=0,
) -> pd.DataFrame:
    """Draw the sessions of a shop that shows one page a query, and random pages to a few.

    Parameters
    ----------
    pages : ndarray of int, shape (n_queries, n_places)
        What the shop shows, best first.
    share : array-like of shape (n_queries,)
        Share of the sessions with each query.
    click, buy : ndarray of float, shape (n_queries, n_items)
        Probability of a click once looked at, and of a purchase once clicked.
    n_sessions : int, default 30,000
    position_bias : float, default 1
        As for `examination`; 0 examines every place.
    pools : list of ndarray, optional
        For each query the items, at least as many as places, that random pages draw from.
    random_share : float in [0, 1)
        Share of the sessions with a random page.
    seed : int, default 0

    Returns
    -------
    pandas.DataFrame
        For each query, place (`position`, from 1), `item` and kind of page (`random`): how often
        it was `shown`, `clicks` and `purchases`. Only what was shown at least once.

    Raises
    ------
    RecbalError
        If a share is out of range, or random pages are asked for without pools.
    """
    if not 0 <= random_share < 1:
        raise RecbalError(f"random_share must lie in [0, 1); it is {random_share!r}.")
    if random_share and pools is None:
        raise RecbalError("random pages need pools: a list of items to draw from, for each query.")
    rng = np.random.default_rng(seed)
    pages = np.asarray(pages)
    sessions = rng.multinomial(_inputs.count(n_sessions, "n_sessions", 1), share)
    at_random = rng.binomial(sessions, random_share)
    parts = [_fixed_pages(pages, sessions - at_random)]
    if random_share:
        parts.append(_random_pages(rng, pools, at_random, pages.shape[1]))
    log = pd.concat(parts, ignore_index=True)
    log = log[log["shown"] > 0].reset_index(drop=True)
    seen = examination(pages.shape[1], position_bias)[log["position"] - 1]
    log["clicks"] = rng.binomial(log["shown"], seen * click[log["query"], log["item"]])
    log["purchases"] = rng.binomial(log["clicks"], buy[log["query"], log["item"]])
    return log[list(COLUMNS)]


def measured_examination(log: pd.DataFrame) -> pd.Series:
    """Return how often each place is looked at, relative to the first, from random pages.

    On a random page every place holds equally good results on average, so click rates differ by
    place through examination alone.

    Parameters
    ----------
    log : pandas.DataFrame
        As from `click_log`, with random pages.

    Raises
    ------
    RecbalError
        If there is no random page, or no click on its first place.
    """
    pages = log[log["random"]]
    total = pages.groupby("position")[["shown", "clicks"]].sum()
    if not len(total) or not total["clicks"].get(1, 0):
        raise RecbalError("No click on the first place of a random page: log more random pages.")
    rate = total["clicks"] / total["shown"]
    return (rate / rate.loc[1]).rename("examination")


def measured_bias(log: pd.DataFrame) -> float:
    """Return the exponent of position bias that fits random pages best (Poisson regression)."""
    pages = log[log["random"]]
    total = pages.groupby("position")[["shown", "clicks"]].sum()
    if not total["clicks"].sum():
        raise RecbalError("No click on a random page: log more random pages.")
    place = np.log(total.index.to_numpy(dtype=float))
    clicks, shown = total["clicks"].to_numpy(float), total["shown"].to_numpy(float)
    bias, level = 0.0, np.log(clicks.sum() / shown.sum())
    for _step in range(50):  # Newton; two numbers, so far fewer are needed
        mean = shown * np.exp(level - bias * place)
        gradient = np.array([(clicks - mean).sum(), -((clicks - mean) * place).sum()])
        cross = -(mean * place).sum()
        curvature = np.array([[mean.sum(), cross], [cross, (mean * place**2).sum()]])
        step = np.linalg.solve(curvature, gradient)
        level, bias = level + step[0], bias + step[1]
        if np.abs(step).max() < 1e-10:
            break
    return float(bias)


def click_weights(log: pd.DataFrame, examined=None) -> pd.DataFrame:
    """Return what each query's items earned in clicks, one row a pair of query and item.

    An item earns its clicks per look, times the query's sessions. Without `examined` a look is
    being shown, so on one fixed page a query an item earns its number of clicks. With it a look is
    being shown *and* examined, so that each click counts one over its propensity.

    Parameters
    ----------
    log : pandas.DataFrame
        As from `click_log`.
    examined : array-like of shape (n_places,), optional
        Probability that each place is looked at.

    Returns
    -------
    pandas.DataFrame
        `query`, `item`, `shown`, `clicks`, `looks`, `weight`, sorted by query and item.

    Raises
    ------
    RecbalError
        If a place has no probability above 0.

    References
    ----------
    T. Joachims, A. Swaminathan and T. Schnabel, "Unbiased Learning-to-Rank with Biased Feedback",
    WSDM 2017.
    """
    looks = log["shown"].to_numpy(float)
    if examined is not None:
        examined = _inputs.numbers(examined, "examined")
        if len(examined) < log["position"].max() or not (examined > 0).all():
            raise RecbalError(
                f"examined has {len(examined)} values: give one above 0 for each of the "
                f"{log['position'].max()} places."
            )
        looks = looks * examined[log["position"] - 1]
    columns = ["shown", "clicks", "looks"]
    table = log.assign(looks=looks).groupby(["query", "item"], as_index=False)[columns].sum()
    sessions = log[log["position"] == 1].groupby("query")["shown"].sum()
    table["weight"] = table["clicks"] / table["looks"] * table["query"].map(sessions)
    return table


def _fixed_pages(pages, sessions):
    n, k = pages.shape
    return pd.DataFrame(
        {
            "query": np.repeat(np.arange(n), k),
            "position": np.tile(np.arange(1, k + 1), n),
            "item": pages.ravel(),
            "random": False,
            "shown": np.repeat(sessions, k),
        }
    )


def _random_pages(rng, pools, sessions, k):
    """Each session draws k items of its query's pool, in random order."""
    parts = []
    for query, (pool, n) in enumerate(zip(pools, sessions, strict=True)):
        if n:
            drawn = rng.random((n, len(pool))).argsort(axis=1)[:, :k]
            parts.append(pd.DataFrame({"query": query, "item": np.asarray(pool)[drawn].ravel()}))
            parts[-1]["position"] = np.tile(np.arange(1, k + 1), n)
    keys = ["query", "position", "item"]
    if not parts:
        return pd.DataFrame(columns=[*keys, "random", "shown"])
    counted = pd.concat(parts).groupby(keys, as_index=False).size()
    return counted.rename(columns={"size": "shown"}).assign(random=True)
