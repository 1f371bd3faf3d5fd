"""The GAN sampler: its penalty by hand, imbalanced-learn's contract, and what its rows may be."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from imblearn.pipeline import make_pipeline
from imblearn.utils import estimator_checks
from scipy.stats import wasserstein_distance
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from recbal_utils.errors import RecbalError
from recbal_utils.gan import GANSampler, gradient_penalty, sliced_wasserstein

TINY = {"hidden": (8,), "batch_size": 16, "max_steps": 4, "check_every": 2, "n_critic": 1}
CHECKS = [
    estimator_checks.check_samplers_fit,
    estimator_checks.check_samplers_sparse,
    estimator_checks.check_samplers_preserve_dtype,
    estimator_checks.check_samplers_string,
    estimator_checks.check_samplers_pandas,
]


def tiny(**settings):
    return GANSampler(**{"random_state": 0, **TINY, **settings})


def frame(n=120, positives=30):
    """Rows with an index of their own: a count, a measure, a category and a flag."""
    rng = np.random.default_rng(0)
    index = pd.Index(rng.permutation(10 * n)[:n], name="row")
    X = pd.DataFrame(
        {
            "trips": rng.poisson(1.0, n),
            "visits": rng.integers(0, 500, n).astype(float),
            "price": rng.gamma(2.0, size=n).astype(np.float32),
            "place": pd.Categorical(rng.choice(["front", "rear"], n), ["front", "rear", "unseen"]),
            "mailer": rng.choice(["A", "B", "C"], n),
        },
        index=index,
    )
    y = pd.Series(np.arange(n) < positives, index=index, name="bought").astype("int8")
    return X, y


@pytest.fixture(scope="module")
def resampled():
    """Rows before and after, with room for every check below."""
    X, y = frame()
    return X, y, *tiny(sampling_strategy={1: 400}).fit_resample(X, y)


# --- the game -------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "penalty"), [((3, 4), 16), ((0.6, 0.8), 0), ((0, 0), 1)])
def test_penalty_of_a_linear_critic(weights, penalty):
    points = tf.random.stateless_normal((7, 2), seed=[0, 0])
    w = tf.constant(weights, tf.float32)[:, None]
    assert float(gradient_penalty(lambda x: x @ w, points)) == pytest.approx(penalty, abs=1e-5)


def test_penalty_is_a_mean_over_rows_of_each_row_s_own_slope():
    points = tf.constant([[0.5, 0.0], [0.0, 2.0]])
    penalty = gradient_penalty(lambda x: tf.reduce_sum(x**2, axis=1), points)
    assert float(penalty) == pytest.approx(np.mean([(1 - 1) ** 2, (4 - 1) ** 2]))


def test_sliced_distance_on_one_line_is_wasserstein():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 2)), rng.normal(1, 2, size=(50, 2))
    line = np.array([[0.6], [0.8]])
    expected = wasserstein_distance((a @ line).ravel(), (b @ line).ravel())
    assert sliced_wasserstein(a, b, line) == pytest.approx(expected)


def test_learns_a_bell_curve_that_leans():
    rng = np.random.default_rng(0)
    cov = [[1.0, 0.8], [0.8, 1.0]]
    minority = rng.multivariate_normal([5.0, -3.0], cov, 400)
    X = np.vstack([minority, rng.normal(size=(400, 2))])
    y = np.repeat([1, 0], 400)
    sampler = GANSampler(
        sampling_strategy={0: 400, 1: 2400},
        random_state=0,
        hidden=(64, 64),
        batch_size=128,
        max_steps=1000,
        learning_rate=5e-4,
    )
    made = sampler.fit_resample(X, y)[0][800:]
    np.testing.assert_allclose(made.mean(axis=0), [5, -3], atol=0.25)
    np.testing.assert_allclose(made.std(axis=0), 1, atol=0.25)
    assert np.corrcoef(made.T)[0, 1] == pytest.approx(0.8, abs=0.2)
    distance = sampler.history_.distance
    assert distance.idxmin() == sampler.best_step_
    assert distance.min() < 0.7 * distance.iloc[0]


# --- imbalanced-learn's contract ----------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract_of_imbalanced_learn(check):
    if check is estimator_checks.check_samplers_sparse:
        with pytest.raises(RecbalError, match="sparse"):
            check("GANSampler", tiny())
    else:
        check("GANSampler", tiny())


def test_works_in_a_pipeline():
    X, y = frame()
    model = make_pipeline(tiny(), LogisticRegression()).fit(X[["trips", "price"]], y)
    assert model.predict_proba(X[["trips", "price"]]).shape == (120, 2)


@pytest.mark.parametrize(
    ("strategy", "counts"), [("auto", [90, 90]), (0.5, [90, 45]), ({1: 41}, [90, 41])]
)
def test_counts_are_as_asked(strategy, counts):
    X, y = frame()
    _, resampled = tiny(sampling_strategy=strategy).fit_resample(X, y)
    assert np.bincount(resampled).tolist() == counts


def test_asking_for_nothing_returns_the_rows():
    X, y = frame()
    kept, _ = tiny(sampling_strategy={1: 30}).fit_resample(X, y)
    pd.testing.assert_frame_equal(kept, X)


def test_real_rows_come_first_and_dtypes_stay(resampled):
    X, y, X_more, y_more = resampled
    assert X_more.dtypes.to_dict() == X.dtypes.to_dict()
    assert X_more.index.equals(pd.RangeIndex(490))
    assert (y_more.name, y_more.dtype) == ("bought", y.dtype)
    pd.testing.assert_frame_equal(X_more[:120], X.reset_index(drop=True))
    assert (y_more[120:] == 1).all()


def test_arrays_stay_arrays():
    X, y = frame()
    numbers = X[["trips", "price"]].to_numpy(np.float32)
    X_more, _ = tiny().fit_resample(numbers, y.to_numpy())
    assert (type(X_more), X_more.dtype, X_more.shape) == (np.ndarray, np.float32, (180, 2))


def test_same_seed_same_rows_and_other_seed_other_rows():
    X, y = frame()
    first, again, other = (tiny(random_state=s).fit_resample(X, y)[0][120:] for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first.price, other.price)


# --- what a made row may be ----------------------------------------------------------------


def test_counts_stay_whole_and_in_range(resampled):
    X, y, X_more, _ = resampled
    for name in ("trips", "visits"):
        seen, made = X.loc[y == 1, name], X_more[name][120:]
        assert (made == made.round()).all()
        assert made.between(seen.min(), seen.max()).all()
        assert made.min() < made.max()
    price = X.price[y == 1]
    assert X_more.price[120:].between(price.min(), price.max()).all()


def test_categories_are_those_of_the_class():
    X, y = frame()
    X.loc[y == 1, "mailer"] = np.where(np.arange(30) % 2, "A", "C")
    made = tiny(sampling_strategy={1: 400}).fit_resample(X, y)[0][120:]
    assert set(made.mailer) == {"A", "C"}
    assert set(made.place) == {"front", "rear"}


def test_numbers_can_be_categories():
    X, y = frame()
    numbers = X[["trips", "price"]].to_numpy()
    numbers[:30, 0] = np.where(np.arange(30) % 2, 1, 7)
    made = tiny(categorical_features=[0]).fit_resample(numbers, y)[0][120:]
    assert set(made[:, 0]) == {1, 7}


def test_given_categories_come_together_as_seen():
    X, y = frame()
    X["mailer"] = X.place.map({"front": "A", "rear": "B"}).astype(str)
    sampler = tiny(sampling_strategy={1: 400}, condition_on=["place", "mailer"])
    made = sampler.fit_resample(X, y)[0][120:]
    assert (made.mailer == made.place.map({"front": "A", "rear": "B"}).astype(str)).all()
    assert list(made.columns) == list(X.columns)


def test_sample_makes_more_rows():
    X, y = frame()
    sampler = tiny()
    sampler.fit_resample(X, y)
    rows = sampler.sample(5, label=1, random_state=0)
    assert rows.shape == (5, 5)
    assert rows.dtypes.to_dict() == X.dtypes.to_dict()
    pd.testing.assert_frame_equal(rows, sampler.sample(5, random_state=0))
    with pytest.raises(RecbalError, match="No rows of class 0 can be made; choose from 1"):
        sampler.sample(5, label=0)


# --- stopping and errors -------------------------------------------------------------------


def test_stops_when_the_distance_no_longer_falls():
    X, y = frame()
    sampler = tiny(max_steps=2000, check_every=2, patience=2, learning_rate=1e-9)
    sampler.fit_resample(X, y)
    steps = sampler.history_.index
    assert steps[-1] < 2000
    assert steps[-1] >= sampler.best_step_ + 4


def test_without_held_out_rows_it_trains_to_the_end():
    X, y = frame()
    sampler = tiny(validation_fraction=0.0)
    sampler.fit_resample(X, y)
    assert sampler.best_step_ == sampler.history_.index[-1] == 4
    assert np.isnan(sampler.reference_distance_)


def test_divergence_is_told():
    X, y = frame()
    sampler = tiny(learning_rate=1e30, max_steps=8)
    with pytest.raises(RecbalError, match=r"diverged by step .* smaller learning_rate"):
        sampler.fit_resample(X, y)
    with pytest.raises(NotFittedError):
        sampler.sample(5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X, y: (X, y * 0), "one class only"),
        (lambda X, y: (X.assign(price=X.price.where(X.trips > 0)), y), "'price' of X has .* row"),
        (lambda X, y: (X.assign(price=np.inf), y), "'price' of X has 120 values"),
        (lambda X, y: (X.assign(mailer=None), y), "'mailer' of X has 120 values"),
        (lambda X, y: (X[21:], y[21:]), "Class 1 has 9 rows, .* at least 10"),
    ],
)
def test_bad_rows_are_refused_in_one_sentence(spoil, message):
    with pytest.raises(RecbalError, match=message):
        tiny().fit_resample(*spoil(*frame()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"condition_on": ["price"]}, "not categorical"),
        ({"condition_on": ["nowhere"]}, "condition_on is .*nowhere"),
        ({"categorical_features": [9]}, "categorical_features is"),
    ],
)
def test_bad_columns_are_refused(settings, message):
    with pytest.raises(RecbalError, match=message):
        tiny(**settings).fit_resample(*frame())
