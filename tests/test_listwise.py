"""The listwise ranker: its loss, its lists, and that no query is ranked by a model that saw it."""

import numpy as np
import pytest
from scipy.special import log_softmax

from recbal_utils import listwise
from recbal_utils.errors import RecbalError


def drawn(n=200, items=12, seed=0, truth=(1.0, -2.0, 0.0)):
    """Features and choices of one item a list by a softmax with known weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, items, 3))
    score = x @ np.array(truth) + rng.gumbel(size=(n, items))
    weight = np.zeros((n, items))
    weight[np.arange(n), score.argmax(axis=1)] = 1
    return x, weight


def lists(x, weight):
    everything = [np.arange(x.shape[1])] * len(x)
    return listwise.make(x, range(len(x)), everything, list(weight))


def test_fit_returns_the_weights_that_drew_the_choices():
    w = listwise.fit(lists(*drawn(3_000)), ridge=0)
    np.testing.assert_allclose(w, [1, -2, 0], atol=0.12)


def test_fit_finds_the_minimum_of_the_loss():
    x, weight = drawn(60)
    w = listwise.fit(lists(x, weight), ridge=0.01)

    def loss(v):
        return -(weight * log_softmax(x @ v, axis=1)).sum() / weight.sum() + 0.01 * v @ v

    for step in np.eye(3):
        assert loss(w) < min(loss(w + 0.02 * step), loss(w - 0.02 * step))


def test_padding_does_not_count():
    x, _weight = drawn(40)
    short = [np.arange(5)] * 40
    earned = [np.r_[1.0, 0, 0, 0, 0]] * 40
    alone = listwise.fit(listwise.make(x, range(40), short, earned))
    mixed = listwise.make(
        x, [*range(40), 0], [*short, np.arange(12)], [*earned, np.full(12, 1e-12)]
    )
    assert mixed.features.shape[1] == 12
    assert not mixed.real[:40, 5:].any()
    np.testing.assert_allclose(listwise.fit(mixed), alone, atol=1e-3)


def test_lists_that_earned_nothing_are_left_out():
    x, weight = drawn(5)
    weight[2] = 0
    assert len(lists(x, weight).weight) == 4
    with pytest.raises(RecbalError, match="nothing to learn"):
        lists(x, np.zeros_like(weight))
    weight[0, 0] = -1
    weight[0, 1] = 3
    with pytest.raises(RecbalError, match="negative"):
        lists(x, weight)


def test_negatives_come_from_the_pool_and_are_no_positives():
    own, earned = [np.array([1, 2]), np.array([7])], [np.array([3.0, 1]), np.array([1.0])]
    pools = [np.arange(4), np.arange(10)]
    items, weights = listwise.with_negatives(own, earned, pools, 5, seed=3)
    assert items[0].tolist()[:2] == [1, 2]
    assert sorted(items[0][2:]) == [0, 3]
    assert len(set(items[1])) == 6
    assert weights[1].tolist() == [1, 0, 0, 0, 0, 0]
    again, _ = listwise.with_negatives(own, earned, pools, 5, seed=3)
    assert all((a == b).all() for a, b in zip(items, again, strict=True))


def test_balance_by_query_and_by_grade():
    weights = [np.array([7.0, 7, 1, 0]), np.zeros(2)]
    by_query = listwise.balanced(weights)
    np.testing.assert_allclose(by_query[0], np.array([7, 7, 1, 0]) / 15)
    assert not by_query[1].any()
    grades = [np.array([3, 3, 1, 0]), np.array([1, 2])]
    np.testing.assert_allclose(listwise.balanced(weights, grades)[0], [0.25, 0.25, 0.5, 0])


def test_no_query_is_ranked_by_a_model_that_saw_it():
    x, _ = drawn(23)
    fold = listwise.folds(23, 5, seed=1)
    assert np.ptp(np.bincount(fold)) <= 1
    seen = []

    def train(rows):
        seen.append(set(rows))
        return np.array([len(seen), 0.0, 0.0])

    scores, weights = listwise.out_of_fold(train, x, fold)
    assert weights.shape == (5, 3)
    for query in range(23):
        model = round(float(scores[query, 0] / x[query, 0, 0]))
        assert query not in seen[model - 1]
        assert len(seen[model - 1]) >= 18
