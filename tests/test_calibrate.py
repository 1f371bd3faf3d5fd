"""One shift of the log-odds: against exact fractions, published formulas, and by properties."""

import doctest
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from recbal_utils import calibrate, evaluate
from recbal_utils.errors import RecbalError

probabilities = st.floats(0, 1, exclude_min=True, exclude_max=True)
keep_rates = st.floats(1e-6, 1)
SMALLEST = 1e-307
EXTREMES = [5e-324, 1e-300, 1e-16, 1e-6, 0.3, 0.5, 0.999, 1 - 1e-9, 1 - 2**-53]
SETTINGS = settings(max_examples=60, deadline=None)


def exact(p, keep_rate):
    """Corrected probability as a fraction: beta p / (beta p + 1 - p)."""
    p, beta = Fraction(p), Fraction(keep_rate)
    return beta * p / (beta * p + 1 - p)


def close(value, fraction):
    """Compare with a fraction: relative error near 0, steps of a float near 1."""
    error = abs(Fraction(float(value)) - fraction)
    near_zero = error <= Fraction(1, 10**12) * fraction + Fraction(SMALLEST)
    return near_zero and error <= Fraction(1, 10**12) * (1 - fraction) + Fraction(2) ** -52


def simulated(seed=0, n=4000, slope=1.0, shift=0.0):
    """Outcomes, and predictions whose log-odds are slope times the true ones, shifted."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1.5, n)
    y = (rng.random(n) < expit(z)).astype(int)
    return y, expit(slope * z + shift)


# --- the shift ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_rate", [1e-6, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("p", EXTREMES)
def test_correction_equals_the_fraction(p, keep_rate):
    assert close(calibrate.prior_correction(p, keep_rate), exact(p, keep_rate))
    assert close(
        calibrate.inverse_prior_correction(p, keep_rate), exact(p, 1 / Fraction(keep_rate))
    )


@given(probabilities, keep_rates)
@SETTINGS
def test_correction_equals_the_fraction_anywhere(p, keep_rate):
    assert close(calibrate.prior_correction(p, keep_rate), exact(p, keep_rate))


@given(st.floats(1e-290, 0.99), keep_rates)
@SETTINGS
def test_round_trip_in_log_odds(p, keep_rate):
    there = calibrate.prior_correction(p, keep_rate)
    back = calibrate.inverse_prior_correction(there, keep_rate)
    assert logit(back) == pytest.approx(logit(p), rel=1e-12, abs=1e-12)


@given(st.floats(1e-9, 0.9), st.floats(1e-4, 1))
@SETTINGS
def test_three_published_formulas_are_one(p, keep_rate):
    dal_pozzolo = keep_rate * p / (keep_rate * p - p + 1)
    he = p / (p + (1 - p) / keep_rate)
    natural = 0.001
    sample = natural / (natural + keep_rate * (1 - natural))
    king_zeng = logit(p) - np.log((1 - natural) / natural * sample / (1 - sample))
    ours = calibrate.prior_correction(p, keep_rate)
    assert logit([dal_pozzolo, he]) == pytest.approx(logit([ours] * 2), abs=1e-12)
    assert king_zeng == pytest.approx(logit(ours), abs=1e-12)


def test_example_worked_by_hand():
    in_sample = calibrate.inverse_prior_correction(0.001, 0.01)
    assert in_sample == pytest.approx(1 / 10.99, rel=1e-12)
    assert calibrate.prior_correction(in_sample, 0.01) == pytest.approx(0.001, rel=1e-12)


def test_ends_stay_and_order_stays():
    p = np.array([0.0, 1e-9, 0.2, 0.7, 1.0])
    corrected = calibrate.prior_correction(p, 0.01)
    assert corrected[0] == 0
    assert corrected[-1] == 1
    assert (np.diff(corrected) > 0).all()
    np.testing.assert_array_equal(calibrate.shift_log_odds(p, 0.0)[[0, -1]], [0, 1])


def test_shapes_and_types():
    assert isinstance(calibrate.prior_correction(0.5, 0.1), float)
    assert calibrate.prior_correction(np.float32([0.5, 0.25]), 0.1).dtype == np.float64
    assert calibrate.prior_correction([], 0.1).shape == (0,)
    series = pd.Series([0.5], index=[7])
    assert calibrate.prior_correction(series, 0.1).tolist() == [pytest.approx(1 / 11)]


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-9, 1 - 1e-9))
@SETTINGS
def test_log_odds_shift_moves_one_prior_to_the_other(a, b):
    shift = calibrate.log_odds_shift(a, b)
    assert calibrate.shift_log_odds(a, shift) == pytest.approx(b, rel=1e-9)
    assert calibrate.log_odds_shift(b, a) == -shift


def test_log_odds_shift_is_ln_keep_rate_for_dropped_negatives():
    natural, keep_rate = 0.001, 0.01
    sample = natural / (natural + keep_rate * (1 - natural))
    assert calibrate.log_odds_shift(sample, natural) == pytest.approx(np.log(keep_rate), rel=1e-12)


# --- thresholds -----------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.integers(1, 10**9))
@SETTINGS
def test_threshold_is_where_both_acts_cost_the_same(false_positive, false_negative):
    t = calibrate.threshold_from_costs(false_positive, false_negative)
    assert t == pytest.approx(float(Fraction(false_positive, false_positive + false_negative)))
    assert (1 - t) * false_positive == pytest.approx(t * false_negative)


def test_threshold_is_the_cheapest_cut():
    rng = np.random.default_rng(0)
    p = rng.random(2000)
    cost = lambda t: np.where(p >= t, (1 - p) * 1, p * 4).sum()
    grid = np.linspace(0.01, 0.99, 99)
    assert grid[np.argmin([cost(t) for t in grid])] == pytest.approx(
        calibrate.threshold_from_costs(1, 4), abs=0.011
    )


def test_threshold_of_arrays_and_of_huge_costs():
    t = calibrate.threshold_from_costs(0.05, [0.05, 0.95])
    np.testing.assert_allclose(t, [0.5, 0.05])
    assert calibrate.threshold_from_costs(1e308, 1e308) == 0.5


# --- do they come true? ---------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_intercept_and_slope_equal_scikit_learn(weighted):
    y, p = simulated(slope=0.7, shift=2.0)
    weight = np.random.default_rng(1).integers(0, 4, len(y)).astype(float) if weighted else None
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    model.fit(logit(p)[:, None], y, sample_weight=weight)
    assert calibrate.calibration_slope(y, p, weight) == pytest.approx(model.coef_[0, 0], rel=1e-6)
    shift = calibrate.calibration_intercept(y, p, weight)
    assert evaluate.ratio(y, calibrate.shift_log_odds(p, shift), weight) == pytest.approx(1)


@given(st.floats(-30, 30), st.integers(0, 5))
@SETTINGS
def test_intercept_undoes_any_shift(shift, seed):
    y, p = simulated(seed, n=300)
    before = calibrate.calibration_intercept(y, p)
    after = calibrate.calibration_intercept(y, calibrate.shift_log_odds(p, shift))
    assert after == pytest.approx(before - shift, abs=1e-2 if shift > 20 else 1e-6)


def test_intercept_of_a_constant_is_a_difference_of_log_odds():
    y = np.array([1, 0, 0, 0])
    assert calibrate.calibration_intercept(y, np.full(4, 0.9)) == pytest.approx(
        logit(0.25) - logit(0.9), rel=1e-12
    )


def test_intercept_of_two_far_groups():
    y = np.r_[np.ones(30), np.zeros(70)]
    p = np.r_[np.full(50, 1 - 1e-12), np.full(50, 1e-12)]
    shift = calibrate.calibration_intercept(y, p)
    assert calibrate.shift_log_odds(p, shift).mean() == pytest.approx(0.3, abs=1e-9)


def test_intercept_with_probabilities_of_zero_and_one():
    y = np.array([1, 1, 0, 0, 0, 1])
    p = np.array([1.0, 0.2, 0.2, 0.0, 0.2, 0.2])
    shift = calibrate.calibration_intercept(y, p)
    assert calibrate.shift_log_odds(0.2, shift) == pytest.approx(0.5)


def test_slope_tells_bold_from_timid():
    y, bold = simulated(n=20_000, slope=2.0)
    _, timid = simulated(n=20_000, slope=0.5, shift=-3)
    assert calibrate.calibration_slope(y, bold) == pytest.approx(0.5, abs=0.04)
    assert calibrate.calibration_slope(y, timid) == pytest.approx(2.0, abs=0.15)


# --- reliability ----------------------------------------------------------------------------


def naive_rates(y, bins, home, n_replicates, seed):
    """Draw households and take all their rows, one replicate after the other."""
    rng = np.random.default_rng(seed)
    n, rates = home.max() + 1, []
    for _ in range(n_replicates):
        drawn = rng.integers(n, size=n)
        rows = np.concatenate([np.flatnonzero(home == one) for one in drawn])
        rates.append([y[rows][bins[rows] == b].mean() for b in range(bins.max() + 1)])
    return np.array(rates)


def test_reliability_equals_a_naive_bootstrap():
    y, p = simulated(n=900)
    home = np.random.default_rng(5).integers(30, size=900)
    curve = calibrate.reliability_curve(y, p, home, n_bins=4, n_replicates=40, seed=3)
    bins = np.searchsorted(np.sort(p)[[224, 449, 674]], p)
    low, high = np.quantile(naive_rates(y, bins, home, 40, 3), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(curve["low"], low)
    np.testing.assert_allclose(curve["high"], high)
    expected = evaluate.reliability_curve(y, p, n_bins=4)
    pd.testing.assert_frame_equal(curve[list(expected)], expected)


def test_reliability_of_alike_rows_is_wider():
    y, p = simulated(n=200)
    home = np.arange(200)
    copied = [np.tile(column, 20) for column in (y, p, home)]
    ten = {"n_bins": 2, "n_replicates": 300}
    by_home = calibrate.reliability_curve(*copied, **ten)
    by_row = calibrate.reliability_curve(*copied[:2], np.arange(4000), **ten)
    ratio = (by_home["high"] - by_home["low"]) / (by_row["high"] - by_row["low"])
    assert (ratio > 3).all()


def test_reliability_drops_empty_bins_and_weights_rows():
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.1, 0.9, 0.9])
    weight = np.array([3.0, 1.0, 1.0, 3.0])
    curve = calibrate.reliability_curve(
        y, p, np.arange(4), sample_weight=weight, n_bins=10, strategy="uniform", n_replicates=50
    )
    assert curve["observed"].tolist() == [0.25, 0.75]
    assert curve["low"].tolist() == [0, 0]
    none = calibrate.reliability_curve(y, p, np.arange(4), n_bins=2, n_replicates=0)
    assert none["low"].isna().all()


# --- the classifier -------------------------------------------------------------------------


@parametrize_with_checks([calibrate.PriorCorrectedClassifier(LogisticRegression(), keep_rate=0.5)])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning:sklearn")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_classifier_corrects_and_can_be_calibrated_on_log_odds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 1))
    y = (rng.random(20_000) < expit(2 * x[:, 0] - 4)).astype(int)
    kept = (y == 1) | (rng.random(20_000) < 0.1)
    inner = LogisticRegression().fit(x[kept], y[kept])
    model = calibrate.PriorCorrectedClassifier(FrozenEstimator(inner), 0.1).fit(x[kept], y[kept])
    expected = calibrate.prior_correction(inner.predict_proba(x)[:, 1], 0.1)
    np.testing.assert_allclose(model.predict_proba(x)[:, 1], expected, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(x), (expected > 0.5).astype(int))
    platt = CalibratedClassifierCV(FrozenEstimator(model), method="sigmoid").fit(x, y)
    line = platt.calibrated_classifiers_[0].calibrators[0]
    assert -line.a_ == pytest.approx(calibrate.calibration_slope(y, expected), abs=0.02)


def test_classifier_stays_finite_where_probabilities_are_zero():
    class Sure(LogisticRegression):
        def predict_proba(self, X):
            return np.tile([0.0, 1.0], (len(X), 1))

    x, y = np.array([[0.0], [1.0]]), [0, 1]
    model = calibrate.PriorCorrectedClassifier(Sure(), 0.01).fit(x, y)
    assert np.isfinite(model.decision_function(x)).all()
    assert model.predict_proba(x)[:, 1].tolist() == [1.0, 1.0]


# --- errors ---------------------------------------------------------------------------------

Y, P = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.7])
HOME = np.arange(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibrate.prior_correction(P, 0), "keep_rate must lie in"),
        (lambda: calibrate.prior_correction(P, 1.01), "keep_rate must lie in"),
        (lambda: calibrate.prior_correction(P, np.nan), "keep_rate must lie in"),
        (lambda: calibrate.prior_correction(P, "1 %"), "keep_rate must be one number"),
        (lambda: calibrate.inverse_prior_correction(P, -1), "keep_rate must lie in"),
        (lambda: calibrate.prior_correction([0.5, 1.5], 0.1), "row 1, is 1.5"),
        (lambda: calibrate.prior_correction(-0.1, 0.1), "is -0.1"),
        (lambda: calibrate.prior_correction([0.5, np.nan], 0.1), "p must be finite"),
        (lambda: calibrate.prior_correction(np.full((3, 2), 0.5), 0.1), r"\[:, 1\]"),
        (lambda: calibrate.prior_correction(["a"], 0.1), "p must hold numbers"),
        (lambda: calibrate.shift_log_odds(P, np.inf), "shift must be finite"),
        (lambda: calibrate.log_odds_shift(0, 0.5), "prior_from must lie in"),
        (lambda: calibrate.log_odds_shift(0.5, 1), "prior_to must lie in"),
        (lambda: calibrate.threshold_from_costs(0, 1), "false_positive must be a positive"),
        (lambda: calibrate.threshold_from_costs(1, np.inf), "false_negative must be"),
        (lambda: calibrate.threshold_from_costs(1, [1, np.nan]), "false_negative must be"),
        (lambda: calibrate.threshold_from_costs("1", 1), "false_positive must be"),
        (lambda: calibrate.calibration_intercept([0, 0], [0.5, 0.5]), "No shift"),
        (lambda: calibrate.calibration_intercept([0, 1], [1.0, 1.0]), "No shift"),
        (lambda: calibrate.calibration_intercept(Y, P, [0, 0, 0, 0]), "is 0 in every row"),
        (lambda: calibrate.calibration_intercept(Y, P, [1, -1, 1, 1]), "must not be negative"),
        (lambda: calibrate.calibration_intercept(Y, P[:3]), "one length"),
        (lambda: calibrate.calibration_intercept(Y + 1, P), "must be 0 or 1"),
        (lambda: calibrate.calibration_slope(Y, [0.0, 0.5, 0.2, 0.3]), "exactly 0 or 1 in 1 rows"),
        (lambda: calibrate.calibration_slope(Y, [0.1, 0.9, 0.1, 0.8]), "separates the classes"),
        (lambda: calibrate.calibration_slope(Y, [0.3] * 4), "does not vary"),
        (lambda: calibrate.calibration_slope([0, 0], [0.3, 0.4]), "one class only"),
        (lambda: calibrate.reliability_curve(Y, P, np.zeros(4)), "of one group"),
        (lambda: calibrate.reliability_curve(Y, P, [1, 2, None, 3]), "without an id"),
        (lambda: calibrate.reliability_curve(Y, P, HOME, confidence=1), "confidence must lie"),
        (lambda: calibrate.reliability_curve(Y, P, HOME, n_bins=0), "n_bins must be"),
        (lambda: calibrate.reliability_curve(Y, P, HOME, n_replicates=-1), "n_replicates must"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(RecbalError, match=message):
        call()


@pytest.mark.parametrize("y", [[0, 1, 2], [0.5, 1.5, 2.5]])
def test_classifier_refuses_more_than_two_classes(y):
    model = calibrate.PriorCorrectedClassifier(LogisticRegression(), 0.1)
    with pytest.raises(RecbalError, match=r"Only binary"):
        model.fit([[0], [1], [2]], y)


def test_docstrings():
    assert doctest.testmod(calibrate).failed == 0
