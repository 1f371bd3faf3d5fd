"""Clicks: the log follows the truth it was drawn from, and the correction returns to it."""

import numpy as np
import pytest

from recbal_utils import clicks
from recbal_utils.errors import RecbalError

PAGES = np.array([[0, 1, 2], [2, 1, 0]])
CLICK = np.array([[0.6, 0.3, 0.3, 0.1], [0.2, 0.4, 0.6, 0.1]])
BUY = np.full((2, 4), 0.5)
SHARE = np.array([0.7, 0.3])
POOLS = [np.arange(4), np.arange(4)]


def log(n=200_000, **knobs):
    return clicks.click_log(PAGES, SHARE, CLICK, BUY, n, **knobs)


def test_click_rates_are_examination_times_attraction():
    found = log()
    rate = found.clicks / found.shown
    right = clicks.examination(3)[found.position - 1] * CLICK[found["query"], found["item"]]
    np.testing.assert_allclose(rate, right, atol=0.006)
    assert found.groupby("query").shown.first().sum() == 200_000
    np.testing.assert_allclose(found.purchases.sum() / found.clicks.sum(), 0.5, atol=0.01)


def test_without_bias_every_place_is_seen():
    found = log(position_bias=0)
    rate = found.clicks / found.shown
    np.testing.assert_allclose(rate, CLICK[found["query"], found["item"]], atol=0.01)


def test_a_seed_gives_one_log():
    assert log(5_000, seed=1).equals(log(5_000, seed=1))
    assert not log(5_000, seed=1).equals(log(5_000, seed=2))


def test_random_pages_show_the_pool_evenly_at_every_place():
    found = log(pools=POOLS, random_share=0.5)
    shown = found[found.random].pivot_table(
        index="item", columns="position", values="shown", aggfunc="sum"
    )
    assert shown.shape == (4, 3)
    np.testing.assert_allclose(shown / shown.to_numpy().mean(), 1, atol=0.02)
    assert found[found.random & (found.position == 1)].shown.sum() == pytest.approx(
        100_000, rel=0.02
    )


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0, 2.0])
def test_random_pages_return_the_bias(bias):
    found = log(pools=POOLS, random_share=0.5, position_bias=bias)
    assert clicks.measured_bias(found) == pytest.approx(bias, abs=0.05)
    measured = clicks.measured_examination(found)
    np.testing.assert_allclose(measured, clicks.examination(3, bias), atol=0.03)


def test_the_shops_own_page_does_not():
    """The first query's page is well ordered, so attraction looks like examination."""
    own = clicks.click_log(PAGES[:1], [1.0], CLICK[:1], BUY[:1], 100_000, position_bias=0)
    assert clicks.measured_bias(own.assign(random=True)) > 0.4


def test_naive_weights_are_clicks_and_corrected_ones_attraction():
    found = log()
    naive = clicks.click_weights(found)
    np.testing.assert_allclose(naive.weight, naive.clicks)
    right = CLICK[naive["query"], naive["item"]]
    sessions = found[found.position == 1].groupby("query").shown.sum()
    corrected = clicks.click_weights(found, clicks.examination(3))
    share = corrected.weight / corrected["query"].map(sessions)
    np.testing.assert_allclose(share, right, atol=0.02)
    one_over = (
        naive.clicks / clicks.examination(3)[found.sort_values(["query", "item"]).position - 1]
    )
    np.testing.assert_allclose(corrected.weight, one_over)


def test_with_random_pages_the_correction_still_returns_attraction():
    found = log(400_000, pools=POOLS, random_share=0.3)
    table = clicks.click_weights(found, clicks.examination(3))
    sessions = found[found.position == 1].groupby("query").shown.sum()
    share = table.weight / table["query"].map(sessions)
    assert len(table) == 8
    np.testing.assert_allclose(share, CLICK[table["query"], table["item"]], atol=0.02)


def test_traffic_follows_zipf_in_the_order_of_interest():
    share = clicks.traffic([10, 1000, 900], [1, 1, 3])
    np.testing.assert_allclose(share, np.array([1 / 2, 1, 1 / 3]) / (1 + 1 / 2 + 1 / 3))
    np.testing.assert_allclose(clicks.traffic([3, 2], [1, 1], exponent=0), 0.5)


def test_levels_by_grade_fall_with_popularity():
    found = clicks.by_grade(np.array([[0, 3, 3]]), popularity=[1, 2, 3])
    np.testing.assert_allclose(found, [[0.03 * (0.5 + 0.5 / 3), 0.7 * (0.5 + 1 / 3), 0.7]])


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: log(random_share=0.1), "pools"),
        (lambda: log(random_share=1), "random_share"),
        (lambda: log(0), "n_sessions"),
        (lambda: clicks.by_grade(np.array([[4]])), "grades reach 4"),
        (lambda: clicks.by_grade(np.array([[0]]), [1.5]), r"\[0, 1\]"),
        (lambda: clicks.click_weights(log(100), [1.0]), "each of the 3 places"),
        (lambda: clicks.click_weights(log(100), [1.0, 0.5, 0]), "above 0"),
        (lambda: clicks.measured_bias(log(100)), "random page"),
        (lambda: clicks.measured_examination(log(100)), "random page"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call, word):
    with pytest.raises(RecbalError, match=word):
        call()
