"""Re-ranking: against a brute-force search, closed cases, and bad input."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import rel_entr

from recbal_utils import catalogue, rerank
from recbal_utils.errors import RecbalError

RNG = np.random.default_rng(7)
SCORES = RNG.random((6, 12))
SHARES = rerank.category_shares(RNG.random((12, 4)) < 0.4)
HISTORY = sparse.csr_array(RNG.random((6, 12)) < 0.5)
MIX = rerank.user_mix(HISTORY, SHARES)
BEST = catalogue.top_k(SCORES, 6, 12)


def test_no_power_changes_nothing_and_a_power_lowers_the_popular():
    counts = np.arange(12)
    np.testing.assert_array_equal(rerank.discount_popularity(SCORES, counts, 0), SCORES)
    halved = rerank.discount_popularity(SCORES, counts, 1)
    np.testing.assert_allclose(halved, SCORES / np.maximum(counts, 1))


def test_negative_scores_are_not_lifted_by_popularity():
    found = rerank.discount_popularity(np.array([[-1.0, 1.0]]), [100, 100], 0.5)
    np.testing.assert_allclose(found, [[-1, 0.1]])


def test_shares_and_mixes_sum_to_one_or_nothing():
    shares = rerank.category_shares([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 0, 0]])
    mix = rerank.user_mix(sparse.csr_array([[1, 0], [0, 1]]), shares)
    np.testing.assert_allclose(mix, [[0.5, 0.5, 0], [0, 0, 0]])


def test_miscalibration_is_the_divergence_of_scipy():
    lists = BEST[:, :5]
    q = SHARES[lists].sum(axis=1)
    q /= q.sum(axis=1, keepdims=True)
    expected = rel_entr(MIX, 0.99 * q + 0.01 * MIX).sum(axis=1)
    np.testing.assert_allclose(rerank.miscalibration(MIX, lists, SHARES), expected)


def test_miscalibration_ends():
    shares = np.eye(2)
    mix = np.array([[0.5, 0.5], [1.0, 0.0]])
    found = rerank.miscalibration(mix, np.array([[0, 1], [1, -1]]), shares)
    np.testing.assert_allclose(found, [0, -np.log(0.01)], atol=1e-12)


def test_weight_0_ranks_by_score():
    found = rerank.calibrate(SCORES, BEST, MIX, SHARES, k=5, weight=0)
    np.testing.assert_array_equal(found, BEST[:, :5])


def test_weight_1_is_greedy_on_the_mix():
    found = rerank.calibrate(SCORES, BEST, MIX, SHARES, k=1, weight=1)[:, 0]
    every = np.stack([rerank.miscalibration(MIX, np.full((6, 1), i), SHARES) for i in range(12)])
    np.testing.assert_allclose(every[found, np.arange(6)], every.min(axis=0))


def greedily(user, k, weight):
    """The same choice, one user and one list at a time, from the formula."""
    chosen = []
    for _ in range(k):
        values = {}
        for item in set(range(12)) - set(chosen):
            trial = [*chosen, item]
            q = SHARES[trial].sum(axis=0) / max(SHARES[trial].sum(), 1e-12)
            off = rel_entr(MIX[user], 0.99 * q + 0.01 * MIX[user]).sum()
            values[item] = (1 - weight) * SCORES[user, trial].sum() - weight * off
        chosen.append(max(values, key=values.get))
    return chosen


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.9])
def test_lists_are_those_of_a_plain_search(weight):
    found = rerank.calibrate(SCORES, BEST, MIX, SHARES, k=5, weight=weight)
    assert found.tolist() == [greedily(user, 5, weight) for user in range(6)]


def test_lists_have_no_repeats_and_stop_where_candidates_end():
    candidates = np.where(np.arange(12) < 4, BEST, -1)
    found = rerank.calibrate(SCORES, candidates, MIX, SHARES, k=6, weight=0.5)
    assert (found[:, 4:] == -1).all()
    assert all(len(set(row[:4])) == 4 for row in found)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rerank.discount_popularity(SCORES, [1, 2], 1), "scores have the shape"),
        (lambda: rerank.discount_popularity(SCORES, np.ones(12), -1), "power is -1"),
        (lambda: rerank.calibrate(SCORES, BEST, MIX, SHARES, k=3, weight=2), "weight must lie"),
        (lambda: rerank.calibrate(SCORES, BEST, MIX, SHARES, k=13, weight=0), "k is 13"),
    ],
)
def test_bad_input_is_told(call, said):
    with pytest.raises(RecbalError, match=said):
        call()
