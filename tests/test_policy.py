"""Off-policy estimators against worlds whose truth can be computed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import bandit, policy
from recbal_utils.errors import RecbalError
from recbal_utils.policy import OverlapError

N, REPEATS = 4000, 250
WORLDS = (3, 4, 5)


def weighted(log, target):
    return policy.weights(target[log["kind"], log["item"]], log["propensity"])


def predictions(other, log, target):
    """A wrong model, from another log: an item's click rate is the same for every kind."""
    n_items = target.shape[1]
    clicks = np.bincount(other["item"], other["click"], minlength=n_items)
    q = clicks / np.maximum(np.bincount(other["item"], minlength=n_items), 1)
    return q[log["item"]], (target @ q)[log["kind"]]


def one_trial(world, logging, target, seed):
    log = bandit.log(world, logging, N, seed=seed)
    other = bandit.log(world, logging, N, seed=seed + 10_000)
    predicted, of_target = predictions(other, log, target)
    w = weighted(log, target)
    for method in policy.METHODS:
        found = policy.estimate(
            log["click"], w, method=method, predicted=predicted, predicted_target=of_target
        )
        yield method, found.value, found.low, found.high
    yield "log as it is", log["click"].mean(), np.nan, np.nan
    yield "model", of_target.mean(), np.nan, np.nan


@pytest.fixture(scope="module")
def trials():
    """Estimates and intervals relative to the truth, on many logs of several worlds."""
    frames = {}
    for seed in WORLDS:
        world = bandit.world(10, 12, rate=0.02, seed=seed)
        logging, target = bandit.policy(world, 0.7, by="appeal"), bandit.policy(world, 1.0)
        rows = [row for i in range(REPEATS) for row in one_trial(world, logging, target, i)]
        frame = pd.DataFrame(rows, columns=["method", "value", "low", "high"]).set_index("method")
        frame /= bandit.value(world, target)
        frames[seed] = frame.assign(
            sd=bandit.ips_sd(world, target, logging, N) / bandit.value(world, target)
        )
    return pd.concat(frames, names=["world"])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", policy.METHODS)
def test_bias_lies_within_its_monte_carlo_error(trials, world, method):
    value = trials.loc[(world, method), "value"]
    assert abs(value.mean() - 1) < 4 * value.std() / np.sqrt(REPEATS)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", ["log as it is", "model"])
def test_what_is_not_weighted_is_biased(trials, world, method):
    value = trials.loc[(world, method), "value"]
    assert abs(value.mean() - 1) > 8 * value.std() / np.sqrt(REPEATS)


@pytest.mark.parametrize("world", WORLDS)
def test_spread_of_ips_is_the_computed_one(trials, world):
    found = trials.loc[(world, "ips")]
    assert found["value"].std() == pytest.approx(found["sd"].iloc[0], rel=4 / np.sqrt(2 * REPEATS))


@pytest.mark.parametrize("method", policy.METHODS)
def test_intervals_cover_above_the_stated_size(trials, method):
    found = trials.xs(method, level="method")
    covered = (found["low"] <= 1) & (found["high"] >= 1)
    assert 0.93 <= covered.mean() <= 0.97


def test_functions_and_estimate_agree_and_follow_the_formulas():
    world = bandit.world(10, 12, rate=0.1, seed=3)
    logging, target = bandit.policy(world, 0.3, by="appeal"), bandit.policy(world, 0.5)
    log, other = (bandit.log(world, logging, N, seed=seed) for seed in (0, 1))
    w, r = np.asarray(weighted(log, target)), log["click"].to_numpy()
    q, q_new = predictions(other, log, target)
    expected = {
        "ips": sum(w * r) / N,
        "snips": sum(w * r) / sum(w),
        "dr": sum(q_new + w * (r - q)) / N,
    }
    found = {
        "ips": policy.ips(r, w),
        "snips": policy.snips(r, w),
        "dr": policy.doubly_robust(r, w, q, q_new),
    }
    for method, value in expected.items():
        estimate = policy.estimate(r, w, method=method, predicted=q, predicted_target=q_new)
        assert found[method] == pytest.approx(value)
        assert estimate.value == pytest.approx(value)


def test_a_log_without_overlap_is_refused():
    world = bandit.world(10, 12, rate=0.02, seed=3)
    logging, target = bandit.policy(world, 6.0), bandit.policy(world, -1.0)
    log = bandit.log(world, logging, N, seed=0)
    with pytest.raises(OverlapError, match="count as"):
        policy.estimate(log["click"], weighted(log, target))


def test_few_clicks_are_refused_however_many_rows():
    world = bandit.world(10, 12, rate=0.0005, seed=3)
    logging = bandit.policy(world, 0.0)
    log = bandit.log(world, logging, N, seed=0)
    with pytest.raises(OverlapError, match="rewarded rows"):
        policy.estimate(log["click"], weighted(log, logging))


def test_wrong_propensities_are_noticed():
    world = bandit.world(10, 12, rate=0.1, seed=3)
    logging, target = bandit.policy(world, 0.3, by="appeal"), bandit.policy(world, 0.5)
    log = bandit.log(world, logging, N, seed=0)
    with pytest.raises(OverlapError, match="average to"):
        policy.estimate(log["click"], 0.8 * weighted(log, target))


