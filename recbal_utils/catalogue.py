"""Rank a whole catalogue for many users: recall@k, NDCG@k, and what sampled metrics make of them.

`per_user` gives every user's recall and NDCG over all items, `sampled` the same against a few
random negatives, `top_k` the lists themselves. `summary` and `differences` put bootstrap intervals
on means over users; `coverage` and `exposure` tell how much of the catalogue the lists show.

Scores are an array (users, items), or a function `score(start, stop)` that returns the scores of
users start to stop - 1, so that the whole array need never exist. The function is always called
from the calling thread, one block after another, so that it may hold a Keras model; a pool of
threads ranks the blocks meanwhile. Memory: about 3 * block * n_items * (n_threads + 1) scores.
A result depends on the scores alone, not on the number of threads or the size of blocks. (Mind
that a matrix product may itself round differently for blocks of another size.)

Users and items are numbered from 0. `relevant` and `exclude` are scipy CSR arrays of bool, of
shape (users, items):

>>> from scipy.sparse import csr_array
>>> scores = np.array([[0.9, 0.1, 0.8, 0.3], [0.2, 0.4, 0.6, 0.8]])
>>> relevant = csr_array(np.array([[0, 0, 1, 0], [1, 0, 0, 1]], dtype=bool))
>>> top_k(scores, 2, 2)
array([[0, 2],
       [3, 2]])
>>> per_user(scores, relevant, k=2)["recall_at_2"].tolist()
[1.0, 0.5]
"""

import numpy as np
import pandas as pd
from scipy import sparse

from recbal_utils import _blocks, _bootstrap, _inputs, _tables
from recbal_utils.errors import RecbalError

TIES = ("index", "mean")
COUNT = "n_relevant"


# --- lists and metrics ----------------------------------------------------------------------


def top_k(score, n_users, k, *, exclude=None, block=256, n_threads=None):
    """Return the k items of highest score for each user, best first.

    Equal scores: the item of lower index comes first.

    Parameters
    ----------
    score : callable or array of shape (n_users, n_items)
        Finite scores, higher is better. `score(start, stop)` returns a new array of shape
        (stop - start, n_items), which it must not change later: it may still be being ranked.
    n_users : int
        At least 1.
    k : int
        Length of the lists, 1 to n_items.
    exclude : scipy CSR array of bool, shape (n_users, n_items), optional
        Items never to be listed for a user, such as those bought before.
    block : int, default 256
        Users scored and ranked at a time; larger blocks gain little and take more memory.
    n_threads : int, optional
        Threads that rank, beside the calling one that scores; by default as many as the machine
        has processors.

    Returns
    -------
    array of int, shape (n_users, k)
        Item indexes. A user with fewer than k items that are not excluded has -1 in the places
        left over.

    Raises
    ------
    RecbalError
        If a score is NaN or infinite, a shape does not match, exclude is not a CSR array of bool,
        or a setting is out of range.
    """
    n_users = _inputs.count(n_users, "n_users", 1)
    k = _inputs.count(k, "k", 1)
    if exclude is not None:
        exclude = _checked_matrix(exclude, "exclude", (n_users, None))
    scores = _blocks.Scores(score, n_users, None if exclude is None else exclude.shape[1])
    parts = {}

    def rank(start, stop, values):
        parts[start] = _blocks.best(_blocks.without(values, exclude, start, stop), k).items

    _blocks.over_blocks(rank, scores, block, n_threads)
    return np.concatenate([parts[start] for start in sorted(parts)])


