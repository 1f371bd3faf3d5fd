"""The simulator: each mechanism absent when off, right in size when on, and on its own."""

import doctest

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from recbal_utils import simulate
from recbal_utils.errors import RecbalError

KNOBS = {
    "rate": 0.1,
    "intercept": -2.0,
    "signal": 0.5,
    "misspecification": 0.5,
    "popularity": 1.0,
    "exposure": 0.4,
    "exposure_bias": 1.0,
    "position_bias": 0.8,
    "flip_positive": 0.3,
    "flip_negative": 0.02,
}
BIASED = {"exposure": 0.4, "exposure_bias": 1.0, "position_bias": 0.8, "popularity": 1.0}


def make_log(n_visits=400, **knobs):
    return simulate.shopping_log(n_visits, n_items=60, n_households=90, **{"seed": 3} | knobs)


def plain_regression(X, y, **options):
    """Fit without a penalty."""
    return LogisticRegression(C=np.inf, tol=1e-8, max_iter=500, **options).fit(X, y)


def calibration_intercept(y, p):
    """Return the constant that makes mean prediction and mean outcome equal, slope fixed at 1."""
    log_odds = logit(np.asarray(p))
    return brentq(lambda b: expit(log_odds + b).sum() - np.sum(y), -30, 30)


def within(observed, expected, variance, sds=4.5):
    """Whether a sum of independent draws lies near its expectation."""
    return abs(observed - expected) < sds * np.sqrt(variance)


# --- the frame ----------------------------------------------------------------------


def test_rows_are_visits_of_one_household_with_different_items():
    log = make_log()
    assert len(log) == 400 * 20
    assert log.index.equals(pd.RangeIndex(len(log)))
    assert (log.groupby("visit").size() == 20).all()
    assert len(log[["visit", "household"]].drop_duplicates()) == 400
    assert not log.duplicated(["visit", "item"]).any()
    assert not log.isna().to_numpy().any()
    for unit, feature in (("item", "price"), ("household", "loyalty")):
        assert len(log[[unit, feature]].drop_duplicates()) == len(log[unit].drop_duplicates())


def test_parts_are_equal_and_ordered():
    log = make_log(2000)
    homes, items = log.drop_duplicates("household"), log.drop_duplicates("item")
    assert homes.groupby("segment").size().tolist() == [30, 30, 30]
    assert items.groupby("department").size().tolist() == [15, 15, 15, 15]
    assert homes.sort_values("loyalty")["segment"].is_monotonic_increasing
    assert items.sort_values("price")["department"].is_monotonic_increasing


def test_the_seed_decides():
    pd.testing.assert_frame_equal(make_log(**KNOBS), make_log(**KNOBS))
    other = make_log(**KNOBS, seed=4)
    for column in ("household", "item", "loyalty", "price", "affinity", "exposed", "label"):
        assert not np.array_equal(make_log(**KNOBS)[column], other[column]), column


def test_a_later_log_of_the_same_shop():
    first, later, other = make_log(seed=3), make_log(seed=4, population_seed=3), make_log(seed=4)
    for unit, feature in (("household", "loyalty"), ("item", "price")):
        known, again, new = (
            log.drop_duplicates(unit).set_index(unit)[feature] for log in (first, later, other)
        )
        shared = known.index.intersection(again.index)
        assert len(shared) > 40
        assert known[shared].equals(again[shared])
        assert not known[shared].equals(new.reindex(shared))
    assert not first["affinity"].equals(later["affinity"])
    pd.testing.assert_series_equal(later["affinity"], other["affinity"])


def test_chunks_do_not_show(monkeypatch):
    whole = make_log(popularity=1.0)
    monkeypatch.setattr(simulate, "_CHUNK", 60 * 7)
    pd.testing.assert_frame_equal(whole, make_log(popularity=1.0))


def test_a_million_rows():
    assert len(simulate.shopping_log(50_000, popularity=1.0)) == 1_000_000


# --- each knob off ------------------------------------------------------------------


def test_off_nothing_but_preference_is_at_work():
    log = make_log()
    assert log["exposed"].all()
    assert log["examined"].all()
    assert (log["propensity"] == 1).all()
    assert (log["examination"] == 1).all()
    assert log["probability"].equals(log["preference"].rename("probability"))
    assert log["label"].equals(log["conversion"].rename("label"))