def test_doubly_robust_forgives_wrong_propensities_if_the_model_is_right():
    world = bandit.world(10, 12, rate=0.3, seed=3)
    logging, target = bandit.policy(world, 0.5, by="appeal"), bandit.policy(world, 1.0)
    log = bandit.log(world, logging, 200_000, seed=0)
    w = weighted(log, target) * (1 + log["item"] / 12)
    q = world.click[log["kind"], log["item"]]
    of_target = (target * world.click).sum(axis=1)[log["kind"]]
    truth = bandit.value(world, target)
    assert policy.doubly_robust(log["click"], w, q, of_target) == pytest.approx(truth, rel=0.02)
    assert abs(policy.ips(log["click"], w) / truth - 1) > 0.1


def test_groups_widen_the_interval_of_copied_rows():
    world = bandit.world(10, 12, rate=0.05, seed=3)
    logging = bandit.policy(world, 0.3)
    log = bandit.log(world, logging, N, seed=0)
    copied = pd.concat([log.assign(user=range(N))] * 4)
    w = weighted(copied, bandit.policy(world, 0.5))
    alone = policy.estimate(log["click"], w[:N], method="ips")
    naive = policy.estimate(copied["click"], w, method="ips")
    found = policy.estimate(copied["click"], w, method="ips", groups=copied["user"].to_numpy())
    assert found.high == pytest.approx(alone.high)
    assert naive.high < found.high


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000), st.floats(0.1, 50))
def test_effective_sample_size(n, seed, scale):
    weight = np.random.default_rng(seed).exponential(size=n)
    ess = policy.effective_sample_size(weight)
    assert 1 - 1e-9 <= ess <= n + 1e-9
    assert policy.effective_sample_size(scale * weight) == pytest.approx(ess)
    assert policy.effective_sample_size(np.ones(n)) == pytest.approx(n)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_self_normalised_stays_among_the_rewards(n, seed):
    rng = np.random.default_rng(seed)
    reward, weight = rng.random(n), rng.exponential(size=n)
    assert reward.min() - 1e-12 <= policy.snips(reward, weight) <= reward.max() + 1e-12
    assert policy.snips(reward, np.ones(n)) == pytest.approx(policy.ips(reward, np.ones(n)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policy.weights([0.5], [0.0]), "logging holds 1 values"),
        (lambda: policy.weights([1.5], [0.5]), "target holds 1 values"),
        (lambda: policy.weights([0.5, 0.5], [0.5]), "one length"),
        (lambda: policy.ips([-1.0], [1.0]), "reward must be 0 or more"),
        (lambda: policy.ips([1.0], [-1.0]), "weight must be 0 or more"),
        (lambda: policy.snips([1.0], [0.0]), "All weights are 0"),
        (lambda: policy.estimate([1.0], [1.0], method="magic"), "choose one of ips"),
        (lambda: policy.doubly_robust([1.0], [1.0], None, None), "needs predicted"),
    ],
)
def test_bad_input_gives_one_sentence(call, message):
    with pytest.raises(RecbalError, match=message):
        call()


# --- the world ------------------------------------------------------------------------------


def test_world_has_the_rate_and_policies_are_probabilities():
    world = bandit.world(8, 9, rate=0.01, seed=1)
    even = bandit.policy(world, 0)
    assert bandit.value(world, even) == pytest.approx(0.01)
    sharp = bandit.policy(world, 30)
    np.testing.assert_allclose(sharp.sum(axis=1), 1)
    assert bandit.value(world, sharp) == pytest.approx(
        world.share @ world.click.max(axis=1), rel=0.01
    )
    assert bandit.value(world, bandit.policy(world, -1)) < 0.01


def test_log_shows_and_clicks_as_it_should():
    world = bandit.world(4, 5, rate=0.2, seed=1)
    logging = bandit.policy(world, 0.5)
    log = bandit.log(world, logging, 200_000, seed=2)
    cells = log.groupby(["kind", "item"])["click"]
    chance = (world.share[:, None] * logging).ravel()
    sd = np.sqrt(chance * (1 - chance) / len(log))
    assert (abs(cells.size() / len(log) - chance) < 5 * sd).all()
    p = world.click.ravel()
    assert (abs(cells.mean() - p) < 5 * np.sqrt(p * (1 - p) / cells.size())).all()
    assert log.equals(bandit.log(world, logging, 200_000, seed=2))


def test_overlap_of_a_long_log_is_the_computed_one():
    world = bandit.world(4, 5, rate=0.2, seed=1)
    logging, target = bandit.policy(world, 0.5), bandit.policy(world, 1.0, by="appeal")
    log = bandit.log(world, logging, 200_000, seed=2)
    share = policy.effective_sample_size(weighted(log, target)) / len(log)
    assert share == pytest.approx(bandit.overlap(world, target, logging), rel=0.03)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bandit.world(rate=0),
        lambda: bandit.world(0),
        lambda: bandit.policy(bandit.world(), 1, by="luck"),
        lambda: bandit.policy(bandit.world(), np.inf),
        lambda: bandit.log(bandit.world(), bandit.policy(bandit.world(), 1), 0),
    ],
)
def test_worlds_that_cannot_be(call):
    with pytest.raises(RecbalError):
        call()
