"""Sums per unit from which metrics, and all their bootstrap replicates, are matrix products.

A replicate draws units with replacement, so it gives every unit a weight w (how often it was
drawn). Each metric here is a function of totals T = w @ S, where the table S holds sums per unit
and is made once: no replicate goes back to the rows. With every w = 1 the totals give the metric
of the sample itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

EPS = np.finfo(np.float64).eps
DENSE_CELLS = 20_000_000  # 160 MB; a larger table is kept sparse


@dataclass(frozen=True)
class Table:
    """Sums per unit, shape (units, m), and metrics from totals of shape (replicates, m)."""

    sums: np.ndarray | sparse.csr_array
    metrics: dict[str, Callable[[np.ndarray], np.ndarray]]

    def values(self, unit_weights):
        """Return each metric for unit weights of shape (replicates, units)."""
        totals = np.asarray(unit_weights @ self.sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: metric(totals) for name, metric in self.metrics.items()}


def log_losses(y, p):
    """Return the log loss of each row, p clipped to [2.2e-16, 1 - 2.2e-16] as scikit-learn does."""
    clipped = np.clip(p, EPS, 1 - EPS)
    return -np.where(y == 1, np.log(clipped), np.log1p(-clipped))


def probability_table(y, p, weight, units):
    """Sums of rows, conversions, predictions and losses: log loss, normalised entropy, ratio."""
    columns = [np.ones_like(y), y, p, log_losses(y, p)]
    return Table(
        np.column_stack([_unit_sums(column, weight, units) for column in columns]),
        {
            "log_loss": lambda t: t[:, 3] / t[:, 0],
            "normalised_entropy": lambda t: t[:, 3] / t[:, 0] / _entropy(t[:, 1] / t[:, 0]),
            "ratio": lambda t: _defined(t[:, 2] / t[:, 1]),
        },
    )


def calibration_table(y, p, weight, units, bins, n_bins):
    """Sums of prediction minus outcome per bin: calibration error, also over prevalence."""
    cells = units.codes * n_bins + bins
    gaps = np.bincount(cells, _weighted(p - y, weight), minlength=units.n * n_bins)
    sizes = [_unit_sums(column, weight, units) for column in (np.ones_like(y), y)]
    return Table(
        np.column_stack([gaps.reshape(units.n, n_bins), *sizes]),
        {
            "expected_calibration_error": lambda t: np.abs(t[:, :-2]).sum(1) / t[:, -2],
            "relative_calibration_error": lambda t: _defined(np.abs(t[:, :-2]).sum(1) / t[:, -1]),
        },
    )


def ranking_table(y, p, weight, units):
    """Counts per unit around each distinct score of a positive, from the highest down.

    With K such scores there are 3K + 1 columns. The first 2K + 1 count negatives: column 2k + 1
    those tied with score k, the even columns those between two scores. The last K count positives.
    A curve changes its recall only at the score of a positive, so this is all that ROC-AUC and
    average precision need, and they stay exact with ties.
    """
    positive = y == 1
    scores = np.unique(p[positive])
    k = len(scores)
    place = np.searchsorted(scores, p)
    tied = scores[np.minimum(place, k - 1)] == p
    column = np.where(positive, 3 * k - place, 2 * (k - place) - tied)
    sums = _count_cells(column, weight, units, 3 * k + 1)
    return Table(
        sums,
        {
            "roc_auc": lambda t: _auc(t[:, : 2 * k + 1], t[:, 2 * k + 1 :]),
            "average_precision": lambda t: _average_precision(t[:, : 2 * k + 1], t[:, 2 * k + 1 :]),
        },
    )


def visit_table(name, values, unit_of_visit, n_units):
    """Sums of a per-visit metric and counts of visits; visits with NaN do not count."""
    counted = ~np.isnan(values)
    unit = unit_of_visit[counted]
    sums = np.bincount(unit, values[counted], minlength=n_units)
    visits = np.bincount(unit, minlength=n_units)
    return Table(np.column_stack([sums, visits]), {name: lambda t: t[:, 0] / t[:, 1]})


def _auc(negatives, positives):
    """Share of pairs of a positive and a negative in the right order; a tie counts one half."""
    tied = negatives[:, 1::2]
    above = np.cumsum(negatives, axis=1)
    below = above[:, -1:] - above[:, 1::2]
    right = np.einsum("ij,ij->i", positives, below + tied / 2)
    return right / positives.sum(1) / above[:, -1]


def _average_precision(negatives, positives):
    """Mean precision at the score of each positive, rows tied with it included."""
    found = np.cumsum(positives, axis=1)
    listed = np.cumsum(negatives, axis=1)[:, 1::2] + found
    precision = np.divide(found, listed, out=np.zeros_like(found), where=listed > 0)
    return np.einsum("ij,ij->i", positives, precision) / found[:, -1]


def _entropy(rate):
    """Entropy of a Bernoulli rate in nats; NaN at 0 and 1, where nothing can be divided by it."""
    return _defined(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def _defined(values):
    return np.where(np.isfinite(values), values, np.nan)


def _weighted(values, weight):
    return values if weight is None else values * weight


def _unit_sums(values, weight, units):
    return np.bincount(units.codes, _weighted(values, weight), minlength=units.n)


def _count_cells(column, weight, units, m):
    """Weighted counts of rows per unit and column, dense where that is small."""
    if units.n * m > DENSE_CELLS:
        data = np.ones(len(column)) if weight is None else weight
        return sparse.coo_array((data, (units.codes, column)), shape=(units.n, m)).tocsr()
    cells = np.bincount(units.codes * m + column, weight, minlength=units.n * m)
    return cells.reshape(units.n, m).astype(np.float64, copy=False)