def test_off_log_odds_are_linear():
    log = make_log(intercept=-3.0)
    linear = -3.0 + simulate.design(log).to_numpy() @ simulate.COEFFICIENTS.to_numpy()
    np.testing.assert_allclose(log["log_odds"], linear, atol=1e-12)


def test_off_popularity_draws_items_alike():
    counts = make_log(3000, items_per_visit=1)["item"].value_counts()
    assert stats.chisquare(counts.reindex(range(60), fill_value=0)).pvalue > 1e-4


def test_without_signal_rows_are_alike():
    log = make_log(signal=0.0, rate=0.02)
    np.testing.assert_allclose(log["preference"], 0.02, atol=1e-12)


def test_off_positions_are_random():
    log = make_log(4000)
    assert abs(log["position"].corr(log["log_odds"])) < 4.5 / np.sqrt(len(log))


# --- each knob on -------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.5])
@pytest.mark.parametrize("others", [{}, {"misspecification": 1.0, "popularity": 1.5}])
def test_rate_is_the_mean_preference(rate, others):
    assert make_log(rate=rate, **others)["preference"].mean() == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("knobs", [{}, BIASED], ids=["plain", "biased"])
def test_conversions_come_with_their_probability(knobs):
    log = make_log(6000, rate=0.05, **knobs)
    for part in (log["department"] == 0, log["log_odds"] > -3, log["position"] == 2):
        p = log.loc[part, "probability"]
        assert within(log.loc[part, "conversion"].sum(), p.sum(), (p * (1 - p)).sum())


def test_popularity_is_zipf():
    log = make_log(6000, items_per_visit=1, popularity=1.3)
    expected = np.arange(1, 61) ** -1.3
    counts = log["item"].value_counts().reindex(range(60), fill_value=0)
    assert stats.chisquare(counts, expected / expected.sum() * len(log)).pvalue > 1e-4


def test_later_draws_of_a_visit_are_zipf_among_what_is_left():
    drawn = simulate.shopping_log(20_000, items_per_visit=2, n_items=3, popularity=1.0)["item"]
    pairs = pd.Series(list(zip(drawn[::2], drawn[1::2], strict=True))).value_counts()
    w = np.array([6, 3, 2]) / 11
    chance = {(i, j): w[i] * w[j] * (1 / (1 - w[i]) + 1 / (1 - w[j])) for i, j in pairs.index}
    assert sum(chance.values()) == pytest.approx(1)
    assert stats.chisquare(pairs, [chance[pair] * 20_000 for pair in pairs.index]).pvalue > 1e-4


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_exposure_is_the_share_exposed(bias):
    log = make_log(4000, exposure=0.3, exposure_bias=bias)
    q = log["propensity"]
    assert q.mean() == pytest.approx(0.3, rel=1e-9)
    assert within(log["exposed"].sum(), q.sum(), (q * (1 - q)).sum())
    assert (np.ptp(q) < 1e-12) == (bias == 0)


@pytest.mark.parametrize("bend", [0.0, 0.7])
def test_exposure_bias_is_log_odds_for_each_standard_deviation(bend):
    log = make_log(exposure=0.3, exposure_bias=2.0, misspecification=bend)
    slope = np.polyfit(log["log_odds"], logit(log["propensity"]), 1)[0]
    variance = (simulate.COEFFICIENTS**2).sum() + 2 * bend**2
    assert slope == pytest.approx(2 / np.sqrt(variance))


def test_exposure_bias_puts_preferred_rows_first():
    log = make_log(3000, exposure_bias=1.5)
    by_place = log.groupby("position")["log_odds"].mean()
    assert by_place[1] > by_place[5] > by_place[20]


def test_positions_number_the_exposed_rows():
    log = make_log(exposure=0.4)
    shown = log[log["exposed"]]
    assert (log.loc[~log["exposed"], ["position", "examination", "examined"]] == 0).all(axis=None)
    assert (shown.groupby("visit")["position"].max() == shown.groupby("visit").size()).all()
    assert not shown.duplicated(["visit", "position"]).any()


def test_position_bias_is_a_power_of_the_position():
    log = make_log(6000, position_bias=0.8)
    rate = log.groupby("position")["examined"].mean()
    expected = np.arange(1, 21) ** -0.8
    np.testing.assert_allclose(rate, expected, atol=4.5 * np.sqrt(0.25 / 6000))
    assert rate[1] == 1


