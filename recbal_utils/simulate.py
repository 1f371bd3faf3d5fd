"""Shopping logs whose true conversion probabilities are known.

A household visits, the shop has a few candidate items for it, some of them are exposed, the
household examines some of those, and buys what it examines and likes. Each of these steps is a
knob that can be turned alone, and turned off. Every step draws from a stream of random numbers of
its own, so turning one knob leaves the numbers behind all other steps as they were.
"""

from numbers import Real

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

COEFFICIENTS = pd.Series(
    {"loyalty": 0.6, "price": -0.5, "affinity": 1.0, "discount": 0.4}, name="coefficient"
)
FEATURES = tuple(COEFFICIENTS.index)
SEGMENTS, DEPARTMENTS = 3, 4

_STREAMS = (
    "households",
    "items",
    "visits",
    "candidates",
    "affinity",
    "discount",
    "exposure",
    "position",
    "examination",
    "purchase",
    "noise",
)
_POPULATION = {"households", "items"}
_CHUNK = 2**22  # random numbers drawn at a time for the candidates


def shopping_log(
    n_visits=2_000,
    *,
    items_per_visit=20,
    n_households=500,
    n_items=1_000,
    rate=0.01,
    intercept=None,
    signal=1.0,
    misspecification=0.0,
    popularity=0.0,
    exposure=1.0,
    exposure_bias=0.0,
    position_bias=0.0,
    flip_positive=0.0,
    flip_negative=0.0,
    seed=0,
    population_seed=None,
):
    """Draw a log of impressions together with the probabilities that made it.

    With the defaults of all knobs but `rate` and `signal`, no mechanism but preference is at
    work: `label` equals `conversion`, `probability` equals `preference`, and a logistic
    regression on `FEATURES` is the correct model.

    Parameters
    ----------
    n_visits, items_per_visit : int
        Visits, and candidate items in each, all different; their product is the number of rows.
    n_households, n_items : int
        Size of the two populations; at least `items_per_visit` items.
    rate : float in (0, 1)
        **Imbalance.** Mean of `preference` over the rows; the intercept is chosen to meet it.
    intercept : float, optional
        Log-odds of a row whose features are all 0. When given, `rate` is not used.
    signal : float
        Factor of `COEFFICIENTS`; 0 makes all rows alike.
    misspecification : float
        Factor of a part of the log-odds that is not linear in the features (the square of
        `affinity`, and `loyalty` times `discount`); 0 makes the linear model correct.
    popularity : float in [0, 5]
        Zipf exponent: item i, counted from 0, is drawn with weight (i + 1) ** -popularity,
        without replacement within a visit. 0 draws all items alike.
    exposure : float in (0, 1]
        Expected share of rows that are exposed; 1 exposes all.
    exposure_bias : float
        How strongly the shop's rule favours rows of high preference, both in what it exposes
        (log-odds of exposure per standard deviation) and in the order (Plackett-Luce). 0 exposes
        and orders at random.
    position_bias : float in [0, 100]
        The row at position k is examined with probability k ** -position_bias; 0 examines all.
    flip_positive, flip_negative : float in [0, 1]
        **Label noise.** Probability that a conversion is recorded as none, and that a row
        without conversion is recorded as one.
    seed : int, at least 0
    population_seed : int, optional
        Seed of the households and items; `seed` by default. Give the same one with another
        `seed` for a later log of the same shop.

    Returns
    -------
    DataFrame of n_visits * items_per_visit rows, ordered by visit and item, with the columns

        ``visit``, ``household``, ``item``
            Numbered from 0; item 0 is the most popular one.
        ``loyalty``, ``price``, ``affinity``, ``discount``
            Standard normal: of the household, the item, the row, the row.
        ``segment``, ``department``
            Households in 3 equal parts by loyalty, items in 4 by price, numbered from 0.
        ``log_odds``, ``preference``
            The true log-odds, and probability in (0, 1), that the row converts if examined.
        ``propensity``, ``exposed``
            Probability of being exposed, and whether it was.
        ``position``, ``examination``, ``examined``
            Place among the visit's exposed rows, from 1; the probability of being examined there;
            and whether it was. Position and examination are 0 where not exposed.
        ``probability``
            True probability of a conversion given exposure and position,
            ``preference * examination``.
        ``conversion``, ``label``
            What happened, and what was recorded after label noise; 0 or 1.

    Raises
    ------
    RecbalError
        A knob lies outside its range, or a visit needs more items than there are.

    Notes
    -----
    Position bias is the examination model of Joachims et al. (2017); exposure that depends on
    preference makes labels missing not at random (Schnabel et al. 2016).

    Examples
    --------
    >>> log = shopping_log(50, rate=0.1, seed=1)
    >>> len(log), float(log["preference"].mean().round(6))
    (1000, 0.1)
    """
    sizes = {
        "n_visits": _inputs.count(n_visits, "n_visits", 1),
        "items_per_visit": _inputs.count(items_per_visit, "items_per_visit", 1),
        "n_households": _inputs.count(n_households, "n_households", 1),
        "n_items": _inputs.count(n_items, "n_items", 1),
    }
    _check_sizes(sizes)
    _check_knobs(locals())
    rng = _streams(seed, population_seed)
    log = _candidates(rng, sizes, popularity)
    log["log_odds"], merit = _log_odds(log, signal, misspecification)
    log["log_odds"] += _intercept(log["log_odds"], rate) if intercept is None else intercept
    log["preference"] = expit(log["log_odds"])
    _expose(log, rng, merit, exposure, exposure_bias)
    _examine(log, rng, merit, exposure_bias, position_bias)
    _buy(log, rng)
    log["label"] = _record(log["conversion"].to_numpy(), rng, flip_positive, flip_negative)
    return log


