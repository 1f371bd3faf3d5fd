"""Monitors against known truth: priors that moved by a known amount, drift of a known size."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from recbal_utils import calibrate, drift, monitor
from recbal_utils.errors import RecbalError

PRIOR = 0.02


def sample(n, prior, seed, separation=2.0):
    """Labels at a share of positives, and probabilities that are right at PRIOR."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prior).astype(int)
    x = rng.normal(separation * y)
    return y, expit(separation * x - separation**2 / 2 + logit(PRIOR))


# --- priors from scores ---------------------------------------------------------------------


def expectation_maximisation(p, prior, steps):
    """The iteration as published: posteriors under the current share, then their mean."""
    share = prior
    for _ in range(steps):
        positive, negative = share / prior * p, (1 - share) / (1 - prior) * (1 - p)
        share = np.mean(positive / (positive + negative))
    return share


def test_the_estimate_is_where_the_iteration_ends():
    _, p = sample(2000, 0.3, seed=0)
    iterated = expectation_maximisation(p, PRIOR, 3000)
    assert monitor.estimate_prior(p, PRIOR) == pytest.approx(iterated, abs=1e-9)
    few = expectation_maximisation(p, PRIOR, 3)
    assert abs(few - iterated) > 0.01


@pytest.mark.parametrize("prior", [0.005, 0.02, 0.08, 0.5])
def test_the_estimate_finds_the_true_share(prior):
    found = [monitor.estimate_prior(sample(20_000, prior, s)[1], PRIOR) for s in range(30)]
    error = np.std(found) / np.sqrt(30)
    assert abs(np.mean(found) - prior) < 4 * error
    assert np.std(found) < 0.2 * prior + 0.001


def test_the_correction_makes_probabilities_right():
    y, p = sample(200_000, 0.06, seed=1)
    found = monitor.prior_shift_test(p, PRIOR)
    right = calibrate.shift_log_odds(p, logit(0.06) - logit(PRIOR))
    corrected = calibrate.shift_log_odds(p, found.log_odds_shift)
    assert found.p_value < 1e-10
    assert p.mean() < 0.7 * y.mean()
    assert corrected.mean() == pytest.approx(y.mean(), rel=0.05)
    assert np.abs(corrected - right).max() < 0.02


def test_the_test_keeps_its_level_and_finds_shifts():
    def rejected(prior):
        samples = (sample(5000, prior, seed)[1] for seed in range(300))
        return sum(monitor.prior_shift_test(p, PRIOR).p_value < 0.05 for p in samples)

    low, high = stats.binom.interval(0.999, 300, 0.05)
    assert low <= rejected(PRIOR) <= high
    assert rejected(2 * PRIOR) > 200


def test_rows_of_a_group_are_not_counted_as_independent():
    _, p = sample(300, PRIOR, seed=4)
    copies = np.repeat(p, 20)
    alone = monitor.prior_shift_test(p, PRIOR)
    grouped = monitor.prior_shift_test(copies, PRIOR, groups=np.repeat(np.arange(300), 20))
    naive = monitor.prior_shift_test(copies, PRIOR)
    assert grouped.statistic == pytest.approx(alone.statistic)
    assert naive.statistic == pytest.approx(20 * alone.statistic)
    assert grouped.prior == pytest.approx(alone.prior)


@settings(max_examples=40, deadline=None)
@given(
    p=st.lists(st.floats(0, 1), min_size=2, max_size=30),
    prior=st.floats(0.001, 0.999),
    counts=st.integers(1, 4),
)
def test_weights_are_counts(p, prior, counts):
    repeated = monitor.estimate_prior(np.repeat(p, counts), prior)
    weighted = monitor.estimate_prior(p, prior, np.full(len(p), counts))
    assert weighted == pytest.approx(repeated, abs=1e-9)
    assert 0 < weighted < 1


def test_extreme_scores_give_extreme_shares():
    assert monitor.estimate_prior(np.zeros(5), 0.1) == monitor.EDGE
    assert monitor.estimate_prior(np.ones(5), 0.1) == 1 - monitor.EDGE
    assert monitor.estimate_prior([1, 0, 0, 0], 0.1) == pytest.approx(0.25)
    assert monitor.estimate_prior([0.1, 0.1], 0.1) in (monitor.EDGE, pytest.approx(0.1))


# --- evidence from labels -------------------------------------------------------------------


