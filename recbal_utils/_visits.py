"""Ranking within a visit, where tied rows share their places evenly."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RelevantBlocks:
    """Runs of tied rows of a visit that hold at least one relevant row.

    A block of `size` rows stands on places before + 1 to before + size of its visit, and
    `relevant` of its rows are relevant. `n_relevant` counts the relevant rows of every visit.
    """

    visit: np.ndarray
    before: np.ndarray
    size: np.ndarray
    relevant: np.ndarray
    n_relevant: np.ndarray


def relevant_blocks(relevant, p, visits):
    """Find the tied blocks with relevant rows, by one sort of all rows by visit and score."""
    order = np.lexsort((-p, visits.codes))
    score, visit = p[order], visits.codes[order]
    is_start = np.r_[True, (score[1:] != score[:-1]) | (visit[1:] != visit[:-1])]
    start = np.flatnonzero(is_start)
    hits = np.add.reduceat(relevant[order].astype(np.int64), start)
    size = np.diff(np.r_[start, len(p)])
    first_row = np.searchsorted(visit, np.arange(visits.n))
    keep = hits > 0
    owner = visit[start[keep]]
    return RelevantBlocks(
        visit=owner,
        before=start[keep] - first_row[owner],
        size=size[keep],
        relevant=hits[keep],
        n_relevant=np.bincount(owner, hits[keep], minlength=visits.n),
    )


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
