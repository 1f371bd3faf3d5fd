"""A shop front whose true click rates are known: what any policy would earn can be computed.

A visitor of one of a few kinds comes, the shop shows one item, and the visitor clicks it or not.
A policy is a table of probabilities, a row for each kind of visitor and a column for each item. As
everything is finite, the value of a policy and the error of an estimator need no simulation.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

TASTE = 1.0  # standard deviations of the parts of the true log-odds
APPEAL = 0.7


@dataclass(frozen=True)
class World:
    """Kinds of visitors, items, and how often each kind clicks each item.

    Parameters
    ----------
    share : array of shape (n_kinds,)
        How many of the visitors are of each kind; adds up to 1.
    click : array of shape (n_kinds, n_items)
        True probability of a click.
    """

    share: np.ndarray
    click: np.ndarray


def world(n_kinds: int = 20, n_items: int = 30, *, rate: float = 0.005, seed: int = 0) -> World:
    """Draw a world: log-odds are an item's appeal plus a kind's taste for it.

    Parameters
    ----------
    n_kinds, n_items : int
        At least 1.
    rate : float in (0, 1)
        Mean click rate of a policy that shows every item equally often.
    seed : int

    Raises
    ------
    RecbalError
        If a size or the rate is out of range.
    """
    n_kinds, n_items = _inputs.count(n_kinds, "n_kinds", 1), _inputs.count(n_items, "n_items", 1)
    if not 0 < rate < 1:
        raise RecbalError(f"rate is {rate!r}; it must lie between 0 and 1.")
    rng = np.random.default_rng(_inputs.count(seed, "seed", 0))
    share = rng.dirichlet(np.full(n_kinds, 5.0))
    log_odds = APPEAL * rng.standard_normal(n_items)
    log_odds = log_odds + TASTE * rng.standard_normal((n_kinds, n_items))
    click = expit(log_odds + np.log(rate))
    for _ in range(50):  # until the mean is the rate to machine precision
        mean = share @ click.mean(axis=1)
        log_odds = log_odds + np.log(rate / mean)
        click = expit(log_odds + np.log(rate))
    return World(share, click)


def policy(world: World, sharpness: float, *, by: str = "taste") -> np.ndarray:
    """Return a policy that prefers items of high click rate, more or less strictly.

    Parameters
    ----------
    world : World
    sharpness : float
        Factor of the log click rate in a softmax: 0 shows all items alike, a large number always
        the best one; a negative one prefers the worst.
    by : {"taste", "appeal"}
        "taste": by the rate of the visitor's own kind. "appeal": by the item's rate over all
        visitors, the same for every kind.

    Returns
    -------
    array of shape (n_kinds, n_items)
        Rows add up to 1, all entries above 0.

    Raises
    ------
    RecbalError
        If `by` is another word or sharpness is not finite.
    """
    if by not in ("taste", "appeal"):
        raise RecbalError(f"by is {by!r}; choose taste or appeal.")
    if not np.isfinite(sharpness):
        raise RecbalError(f"sharpness is {sharpness!r}; give a finite number.")
    rate = world.click
    if by == "appeal":
        rate = np.broadcast_to(world.share @ world.click, world.click.shape)
    return softmax(sharpness * np.log(rate), axis=1)


def value(world: World, target: np.ndarray) -> float:
    """True click rate of a policy."""
    return float(world.share @ (target * world.click).sum(axis=1))


def overlap(world: World, target: np.ndarray, logging: np.ndarray) -> float:
    """Effective sample size a row of a very long log: 1 over the mean of the squared weight."""
    return float(1 / (world.share @ (target**2 / logging).sum(axis=1)))


def ips_sd(world: World, target: np.ndarray, logging: np.ndarray, n: int) -> float:
    """True standard deviation of the inverse propensity estimate from a log of n rows."""
    second = world.share @ (target**2 / logging * world.click).sum(axis=1)
    return float(np.sqrt((second - value(world, target) ** 2) / n))


def log(world: World, logging: np.ndarray, n: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw what a policy's log would hold.

    Parameters
    ----------
    world : World
    logging : array of shape (n_kinds, n_items)
        The policy that chose.
    n : int
        Rows, at least 1.
    seed : int

    Returns
    -------
    pandas.DataFrame
        `kind`, `item` (numbered from 0), `propensity` (in (0, 1], of the item shown), `click`.
        Rows are sorted by kind and item, clicked ones first.
    """
    n = _inputs.count(n, "n", 1)
    rng = np.random.default_rng(_inputs.count(seed, "seed", 0))
    chance = (world.share[:, None] * logging).ravel()
    shown = rng.multinomial(n, chance / chance.sum())
    clicked = rng.binomial(shown, world.click.ravel())
    cell = np.repeat(np.arange(len(shown)), shown)
    place = np.arange(n) - np.repeat(np.cumsum(shown) - shown, shown)
    kind, item = np.divmod(cell, logging.shape[1])
    return pd.DataFrame(
        {
            "kind": kind,
            "item": item,
            "propensity": logging.ravel()[cell],
            "click": (place < clicked[cell]).astype(np.int64),
        }
    )
