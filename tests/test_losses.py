"""Focal maps against numeric minima, weights by hand, and Keras losses against closed forms."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from recbal_utils import calibrate, losses
from recbal_utils.errors import RecbalError

SETTINGS = settings(max_examples=60, deadline=None)
GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


# --- focal loss -----------------------------------------------------------------------------


def expected_focal_loss(q, p, gamma, alpha):
    a, b = (1, 1) if alpha is None else (alpha, 1 - alpha)
    return -p * a * (1 - q) ** gamma * np.log(q) - (1 - p) * b * q**gamma * np.log1p(-q)


@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("p", [0.001, 0.05, 0.4, 0.9])
def test_distortion_minimises_the_expected_loss(p, gamma, alpha):
    found = minimize_scalar(
        lambda z: expected_focal_loss(expit(z), p, gamma, alpha),
        bracket=(-1, 1),
        tol=1e-10,
    )
    assert losses.focal_distortion(p, gamma, alpha) == pytest.approx(expit(found.x), rel=1e-4)


@pytest.mark.parametrize(
    ("p", "alpha", "q"), [(0.01, None, 0.154), (0.05, None, 0.250), (0.01, 0.25, 0.108)]
)
def test_distortion_at_known_points(p, alpha, q):
    assert losses.focal_distortion(p, 2.0, alpha) == pytest.approx(q, abs=5e-4)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_correction_is_the_published_ratio(gamma):
    q = np.linspace(0.01, 0.99, 99)
    phi = lambda q: (1 - q) ** gamma / q - gamma * (1 - q) ** (gamma - 1) * np.log(q)
    np.testing.assert_allclose(
        losses.focal_correction(q, gamma), phi(1 - q) / (phi(q) + phi(1 - q)), rtol=1e-12
    )


@given(st.floats(1e-300, 1 - 1e-9), st.floats(0, 10), st.none() | st.floats(0.01, 0.99))
@SETTINGS
def test_correction_undoes_the_distortion(p, gamma, alpha):
    q = losses.focal_distortion(p, gamma, alpha)
    if q < 1:  # steep maps leave no room between 1 - 1e-16 and 1
        assert losses.focal_correction(q, gamma, alpha) == pytest.approx(p, rel=1e-6)


@given(st.floats(-600, 30), st.floats(-600, 30), st.floats(0, 20))
@SETTINGS
def test_correction_keeps_the_order_and_treats_both_classes_alike(a, b, gamma):
    p, q = losses.focal_correction(expit([a, b]), gamma)
    assert (p >= q) == (expit(a) >= expit(b)) or p == q
    mirrored = losses.focal_correction(expit([-a % 30]), gamma) + losses.focal_correction(
        expit([-(-a % 30)]), gamma
    )
    assert mirrored == pytest.approx(1, abs=1e-12)


def test_gamma_zero_is_cross_entropy_and_ends_stay():
    p = np.array([0.0, 1e-300, 0.3, 1.0])
    np.testing.assert_allclose(losses.focal_distortion(p, 0.0), p, rtol=1e-12)
    for function in (losses.focal_distortion, losses.focal_correction):
        assert function(p, 2.0)[[0, -1]].tolist() == [0, 1]
        assert function([5e-324, 1e-310, 1e-30], 2.0).tolist() == sorted(
            function([5e-324, 1e-310, 1e-30], 2.0)
        )
    assert isinstance(losses.focal_correction(0.2), float)


def test_alpha_is_a_shift_of_the_true_log_odds():
    p = np.array([1e-6, 0.01, 0.5])
    shifted = calibrate.shift_log_odds(p, logit(0.25))
    np.testing.assert_allclose(
        losses.focal_distortion(p, 2.0, 0.25), losses.focal_distortion(shifted, 2.0), rtol=1e-12
    )
    assert (losses.focal_distortion(p, 2.0, 0.25) < losses.focal_distortion(p, 2.0)).all()


def test_rare_events_come_out_as_a_root():
    p, gamma = 1e-9, 2.0
    root = (p / (1 + gamma)) ** (1 / (1 + gamma))
    assert losses.focal_distortion(p, gamma) == pytest.approx(root, rel=0.01)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_the_loss_of_keras_has_its_minimum_there(keras, alpha):
    loss = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=alpha is not None, alpha=alpha or 0.25, gamma=2.0, dtype="float64"
    )
    best = losses.focal_distortion(0.05, 2.0, alpha)

    def expected(q):
        return 0.05 * float(loss([[1.0]], [[q]])) + 0.95 * float(loss([[0.0]], [[q]]))

    assert expected(best) < min(expected(best * 0.98), expected(best * 1.02))


# --- weights --------------------------------------------------------------------------------


def test_effective_number_by_hand():
    # 1 + .9 + .9^2 = 2.71
    np.testing.assert_allclose(losses.effective_number([1, 2, 3], 0.9), [1, 1.9, 2.71])
    assert losses.effective_number([10**9], 0.999)[0] == pytest.approx(1000)


@given(st.integers(1, 400), st.floats(0, 0.9999999))
@SETTINGS
def test_effective_number_is_the_geometric_sum(n, beta):
    assert losses.effective_number([n], beta)[0] == pytest.approx(
        np.sum(beta ** np.arange(n)), rel=1e-7
    )


@pytest.mark.parametrize(
    ("beta", "ratio"), [(0.9, 1.0), (0.99, 2.5), (0.999, 20.4), (0.9999, 78.9)]
)
def test_weights_at_known_points(beta, ratio):
    weights = losses.class_balanced_weights([5000, 50], beta)
    assert weights[1] / weights[0] == pytest.approx(ratio, rel=0.02)
    assert weights.sum() == pytest.approx(2)


def test_weights_at_both_ends():
    assert losses.class_balanced_weights([5000, 50], 0).tolist() == [1, 1]
    ends = losses.class_balanced_weights([5000, 50], 1)
    assert ends[1] / ends[0] == pytest.approx(100)
    near = losses.class_balanced_weights([5000, 50], 1 - 1e-10)
    np.testing.assert_allclose(near, ends, rtol=1e-5)


# --- logit adjustment -----------------------------------------------------------------------


def column(values):
    return np.asarray(values, dtype=np.float64)[:, None]


def test_binary_loss_equals_its_closed_form(keras):
    y, f = np.array([0, 1, 0, 1, 1]), np.array([-3.0, -1.0, 0.5, 2.0, 8.0])
    loss = losses.LogitAdjustedBinaryCrossentropy(0.05, tau=1.5, dtype="float64")
    z = f + 1.5 * logit(0.05)
    expected = np.mean(np.logaddexp(0, z) - y * z)
    assert float(loss(column(y), column(f))) == pytest.approx(expected, rel=1e-9)


def test_multiclass_loss_equals_its_closed_form(keras):
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(6, 3)), np.array([0, 1, 2, 2, 1, 0])
    counts = np.array([900, 90, 10])
    z = f + 0.7 * np.log(counts / 1000)
    loss = losses.LogitAdjustedCrossentropy(counts, tau=0.7, dtype="float64")
    expected = -log_softmax(z, axis=1)[np.arange(6), y].mean()
    assert float(loss(y, f)) == pytest.approx(expected, rel=1e-9)
    assert float(loss(column(y), f)) == pytest.approx(expected, rel=1e-9)


def test_balanced_softmax_is_logit_adjustment_with_tau_one(keras):
    f, y, counts = np.array([[0.2, 1.0, -1.0]]), np.array([2]), np.array([50, 30, 20])
    odds = counts * np.exp(f[0])
    expected = -np.log(odds[2] / odds.sum())
    assert float(losses.balanced_softmax(counts)(y, f)) == pytest.approx(expected, rel=1e-5)


def test_two_classes_agree_with_the_binary_loss(keras):
    y, f = np.array([0, 1, 1]), np.array([0.3, -1.2, 2.0])
    binary = losses.LogitAdjustedBinaryCrossentropy(0.1, dtype="float64")
    both = losses.LogitAdjustedCrossentropy([0.9, 0.1], dtype="float64")
    logits = np.column_stack([np.zeros(3), f])
    assert float(binary(column(y), column(f))) == pytest.approx(float(both(y, logits)))


def test_tau_zero_is_the_loss_of_keras(keras):
    y, f = column([0, 1, 1]), column([0.3, -1.2, 2.0])
    plain = keras.losses.BinaryCrossentropy(from_logits=True)
    ours = losses.LogitAdjustedBinaryCrossentropy(0.1, tau=0)
    assert float(ours(y, f)) == pytest.approx(float(plain(y, f)))


def test_sign_a_model_that_knows_nothing_learns_zero(keras):
    y = column([1] * 5 + [0] * 95)
    loss = losses.LogitAdjustedBinaryCrossentropy(0.05, dtype="float64")
    at = {f: float(loss(y, np.full((100, 1), f))) for f in (-0.1, 0.0, 0.1)}
    assert min(at, key=at.get) == 0.0
    rare = losses.LogitAdjustedCrossentropy([0.9, 0.1], dtype="float64")
    assert float(rare(np.array([1]), np.zeros((1, 2)))) == pytest.approx(-np.log(0.1))


def test_gradient(keras):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    f, y, priors = rng.normal(size=(4, 3)), np.array([0, 2, 1, 2]), np.array([0.7, 0.2, 0.1])
    loss = losses.LogitAdjustedCrossentropy(priors, tau=2.0, dtype="float64")
    variable = tf.Variable(f, dtype="float64")
    with tf.GradientTape() as tape:
        value = loss(y, variable)
    given = tape.gradient(value, variable).numpy()
    closed = (softmax(f + 2 * np.log(priors), axis=1) - np.eye(3)[y]) / 4
    np.testing.assert_allclose(given, closed, atol=1e-9)
    step = 1e-5 * np.eye(12).reshape(12, 4, 3)
    numeric = [(float(loss(y, f + s)) - float(loss(y, f - s))) / 2e-5 for s in step]
    np.testing.assert_allclose(given.ravel(), numeric, atol=1e-7)


def test_extreme_logits_stay_finite(keras):
    loss = losses.LogitAdjustedBinaryCrossentropy(1e-6)
    assert float(loss(column([0, 1]), column([1e4, -1e4]))) == pytest.approx(1e4, rel=1e-2)
    both = losses.LogitAdjustedCrossentropy([1 - 1e-6, 1e-6])
    assert np.isfinite(float(both(np.array([1]), np.array([[1e4, -1e4]]))))


def test_sample_weights_and_mean_reduction(keras):
    loss = losses.LogitAdjustedBinaryCrossentropy(0.2, dtype="float64")
    y, f = column([0, 1]), column([0.5, -0.5])
    single = [float(loss(y[i : i + 1], f[i : i + 1])) for i in (0, 1)]
    assert float(loss(y, f, sample_weight=[3.0, 1.0])) == pytest.approx(
        (3 * single[0] + single[1]) / 2
    )


@pytest.mark.parametrize("which", ["binary", "multiclass"])
def test_losses_survive_saving(keras, which, tmp_path):
    if which == "binary":
        loss, units = losses.LogitAdjustedBinaryCrossentropy(0.05, tau=0.5), 1
    else:
        loss, units = losses.LogitAdjustedCrossentropy([3, 2, 1], tau=0.5), 3
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config()


def test_names_are_found_without_keras_at_import():
    assert {"LogitAdjustedCrossentropy", "focal_correction"} <= set(dir(losses))
    with pytest.raises(AttributeError, match="no attribute 'Focal'"):
        losses.Focal  # noqa: B018


# --- errors ---------------------------------------------------------------------------------


Y = np.array([0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.focal_correction(0.5, -1), "gamma must be a finite"),
        (lambda: losses.focal_correction(0.5, np.inf), "gamma must be a finite"),
        (lambda: losses.focal_correction(0.5, "two"), "gamma must be one number"),
        (lambda: losses.focal_correction(0.5, 2, 1.0), "alpha must lie in"),
        (lambda: losses.focal_distortion([0.5, 1.2]), "p must be probabilities"),
        (lambda: losses.focal_distortion([np.nan]), "p must be finite"),
        (lambda: losses.effective_number([5, 0], 0.9), "counts must hold"),
        (lambda: losses.effective_number([5, np.nan], 0.9), "counts must hold"),
        (lambda: losses.effective_number([[5, 3]], 0.9), "counts must hold"),
        (lambda: losses.effective_number([5, 3], 1.1), "beta must lie in"),
        (lambda: losses.class_balanced_weights([5, 3], np.nan), "beta must lie in"),
        (lambda: losses.LogitAdjustedBinaryCrossentropy(0.0), "prior must lie in"),
        (lambda: losses.LogitAdjustedBinaryCrossentropy(0.1, tau=-1), "tau must be"),
        (lambda: losses.LogitAdjustedCrossentropy([1.0]), "priors must hold"),
        (lambda: losses.LogitAdjustedCrossentropy([1, 0]), "priors must hold"),
        (lambda: losses.LogitAdjustedCrossentropy([1, np.nan]), "priors must hold"),
        (lambda: losses.LogitAdjustedCrossentropy([1, 1])(Y, np.zeros((1, 3))), "3 outputs"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(RecbalError, match=message):
        call()


def test_docstrings():
    assert doctest.testmod(losses).failed == 0
