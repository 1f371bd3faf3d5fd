"""Power of A/B tests, against played tests and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recbal_utils import abtest
from recbal_utils.errors import RecbalError

RATE = 0.02


def independent(n, seed):
    """Households of one row each."""
    rng = np.random.default_rng(seed)
    return (rng.random(n) < RATE).astype(float), np.ones(n)


def alike(n, rows, seed):
    """Households with a rate of their own: beta-binomial, intraclass correlation 1 / 51."""
    rng = np.random.default_rng(seed)
    rate = rng.beta(50 * RATE, 50 * (1 - RATE), n)
    return rng.binomial(rows, rate).astype(float), np.full(n, float(rows))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 0.3), st.floats(0.02, 1), st.floats(0.3, 0.95), st.floats(1, 30))
def test_rows_and_power_undo_each_other(rate, lift, power, effect):
    rows = abtest.rows_per_arm(rate, lift, power=power, design_effect=effect)
    assert abtest.power(rate, lift, rows, design_effect=effect) == pytest.approx(power, abs=1e-9)
    assert rows == pytest.approx(effect * abtest.rows_per_arm(rate, lift, power=power))


def test_rows_of_a_textbook_case():
    """10 % against 12 % at 80 % power: 3,841 in each arm by the pooled formula."""
    assert abtest.rows_per_arm(0.10, 0.20) == pytest.approx(3841, abs=1)


def test_power_is_what_played_binomial_tests_find():
    rng, n = np.random.default_rng(0), 20_000
    a, b = rng.binomial(n, RATE, 4000), rng.binomial(n, RATE * 1.2, 4000)
    pooled = (a + b) / (2 * n)
    z = (b - a) / n / np.sqrt(2 * pooled * (1 - pooled) / n)
    found = np.mean(2 * stats.norm.sf(abs(z)) < 0.05)
    assert found == pytest.approx(abtest.power(RATE, 0.2, n), abs=4 * 0.5 / np.sqrt(4000))


def test_design_effect_of_independent_rows_and_of_alike_ones():
    assert abtest.design_effect(*independent(50_000, 0)) == pytest.approx(1, abs=0.03)
    expected = 1 + (200 - 1) / 51
    assert abtest.design_effect(*alike(20_000, 200, 1)) == pytest.approx(expected, rel=0.1)


def test_played_tests_keep_the_promise():
    counts = alike(3000, 200, 2)
    effect, rate = abtest.design_effect(*counts), counts[0].sum() / counts[1].sum()
    nothing = abtest.replay(*counts, households=400, n_tests=800, seed=0)
    assert (nothing["by_household"] < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert (nothing["by_row"] < 0.05).mean() > 0.2
    lifted = abtest.replay(*counts, lift=0.2, households=400, n_tests=800, seed=0)
    promised = abtest.power(rate, 0.2, 400 * 200, design_effect=effect)
    assert (lifted["by_household"] < 0.05).mean() == pytest.approx(promised, abs=0.07)
    assert lifted["difference"].mean() == pytest.approx(0.2 * rate, rel=0.1)


@pytest.mark.parametrize("lift", [-0.5, -0.1, 0.3, 1.0, 1.5])
def test_lift_is_the_one_asked_for(lift):
    counts = alike(2000, 100, 3)
    found = abtest.replay(*counts, lift=lift, households=2000, n_tests=60, seed=1)["difference"]
    rate = counts[0].sum() / counts[1].sum()
    assert found.mean() == pytest.approx(lift * rate, abs=5 * found.std() / np.sqrt(60))


def test_same_arms_do_not_differ():
    arm = alike(100, 50, 4)
    assert abtest.p_value(arm, arm) == 1
    assert abtest.p_value(arm, arm, by_household=False) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: abtest.rows_per_arm(0.1, 0), "lift of 0"),
        (lambda: abtest.rows_per_arm(0.6, 1), "from 0.6 to 1.2"),
        (lambda: abtest.rows_per_arm(1.2, 0.1), r"rate must lie in \(0, 1\); it is 1.2"),
        (lambda: abtest.rows_per_arm(0.1, 0.1, power=1), r"power must lie in \(0, 1\); it is 1"),
        (lambda: abtest.rows_per_arm(0.1, 0.1, design_effect=0), "design_effect is 0"),
        (lambda: abtest.power(0.1, 0.1, 0), "rows is 0"),
        (lambda: abtest.design_effect([0, 0], [5, 5]), "no spread"),
        (lambda: abtest.design_effect([1], [5]), "2 households"),
        (lambda: abtest.design_effect([6, 1], [5, 5]), "2 households"),
        (lambda: abtest.replay([1, 1], [5, 5], households=1), "at least 2"),
        (lambda: abtest.replay([1, 1], [5, 5], households=2, lift=-2), "lift is -2"),
    ],
)
def test_bad_input_gives_one_sentence(call, message):
    with pytest.raises(RecbalError, match=message):
        call()
