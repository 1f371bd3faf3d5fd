"""The network as a scikit-learn estimator: contract, reproducibility, weights, logits."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from recbal_utils.errors import RecbalError
from recbal_utils.models import NetworkClassifier, preprocessing

FAST = {"hidden": (8,), "epochs": 8, "batch_size": 64, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3)).astype(np.float32)
    y = (rng.random(2000) < 1 / (1 + np.exp(2 - 2 * X[:, 0]))).astype(int)
    return X, y


def test_it_learns_what_logistic_regression_learns(data):
    X, y = data
    p = NetworkClassifier(**FAST).fit(X, y).predict_proba(X)
    assert p.shape == (2000, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    linear = LogisticRegression().fit(X, y).predict_proba(X)[:, 1]
    assert np.abs(p[:, 1] - linear).mean() < 0.05
    assert p[:, 1].mean() == pytest.approx(y.mean(), abs=0.02)


def test_seeds_decide_the_result(data):
    a, b, c = (NetworkClassifier(**FAST, random_state=s).fit(*data) for s in (1, 1, 2))
    X = data[0][:50]
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    assert np.abs(a.predict_proba(X) - c.predict_proba(X)).max() > 1e-4


def test_balanced_weights_lift_the_rate_as_scikit_learn_does(data):
    X, y = data
    p = NetworkClassifier(**FAST, class_weight="balanced").fit(X, y).predict_proba(X)[:, 1]
    linear = LogisticRegression(class_weight="balanced").fit(X, y).predict_proba(X)[:, 1]
    assert p.mean() == pytest.approx(linear.mean(), abs=0.03)
    assert p.mean() > y.mean() + 0.1
    by_hand = {0: 2000 / (2 * (y == 0).sum()), 1: 2000 / (2 * y.sum())}
    same = NetworkClassifier(**FAST, class_weight=by_hand).fit(X, y).predict_proba(X)[:, 1]
    np.testing.assert_array_equal(same, p)


def test_sample_weight_counts_rows(data):
    X, y = data
    weight = np.where(y == 1, 4.0, 1.0)
    p = NetworkClassifier(**FAST).fit(X, y, weight).predict_proba(X)[:, 1]
    mean = np.average(p, weights=weight)
    assert mean == pytest.approx(np.average(y, weights=weight), abs=0.04)
    assert p.mean() > y.mean() + 0.1


def test_it_starts_at_the_rate_it_is_told(data):
    X, y = data
    still = {"epochs": 1, "learning_rate": 1e-12}
    for rate, expected in ((0.5, 0.5), (0.02, 0.02), ("train", y.mean())):
        model = NetworkClassifier(**still, initial_rate=rate).fit(X, y)
        bias = model.model_.layers[-1].bias.numpy()[0]
        assert 1 / (1 + np.exp(-bias)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(RecbalError, match=r"initial_rate is 1\.5"):
        NetworkClassifier(initial_rate=1.5).fit(X, y)


def test_a_loss_of_logits_gives_probabilities(data):
    import keras

    X, y = data
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    p = NetworkClassifier(**FAST, loss=loss, logits=True).fit(X, y).predict_proba(X)[:, 1]
    assert ((p > 0) & (p < 1)).all()
    assert p.mean() == pytest.approx(y.mean(), abs=0.02)


def test_it_is_a_scikit_learn_estimator(data):
    X, y = data
    names = np.where(y == 1, "yes", "no")
    model = make_pipeline(preprocessing(), clone(NetworkClassifier(**FAST)))
    model.fit(np.abs(X), names)
    assert list(model.classes_) == ["no", "yes"]
    assert set(model.predict(np.abs(X))) <= {"no", "yes"}
    with pytest.raises(ValueError, match="features"):
        model[-1].predict_proba(X[:, :2])


def test_bad_input(data):
    X, y = data
    with pytest.raises(RecbalError, match="needs two"):
        NetworkClassifier(**FAST).fit(X, y * 0)
    with pytest.raises(RecbalError, match="not finite: lower learning_rate"):
        NetworkClassifier(epochs=1, loss="mse", logits=True).fit(1e30 * X, y)
    with pytest.raises(ValueError, match="NaN"):
        NetworkClassifier(**FAST).fit(np.where(X > 2, np.nan, X), y)


def test_preprocessing_is_log1p_then_standard():
    X = np.random.default_rng(0).exponential(50, size=(500, 2))
    made = preprocessing().fit_transform(X)
    expected = np.log1p(X)
    expected = (expected - expected.mean(0)) / expected.std(0)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_preprocessing_leaves_its_input_alone():
    X = np.random.default_rng(0).exponential(50, size=(500, 2)).astype(np.float32)
    before, scale = X.copy(), preprocessing().fit(X)
    made = scale.transform(X)
    kept = made.copy()
    scale[-1].inverse_transform(made)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(made, kept)
