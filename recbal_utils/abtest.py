"""How long an A/B test must run: power of two proportions, when whole households are assigned.

Rows of one household are alike, so a test that assigns households and counts rows is surer of
itself than it should be. `design_effect` measures by how much; `rows_per_arm` and `power` take it
into account; `replay` draws tests from a log, to see whether they keep what was promised.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError


def rows_per_arm(
    rate: float,
    lift: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    design_effect: float = 1.0,
) -> float:
    """Return how many rows each of two arms needs.

    Parameters
    ----------
    rate : float in (0, 1)
        Conversion rate of the arm as it is.
    lift : float
        Relative change to be found, such as .05 for 5 % more; not 0.
    power : float in (0, 1)
        Probability of finding it.
    alpha : float in (0, 1)
        Two-sided level: probability of a false alarm where there is no change.
    design_effect : float, at least 1 in practice
        From `design_effect`.

    Returns
    -------
    float

    Raises
    ------
    RecbalError
        If a number is out of range, or the lift takes the rate out of (0, 1).

    Examples
    --------
    >>> round(rows_per_arm(0.10, 0.20))
    3841
    """
    changed = _changed(rate, lift)
    _inputs.open_share(power, "power")
    za, zb = norm.isf(_inputs.open_share(alpha, "alpha") / 2), norm.ppf(power)
    apart, together = _spreads(rate, changed)
    rows = ((za * together + zb * apart) / (changed - rate)) ** 2
    return float(_above_zero(design_effect) * rows)


def power(
    rate: float, lift: float, rows: float, *, alpha: float = 0.05, design_effect: float = 1.0
) -> float:
    """Return the probability that a test of `rows` in each arm finds the lift.

    Parameters and errors: as for `rows_per_arm`.
    """
    changed = _changed(rate, lift)
    if not rows > 0:
        raise RecbalError(f"rows is {rows!r}; it must be above 0.")
    za = norm.isf(_inputs.open_share(alpha, "alpha") / 2)
    apart, together = _spreads(rate, changed)
    distance = abs(changed - rate) * np.sqrt(rows / _above_zero(design_effect))
    return float(norm.cdf((distance - za * together) / apart))


def design_effect(conversions, rows) -> float:
    """Return how many times the variance of a rate is that of independent rows.

    Parameters
    ----------
    conversions, rows : array-like of shape (n_households,)
        Of each household; rows above 0.

    Returns
    -------
    float
        1 for independent rows, near (1 + (m - 1) * intraclass correlation) for m rows each.

    Raises
    ------
    RecbalError
        If there are fewer than 2 households, or no or only conversions.

    References
    ----------
    L. Kish, *Survey Sampling*, Wiley 1965.
    """
    conversions, rows = _checked(conversions, rows)
    rate = conversions.sum() / rows.sum()
    if not 0 < rate < 1:
        raise RecbalError("A rate of 0 or 1 has no spread: give conversions and other rows.")
    return float(_variance(conversions, rows) / (rate * (1 - rate) / rows.sum()))


def p_value(a, b, *, by_household: bool = True) -> float:
    """Test whether two arms differ in rate, two-sided.

    Parameters
    ----------
    a, b : tuple of two arrays
        Conversions and rows of each household of the arm.
    by_household : bool, default True
        Whether the spread is taken from households; else rows count as independent.
    """
    arms = [_checked(*arm) for arm in (a, b)]
    rates = [c.sum() / n.sum() for c, n in arms]
    if by_household:
        variance = sum(_variance(c, n) for c, n in arms)
    else:
        pooled = sum(c.sum() for c, _ in arms) / sum(n.sum() for _, n in arms)
        variance = sum(pooled * (1 - pooled) / n.sum() for _, n in arms)
    if variance <= 0:
        return 1.0
    return float(2 * norm.sf(abs(rates[1] - rates[0]) / np.sqrt(variance)))


def replay(
    conversions, rows, *, lift: float = 0.0, households: int, n_tests: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Draw A/B tests from a log: two arms of households, one of which converts more.

    Parameters
    ----------
    conversions, rows : array-like of shape (n_households,)
        Of each household in the time that a test would run.
    lift : float, at least -1
        Relative change of arm b. Each conversion is lost, or brings another one, by chance.
    households : int
        In each arm, drawn with replacement.
    n_tests : int
    seed : int

    Returns
    -------
    pandas.DataFrame
        A row for each test: `difference` (rate of b minus rate of a), and the p-values
        `by_household` and `by_row`.
    """
    conversions, rows = _checked(conversions, rows)
    households = _inputs.count(households, "households", 2)
    if not lift >= -1:
        raise RecbalError(f"lift is {lift!r}; it must be -1 or more.")
    rng = np.random.default_rng(_inputs.count(seed, "seed", 0))
    found = []
    for _ in range(_inputs.count(n_tests, "n_tests", 1)):
        a, b = (rng.integers(len(rows), size=households) for _arm in range(2))
        arm_b = _lifted(conversions[b], lift, rng), rows[b]
        arm_a = conversions[a], rows[a]
        difference = arm_b[0].sum() / arm_b[1].sum() - arm_a[0].sum() / arm_a[1].sum()
        p = [p_value(arm_a, arm_b, by_household=by) for by in (True, False)]
        found.append((difference, *p))
    return pd.DataFrame(found, columns=["difference", "by_household", "by_row"])


def _lifted(conversions, lift, rng):
    count = conversions.astype(np.int64)
    more = rng.binomial(count, abs(lift) % 1) + np.trunc(abs(lift)) * count
    return count + np.sign(lift) * more


def _variance(conversions, rows) -> float:
    """Of the ratio of two sums over households, linearised."""
    m, total = len(rows), rows.sum()
    deviation = conversions - conversions.sum() / total * rows
    return float(m / (m - 1) * (deviation @ deviation) / total**2)


def _spreads(rate, changed):
    mean = (rate + changed) / 2
    apart = np.sqrt(rate * (1 - rate) + changed * (1 - changed))
    return apart, np.sqrt(2 * mean * (1 - mean))


def _changed(rate, lift):
    changed = _inputs.open_share(rate, "rate") * (1 + lift)
    if lift == 0 or not 0 < changed < 1:
        raise RecbalError(
            f"A lift of {lift:g} takes the rate from {rate:g} to {changed:g}: give one that "
            "changes it, between 0 and 1."
        )
    return changed


def _above_zero(value):
    if not 0 < value < np.inf:
        raise RecbalError(f"design_effect is {value!r}; it must be above 0.")
    return value


def _checked(conversions, rows):
    _inputs.check_shapes(conversions=conversions, rows=rows)
    conversions, rows = _inputs.numbers(conversions, "conversions"), _inputs.numbers(rows, "rows")
    if len(rows) < 2 or (rows <= 0).any() or (conversions < 0).any() or (conversions > rows).any():
        raise RecbalError(
            "Give 2 households or more, each with rows above 0 and conversions from 0 to its rows."
        )
    return conversions, rows