def per_user(
    score, relevant, *, k=20, exclude=None, tiers=None, ties="index", block=256, n_threads=None
):
    """Return recall@k and NDCG@k of every user, all items of the catalogue ranked.

    Recall@k is the share of a user's relevant items among the first k. In NDCG@k a relevant item
    on place r gains 1 / log2(r + 1); the sum is divided by that of the best possible list. Both
    are those of `evaluate.recall_at_k` and `evaluate.ndcg_at_k` with a user in place of a visit.

    Parameters
    ----------
    score
        As for `top_k`; users are the rows of `relevant`.
    relevant : scipy CSR array of bool, shape (n_users, n_items)
        What each user really bought.
    k : int, default 20
        Number of places, 1 to n_items.
    exclude : scipy CSR array of bool, shape (n_users, n_items), optional
        Items not ranked for a user. An item both relevant and excluded could never be found, so
        it raises: leave it out by `relevant > exclude`, and say so where you state the result.
    tiers : array-like of shape (n_items,), optional
        The tier of each item (head, mid, tail). Adds metrics for which only items of one tier
        are relevant, while all items are still ranked. A pandas categorical keeps its order.
    ties : {"index", "mean"}, default "index"
        "index": the item of lower index comes first, as in `top_k`. If indexes go by popularity
        this flatters a model that gives many equal scores, such as one that counts purchases.
        "mean": the expected value under a random order of equal scores, as in `evaluate` and in
        scikit-learn's ndcg_score; no order of items matters.
    block, n_threads
        As for `top_k`.

    Returns
    -------
    pandas.DataFrame
        A row for each user with the columns recall_at_<k>, ndcg_at_<k>, n_relevant, and with
        tiers recall_at_<k>[<tier>], ndcg_at_<k>[<tier>], n_relevant[<tier>]. A metric is NaN for
        a user without a relevant item (of that tier).

    Raises
    ------
    RecbalError
        As for `top_k`; also if relevant is not a CSR array of bool, a relevant item is excluded,
        or tiers lacks an item.

    References
    ----------
    K. Järvelin and J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS
    20(4), 2002, for NDCG.
    """
    relevant = _checked_matrix(relevant, "relevant", (None, None))
    exclude = _checked_exclude(exclude, relevant)

    def ranked(values, start, stop):
        return _blocks.without(values, exclude, start, stop)

    return _metrics(score, relevant, ranked, k, tiers, ties, block, n_threads)


def sampled(
    score,
    relevant,
    *,
    n_negatives=99,
    k=20,
    seed=0,
    exclude=None,
    tiers=None,
    ties="index",
    block=256,
    n_threads=None,
):
    """Return what `per_user` returns, with only a few random negatives ranked: a biased shortcut.

    A user's relevant items are ranked among `n_negatives` items drawn without replacement,
    uniformly, from those that are neither relevant nor excluded. With one relevant item and 99
    negatives this is the common "1 + 99" test. It is here to show what it does: an item on place
    1,000 of 10,000 stands near place 10 of 100, so that being almost first and being first look
    alike, and two models can change places. With all negatives drawn it is `per_user`.

    Parameters
    ----------
    n_negatives : int, default 99
        At least 1, and at most what the user with the most relevant and excluded items leaves.
    seed : int, default 0
        A user's negatives depend on the seed, the user's number and what can be drawn: models
        compared with one seed meet the same negatives.
    score, relevant, k, exclude, tiers, ties, block, n_threads
        As for `per_user`.

    Returns
    -------
    pandas.DataFrame
        As for `per_user`.

    Raises
    ------
    RecbalError
        As for `per_user`; also if a user has fewer than n_negatives items to draw from.

    References
    ----------
    W. Krichene and S. Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020.
    """
    relevant = _checked_matrix(relevant, "relevant", (None, None))
    exclude = _checked_exclude(exclude, relevant)
    n_negatives = _inputs.count(n_negatives, "n_negatives", 1)
    seed = _inputs.count(seed, "seed", 0)
    taken = relevant if exclude is None else sparse.csr_array(relevant + exclude)
    _check_enough(taken, n_negatives)

    def ranked(values, start, stop):
        kept = np.full_like(values, -np.inf)
        rows, items = relevant[start:stop].nonzero()
        kept[rows, items] = values[rows, items]
        for row, user in enumerate(range(start, stop)):
            drawn = _negatives(taken, user, n_negatives, seed)
            kept[row, drawn] = values[row, drawn]
        return kept

    return _metrics(score, relevant, ranked, k, tiers, ties, block, n_threads)