def design(log, kind="linear"):
    """Return the design matrix under which a logistic regression is a correct model.

    Parameters
    ----------
    log : DataFrame
        From `shopping_log`, or any rows of one.
    kind : {"linear", "saturated"}
        "linear": the columns `FEATURES`; correct while `misspecification` is 0, with the
        coefficients ``signal * COEFFICIENTS``. "saturated": a 0/1 column for each of the 12 cells
        of segment and department; fit it without an intercept. One parameter a cell is correct
        for the rate of each cell, whatever the knobs.

    Returns
    -------
    DataFrame of float64, index as in `log`

    Raises
    ------
    RecbalError
        `kind` is another word, or a column is missing.
    """
    needed = {"linear": FEATURES, "saturated": ("segment", "department")}
    if kind not in needed:
        raise RecbalError(f"kind is {kind!r}; give one of {', '.join(needed)}.")
    missing = [column for column in needed[kind] if column not in log.columns]
    if missing:
        raise RecbalError(f"The log lacks {', '.join(missing)}; pass rows of shopping_log.")
    if kind == "linear":
        return log[list(FEATURES)].astype(np.float64)
    cell = log["segment"].to_numpy() * DEPARTMENTS + log["department"].to_numpy()
    names = [f"segment {s}, department {d}" for s in range(SEGMENTS) for d in range(DEPARTMENTS)]
    return pd.DataFrame(np.eye(len(names))[cell], columns=names, index=log.index)


def recorded_probability(p, flip_positive=0.0, flip_negative=0.0):
    """Return the probability of a recorded 1, given that of a conversion.

    Parameters
    ----------
    p : array-like of shape (n,)
        True probabilities in [0, 1].
    flip_positive, flip_negative : float in [0, 1]
        As in `shopping_log`.

    Returns
    -------
    ndarray of shape (n,)
        ``p * (1 - flip_positive) + (1 - p) * flip_negative``.

    Raises
    ------
    RecbalError
        A probability lies outside [0, 1].
    """
    p = _inputs.numbers(p, "p")
    _inputs.check_probabilities(p)
    _check_knobs({"flip_positive": flip_positive, "flip_negative": flip_negative})
    return p * (1 - flip_positive) + (1 - p) * flip_negative


# --- the steps ----------------------------------------------------------------------


def _candidates(rng, sizes, popularity):
    """Visits, their items, and the features."""
    n, k = sizes["n_visits"], sizes["items_per_visit"]
    loyalty = rng["households"].standard_normal(sizes["n_households"])
    price = rng["items"].standard_normal(sizes["n_items"])
    household = np.repeat(rng["visits"].integers(sizes["n_households"], size=n), k)
    item = _draw_items(rng["candidates"], n, k, _zipf(sizes["n_items"], popularity))
    return pd.DataFrame(
        {
            "visit": np.repeat(np.arange(n), k),
            "household": household,
            "item": item,
            "loyalty": loyalty[household],
            "price": price[item],
            "affinity": rng["affinity"].standard_normal(n * k),
            "discount": rng["discount"].standard_normal(n * k),
            "segment": _equal_parts(loyalty, SEGMENTS)[household],
            "department": _equal_parts(price, DEPARTMENTS)[item],
        }
    )


def _zipf(n, exponent):
    return np.arange(1, n + 1, dtype=np.float64) ** -float(exponent)


