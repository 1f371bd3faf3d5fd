"""Have the features changed? Counts in bins, the population stability index, and its alarms.

A `Reference` keeps bins of each feature and how full they were in training. A server counts the
rows it scores in the same bins; `stability` compares the counts. Rows of one visit are alike, so
that thresholds for independent rows cry wolf: `Alarm.learn` takes them from windows of whole
visits of held-back data.

Needs NumPy and SciPy only, for it is part of the server.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from recbal_utils.errors import RecbalError

SMOOTHING = 0.5  # rows added to each bin, so that an empty one has a logarithm


@dataclass(frozen=True)
class Reference:
    """Bins of each feature, and the rows of the training sample in them.

    Attributes
    ----------
    names : tuple of str
    edges : tuple of ndarray
        For each feature, upper ends of its bins but the last, increasing: a value equal to an
        edge belongs to the bin below it.
    counts : tuple of ndarray of int64
        Rows in each bin, one number more than edges; none is 0.
    """

    names: tuple
    edges: tuple
    counts: tuple

    @classmethod
    def learn(cls, X, names, n_bins=10):
        """Cut every feature at quantiles of X.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Finite. Rows as the server will see them: at their natural rate.
        names : sequence of str
        n_bins : int, default 10
            At most; a value that fills several bins, such as 0, gets one.

        Raises
        ------
        RecbalError
            If X is empty, not finite, or does not fit the names, or n_bins is below 2.
        """
        X = _matrix(X, len(names))
        if not len(X) or int(n_bins) < 2:
            raise RecbalError("A reference needs at least one row and two bins.")
        steps = np.arange(1, int(n_bins)) / int(n_bins)
        cuts = np.quantile(X, steps, axis=0, method="inverted_cdf")
        edges = tuple(
            np.unique(cut[cut < top]) for cut, top in zip(cuts.T, X.max(axis=0), strict=True)
        )
        return cls(tuple(names), edges, _counts(X, edges))

    def count(self, X):
        """Return the rows of X, shape (n, d), in each bin of each feature: a tuple of arrays."""
        return _counts(_matrix(X, len(self.names)), self.edges)

    def to_json(self, names):
        """Return plain lists for a file; the features must be `names`."""
        if list(self.names) != list(names):
            raise RecbalError("The reference is of other features than the model: learn it anew.")
        return {
            "names": list(self.names),
            "edges": [edge.tolist() for edge in self.edges],
            "counts": [count.tolist() for count in self.counts],
        }

    @classmethod
    def from_json(cls, plain):
        """Undo `to_json`."""
        edges = tuple(np.asarray(edge, np.float64) for edge in plain["edges"])
        counts = tuple(np.asarray(count, np.int64) for count in plain["counts"])
        fits = len(edges) == len(counts) == len(plain["names"]) and all(
            len(count) == len(edge) + 1 for edge, count in zip(edges, counts, strict=True)
        )
        if not fits:
            raise RecbalError("The reference's bins and counts do not fit: save the model again.")
        return cls(tuple(plain["names"]), edges, counts)


def stability_index(expected, observed):
    """Return the population stability index of two samples counted in the same bins.

    Parameters
    ----------
    expected, observed : array-like of shape (n_bins,)
        Rows in each bin, at least 0, at least one row each.

    Returns
    -------
    float
        sum (q - p) ln(q / p) over the bins' shares p and q, at least 0, 0 for equal shares. Half
        a row is added to each bin first, so that empty bins give a finite answer.

    Raises
    ------
    RecbalError
        If the counts differ in length, or one is empty, negative or not finite.
    """
    p, q = _shares(expected, "expected"), _shares(observed, "observed")
    if len(p) != len(q):
        raise RecbalError(f"expected has {len(p)} bins and observed {len(q)}: use the same bins.")
    return float(np.sum((q - p) * np.log(q / p)))


def stability(reference, counts):
    """Return the stability index of every feature: ndarray of shape (d,).

    Parameters
    ----------
    reference : Reference
    counts : sequence of array-like
        As `Reference.count` returns; sums over requests add up.
    """
    pairs = zip(reference.counts, counts, strict=True)
    return np.array([stability_index(expected, observed) for expected, observed in pairs])


def independent_threshold(n_expected, n_observed, n_bins, false_alarms=0.01):
    """Return the index that two samples of independent rows exceed with a given probability.

    Without drift the index is about (1 / n_expected + 1 / n_observed) times a chi-square variable
    with n_bins - 1 degrees of freedom. The customary bounds .1 and .25 know nothing of n.

    References
    ----------
    B. Yurdakul, "Statistical Properties of Population Stability Index", Western Michigan
    University 2018.
    """
    quantile = stats.chi2.isf(false_alarms, n_bins - 1)
    return float((1 / n_expected + 1 / n_observed) * quantile)


def window_stability(reference, X, visits, *, n_visits, n_windows=500, seed=0):
    """Stability indexes of windows of whole visits, drawn from data without drift.

    Parameters
    ----------
    reference : Reference
    X : array-like of shape (n, d)
        Held-back rows.
    visits : array-like of shape (n,)
        What is drawn together: rows of one visit share their household's features.
    n_visits : int
        Visits in a window, with replacement.
    n_windows, seed : int

    Returns
    -------
    ndarray of shape (n_windows, d)

    Raises
    ------
    RecbalError
        If there are fewer than 2 visits, or the lengths differ.
    """
    X = _matrix(X, len(reference.names))
    ids, codes = np.unique(np.asarray(visits), return_inverse=True)
    if len(codes) != len(X) or len(ids) < 2:
        raise RecbalError("visits must hold an id for each row of X, at least 2 different ones.")
    drawn = np.random.default_rng(seed).multinomial(
        int(n_visits), np.full(len(ids), 1 / len(ids)), size=int(n_windows)
    )
    result = np.empty((int(n_windows), len(reference.names)))
    for j, (edges, expected) in enumerate(zip(reference.edges, reference.counts, strict=True)):
        n_bins = len(expected)
        cells = codes * n_bins + np.searchsorted(edges, X[:, j])
        table = np.bincount(cells, minlength=len(ids) * n_bins).reshape(len(ids), n_bins)
        result[:, j] = [stability_index(expected, observed) for observed in drawn @ table]
    return result


@dataclass(frozen=True)
class Alarm:
    """Thresholds of the stability indexes that are exceeded, by any feature, at a known rate.

    Attributes
    ----------
    names : tuple of str
    thresholds : ndarray of shape (d,)
    """

    names: tuple
    thresholds: np.ndarray

    @classmethod
    def learn(cls, names, indexes, false_alarms=0.01, *, unit=0.95):
        """Choose thresholds from indexes without drift.

        Each feature is measured in units of its own quantile `unit`; one common factor is then
        set so that the worst feature of a window exceeds it in a share `false_alarms` of the
        windows. So 23 features do not bring 23 times the alarms.

        Parameters
        ----------
        names : sequence of str
        indexes : ndarray of shape (n_windows, d)
            As `window_stability` returns.
        false_alarms : float in (0, 1)
            Share of windows with any alarm.
        unit : float in (0, 1), default .95
            With few windows take the median: a high quantile of 20 is the maximum of each
            feature, which leaves the common factor nothing to do.

        Raises
        ------
        RecbalError
            If false_alarms or unit lies outside (0, 1), or no window would lie above.
        """
        if not 0 < false_alarms < 1 or len(indexes) * false_alarms < 1:
            raise RecbalError(
                f"false_alarms is {false_alarms!r} with {len(indexes)} windows: at least one "
                "window has to lie above the threshold, so draw more windows."
            )
        if not 0 < unit < 1:
            raise RecbalError(f"unit must lie in (0, 1); it is {unit!r}. It is a quantile.")
        size = np.quantile(indexes, unit, axis=0, method="higher")
        size = np.where(size > 0, size, np.finfo(np.float64).tiny)
        worst = (indexes / size).max(axis=1)
        factor = np.quantile(worst, 1 - false_alarms, method="higher")
        return cls(tuple(names), size * factor)

    def __call__(self, indexes):
        """Return whether a window alarms: bool for (d,), ndarray of bool for (n_windows, d)."""
        return (np.asarray(indexes) > self.thresholds).any(axis=-1)[()]

    def features(self, indexes):
        """Return the names of the features of one window that exceed their threshold."""
        return [
            name for name, out in zip(self.names, indexes > self.thresholds, strict=True) if out
        ]


def false_alarm_rate(alarms, confidence=0.95):
    """Return the share of windows that alarmed, with an exact (Clopper-Pearson) interval.

    Parameters
    ----------
    alarms : array-like of bool, shape (n,)
        One for each window, of windows that do not overlap.
    confidence : float, default 0.95

    Returns
    -------
    tuple of float
        (rate, low, high)
    """
    alarms = np.asarray(alarms, dtype=bool)
    if not alarms.size:
        raise RecbalError("There is no window to count alarms in.")
    found = stats.binomtest(int(alarms.sum()), alarms.size)
    low, high = found.proportion_ci(confidence, method="exact")
    return float(alarms.mean()), float(low), float(high)


def _counts(X, edges):
    return tuple(
        np.bincount(np.searchsorted(edge, column), minlength=len(edge) + 1).astype(np.int64)
        for edge, column in zip(edges, X.T, strict=True)
    )


def _matrix(X, width):
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != width or not np.isfinite(X).all():
        raise RecbalError(f"X must be finite and of shape (n, {width}); it has shape {X.shape}.")
    return X


def _shares(counts, name):
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
        raise RecbalError(f"{name} must be counts of rows in bins, at least one row in all.")
    smooth = counts + SMOOTHING
    return smooth / smooth.sum()