# --- means with intervals -------------------------------------------------------------------


def summary(per_user, *, groups=None, n_replicates=1000, confidence=0.95, seed=0):
    """Return the mean of each metric over users, with a bootstrap interval.

    Parameters
    ----------
    per_user : pandas.DataFrame, or mapping of str to such
        What `per_user` or `sampled` returned; a mapping from a model's name to its frame gives
        one table of all models.
    groups : array-like of shape (n_rows,), optional
        The household of each row; the bootstrap draws households, with all their rows (baskets,
        say). By default every row is drawn on its own.
    n_replicates : int, default 1000
        Number of bootstrap replicates; 0 gives no interval (NaN).
    confidence : float, default 0.95
        Between 0 and 1; the interval is the percentile interval.
    seed : int, default 0
        Frames with equal groups and seed meet the same draws.

    Returns
    -------
    pandas.DataFrame
        Indexed by metric (by model and metric for a mapping), columns value, low, high. The value
        is the mean over the rows in which the metric is defined; NaN if there is none. The counts
        n_relevant are left out.

    Raises
    ------
    RecbalError
        If a frame holds no metric, groups do not match its rows or are all one, or a setting is
        out of range.
    """
    if isinstance(per_user, pd.DataFrame):
        return _intervals(*_means(per_user, groups, n_replicates, seed), confidence)
    frames = {
        name: _intervals(*_means(frame, groups, n_replicates, seed), confidence)
        for name, frame in dict(per_user).items()
    }
    if not frames:
        raise RecbalError("There is no frame to sum up: pass what per_user returned.")
    return pd.concat(frames, names=["model"])


def differences(a, b, *, groups=None, n_replicates=1000, confidence=0.95, seed=0):
    """Return the means of model b minus those of model a, paired on the same replicates.

    Parameters
    ----------
    a, b : pandas.DataFrame
        What `per_user` (or `sampled`) returned for two models on the same users and relevant
        items.
    groups, n_replicates, confidence, seed
        As for `summary`.

    Returns
    -------
    pandas.DataFrame
        Indexed by metric, columns value, low, high of the difference b - a.

    Raises
    ------
    RecbalError
        As for `summary`; also if the columns, the rows or the relevant items of a and b differ.
    """
    _check_pair(a, b)
    value_a, draws_a = _means(a, groups, n_replicates, seed)
    value_b, draws_b = _means(b, groups, n_replicates, seed)
    value = {name: value_b[name] - value_a[name] for name in value_a}
    draws = {name: draws_b[name] - draws_a[name] for name in draws_a}
    return _intervals(value, draws, confidence)


# --- what the lists show --------------------------------------------------------------------


def exposure(top, n_items):
    """Return how many lists show each item.

    `recbal_utils.diagnose.gini(exposure(top, n_items))` tells how unequally: near 1 if a few
    items take all places.

    Parameters
    ----------
    top : array-like of int, shape (n_users, k)
        What `top_k` returned; -1 stands for no item.
    n_items : int
        Size of the catalogue.

    Returns
    -------
    array of int, shape (n_items,)
        Items never shown have 0.

    Raises
    ------
    RecbalError
        If an index lies outside the catalogue, or top is not a table of whole numbers.
    """
    top = np.asarray(top)
    n_items = _inputs.count(n_items, "n_items", 1)
    if top.ndim != 2 or top.dtype.kind not in "iu":
        raise RecbalError(
            f"top must be an array of item indexes, a row for each user; it has shape {top.shape} "
            f"and type {top.dtype}. Pass what top_k returned."
        )
    if top.size and (top.min() < _blocks.NOTHING or top.max() >= n_items):
        raise RecbalError(
            f"top holds item indexes from {top.min()} to {top.max()}; a catalogue of {n_items} "
            f"items has 0 to {n_items - 1} (and -1 for an empty place)."
        )
    return np.bincount(top[top != _blocks.NOTHING], minlength=n_items)


