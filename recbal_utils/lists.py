"""What the lists of visits show, and what a few random candidates make of them.

`shown` gives the items on the first places of each visit's list; `with_negatives` marks the rows
that a sampled evaluation would rank; `expected_sampled` is what such a metric says, on average, of
an item that stands on a known place of the whole catalogue.
"""

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError


def shown(p, visits, items, k: int = 10) -> np.ndarray:
    """Return the items on the first k places of each visit.

    Parameters
    ----------
    p : array-like of shape (n,)
        Finite scores, higher is better; of equal ones the earlier row comes first.
    visits, items : array-like of shape (n,)
        Ids.
    k : int, default 10

    Returns
    -------
    array of shape (n_shown,)
        An item for each place that is taken: k for each visit, or as many as it has.
    """
    _inputs.check_shapes(p=p, visits=visits, items=items)
    p, units = _inputs.numbers(p, "p"), _inputs.units(visits, "visits")
    k = _inputs.count(k, "k", 1)
    by_visit = np.argsort(units.codes, kind="stable")
    ends = np.cumsum(np.bincount(units.codes, minlength=units.n))
    first = [_first_k(p[rows], rows, k) for rows in np.split(by_visit, ends[:-1])]
    return np.asarray(items)[np.concatenate(first)]


def _first_k(p, rows, k):
    """The k rows of highest p; of equal ones the earlier."""
    if len(rows) > k:
        near = p >= np.partition(p, -k)[-k]
        p, rows = p[near], rows[near]
    return rows[np.argsort(-p, kind="stable")[:k]]


def exposure(p, visits, items, k: int = 10) -> pd.Series:
    """Return on how many visits' first k places each item stands, 0 included.

    Parameters, errors: as for `shown`.

    Returns
    -------
    pandas.Series
        Indexed by item, of every item that is a candidate in some visit. Its Gini index is
        `recbal_utils.diagnose.gini` of it, its coverage the share above 0.
    """
    known = pd.Index(np.unique(np.asarray(items)), name="item")
    times = pd.Series(shown(p, visits, items, k)).value_counts()
    return times.reindex(known, fill_value=0).rename("shown")


def with_negatives(y, visits, n: int = 99, *, seed: int = 0) -> np.ndarray:
    """Mark the rows of a sampled evaluation: all conversions, and n random others of each visit.

    Parameters
    ----------
    y : array-like of shape (n_rows,)
        0 or 1.
    visits : array-like of shape (n_rows,)
    n : int, default 99
        A visit with fewer other rows keeps them all.
    seed : int
        Models compared with one seed meet the same rows.

    Returns
    -------
    array of bool, shape (n_rows,)
    """
    _inputs.check_shapes(y=y, visits=visits)
    y, units = _inputs.labels(y), _inputs.units(visits, "visits")
    n = _inputs.count(n, "n", 1)
    rng = np.random.default_rng(_inputs.count(seed, "seed", 0))
    number = np.where(y == 1, -1.0, rng.random(len(y)))
    order = np.lexsort((number, units.codes))
    sorted_visits = units.codes[order]
    place = np.arange(len(y)) - np.searchsorted(sorted_visits, sorted_visits)
    positives = np.bincount(units.codes, y, minlength=units.n)[sorted_visits]
    kept = np.zeros(len(y), dtype=bool)
    kept[order[place < positives + n]] = True
    return kept


def expected_sampled(rank, gain, *, n_items: int, n_negatives: int) -> np.ndarray:
    """Return the mean of a sampled metric for one relevant item on known places.

    Parameters
    ----------
    rank : array-like of int
        Place of the relevant item among all n_items, from 1.
    gain : callable
        `gain(ranks)` is the metric of an array of places, such as ``lambda r: r <= 10``.
    n_items : int
    n_negatives : int
        Drawn without replacement from the n_items - 1 others.

    Returns
    -------
    array of float, shape of `rank`

    Notes
    -----
    The number of drawn items above the relevant one is hypergeometric.

    Raises
    ------
    RecbalError
        If a place or a number lies out of range.
    """
    rank = np.asarray(rank)
    n_items = _inputs.count(n_items, "n_items", 2)
    n_negatives = _inputs.count(n_negatives, "n_negatives", 1)
    if n_negatives > n_items - 1 or (rank < 1).any() or (rank > n_items).any():
        raise RecbalError(
            f"Places lie from 1 to {n_items}, and at most {n_items - 1} negatives can be drawn."
        )
    above = np.arange(n_negatives + 1)
    chance = hypergeom.pmf(above, n_items - 1, rank[..., None] - 1, n_negatives)
    return chance @ np.asarray(gain(above + 1), dtype=np.float64)