def test_weighting_by_the_true_chances_undoes_exposure_and_position():
    log = make_log(20_000, rate=0.1, **BIASED | {"popularity": 0.0})
    naive = log.loc[log["exposed"], "conversion"].mean()
    chance = log["propensity"] * log["examination"].where(log["exposed"], 1.0)
    weighted = log["conversion"] / chance
    assert abs(weighted.mean() - 0.1) < 4.5 * weighted.std() / np.sqrt(len(log))
    assert abs(naive - 0.1) > 0.01


@pytest.mark.parametrize(("positive", "negative"), [(0.3, 0.0), (0.0, 0.02), (0.3, 0.02)])
def test_noise_flips_each_class_at_its_rate(positive, negative):
    log = make_log(6000, rate=0.1, flip_positive=positive, flip_negative=negative)
    for outcome, rate in ((1, positive), (0, negative)):
        flipped = log.loc[log["conversion"] == outcome, "label"] != outcome
        assert within(flipped.sum(), rate * len(flipped), rate * (1 - rate) * len(flipped) + 1e-9)
    recorded = simulate.recorded_probability(log["probability"], positive, negative)
    assert within(log["label"].sum(), recorded.sum(), (recorded * (1 - recorded)).sum())


def test_recorded_probability_by_hand():
    np.testing.assert_allclose(
        simulate.recorded_probability([0, 0.5, 1], 0.2, 0.1), [0.1, 0.45, 0.8]
    )


# --- knobs are independent ----------------------------------------------------------

UNTOUCHED = {
    "rate": ["item", "affinity", "exposed", "position", "examined"],
    "intercept": ["item", "affinity", "exposed", "position", "examined"],
    "signal": ["item", "household", "affinity", "discount", "price", "loyalty"],
    "misspecification": ["item", "household", "affinity", "discount", "price", "loyalty"],
    "popularity": ["household", "loyalty", "affinity", "discount"],
    "exposure": ["item", "affinity", "log_odds", "preference"],
    "exposure_bias": ["item", "affinity", "log_odds", "preference"],
    "position_bias": ["item", "log_odds", "propensity", "exposed", "position"],
    "flip_positive": ["log_odds", "exposed", "position", "examined", "conversion"],
    "flip_negative": ["log_odds", "exposed", "position", "examined", "conversion"],
}


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_leaves_the_other_steps_alone(knob):
    base = {"rate": 0.2, "exposure": 0.7, "exposure_bias": 0.5, "position_bias": 0.2}
    before, after = make_log(**base), make_log(**base | {knob: KNOBS[knob]})
    for column in UNTOUCHED[knob]:
        pd.testing.assert_series_equal(before[column], after[column])
    assert not before.equals(after)


def test_position_bias_only_takes_conversions_away():
    without, with_bias = make_log(rate=0.2), make_log(rate=0.2, position_bias=0.8)
    assert (with_bias["conversion"] <= without["conversion"]).all()
    assert with_bias["conversion"].sum() < without["conversion"].sum()


def test_more_noise_flips_the_same_rows_and_more():
    few, many = (make_log(flip_negative=rate)["label"] for rate in (0.01, 0.05))
    assert (few <= many).all()


# --- what sampling does to a correct model -------------------------------------------


@pytest.fixture(scope="module")
def logs():
    train, test = (simulate.shopping_log(10_000, rate=0.01, seed=seed) for seed in (11, 12))
    return simulate.design(train), train["conversion"], simulate.design(test), test


def fitted(logs, X, y, **options):
    return plain_regression(X, y, **options).predict_proba(logs[2])[:, 1]


def test_logistic_regression_finds_the_truth(logs):
    X, y, _, _ = logs
    model = plain_regression(X, y)
    p = model.predict_proba(X)[:, 1]
    rows = np.c_[np.ones(len(X)), X]
    errors = np.sqrt(np.diag(np.linalg.inv(rows.T @ (rows * (p * (1 - p))[:, None]))))[1:]
    assert (np.abs(model.coef_[0] - simulate.COEFFICIENTS) < 4.5 * errors).all()


