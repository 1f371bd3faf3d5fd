"""Clipping, noise, their accountant, and the tests of what synthetic rows give away."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from scipy.optimize import brentq
from scipy.stats import norm

from recbal_utils import federated, private
from recbal_utils.errors import RecbalError

# ---- the accountant --------------------------------------------------------------------------


def analytic_epsilon(noise, delta):
    """Of one Gaussian release without sampling: Balle and Wang (2018), theorem 8."""

    def excess(epsilon):
        high = norm.cdf(0.5 / noise - epsilon * noise)
        low = norm.logcdf(-0.5 / noise - epsilon * noise)
        return high - np.exp(epsilon + low) - delta

    return brentq(excess, 0, 100)


@pytest.mark.parametrize("noise", [1.0, 3.0, 10.0])
def test_one_release_is_bounded_by_the_exact_value_and_near_it(noise):
    exact, found = analytic_epsilon(noise, 1e-5), private.epsilon(noise, 1.0, 1, 1e-5)
    assert exact <= found < 1.15 * exact


def test_many_releases_are_one_with_less_noise():
    """Gaussian noise composes exactly: T steps of σ tell as much as one of σ / sqrt(T)."""
    many, one = private.epsilon(20.0, 1.0, 100, 1e-5), private.epsilon(2.0, 1.0, 1, 1e-5)
    assert many == pytest.approx(one, rel=1e-6)


def test_published_value_of_abadi():
    """q = .01, σ = 4, δ = 1e-5, T = 10,000: ε = 1.26 by their moments; ours may only be tighter."""
    found = private.epsilon(4.0, 0.01, 10_000, 1e-5)
    assert 0.9 < found < 1.26
    assert private.epsilon(4.0, 0.01, 10_000, 1e-5, conversion="moments") == pytest.approx(
        1.26, abs=0.01
    )


def test_more_noise_less_epsilon_more_steps_more():
    by_noise = [private.epsilon(noise, 0.1, 100, 1e-5) for noise in (0.8, 1, 2, 4)]
    by_steps = [private.epsilon(2, 0.1, steps, 1e-5) for steps in (1, 10, 100)]
    by_rate = [private.epsilon(2, rate, 10, 1e-5) for rate in (0.01, 0.1, 1)]
    assert by_noise == sorted(by_noise, reverse=True)
    assert by_steps == sorted(by_steps)
    assert by_rate == sorted(by_rate)


def test_noise_for_a_target_meets_it_closely():
    noise = private.noise_for(3.0, 0.1, 200, 1e-4)
    assert 2.95 < private.epsilon(noise, 0.1, 200, 1e-4) <= 3.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: private.epsilon(0, 0.1, 1, 1e-5), "noise above 0"),
        (lambda: private.epsilon(1, 0, 1, 1e-5), "rate in"),
        (lambda: private.epsilon(1, 0.1, 0, 1e-5), "at least one step"),
        (lambda: private.epsilon(1, 0.1, 1, 1), "delta in"),
        (lambda: private.noise_for(1e-9, 0.1, 1, 1e-5), "change the steps or the rate"),
        (lambda: private.epsilon(1, 0.1, 1, 1e-5, conversion="x"), "conversion is 'x'"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says):
    with pytest.raises(RecbalError, match=says):
        call()


# ---- the step --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return federated.network(3, hidden=4, seed=2)


def units(n=20, rows=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, rows, 3)).astype(np.float32)
    return X, (rng.random((n, rows)) < 0.3).astype(np.float32)


def plain_gradient(model, X, y):
    """Of the mean loss over all rows, by Keras's own loss and TensorFlow's own tape."""
    import keras
    import tensorflow as tf

    with tf.GradientTape() as tape:
        z = model(X.reshape(-1, 3))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)(y.reshape(-1, 1), z)
    variables = [v.value for v in model.trainable_variables]
    return np.concatenate([np.ravel(g) for g in tape.gradient(loss, variables)])


def test_without_noise_and_clipping_it_is_the_ordinary_gradient(model):
    X, y = units()
    settings = {"norm": 1e6, "noise": 0.0, "batch": 20, "seed": [0, 0]}
    found = private.noisy_gradient(model, X, y, **settings)
    np.testing.assert_allclose(found, plain_gradient(model, X, y), rtol=1e-4, atol=1e-6)


def test_a_unit_of_one_row_is_a_row_and_of_many_its_rows_mean(model):
    X, y = units()
    by_unit = np.asarray(private.unit_gradients(model, X, y))
    by_row = np.asarray(private.unit_gradients(model, X.reshape(-1, 1, 3), y.reshape(-1, 1)))
    np.testing.assert_allclose(by_unit, by_row.reshape(20, 5, -1).mean(axis=1), atol=1e-6)


def test_clipped_gradients_are_no_longer_than_the_norm_and_short_ones_stay(model):
    gradients = np.asarray(private.unit_gradients(model, *units()))
    lengths = np.linalg.norm(gradients, axis=1)
    middle = float(np.median(lengths))
    found = np.asarray(private.clipped(gradients, middle))
    assert np.linalg.norm(found, axis=1).max() <= middle * (1 + 1e-5)
    np.testing.assert_allclose(found[lengths < middle], gradients[lengths < middle], rtol=1e-6)
    assert (np.linalg.norm(found, axis=1)[lengths > middle] > middle * (1 - 1e-5)).all()


def test_one_unit_moves_the_sum_by_no_more_than_the_norm(model):
    """The sensitivity that the noise is scaled to."""
    X, y = units()
    settings = {"norm": 0.1, "noise": 0.0, "batch": 1.0, "seed": [0, 0]}
    with_it = private.noisy_gradient(model, X, y, **settings)
    X[7] *= 100  # as strange as it may be
    y[7] = 1 - y[7]
    changed = private.noisy_gradient(model, X, y, **settings)
    without = private.noisy_gradient(model, np.delete(X, 7, 0), np.delete(y, 7, 0), **settings)
    for found in (with_it, changed):
        assert np.linalg.norm(found - without) <= 0.1 * (1 + 1e-4)


def test_the_noise_has_the_deviation_that_the_accountant_was_told():
    model, (X, y) = federated.network(3, hidden=200, seed=2), units()
    settings = {"norm": 0.5, "batch": 20.0}
    quiet = private.noisy_gradient(model, X, y, noise=0.0, seed=[0, 0], **settings)
    loud = [
        private.noisy_gradient(model, X, y, noise=2.0, seed=[1, i], **settings) for i in range(5)
    ]
    spread = np.std(np.asarray(loud) - np.asarray(quiet))
    assert spread == pytest.approx(2.0 * 0.5 / 20, rel=0.05)


def test_training_learns_and_follows_its_seed():
    X, _ = units(300, 1)
    y = (X[:, :, 0] > 0).astype(np.float32)
    rows = lambda chosen, rng: (X[chosen], y[chosen])
    weights = []
    for seed in (0, 0, 1):
        model = federated.network(3, hidden=4, seed=2)
        private.PrivateTraining(model, 0.2, 60, noise=0.5, seed=seed).fit(300, rows)
        weights.append(model.get_weights())
    z = federated.log_odds(weights[0], X[:, 0])
    assert ((z > 0) == y[:, 0]).mean() > 0.9
    assert all((a == b).all() for a, b in zip(weights[0], weights[1], strict=True))
    assert (weights[0][0] != weights[2][0]).any()


def test_a_batch_of_nobody_adds_its_noise_all_the_same():
    """A step left out would tell that nobody was drawn, which the accountant does not allow."""
    X, y = units(10, 1)
    model = federated.network(3, hidden=4, seed=2)
    before = model.get_weights()
    rows = lambda chosen, rng: (X[chosen], y[chosen])
    private.PrivateTraining(model, 1e-9, 1, noise=1.0).fit(10, rows)
    after = model.get_weights()
    assert all((a != b).all() for a, b in zip(before, after, strict=True))


# ---- what synthetic rows give away -----------------------------------------------------------


@pytest.fixture(scope="module")
def halves():
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 8)), rng.normal(size=(200, 8))


def smote_of(inside, n=1500):
    X, y = np.vstack([inside + 50, inside]), np.repeat([0, 1], len(inside))
    sampler = SMOTE(sampling_strategy={1: len(inside) + n}, random_state=0)
    return sampler.fit_resample(X, y)[0][2 * len(inside) :]


def test_lines_of_smote_give_members_away_and_fresh_rows_do_not(halves):
    inside, outside = halves
    score = lambda rows, made: private.on_lines(rows, made)
    made = smote_of(inside)
    assert private.membership_auc(score(inside, made), score(outside, made)) > 0.95
    fresh = np.random.default_rng(1).normal(size=(1500, 8))
    assert (score(inside, fresh) == 0).all()


def test_distances_are_those_of_brute_force(halves):
    inside, outside = halves
    expected = np.sqrt(((inside[:, None] - outside[None]) ** 2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(private.distance_to_nearest(inside, outside), expected)


def test_membership_of_equal_scores_is_a_coin():
    assert private.membership_auc([1, 2, 3], [1, 2, 3]) == 0.5
    assert private.membership_auc([3, 4], [1, 2]) == 1.0
