"""Many methods on many data sets: average ranks, the Friedman and Nemenyi tests, Holm's correction.

J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", Journal of Machine
Learning Research 7 (2006), 1-30, is the source of the procedure. Every function takes a frame of
scores: a row for each data set, a column for each method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from recbal_utils.errors import RecbalError


@dataclass(frozen=True)
class Friedman:
    """The test that all methods rank alike.

    `statistic` is Friedman's, distributed as chi-squared with k - 1 degrees of freedom; `f` is its
    less conservative form by Iman and Davenport, distributed as F with k - 1 and (k - 1)(N - 1),
    and `p_value` belongs to `f`.
    """

    statistic: float
    f: float
    p_value: float
    n_sets: int
    n_methods: int


def ranks(scores: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Rank of each method on each data set: 1 is best, ties share the mean of their ranks.

    Parameters
    ----------
    scores : DataFrame of shape (n_sets, n_methods)
        Finite numbers.
    higher_is_better : bool

    Returns
    -------
    DataFrame of the same shape
        Each row sums to k (k + 1) / 2.

    Raises
    ------
    RecbalError
        If it is no frame, a score is missing or infinite, or there are fewer than 2 methods.
    """
    return _checked(scores).rank(axis=1, ascending=not higher_is_better)


def average_ranks(scores: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """Mean rank of each method over the data sets, best first. As `ranks`."""
    return ranks(scores, higher_is_better=higher_is_better).mean().sort_values(kind="stable")


def friedman(scores: pd.DataFrame) -> Friedman:
    """Test whether the methods differ at all.

    Parameters
    ----------
    scores : DataFrame of shape (n_sets, n_methods)
        At least 3 methods and 2 data sets.

    Returns
    -------
    Friedman

    Raises
    ------
    RecbalError
        As `ranks`; if there are too few methods or sets, or every set is one tie.

    Notes
    -----
    Statistic as in `scipy.stats.friedmanchisquare`, ties included; F form of Iman & Davenport
    (1980), equation (4) of Demšar (2006).
    """
    n, k = _checked(scores).shape
    if k < 3 or n < 2:
        raise RecbalError(f"The Friedman test takes 3 methods, 2 data sets; there are {k} and {n}.")
    if (scores.max(axis=1) == scores.min(axis=1)).all():
        raise RecbalError("On every data set all methods have the same score: nothing to rank.")
    statistic = float(stats.friedmanchisquare(*scores.to_numpy(dtype=float).T).statistic)
    if n * (k - 1) - statistic < 1e-9:  # all sets agree on one order
        return Friedman(statistic, np.inf, 0.0, n, k)
    f = (n - 1) * statistic / (n * (k - 1) - statistic)
    return Friedman(statistic, f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))), n, k)


def nemenyi_q(n_methods: int, alpha: float = 0.05) -> float:
    """Critical value of the Nemenyi test: the Studentised range of `n_methods`, over root 2.

    Parameters
    ----------
    n_methods : int
        At least 2.
    alpha : float
        In (0, 1).

    Raises
    ------
    RecbalError
        If either is out of range.
    """
    if not isinstance(n_methods, int | np.integer) or n_methods < 2:
        raise RecbalError(f"n_methods is {n_methods!r}; comparing takes 2 or more.")
    if not 0 < alpha < 1:
        raise RecbalError(f"alpha is {alpha!r}; choose a level between 0 and 1.")
    return float(stats.studentized_range.ppf(1 - alpha, n_methods, np.inf) / np.sqrt(2))


def critical_difference(n_methods: int, n_sets: int, alpha: float = 0.05) -> float:
    """Smallest difference of two average ranks that the Nemenyi test calls significant.

    Parameters
    ----------
    n_methods, n_sets : int
        At least 2 methods, at least 1 data set.
    alpha : float
        In (0, 1), for all pairs together.

    Returns
    -------
    float
        In ranks.

    Raises
    ------
    RecbalError
        If a number is out of range.

    Examples
    --------
    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    if not isinstance(n_sets, int | np.integer) or n_sets < 1:
        raise RecbalError(f"n_sets is {n_sets!r}; there must be 1 or more.")
    return nemenyi_q(n_methods, alpha) * float(np.sqrt(n_methods * (n_methods + 1) / (6 * n_sets)))


def holm(p_values: Sequence[float] | pd.Series) -> pd.Series | np.ndarray:
    """Holm's step-down correction: p-values that may be compared with one level together.

    Parameters
    ----------
    p_values : array-like of shape (n,)
        In [0, 1].

    Returns
    -------
    Series with the same index, or ndarray
        The smallest is multiplied by n, the next by n - 1, ...; never falling, at most 1.

    Raises
    ------
    RecbalError
        If a p-value is missing or outside [0, 1].

    References
    ----------
    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6 (1979), 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise RecbalError("p_values must be a list of numbers between 0 and 1, none missing.")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return pd.Series(adjusted, p_values.index) if isinstance(p_values, pd.Series) else adjusted


def against(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each method against a baseline, over data sets: Wilcoxon's test, corrected by Holm.

    Parameters
    ----------
    scores : DataFrame of shape (n_sets, n_methods)
    baseline : str
        A column.

    Returns
    -------
    DataFrame indexed by method
        `mean` and `median` (method minus baseline), `wins`, `losses` (data sets on which the
        method scores higher, lower), `p_value` (Wilcoxon signed ranks, two-sided, zero
        differences split), `holm` (the same, corrected over the methods).

    Raises
    ------
    RecbalError
        As `ranks`; if there is no such column.
    """
    if baseline not in _checked(scores).columns:
        raise RecbalError(
            f"There is no method {baseline!r}; there are {', '.join(scores.columns)}."
        )
    gain = scores.drop(columns=baseline).sub(scores[baseline], axis=0)
    table = pd.DataFrame(
        {
            "mean": gain.mean(),
            "median": gain.median(),
            "wins": (gain > 0).sum(),
            "losses": (gain < 0).sum(),
            "p_value": {name: _wilcoxon(column.to_numpy()) for name, column in gain.items()},
        }
    )
    return table.assign(holm=holm(table["p_value"]))


def _wilcoxon(gain: np.ndarray) -> float:
    if not gain.any():
        return 1.0
    return float(stats.wilcoxon(gain, zero_method="zsplit", method="approx").pvalue)


def groups_alike(average: pd.Series, cd: float) -> list[tuple[str, ...]]:
    """Largest runs of methods, best first, whose average ranks differ by less than `cd`.

    Parameters
    ----------
    average : Series
        Average ranks by method.
    cd : float
        Critical difference, in ranks.

    Returns
    -------
    list of tuples of two or more names
        No run lies inside another; methods in no run differ from all others.
    """
    ordered = average.sort_values(kind="stable")
    found, reached = [], 0
    for first in range(len(ordered)):
        end = int((ordered - ordered.iloc[first] < cd).sum())
        if end > reached and end - first > 1:
            found.append(tuple(ordered.index[first:end]))
            reached = end
    return found


def _checked(scores: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(scores, pd.DataFrame):
        raise RecbalError("scores must be a DataFrame: a row for each data set, a column a method.")
    if scores.shape[1] < 2 or scores.empty:
        raise RecbalError(f"scores has the shape {scores.shape}: ranking takes 2 methods or more.")
    try:
        finite = np.isfinite(scores.to_numpy(dtype=float))
    except (TypeError, ValueError):
        raise RecbalError("scores must hold numbers only.") from None
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise RecbalError(
            f"The score of {scores.columns[column]!r} on {scores.index[row]!r} is missing or "
            "infinite: leave that data set out, for all methods."
        )
    return scores