def test_misspecification_is_seen_in_the_probabilities():
    misses = []
    for bend in (0.0, 0.5):
        log = simulate.shopping_log(10_000, rate=0.05, misspecification=bend, seed=5)
        X = simulate.design(log)
        p = plain_regression(X, log["conversion"]).predict_proba(X)[:, 1]
        misses.append(np.sqrt(np.mean((logit(p) - log["log_odds"]) ** 2)))
    assert misses[0] < 0.1
    assert misses[1] > 0.4


def test_natural_training_needs_no_correction(logs):
    X, y, _, test = logs
    assert abs(calibration_intercept(test["conversion"], fitted(logs, X, y))) < 0.2


@pytest.mark.parametrize("how", ["over-sampling", "weights"])
def test_balancing_shifts_the_intercept_by_the_log_odds_of_the_change(logs, how):
    X, y, _, test = logs
    if how == "weights":
        p = fitted(logs, X, y, class_weight="balanced")
    else:
        p = fitted(logs, *RandomOverSampler(random_state=0).fit_resample(X, y))
    assert calibration_intercept(test["conversion"], p) == pytest.approx(-4.595, abs=0.2)


def test_the_shift_of_down_sampling_is_undone_by_the_keep_rate(logs):
    X, y, _, test = logs
    negatives = 5 * y.sum()
    sampler = RandomUnderSampler(sampling_strategy={0: negatives, 1: y.sum()}, random_state=0)
    p = fitted(logs, *sampler.fit_resample(X, y))
    keep_rate = negatives / (y == 0).sum()
    intercept = calibration_intercept(test["conversion"], p)
    assert intercept == pytest.approx(np.log(keep_rate), abs=0.2)
    assert intercept < -2.5


def test_in_a_saturated_model_the_shift_is_exact():
    log = simulate.shopping_log(10_000, rate=0.05, misspecification=0.5, seed=7)
    X, y = simulate.design(log, "saturated"), log["conversion"]
    plain, weighted = (
        plain_regression(
            X, y, fit_intercept=False, class_weight={0: 1, 1: w}, solver="newton-cholesky"
        ).coef_[0]
        for w in (1, 19)
    )
    np.testing.assert_allclose(weighted - plain, np.log(19), atol=1e-9)
    cell = log["segment"] * simulate.DEPARTMENTS + log["department"]
    np.testing.assert_allclose(plain, logit(y.groupby(cell).mean()), atol=1e-9)


# --- designs and errors ---------------------------------------------------------------


def test_designs():
    log = make_log().sample(100, random_state=0)
    assert list(simulate.design(log).columns) == list(simulate.FEATURES)
    cells = simulate.design(log, "saturated")
    assert cells.shape == (100, 12)
    assert cells.index.equals(log.index)
    assert (cells.sum(axis=1) == 1).all()
    row = log.iloc[0]
    assert cells.iloc[0][f"segment {row['segment']}, department {row['department']}"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_visits": 0}, "n_visits"),
        ({"n_visits": 2.5}, "n_visits"),
        ({"items_per_visit": 30, "n_items": 20}, "items_per_visit is 30"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": 1.0}, "rate"),
        ({"rate": "low"}, "rate is 'low'"),
        ({"rate": None}, "rate is None"),
        ({"intercept": np.inf}, "intercept"),
        ({"signal": np.nan}, "signal"),
        ({"popularity": -1}, "popularity"),
        ({"exposure": 0}, "exposure is 0"),
        ({"exposure": 1.1}, "exposure"),
        ({"position_bias": -0.1}, "position_bias"),
        ({"flip_positive": 1.5}, "flip_positive"),
        ({"flip_negative": True}, "flip_negative"),
        ({"seed": -1}, "seed"),
        ({"population_seed": 0.5}, "population_seed"),
    ],
)
def test_bad_knobs_are_named(arguments, words):
    with pytest.raises(RecbalError, match=words):
        simulate.shopping_log(**arguments)


def test_bad_designs_are_named():
    log = make_log()
    with pytest.raises(RecbalError, match="'cubic'"):
        simulate.design(log, "cubic")
    with pytest.raises(RecbalError, match="affinity"):
        simulate.design(log.drop(columns="affinity"))
    with pytest.raises(RecbalError, match="probabilities"):
        simulate.recorded_probability([1.5])
    with pytest.raises(RecbalError, match="flip_positive"):
        simulate.recorded_probability([0.5], flip_positive=2)


def test_docstrings():
    assert doctest.testmod(simulate).failed == 0