def coverage(top, n_items):
    """Return the share of the catalogue that stands in at least one list.

    Parameters, errors: as for `exposure`.

    Returns
    -------
    float
        In [0, 1].
    """
    return float(np.mean(exposure(top, n_items) > 0))


# --- metrics --------------------------------------------------------------------------------


def _metrics(score, relevant, ranked, k, tiers, ties, block, n_threads):
    """Return the frame of `per_user`; `ranked` says which scores of a block count."""
    k = _inputs.count(k, "k", 1)
    if ties not in TIES:
        raise RecbalError(f"ties must be 'index' or 'mean'; it is {ties!r}.")
    n_users, n_items = relevant.shape
    _blocks.check_k(k, n_items)
    scores = _blocks.Scores(score, n_users, n_items)
    tier_of, names = _checked_tiers(tiers, n_items)
    columns = _columns(k, names)
    results = np.empty((n_users, len(columns)))
    gains = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(2, k + 2)))]

    def rank(start, stop, values):
        values = ranked(values, start, stop)
        lists = _blocks.best(values, k)
        rows, items = relevant[start:stop].nonzero()
        first, end, size = _blocks.places(values, lists, rows, items, ties)
        found, gained = (end - first) / size, (gains[end] - gains[first]) / size
        parts = [np.ones(len(rows), dtype=bool)]
        parts += [tier_of[items] == code for code in range(len(names))]
        for number, part in enumerate(parts):
            at = slice(3 * number, 3 * number + 3)
            pairs = rows[part], found[part], gained[part]
            results[start:stop, at] = _row_metrics(*pairs, stop - start, gains)

    _blocks.over_blocks(rank, scores, block, n_threads)
    frame = pd.DataFrame(results, columns=columns).rename_axis("user")
    return frame.astype({name: np.int64 for name in columns if name.startswith(COUNT)})


def _row_metrics(rows, found, gained, n_rows, gains):
    """Return recall, NDCG and the number of relevant items of each row."""
    n_relevant = np.bincount(rows, minlength=n_rows)
    best = gains[np.minimum(n_relevant, len(gains) - 1)]
    sums = [np.bincount(rows, values, minlength=n_rows) for values in (found, gained)]
    with np.errstate(invalid="ignore"):
        return np.column_stack([sums[0] / n_relevant, sums[1] / best, n_relevant])


def _columns(k, names):
    ends = ["", *(f"[{name}]" for name in names)]
    return [f"{stem}{end}" for end in ends for stem in (f"recall_at_{k}", f"ndcg_at_{k}", COUNT)]


def _negatives(taken, user, n_negatives, seed):
    """Draw items, without replacement, among those not taken by the user."""
    used = taken.indices[taken.indptr[user] : taken.indptr[user + 1]]
    n_free = taken.shape[1] - len(used)
    rng = np.random.default_rng([seed, user])
    free = rng.choice(n_free, n_negatives, replace=False, shuffle=False)
    return free + np.searchsorted(used - np.arange(len(used)), free, side="right")


# --- checks ---------------------------------------------------------------------------------


def _checked_matrix(matrix, name, shape):
    """Return a CSR array of bool without stored zeros; raise with what to do."""
    if not sparse.issparse(matrix) or matrix.format != "csr" or matrix.dtype != bool:
        what = (
            f"a {matrix.format} array of {matrix.dtype}"
            if sparse.issparse(matrix)
            else f"a {type(matrix).__name__}"
        )
        raise RecbalError(
            f"{name} must be a scipy CSR array of bool, a row for each user and a column for each "
            f"item; it is {what}. Convert it: csr_array({name}).astype(bool)."
        )
    wrong = [
        size for size, want in zip(matrix.shape, shape, strict=True) if want not in (None, size)
    ]
    if wrong or 0 in matrix.shape:
        raise RecbalError(
            f"{name} has shape {matrix.shape}; pass one row for each user and one column for each "
            "item, at least one of both, as the scores have."
        )
    matrix = sparse.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _checked_exclude(exclude, relevant):
    if exclude is None:
        return None
    exclude = _checked_matrix(exclude, "exclude", relevant.shape)
    both = relevant.multiply(exclude).tocoo()
    if both.nnz:
        raise RecbalError(
            f"{both.nnz} relevant items are excluded, the first is item {both.col[0]} of user "
            f"{both.row[0]}: they could never be found. Pass relevant > exclude to leave them out."
        )
    return exclude


