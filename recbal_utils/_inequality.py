"""Gini, Lorenz curve and tiers of totals per unit (a unit: a product, a household, …)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ive

from recbal_utils.errors import RecbalError

TIERS = ("head", "mid", "tail")


def _totals(x, name="x") -> np.ndarray:
    """Check totals per unit: one dimension, finite, not negative, not all zero."""
    try:
        x = np.asarray(x, dtype=float)
    except (TypeError, ValueError):
        raise RecbalError(f"{name} must hold numbers, one total per unit.") from None
    if x.ndim != 1 or x.size == 0:
        raise RecbalError(f"{name} must be a non-empty list of totals, one per unit.")
    if not np.isfinite(x).all() or (x < 0).any():
        raise RecbalError(f"{name} holds missing, infinite or negative totals: repair them first.")
    if x.sum() == 0:
        raise RecbalError(f"{name} adds up to 0: there is nothing to share out among the units.")
    return x


def _multiplicities(x, repeats) -> np.ndarray:
    if repeats is None:
        return np.ones(len(x))
    repeats = np.asarray(repeats, dtype=float)
    if repeats.shape != x.shape or not np.isfinite(repeats).all() or (repeats < 0).any():
        raise RecbalError("repeats must hold one number, 0 or more, for each total.")
    if (repeats * x).sum() == 0:
        raise RecbalError("repeats leaves no units with a total above 0.")
    return repeats


def lorenz(x, *, repeats=None) -> pd.DataFrame:
    """Lorenz curve: what share of the total the smallest units hold together.

    Parameters
    ----------
    x : array-like of shape (n_units,)
        Totals per unit, 0 or more, for example purchases per product. Units that
        were never bought belong in it as zeros.
    repeats : array-like of shape (n_units,), optional
        How many units have each total; a table of "count of counts" gives the
        same curve as the units written out one by one.

    Returns
    -------
    DataFrame with n_units + 1 rows, from (0, 0) to (1, 1)
        `share_of_units`: cumulative share of the units, smallest total first;
        `share_of_total`: the share of the total that they hold.

    Raises
    ------
    RecbalError
        If a total is missing, infinite or negative, or all are zero.

    Source: M. O. Lorenz (1905), Publ. Am. Stat. Assoc. 9(70), 209-219.
    """
    x = _totals(x)
    repeats = _multiplicities(x, repeats)
    order = np.argsort(x, kind="stable")
    units = np.cumsum(repeats[order])
    total = np.cumsum((x * repeats)[order])
    return pd.DataFrame(
        {
            "share_of_units": np.append(0.0, units / units[-1]),
            "share_of_total": np.append(0.0, total / total[-1]),
        }
    )


def gini(x, *, repeats=None) -> float:
    """Gini index of totals per unit: 0 if all are equal, near 1 if one holds all.

    Twice the area between the Lorenz curve and the line of equality; no
    small-sample correction, so that one unit of n holding everything gives
    (n - 1) / n, not 1.

    Parameters
    ----------
    x : array-like of shape (n_units,)
        Totals per unit, 0 or more; never-bought units count as zeros.
    repeats : array-like of shape (n_units,), optional
        How many units have each total.

    Returns
    -------
    float in [0, 1)

    Raises
    ------
    RecbalError
        If a total is missing, infinite or negative, or all are zero.

    Source: C. Gini (1912), Variabilità e mutabilità. Closed forms used as checks:
    1/2 for the exponential and 1 / (2a - 1) for the Pareto distribution of index a.
    """
    curve = lorenz(x, repeats=repeats)
    area = np.trapezoid(curve["share_of_total"], curve["share_of_units"])
    return float(np.clip(1 - 2 * area, 0.0, 1.0))


def gini_by_chance(mean) -> float:
    """Gini index that even luck alone gives: positives thrown on equal units at random.

    Parameters
    ----------
    mean : float above 0
        Positives per unit. Each unit's number is then about Poisson of this mean, whose mean
        difference, that of two such numbers, makes Gini exp(-2m) (I0(2m) + I1(2m)) with I the
        modified Bessel functions.

    Returns
    -------
    float in (0, 1): near 1 for few positives per unit, about 1 / sqrt(pi m) for many.

    Source: J. G. Skellam (1946), J. R. Stat. Soc. 109(3), 296, for the difference of two Poisson
    numbers.
    """
    return float(ive(0, 2 * mean) + ive(1, 2 * mean))


def tier_edges(n_units: int) -> tuple[int, int]:
    """Ranks (of n units, largest first) at which head and mid end: 20 % and 50 %, rounded up."""
    return -(-n_units // 5), -(-n_units // 2)


def tiers(counts) -> pd.Series:
    """Head, mid or tail for each unit: the top 20 %, the next 30 %, the rest.

    Units are ranked by count, largest first. Ties are broken by the index label
    (ascending; by position if the labels cannot be sorted), so the same units get
    the same tier in whatever order they come. A unit with a count of zero is tail
    even where fewer than half of the units have any. Ranks are rounded up: of one
    unit, that unit is the head.

    Parameters
    ----------
    counts : Series of shape (n_units,), or array-like
        Totals per unit, 0 or more, never-bought units included.

    Returns
    -------
    Series of str, with the index of `counts`

    Raises
    ------
    RecbalError
        If a count is missing, infinite or negative, or all are zero.
    """
    x = _totals(counts, "counts")
    series = counts if isinstance(counts, pd.Series) else pd.Series(x)
    try:
        by_label = np.argsort(series.index.to_numpy(), kind="stable")
    except TypeError:
        by_label = np.arange(len(x))
    order = by_label[np.argsort(-x[by_label], kind="stable")]
    head, mid = tier_edges(len(x))
    result = np.full(len(x), "tail", dtype=object)
    result[order[:mid]] = "mid"
    result[order[:head]] = "head"
    result[x == 0] = "tail"
    return pd.Series(result, index=series.index, name="tier")