def test_evidence_by_hand():
    evidence = monitor.shift_evidence([1, 0], [0.5, 0.2], shifts=(np.log(4),))
    np.testing.assert_allclose(np.exp(evidence), [0.8 / 0.5, 0.8 / 0.5 * 0.5 / 0.8])
    both = monitor.shift_evidence([1], [0.5], shifts=(np.log(4), -np.log(4)))
    np.testing.assert_allclose(np.exp(both), [(0.8 + 0.2) / 2 / 0.5])
    tempered = monitor.shift_evidence([1, 0], [0.5, 0.2], shifts=(np.log(4),), power=0.5)
    np.testing.assert_allclose(tempered, evidence / 2)


def test_evidence_is_a_fair_bet_where_p_is_right():
    """The expected stake after one label is exactly 1, whatever p."""
    for p in (0.0, 1e-9, 0.03, 0.5, 0.999, 1.0):
        lost, won = (np.exp(monitor.shift_evidence([y], [p]))[0] for y in (0, 1))
        assert p * won + (1 - p) * lost == pytest.approx(1)


def test_looking_after_every_label_keeps_false_alarms_below_the_bound():
    alarms = [
        monitor.first_alarm(monitor.shift_evidence(*sample(5000, PRIOR, s)), 0.05) is not None
        for s in range(400)
    ]
    assert stats.binom.sf(sum(alarms) - 1, 400, 0.05) > 1e-3


def visits_that_buy_together(n_visits, seed, size=100, spread=1.0):
    """Labels that share a visit's appetite, p right on average, ids of visits."""
    rng = np.random.default_rng(seed)
    appetite = np.repeat(rng.lognormal(-(spread**2) / 2, spread, n_visits), size)
    p = np.full(n_visits * size, PRIOR)
    return (rng.random(len(p)) < np.minimum(p * appetite, 1)).astype(int), p, appetite


