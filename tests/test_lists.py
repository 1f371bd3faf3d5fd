"""What lists show, and sampled candidates, against enumeration."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import lists
from recbal_utils.errors import RecbalError


def test_shown_by_hand():
    p = [0.1, 0.9, 0.5, 0.5, 0.2]
    visits, items = [1, 1, 1, 2, 2], ["a", "b", "c", "a", "d"]
    assert sorted(lists.shown(p, visits, items, 2)) == ["a", "b", "c", "d"]
    exposure = lists.exposure(p, visits, items, 1)
    assert exposure.to_dict() == {"a": 1, "b": 1, "c": 0, "d": 0}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 999))
def test_shown_is_the_sorted_head_of_each_visit(n, k, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"p": rng.permutation(n), "visit": rng.integers(5, size=n), "item": rng.integers(9, size=n)}
    )
    best = frame.sort_values("p", ascending=False).groupby("visit").head(k)
    found = lists.shown(frame["p"], frame["visit"], frame["item"], k)
    assert sorted(found) == sorted(best["item"])
    exposure = lists.exposure(frame["p"], frame["visit"], frame["item"], k)
    assert exposure.sum() == len(best)
    assert set(exposure.index) == set(frame["item"])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 999))
def test_negatives_are_n_of_each_visit_and_no_conversion_is_lost(rows, n, seed):
    rng = np.random.default_rng(seed)
    y, visits = (rng.random(rows) < 0.2).astype(int), rng.integers(4, size=rows)
    kept = lists.with_negatives(y, visits, n, seed=seed)
    assert kept[y == 1].all()
    for visit in np.unique(visits):
        others = (visits == visit) & (y == 0)
        assert kept[others].sum() == min(n, others.sum())
    assert (kept == lists.with_negatives(y, visits, n, seed=seed)).all()


def test_negatives_are_drawn_evenly():
    y, visits = np.r_[1, np.zeros(20, int)], np.zeros(21, int)
    times = sum(lists.with_negatives(y, visits, 5, seed=s).astype(int) for s in range(2000))
    assert times[0] == 2000
    assert abs(times[1:] - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_expected_sampled_is_the_mean_over_every_draw(rank):
    others = [r for r in range(1, 8) if r != rank]
    gains = [1 / np.log2(sum(o < rank for o in draw) + 2) for draw in combinations(others, 3)]
    found = lists.expected_sampled(rank, lambda r: 1 / np.log2(r + 1), n_items=7, n_negatives=3)
    assert found == pytest.approx(np.mean(gains))


def test_all_negatives_give_the_place_itself():
    places = np.array([[1, 2], [9, 10]])
    found = lists.expected_sampled(places, lambda r: r, n_items=10, n_negatives=9)
    np.testing.assert_allclose(found, places)


def test_the_published_reversal():
    """Exact NDCG prefers C to A, sampled NDCG prefers A to C (Krichene and Rendle 2020)."""
    a, c = np.full(5, 100), np.array([212, 2, 743, 5342, 1548])

    def gain(rank):
        return 1 / np.log2(rank + 1)

    def sampled(places):
        return lists.expected_sampled(places, gain, n_items=10_000, n_negatives=99).mean()

    assert gain(a).mean() < gain(c).mean()
    assert sampled(a) > sampled(c)


@pytest.mark.parametrize(
    "call",
    [
        lambda: lists.shown([0.1], [1], [1], 0),
        lambda: lists.shown([0.1, 0.2], [1], [1]),
        lambda: lists.with_negatives([2], [1]),
        lambda: lists.expected_sampled([0], lambda r: r, n_items=10, n_negatives=3),
        lambda: lists.expected_sampled([1], lambda r: r, n_items=10, n_negatives=10),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(RecbalError):
        call()