def _draw_items(rng, n_visits, k, weight):
    """For each visit k items by successive draws: a race of exponential times, rate = weight."""
    step = max(1, _CHUNK // len(weight))
    scale = (1 / weight).astype(np.float32)
    drawn = np.empty((n_visits, k), dtype=np.int64)
    for start in range(0, n_visits, step):
        stop = min(start + step, n_visits)
        times = rng.standard_exponential((stop - start, len(weight)), dtype=np.float32) * scale
        first = np.argpartition(times, k - 1, axis=1)[:, :k]
        drawn[start:stop] = np.sort(first, axis=1)
    return drawn.ravel()


def _equal_parts(values, parts):
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return rank * parts // len(values)


def _log_odds(log, signal, misspecification):
    """Log-odds without intercept; and the same with standard deviation near 1, for the shop."""
    linear = signal * (log[list(FEATURES)].to_numpy() @ COEFFICIENTS.to_numpy())
    bend = (log["affinity"] ** 2 - 1) / np.sqrt(2) + log["loyalty"] * log["discount"]
    log_odds = linear + misspecification * bend.to_numpy()
    variance = signal**2 * (COEFFICIENTS**2).sum() + 2 * misspecification**2
    return log_odds, log_odds / np.sqrt(variance or 1.0)


def _intercept(log_odds, mean):
    """The constant that gives the log-odds this mean probability."""
    values = np.asarray(log_odds)
    centre = np.log(mean) - np.log1p(-mean)
    ends = centre - values.max() - 1e-6, centre - values.min() + 1e-6
    return brentq(lambda b: expit(values + b).mean() - mean, *ends, xtol=1e-12)


def _expose(log, rng, merit, exposure, exposure_bias):
    number = rng["exposure"].random(len(log))
    log["propensity"] = 1.0
    if exposure < 1:
        score = exposure_bias * merit
        log["propensity"] = expit(score + _intercept(score, exposure))
    log["exposed"] = number < log["propensity"].to_numpy()


def _examine(log, rng, merit, exposure_bias, position_bias):
    number = rng["examination"].random(len(log))
    exposed = log["exposed"].to_numpy()
    position = _positions(log, exposure_bias * merit + rng["position"].gumbel(size=len(log)))
    chance = np.zeros(len(log))
    chance[exposed] = position[exposed].astype(np.float64) ** -float(position_bias)
    log["position"], log["examination"] = position, chance
    log["examined"] = number < chance


def _positions(log, score):
    """Places from 1 by falling score, among the exposed rows of a visit; 0 elsewhere."""
    exposed = log["exposed"].to_numpy()
    visit = log["visit"].to_numpy()
    order = np.lexsort((-score, ~exposed, visit))
    per_visit = len(log) // (visit[-1] + 1)
    position = np.empty(len(log), dtype=np.int64)
    position[order] = np.arange(len(log)) % per_visit + 1
    return np.where(exposed, position, 0)


def _buy(log, rng):
    number = rng["purchase"].random(len(log))
    likes = number < log["preference"].to_numpy()
    log["probability"] = log["preference"] * log["examination"]
    log["conversion"] = (log["examined"].to_numpy() & likes).astype(np.int64)


def _record(conversion, rng, flip_positive, flip_negative):
    number = rng["noise"].random(len(conversion))
    flipped = number < np.where(conversion == 1, flip_positive, flip_negative)
    return np.where(flipped, 1 - conversion, conversion)


# --- seeds and checks ---------------------------------------------------------------


def _streams(seed, population_seed):
    """A generator for each step; `SeedSequence.spawn` would number them in the same way."""
    seed = _inputs.count(seed, "seed", 0)
    population = seed if population_seed is None else population_seed
    population = _inputs.count(population, "population_seed", 0)
    return {
        name: np.random.default_rng(
            np.random.SeedSequence(population if name in _POPULATION else seed, spawn_key=(place,))
        )
        for place, name in enumerate(_STREAMS)
    }


def _check_sizes(sizes):
    if sizes["items_per_visit"] > sizes["n_items"]:
        raise RecbalError(
            f"items_per_visit is {sizes['items_per_visit']} and n_items {sizes['n_items']}: the "
            "items of a visit are all different, so give at least as many items."
        )


_RANGES = {
    "rate": ("above 0 and below 1", lambda x: 0 < x < 1),
    "intercept": ("from -100 to 100", lambda x: abs(x) <= 100),
    "signal": ("from -100 to 100", lambda x: abs(x) <= 100),
    "misspecification": ("from -100 to 100", lambda x: abs(x) <= 100),
    "popularity": ("from 0 to 5", lambda x: 0 <= x <= 5),
    "exposure": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "exposure_bias": ("from -100 to 100", lambda x: abs(x) <= 100),
    "position_bias": ("from 0 to 100", lambda x: 0 <= x <= 100),
    "flip_positive": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "flip_negative": ("from 0 to 1", lambda x: 0 <= x <= 1),
}


def _check_knobs(knobs):
    for name, (words, lies_inside) in _RANGES.items():
        value = knobs.get(name)
        if name not in knobs or (name == "intercept" and value is None):
            continue
        number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)
        if not number or not lies_inside(value):
            raise RecbalError(f"{name} is {value!r}; it must be {words}.")