def test_overdispersion_by_hand():
    y, p, groups = [1, 1, 0, 0], [0.5] * 4, ["a", "a", "b", "b"]
    assert monitor.overdispersion(y, p, groups) == pytest.approx(2)
    assert monitor.overdispersion(y, p, ["a", "b", "a", "b"]) == 1
    y, p = sample(20_000, PRIOR, seed=0)
    assert monitor.overdispersion(y, p, np.arange(20_000) // 100) == pytest.approx(1, abs=0.2)


def test_labels_that_come_together_need_smaller_stakes():
    y, p, visit = visits_that_buy_together(1000, 999)
    power = 1 / monitor.overdispersion(y, p, visit)

    def alarms(power):
        drawn = (visits_that_buy_together(60, seed)[:2] for seed in range(200))
        evidence = (monitor.shift_evidence(y, p, power=power) for y, p in drawn)
        return sum(monitor.first_alarm(found, 0.05) is not None for found in evidence)

    assert power < 0.5
    assert alarms(1) > 50
    assert alarms(power) <= stats.binom.isf(0.001, 200, 0.05)


def test_repeated_tests_would_not():
    """Why a sequential test: peeking every 100 labels at a test of level 5 % alarms far more."""

    def peeks(seed):
        y, p = sample(5000, PRIOR, seed)
        surprise, variance = np.cumsum(y - p)[99::100], np.cumsum(p * (1 - p))[99::100]
        return (np.abs(surprise) > 1.96 * np.sqrt(variance)).any()

    assert np.mean([peeks(s) for s in range(200)]) > 0.15


def test_a_larger_shift_alarms_sooner():
    def delay(prior):
        found = [
            monitor.first_alarm(monitor.shift_evidence(*sample(40_000, prior, s)))
            for s in range(20)
        ]
        return np.median([np.inf if n is None else n for n in found])

    assert delay(0.06) < delay(0.04) < delay(0.03) < np.inf
    assert delay(0.01) < np.inf


def test_alarms_are_numbers_of_labels():
    assert monitor.first_alarm([0.0, 5.0, 0.0], 0.05) == 2
    assert monitor.first_alarm([0.0, 5.0], 0.001) is None


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: monitor.estimate_prior([0.5, 1.5], 0.1), r"probabilities in \[0, 1\]"),
        (lambda: monitor.estimate_prior([0.5], 0), r"prior must lie in \(0, 1\)"),
        (lambda: monitor.estimate_prior([], 0.1), "no row"),
        (lambda: monitor.estimate_prior([0.5, np.nan], 0.1), "must be finite"),
        (lambda: monitor.prior_shift_test([0.5, 0.2], 0.1, ["a", "a"]), "one group"),
        (lambda: monitor.prior_shift_test([0.5, 0.2], 0.1, ["a"]), "one length"),
        (lambda: monitor.shift_evidence([2], [0.5]), "0 or 1"),
        (lambda: monitor.shift_evidence([1], [0.5], shifts=(0.0,)), "other than 0"),
        (lambda: monitor.shift_evidence([1], [0.5], shifts=()), "other than 0"),
        (lambda: monitor.shift_evidence([1], [0.5], power=2), r"power must lie in \(0, 1\]"),
        (lambda: monitor.overdispersion([1, 0], [1, 0], [1, 2]), "nothing is left to vary"),
        (lambda: monitor.overdispersion([1, 0], [0.5, 0.5], [1]), "one length"),
        (lambda: monitor.first_alarm([1.0], 0), "false_alarms must lie"),
        (lambda: monitor.read_metrics("recbal_requests_total 3\n"), "pass a server's /metrics"),
        (lambda: monitor.write_correction("x.json", np.nan, "why"), "must be finite"),
        (lambda: monitor.write_correction("x.json", "a", "why"), "must be one number"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(RecbalError, match=message):
        call()


def test_a_correction_is_written_whole(tmp_path):
    file = tmp_path / "correction.json"
    monitor.write_correction(file, 0.25, 'a "why"')
    assert json.loads(file.read_text()) == {"log_odds_shift": 0.25, "why": 'a "why"'}
    with pytest.raises(RecbalError, match="Cannot write"):
        monitor.write_correction(file / "below", 0.5, "why")
    assert [path.name for path in tmp_path.iterdir()] == ["correction.json"]


# --- drift ----------------------------------------------------------------------------------

NAMES = ("many", "zeros", "flag")


def features(n, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    many = rng.normal(size=n) * scale
    zeros = np.maximum(rng.normal(-0.5, size=n), 0)
    return np.column_stack([many, zeros, rng.random(n) < 0.05]).astype(float)


def test_bins_by_hand():
    reference = drift.Reference.learn([[1.0], [2], [3], [4]], ["a"], n_bins=2)
    assert [edge.tolist() for edge in reference.edges] == [[2.0]]
    assert reference.count([[2.0], [2.1], [99], [-99]])[0].tolist() == [2, 2]


def test_a_value_that_fills_several_bins_gets_one():
    X = features(4000, 0)
    reference = drift.Reference.learn(X, NAMES)
    many, zeros, flag = reference.counts
    assert len(many) == 10
    assert many.min() >= 399
    assert zeros[0] == (X[:, 1] == 0).sum()
    assert flag.tolist() == [(X[:, 2] == 0).sum(), (X[:, 2] == 1).sum()] or len(flag) == 1
    assert all((count > 0).all() and count.sum() == 4000 for count in reference.counts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=1, max_size=60))
def test_every_row_is_in_one_bin(values):
    X = np.array(values)[:, None]
    reference = drift.Reference.learn(X, ["a"], n_bins=5)
    assert reference.counts[0].sum() == len(values)
    assert (reference.counts[0] > 0).all()
    np.testing.assert_array_equal(reference.count(X)[0], reference.counts[0])
    again = drift.Reference.from_json(json.loads(json.dumps(reference.to_json(["a"]))))
    np.testing.assert_array_equal(again.count(X + 0.05)[0], reference.count(X + 0.05)[0])


def test_the_index_by_hand():
    huge = 1e9
    p, q = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    expected = 0.3 * np.log(1.6) - 0.3 * np.log(0.4)
    assert drift.stability_index(huge * p, huge * q) == pytest.approx(expected)
    symmetric = stats.entropy(p, q) + stats.entropy(q, p)
    assert drift.stability_index(huge * p, huge * q) == pytest.approx(symmetric)
    assert drift.stability_index([3, 7], [30, 70]) == pytest.approx(0, abs=0.01)
    assert np.isfinite(drift.stability_index([5, 5], [10, 0]))


def test_the_index_of_independent_rows_has_its_chi_square_distribution():
    rng = np.random.default_rng(0)
    expected, observed = (rng.multinomial(n, np.full(10, 0.1), size=2000) for n in (5000, 800))
    indexes = [drift.stability_index(a, b) for a, b in zip(expected, observed, strict=True)]
    for rate in (0.1, 0.01):
        threshold = drift.independent_threshold(5000, 800, 10, rate)
        share = np.mean(np.array(indexes) > threshold)
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 2000)


def test_the_index_grows_with_drift():
    reference = drift.Reference.learn(features(20_000, 0), NAMES)
    found = [
        drift.stability(reference, reference.count(features(5000, 1, scale)))[0]
        for scale in (1, 1.2, 1.5, 2)
    ]
    assert found == sorted(found)
    assert found[0] < drift.independent_threshold(20_000, 5000, 10) < found[1]


