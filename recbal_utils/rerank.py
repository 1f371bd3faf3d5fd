"""Re-rank lists after training: against popularity, or towards a user's own mix of categories."""

import numpy as np
from scipy.special import xlogy

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

SMOOTHING = 0.01
TINY = 1e-300  # where 0 would divide, or be taken the logarithm of


def discount_popularity(scores, counts, power: float) -> np.ndarray:
    """Divide scores by popularity to a power.

    Parameters
    ----------
    scores : array-like of shape (n_users, n_items)
        On a scale where 0 means "no reason to show": negative ones are kept as they are, or a
        popular item would be pushed up for being disliked.
    counts : array-like of shape (n_items,)
        Popularity in the training data, 0 or more; 0 counts as 1.
    power : float
        0 changes nothing.

    Returns
    -------
    ndarray of shape (n_users, n_items)

    Raises
    ------
    RecbalError
        If the numbers of items differ, or power is negative or not finite.
    """
    scores, counts = np.asarray(scores), np.asarray(counts, dtype=float)
    if scores.ndim != 2 or scores.shape[1:] != counts.shape:
        raise RecbalError(
            f"scores have the shape {scores.shape} and counts {counts.shape}: give a column of "
            "scores for each item that is counted."
        )
    if not 0 <= power < np.inf:
        raise RecbalError(f"power is {power!r}; give a number of 0 or more.")
    divisor = (np.maximum(counts, 1) ** power).astype(scores.dtype)
    return np.where(scores > 0, scores / divisor, scores)


def category_shares(categories) -> np.ndarray:
    """p(g|i): each item's weight, shared out evenly among its categories.

    Parameters
    ----------
    categories : array-like of bool, shape (n_items, n_categories)

    Returns
    -------
    ndarray of shape (n_items, n_categories)
        Rows sum to 1, or to 0 for an item of no category.
    """
    flags = np.asarray(categories, dtype=float)
    return flags / np.maximum(flags.sum(axis=1, keepdims=True), 1)


def user_mix(history, shares) -> np.ndarray:
    """p(g|u): the mix of categories in what each user chose before.

    Parameters
    ----------
    history : CSR array of shape (n_users, n_items)
    shares : ndarray of shape (n_items, n_categories)
        See `category_shares`.

    Returns
    -------
    ndarray of shape (n_users, n_categories)
        Rows sum to 1, or to 0 for a user without any category.
    """
    total = np.asarray(history @ shares, dtype=float)
    return total / np.maximum(total.sum(axis=1, keepdims=True), TINY)


def miscalibration(mix, lists, shares, smoothing: float = SMOOTHING) -> np.ndarray:
    """Kullback-Leibler divergence of each list's mix of categories from its user's own.

    C(p, q) = sum_g p(g|u) ln(p(g|u) / q~(g|u)) with q~ = (1 - a) q + a p.

    Parameters
    ----------
    mix : ndarray of shape (n_users, n_categories)
        p(g|u), see `user_mix`.
    lists : ndarray of int, shape (n_users, k)
        Items; -1 is an empty place. Places weigh alike.
    shares : ndarray of shape (n_items, n_categories)
    smoothing : float in (0, 1)
        a, which keeps the divergence finite: at most -ln a.

    Returns
    -------
    ndarray of shape (n_users,)
        In nats, 0 for a list with exactly the user's mix.

    References
    ----------
    H. Steck, "Calibrated Recommendations", RecSys 2018.
    """
    lists = np.asarray(lists)
    total = np.where(lists[..., None] >= 0, shares[lists], 0).sum(axis=1)
    return _divergence(np.asarray(mix, dtype=float), total, smoothing)


def calibrate(scores, candidates, mix, shares, *, k: int, weight: float, smoothing=SMOOTHING):
    """Choose k of each user's candidates, greedily, for score and for the user's own mix.

    Place after place takes the item that makes (1 - w) sum_i s(i) - w C(p, q) largest over the
    list so far; see `miscalibration` for C.

    Parameters
    ----------
    scores : array-like of shape (n_users, n_items)
    candidates : ndarray of int, shape (n_users, m)
        Items to choose from, such as the first hundred; -1 is no item.
    mix, shares, smoothing
        As for `miscalibration`.
    k : int
        At most m.
    weight : float in [0, 1]
        w: 0 ranks by score, 1 looks at the mix alone. What a value between does depends on the
        scale of the scores.

    Returns
    -------
    ndarray of int, shape (n_users, k)
        -1 where a user has no candidates left.

    Raises
    ------
    RecbalError
        If weight is outside [0, 1], k exceeds m, or shapes do not match.

    References
    ----------
    H. Steck, "Calibrated Recommendations", RecSys 2018.
    """
    candidates, mix = np.asarray(candidates), np.asarray(mix, dtype=float)
    k = _inputs.count(k, "k", 1)
    if not 0 <= weight <= 1:
        raise RecbalError(f"weight must lie in [0, 1]; it is {weight!r}.")
    if k > candidates.shape[1] or len(mix) != len(candidates):
        raise RecbalError(
            f"k is {k}, candidates have the shape {candidates.shape} and mix {mix.shape}: give at "
            "least k candidates and one mix for each user."
        )
    rows = np.arange(len(candidates))
    value = np.take_along_axis(np.asarray(scores, dtype=float), np.maximum(candidates, 0), axis=1)
    open_ = candidates >= 0
    total, chosen = np.zeros((len(candidates), shares.shape[1])), []
    for _ in range(k):
        divergence = _divergence(mix[:, None], total[:, None] + shares[candidates], smoothing)
        gain = np.where(open_, (1 - weight) * value - weight * divergence, -np.inf)
        best = gain.argmax(axis=1)
        item = np.where(open_[rows, best], candidates[rows, best], -1)
        total += np.where(item[:, None] >= 0, shares[item], 0)
        open_[rows, best] = False
        chosen.append(item)
    return np.column_stack(chosen)


def _divergence(p, total, smoothing):
    """KL(p || q~) along the last axis, q being `total` scaled to sum to 1."""
    q = total / np.maximum(total.sum(axis=-1, keepdims=True), TINY)
    mixed = np.log((1 - smoothing) * q + smoothing * p + TINY)
    return xlogy(p, p).sum(axis=-1) - np.einsum("...g,...g->...", p, mixed)
