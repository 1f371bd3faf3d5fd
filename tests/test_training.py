"""Training: the best weights come back, it stops when it should, and a seed decides all."""

import numpy as np
import pytest

from recbal_utils import training
from recbal_utils.errors import RecbalError

X = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
Y = 3 * X


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def linear(keras, seed=0, rate=0.1, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(rate), "mse", **options)
    return model


def fit(model, scores, **options):
    """Train with scores given beforehand; return the frame and the weights after each epoch."""
    given, seen = iter(scores), []

    def validate():
        seen.append(model.get_weights()[0].copy())
        return next(given)

    frame = training.fit(
        model, X, Y, validate=validate, progress=False, **{"epochs": len(scores)} | options
    )
    return frame, seen


def test_the_best_weights_come_back(keras):
    model = linear(keras)
    frame, seen = fit(model, [1.0, 5.0, 2.0, 3.0], patience=4)
    assert frame["best"].tolist() == [False, True, False, False]
    assert frame["score"].tolist() == [1, 5, 2, 3]
    np.testing.assert_array_equal(model.get_weights()[0], seen[1])
    assert not np.array_equal(seen[1], seen[3])


def test_the_first_of_equal_scores_is_the_best(keras):
    frame, _ = fit(linear(keras), [2.0, 2.0, 2.0], patience=3)
    assert frame["best"].tolist() == [True, False, False]


@pytest.mark.parametrize(("patience", "epochs_run"), [(1, 3), (2, 4), (3, 6)])
def test_it_stops_after_patience(keras, patience, epochs_run):
    frame, _ = fit(linear(keras), [1, 2, 1, 1.5, 3, 1], patience=patience)
    assert len(frame) == epochs_run


def test_a_seed_decides_all(keras):
    def weights(seed):
        model = linear(keras, seed)
        training.fit(
            model, X, Y, validate=lambda: 1, epochs=2, seed=seed, batch_size=8, progress=False
        )
        return model.get_weights()[0]

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_a_loss_that_is_not_finite_stops_with_the_best_weights(keras):
    model = linear(keras, rate=1e30)
    before = model.get_weights()[0]
    with pytest.raises(RecbalError, match="not finite: lower the learning rate"):
        fit(model, [1.0] * 20, patience=20)
    assert np.isfinite(before).all()


def test_a_score_that_is_not_finite_is_an_error(keras):
    model = linear(keras)
    with pytest.raises(RecbalError, match="validate"):
        fit(model, [1.0, np.nan])


def test_an_interrupt_leaves_the_best_weights(keras):
    model, seen = linear(keras), []

    def validate():
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(model.get_weights()[0].copy())
        return -len(seen)

    with pytest.raises(KeyboardInterrupt):
        training.fit(model, X, Y, validate=validate, epochs=5, patience=5, progress=False)
    np.testing.assert_array_equal(model.get_weights()[0], seen[0])


def test_progress_is_printed(keras, capsys):
    training.fit(linear(keras), X, Y, validate=lambda: 0.5, epochs=1)
    assert "epoch 1 of 1: loss" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"patience": 0}, {"epochs": 1.5}])
def test_wrong_settings(keras, wrong):
    with pytest.raises(RecbalError, match="whole number"):
        training.fit(linear(keras), X, Y, validate=lambda: 1, **wrong)


def test_a_model_that_is_not_compiled(keras):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(RecbalError, match="compile"):
        training.fit(model, X, Y, validate=lambda: 1)
