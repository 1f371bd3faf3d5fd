"""A linear ranker, trained by a softmax over the items of each query's list.

The loss of a query is the cross-entropy between the weights its items earned (grades, or clicks)
and the softmax of their scores: the listwise loss of Cao et al. (2007), top one. Few queries
carry few parameters, and a weight for each feature can be read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

RIDGE = 1e-3


@dataclass(frozen=True)
class Lists:
    """Lists of items, padded to one length.

    Attributes
    ----------
    features : ndarray of float, shape (n_lists, length, n_features)
    weight : ndarray of float, shape (n_lists, length)
        What an item earned; 0 for a negative. Sums to 1 over all lists.
    real : ndarray of bool, shape (n_lists, length)
        False where a list is shorter than the longest.
    """

    features: np.ndarray
    weight: np.ndarray
    real: np.ndarray


def make(features: np.ndarray, rows: Sequence[int], items: Sequence[np.ndarray], weights) -> Lists:
    """Return the lists of some queries; those that earned nothing are left out.

    Parameters
    ----------
    features : ndarray of shape (n_queries, n_items, n_features)
    rows : sequence of int
        The queries.
    items, weights : sequence of ndarray
        For each of them its items and what each earned, not negative.

    Raises
    ------
    RecbalError
        If no list earned anything, or a weight is negative.
    """
    kept = [i for i, weight in enumerate(weights) if np.sum(weight) > 0]
    if not kept:
        raise RecbalError("No list earned a weight: there is nothing to learn from.")
    longest = max(len(items[i]) for i in kept)
    shape = len(kept), longest
    x = np.zeros((*shape, features.shape[2]), dtype=np.float64)
    weight, real = np.zeros(shape), np.zeros(shape, dtype=bool)
    for at, i in enumerate(kept):
        n = len(items[i])
        x[at, :n] = features[rows[i], items[i]]
        weight[at, :n] = weights[i]
        real[at, :n] = True
    if weight.min() < 0:
        raise RecbalError(f"A weight is {weight.min():g}; weights must not be negative.")
    return Lists(x, weight / weight.sum(), real)


def fit(lists: Lists, ridge: float = RIDGE) -> np.ndarray:
    """Return the weight of each feature that minimises the mean loss.

    Parameters
    ----------
    lists : Lists
    ridge : float, default 0.001
        Penalty on the squares of the weights.

    Returns
    -------
    ndarray of shape (n_features,)
    """
    hidden = np.where(lists.real, 0.0, -np.inf)
    mass = lists.weight.sum(axis=1, keepdims=True)

    def loss(w):
        scores = lists.features @ w + hidden
        scores -= scores.max(axis=1, keepdims=True)
        exp = np.exp(scores)
        total = exp.sum(axis=1, keepdims=True)
        log_p = np.where(lists.real, scores, 0) - np.log(total)
        error = mass * exp / total - lists.weight
        gradient = np.einsum("ql,qlf->f", error, lists.features) + 2 * ridge * w
        return -(lists.weight * log_p).sum() + ridge * w @ w, gradient

    start = np.zeros(lists.features.shape[2])
    return minimize(loss, start, jac=True, method="L-BFGS-B").x


def with_negatives(
    positives: Sequence[np.ndarray],
    earned: Sequence[np.ndarray],
    pools: Sequence[np.ndarray],
    n: int,
    seed: int = 0,
):
    """Return items and weights of each query with up to n negatives drawn from its pool.

    What stands among the positives is not drawn again.

    Parameters
    ----------
    positives, earned : sequence of ndarray
        Items of each query and what they earned.
    pools : sequence of ndarray
        For each query the items to draw from, without replacement.
    n : int
    seed : int, default 0

    Returns
    -------
    items, weights : lists of ndarray
    """
    n = _inputs.count(n, "n", 0)
    rng = np.random.default_rng(seed)
    items, weights = [], []
    for own, weight, pool in zip(positives, earned, pools, strict=True):
        free = np.setdiff1d(pool, own)
        drawn = rng.choice(free, min(n, len(free)), replace=False)
        items.append(np.concatenate([own, drawn]))
        weights.append(np.concatenate([weight, np.zeros(len(drawn))]))
    return items, weights


def balanced(weights: Sequence[np.ndarray], grades=None) -> list[np.ndarray]:
    """Return weights that sum to 1 in each query, and in equal parts by grade if grades are given.

    Parameters
    ----------
    weights : sequence of ndarray
    grades : sequence of ndarray, optional
        The grade of each item; the grades that earned something share a query's weight equally.
    """
    out = []
    for i, weight in enumerate(weights):
        weight = np.asarray(weight, dtype=float)
        if grades is not None and weight.sum() > 0:
            codes = np.unique(grades[i], return_inverse=True)[1]
            mass = np.bincount(codes, weight)[codes]
            weight = np.divide(weight, mass, out=np.zeros_like(weight), where=mass > 0)
        total = weight.sum()
        out.append(weight / total if total > 0 else weight)
    return out


def folds(n: int, k: int = 5, seed: int = 0) -> np.ndarray:
    """Return a fold from 0 to k - 1 for each of n queries, of sizes that differ by one at most."""
    k = _inputs.count(k, "k", 2)
    return np.random.default_rng(seed).permutation(_inputs.count(n, "n", k)) % k


def out_of_fold(
    train: Callable[[np.ndarray], np.ndarray], features: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of every query by a ranker that never saw it.

    Parameters
    ----------
    train : callable
        `train(rows)` returns the weights of a ranker trained on these queries alone.
    features : ndarray of shape (n_queries, n_items, n_features)
    fold : ndarray of int, shape (n_queries,)

    Returns
    -------
    scores : ndarray of float32, shape (n_queries, n_items)
    weights : ndarray of shape (n_folds, n_features)
    """
    scores = np.empty(features.shape[:2], dtype=np.float32)
    found = []
    for k in np.unique(fold):
        found.append(train(np.flatnonzero(fold != k)))
        scores[fold == k] = features[fold == k] @ found[-1].astype(np.float32)
    return scores, np.array(found)