def visits(n_visits, seed, size=50, shift=0.0):
    """Rows of which the first feature is the same in a visit, as a household's is."""
    rng = np.random.default_rng(seed)
    X = features(n_visits * size, seed)
    X[:, 0] = np.repeat(rng.normal(shift, size=n_visits), size)
    return X, np.repeat(np.arange(n_visits), size)


def test_thresholds_for_whole_visits_keep_their_false_alarm_rate():
    reference = drift.Reference.learn(visits(2000, 0)[0], NAMES)
    X, ids = visits(1000, 1)
    learnt = drift.window_stability(reference, X, ids, n_visits=40, n_windows=1000, seed=1)
    alarm = drift.Alarm.learn(NAMES, learnt, 0.05)
    fresh, _ = visits(40 * 1000, 2)
    windows = fresh.reshape(1000, -1, 3)
    indexes = np.array([drift.stability(reference, reference.count(w)) for w in windows])
    _, low, high = drift.false_alarm_rate(alarm(indexes))
    assert low < 0.05 < high
    independent = drift.independent_threshold(100_000, 2000, 10, 0.05)
    assert np.mean(indexes[:, 0] > independent) > 0.9
    moved = visits(40, 3, shift=1.5)[0]
    index = drift.stability(reference, reference.count(moved))
    assert alarm(index)
    assert alarm.features(index) == ["many"]


def test_few_windows_need_the_median_as_unit():
    """The worst of 17 windows is exceeded by the next with chance 1/18, by any of 12 features."""
    rng = np.random.default_rng(0)
    names = [f"f{i}" for i in range(12)]

    def rate(**settings):
        alarms = []
        for _ in range(600):
            *quiet, fresh = rng.exponential(size=(18, 12)) * np.arange(1, 13)
            alarms.append(drift.Alarm.learn(names, np.array(quiet), 1 / 17, **settings)(fresh))
        return np.mean(alarms)

    low, high = stats.binom.interval(0.999, 600, 1 / 18)
    assert low <= 600 * rate(unit=0.5) <= high
    assert rate() > 0.3


def test_windows_are_drawn_by_visit():
    reference = drift.Reference.learn(visits(500, 0)[0], NAMES)
    X, ids = visits(60, 1)
    shuffled = np.random.default_rng(0).permutation(len(X))
    settings = {"n_visits": 30, "n_windows": 50, "seed": 3}
    a = drift.window_stability(reference, X, ids, **settings)
    b = drift.window_stability(reference, X[shuffled], ids[shuffled], **settings)
    np.testing.assert_allclose(a, b)
    by_row = drift.window_stability(
        reference, X, np.arange(len(X)), n_visits=30 * 50, n_windows=50, seed=3
    )
    assert np.median(a[:, 0]) > 3 * np.median(by_row[:, 0])


def test_false_alarm_rate_is_clopper_and_pearsons():
    rate, low, high = drift.false_alarm_rate([True] * 2 + [False] * 38)
    assert rate == 0.05
    assert low == pytest.approx(stats.beta.ppf(0.025, 2, 39))
    assert high == pytest.approx(stats.beta.ppf(0.975, 3, 38))
    assert drift.false_alarm_rate([False] * 10)[:2] == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drift.Reference.learn(np.empty((0, 1)), ["a"]), "at least one row"),
        (lambda: drift.Reference.learn([[1.0]], ["a"], n_bins=1), "two bins"),
        (lambda: drift.Reference.learn([[np.nan]], ["a"]), "must be finite"),
        (lambda: drift.Reference.learn([[1.0]], ["a", "b"]), r"shape \(n, 2\)"),
        (lambda: drift.stability_index([1, 2], [1, 2, 3]), "use the same bins"),
        (lambda: drift.stability_index([1, 2], [0, 0]), "at least one row"),
        (lambda: drift.stability_index([1, -2], [0, 1]), "must be counts"),
        (lambda: drift.Alarm.learn(["a"], np.ones((50, 1)), 0.01), "draw more windows"),
        (lambda: drift.Alarm.learn(["a"], np.ones((50, 1)), 0.1, unit=1), "unit must lie in"),
        (lambda: drift.false_alarm_rate([]), "no window"),
        (
            lambda: drift.Reference.from_json({"names": ["a"], "edges": [[1]], "counts": [[1]]}),
            "do not fit",
        ),
        (lambda: drift.Reference.learn([[1.0]], ["a"]).to_json(["b"]), "of other features"),
    ],
)
def test_bad_input_of_drift(call, message):
    with pytest.raises(RecbalError, match=message):
        call()