def _checked_tiers(tiers, n_items):
    """Return the code of each item's tier and the names of the tiers."""
    if tiers is None:
        return np.empty(0, dtype=np.int64), []
    if np.shape(tiers) != (n_items,):
        raise RecbalError(
            f"tiers has shape {np.shape(tiers)}; pass the tier of each of the {n_items} items."
        )
    codes, names = _inputs.factorise(tiers, "tiers")
    return codes, list(names)


def _check_enough(taken, n_negatives):
    left = taken.shape[1] - np.diff(taken.indptr)
    if left.min() < n_negatives:
        raise RecbalError(
            f"n_negatives is {n_negatives}, and user {left.argmin()} has only {left.min()} items "
            "that are neither relevant nor excluded: draw fewer."
        )


def _check_pair(a, b):
    for name, frame in {"a": a, "b": b}.items():
        _metric_columns(frame, name)
    counts = [name for name in a.columns if str(name).startswith(COUNT)]
    if list(a.columns) != list(b.columns) or not a.index.equals(b.index):
        raise RecbalError(
            "a and b have other columns or rows: compare two models on the same users, k and tiers."
        )
    if not a[counts].equals(b[counts]):
        raise RecbalError(
            "a and b count other relevant items for some users: compare two models on the same "
            "relevant items."
        )


def _metric_columns(frame, name="per_user"):
    if not isinstance(frame, pd.DataFrame):
        raise RecbalError(f"{name} must be a frame that per_user returned; it is {type(frame)}.")
    metrics = [column for column in frame.columns if not str(column).startswith(COUNT)]
    if not metrics or not len(frame):
        raise RecbalError(f"{name} holds no metric or no row: pass what per_user returned.")
    return metrics


# --- replicates -----------------------------------------------------------------------------


def _means(frame, groups, n_replicates, seed):
    """Return {metric: mean} and {metric: draws}."""
    metrics = _metric_columns(frame)
    n_replicates = _inputs.count(n_replicates, "n_replicates", 0)
    seed = _inputs.count(seed, "seed", 0)
    units = _units(frame, groups)
    if n_replicates and units.n < 2:
        raise RecbalError(
            "All rows are of one group, so a bootstrap has nothing to draw from: pass groups with "
            "at least 2 ids, or n_replicates=0."
        )
    columns = {name: _numbers_or_nan(frame[name]) for name in metrics}
    tables = [
        _tables.visit_table(name, values, units.codes, units.n) for name, values in columns.items()
    ]
    everything = np.ones((1, units.n))
    value = {name: v[0] for table in tables for name, v in table.values(everything).items()}
    return value, _bootstrap.replicate(tables, units.n, n_replicates, seed)


def _units(frame, groups):
    if groups is None:
        return _inputs.Units(np.arange(len(frame)), len(frame))
    if np.shape(groups) != (len(frame),):
        raise RecbalError(
            f"groups has shape {np.shape(groups)}; pass the household of each of the {len(frame)} "
            "rows."
        )
    return _inputs.units(groups, "groups")


def _numbers_or_nan(column):
    try:
        return column.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise RecbalError(f"Column {column.name} must hold numbers.") from None


def _intervals(value, draws, confidence):
    if not 0 < confidence < 1:
        raise RecbalError(f"confidence must lie between 0 and 1; it is {confidence!r}.")
    rows = [(value[name], *_bootstrap.interval(draws[name], confidence)) for name in value]
    index = pd.Index(list(value), name="metric")
    return pd.DataFrame(rows, columns=["value", "low", "high"], index=index, dtype=float)
