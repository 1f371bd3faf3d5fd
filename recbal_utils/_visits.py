"""Ranking within a visit, where tied rows share their places evenly."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class RelevantBlocks:
    """Runs of tied rows of a visit that hold at least one relevant row.

    A block of `size` rows stands on places before + 1 to before + size of its visit, and
    `relevant` of its rows are relevant. `n_relevant` counts the relevant rows of every visit.
    `block_of_row` is the block of each relevant row, in the order of the rows.
    """

    visit: np.ndarray
    before: np.ndarray
    size: np.ndarray
    relevant: np.ndarray
    n_relevant: np.ndarray
    block_of_row: np.ndarray

    def counting(self, chosen):
        """Return the same places with only the chosen ones of the relevant rows counted."""
        hits = np.bincount(self.block_of_row[chosen], minlength=len(self.visit))
        n_relevant = np.bincount(self.visit, hits, minlength=len(self.n_relevant))
        return replace(self, relevant=hits, n_relevant=n_relevant)


def relevant_blocks(relevant, p, visits):
    """Find the tied blocks with relevant rows; only the relevant rows are sorted."""
    rows = np.flatnonzero(relevant)
    order = np.lexsort((-p[rows], visits.codes[rows]))
    score, visit = p[rows][order], visits.codes[rows][order]
    is_start = np.ones(len(rows), dtype=bool)
    is_start[1:] = (score[1:] != score[:-1]) | (visit[1:] != visit[:-1])
    block_of_row = np.empty(len(rows), dtype=np.int64)
    block_of_row[order] = np.cumsum(is_start) - 1
    score, visit = score[is_start], visit[is_start]
    first = np.searchsorted(visit, np.arange(visits.n + 1))
    before, size = _places(score, first, p, visits.codes)
    hits = np.bincount(block_of_row, minlength=len(visit))
    n_relevant = np.bincount(visit, hits, minlength=visits.n)
    return RelevantBlocks(visit, before, size, hits, n_relevant, block_of_row)


def _places(score, first, p, codes):
    """Count, for each block, the rows of its visit that score higher, and those tied with it.

    The blocks of visit v are first[v] to first[v + 1] - 1, by falling score.
    """
    place, end = _first_not_above(score, first, p, codes), first[codes + 1]
    known = place < end
    place, end, p = place[known], end[known], p[known]
    tied = score[place] == p
    n = len(score)
    higher_from = place + tied
    inside = higher_from < end
    entering = np.bincount(higher_from[inside], minlength=n)
    total = np.r_[0, np.cumsum(entering)]
    block_start = np.repeat(first[:-1], np.diff(first))
    return total[1:] - total[block_start], np.bincount(place[tied], minlength=n)


def _first_not_above(score, first, p, codes):
    """Binary search, all rows at once: the first block of a row's visit that scores at most p."""
    low, high = first[codes], first[codes + 1]
    for _step in range(int(np.diff(first).max(initial=0)).bit_length()):
        middle = (low + high) // 2
        above = (low < high) & (score[np.minimum(middle, len(score) - 1)] > p)
        low = np.where(above, middle + 1, low)
        high = np.where(above, high, middle)
    return low


def ndcg(blocks, k):
    """Expected NDCG@k of each visit under a random order of ties; NaN without a relevant row."""
    gains = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(2, k + 2)))]
    best = gains[np.minimum(blocks.n_relevant, k).astype(np.int64)]
    return _expected(blocks, gains, k, best)


def recall(blocks, k):
    """Expected recall@k of each visit under a random order of ties; NaN without a relevant row."""
    return _expected(blocks, np.arange(k + 1.0), k, blocks.n_relevant)


def _expected(blocks, gains, k, best):
    """A relevant row of a block earns the mean gain of the block's places, places beyond k none.

    `gains[i]` is the sum of the gains of places 1 to i.
    """
    reach = gains[np.minimum(blocks.before + blocks.size, k)] - gains[np.minimum(blocks.before, k)]
    earned = blocks.relevant / blocks.size * reach
    total = np.bincount(blocks.visit, earned, minlength=len(best))
    return np.divide(total, best, out=np.full(len(best), np.nan), where=best > 0)
