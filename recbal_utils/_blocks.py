"""Blocks of scores, ranked by a pool of threads: the k best of each row, and places with ties."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

NOTHING = -1  # fills the list of a row with fewer than k items to rank


# --- scores by block ------------------------------------------------------------------------


class Scores:
    """Scores by block: checked for shape and for values that cannot be ranked."""

    def __init__(self, score, n_users, n_items):
        self.score, self.n_users, self.n_items = score, n_users, n_items
        if callable(score):
            return
        self.score = np.asarray(score)
        if self.score.ndim != 2 or len(self.score) != n_users:
            raise RecbalError(
                f"score has shape {self.score.shape}; pass one row for each of the {n_users} users "
                "and one column for each item."
            )

    def block(self, start, stop):
        """Return the scores of users start to stop - 1 as floats."""
        given = self.score(start, stop) if callable(self.score) else self.score[start:stop]
        values = np.asarray(given)
        if self.n_items is None and values.ndim == 2:
            self.n_items = values.shape[1]
        if values.shape != (stop - start, self.n_items):
            raise RecbalError(
                f"The scores of users {start} to {stop - 1} have shape {values.shape}; they need a "
                f"row for each user, here {stop - start}, and a column for each item"
                f"{'' if self.n_items is None else f', here {self.n_items}'}."
            )
        return _finite(values, start)


def _finite(values, start):
    """Return floats; raise with the first user and item whose score cannot be ranked."""
    if values.dtype.kind not in "biuf":
        raise RecbalError(f"score must hold numbers; its type is {values.dtype}.")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(values.sum())  # one pass; finite scores may overflow their sum
    if suspect and not np.isfinite(values).all():
        row, item = np.argwhere(~np.isfinite(values))[0]
        raise RecbalError(
            f"The score of user {start + row} for item {item} is {values[row, item]}: scores must "
            "be finite. Leave items out by exclude, not by infinite scores."
        )
    return values


def over_blocks(rank, scores, block, n_threads):
    """Call rank(start, stop, values) for every block; at most n_threads + 1 blocks exist."""
    block = _inputs.count(block, "block", 1)
    n_threads = os.cpu_count() or 1 if n_threads is None else n_threads
    n_threads = _inputs.count(n_threads, "n_threads", 1)
    waiting = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, scores.n_users, block):
            stop = min(start + block, scores.n_users)
            values = scores.block(start, stop)
            if len(waiting) == n_threads:
                waiting.popleft().result()
            waiting.append(pool.submit(rank, start, stop, values))
        for job in waiting:
            job.result()


def without(values, exclude, start, stop):
    """Return the scores with those of excluded items at minus infinity, on a copy."""
    if exclude is None:
        return values
    values = values.copy()
    values[exclude[start:stop].nonzero()] = -np.inf
    return values


# --- ranking one block ----------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """The k best of each row: items (-1 where none is left) and their scores, best first."""

    items: np.ndarray
    scores: np.ndarray


def check_k(k, n_items):
    """Raise if a list is to be longer than the catalogue."""
    if k > n_items:
        raise RecbalError(f"k must be at most the number of items, {n_items}; it is {k}.")


def best(values, k):
    """Find the k best of each row without sorting the row; equal scores by rising index."""
    n_rows, n_items = values.shape
    check_k(k, n_items)
    last = np.partition(values, n_items - k, axis=1)[:, n_items - k]
    chosen = values >= last[:, None]
    surplus = np.count_nonzero(chosen, axis=1) - k
    tied = np.flatnonzero(surplus)
    chosen[tied] = _first_of_tied(values[tied], last[tied], chosen[tied], surplus[tied])
    items = (np.flatnonzero(chosen) % n_items).reshape(n_rows, k)
    order = np.argsort(-np.take_along_axis(values, items, axis=1), axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    scores = np.take_along_axis(values, items, axis=1)
    return Lists(np.where(np.isneginf(scores), NOTHING, items), scores)


def _first_of_tied(values, last, chosen, surplus):
    """Drop the surplus items of highest index among those that tie with the last score."""
    equal = values == last[:, None]
    number = np.cumsum(equal, axis=1, dtype=np.int32)
    keep = number[:, -1] - surplus
    return chosen & ~(equal & (number > keep[:, None]))


def places(values, lists, rows, items, ties):
    """Return (first, end, size) for each pair (row, item), places counted from 0.

    The item stands on one of `size` places with equal chance, of which first to end - 1 lie in
    the list; an item beyond the list has first = end.
    """
    first = _place_in_list(values.shape, lists, rows, items)
    k = lists.items.shape[1]
    if ties == "index":
        return first, np.minimum(first + 1, k), np.ones(len(rows))
    last = lists.scores[:, -1]
    tied_with_last = values[rows, items] == last[rows]  # perhaps beyond the list
    start, end = _runs(lists.scores)
    place = np.where(tied_with_last, k - 1, first)
    first, end = start[rows, place], end[rows, place]
    n_last = np.count_nonzero(values == last[:, None], axis=1)
    size = np.where(tied_with_last, n_last[rows], np.maximum(end - first, 1))
    return first, end, size


def _place_in_list(shape, lists, rows, items):
    """Return the place of each pair's item in its row's list; k where it is not in the list."""
    k = lists.items.shape[1]
    place = np.full(shape, k, dtype=np.int32)
    row, at = np.nonzero(lists.items != NOTHING)
    place[row, lists.items[row, at]] = at
    return place[rows, items].astype(np.int64)


def _runs(scores):
    """Return where the run of equal scores around each place starts and ends (exclusive).

    A column for place k, beyond the list, starts and ends at k.
    """
    n_rows, k = scores.shape
    beyond = np.full((n_rows, 1), k)
    edge = np.ones((n_rows, 1), dtype=bool)
    changes = scores[:, 1:] != scores[:, :-1]
    opens = np.where(np.hstack([edge, changes]), np.arange(k), 0)
    closes = np.where(np.hstack([changes, edge]), np.arange(1, k + 1), k)
    start = np.maximum.accumulate(opens, axis=1)
    end = np.minimum.accumulate(closes[:, ::-1], axis=1)[:, ::-1]
    return np.hstack([start, beyond]), np.hstack([end, beyond])
