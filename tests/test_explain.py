"""Explanations: what theory says of Shapley values, and a page in plain words."""

from itertools import permutations

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from scipy.special import logit
from sklearn.inspection import permutation_importance

from recbal_utils import datasets, explain
from recbal_utils.calibrate import shift_log_odds
from recbal_utils.errors import RecbalError

NAMES = ("a", "b", "c", "noise")


def data(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    X[:, 3] = rng.standard_normal(n)
    p = 1 / (1 + np.exp(-(X[:, 0] + X[:, 1] - 2)))
    return X, (rng.random(n) < p).astype(int)


@pytest.fixture(scope="module")
def model():
    X, y = data()
    return LGBMClassifier(n_estimators=20, num_leaves=6, verbose=-1, n_jobs=1).fit(X, y)


def brute_force(f, x, background):
    """Shapley values by their definition: all orders of the features."""
    d, parts = len(x), np.zeros(len(x))
    orders = list(permutations(range(d)))
    for order in orders:
        rows = background.copy()
        before = f(rows).mean()
        for j in order:
            rows[:, j] = x[j]
            after = f(rows).mean()
            parts[j] += (after - before) / len(orders)
            before = after
    return parts


class TestTrees:
    def test_adds_up(self, model):
        X = data(50, 1)[0]
        found = explain.trees(model, X, data(80, 2)[0], NAMES)
        assert np.allclose(found.log_odds(), model.predict(X, raw_score=True), atol=1e-5)

    def test_follows_the_definition(self, model):
        X, ground = data(3, 1)[0], data(40, 2)[0]
        found = explain.trees(model, X, ground, NAMES)
        raw = lambda rows: model.predict(rows, raw_score=True)
        for x, parts in zip(X, found.parts, strict=True):
            assert np.allclose(parts, brute_force(raw, x, ground), atol=1e-5)

    def test_base_is_the_mean_over_the_background(self, model):
        ground = data(80, 2)[0]
        found = explain.trees(model, ground[:5], ground, NAMES)
        assert found.base == pytest.approx(model.predict(ground, raw_score=True).mean(), abs=1e-5)

    def test_no_warning(self, model, recwarn):
        explain.trees(model, data(3)[0], data(9)[0], NAMES)
        assert not [w for w in recwarn if "LightGBM" in str(w.message)]


class TestAnyModel:
    def test_a_dummy_gets_nothing(self):
        found = explain.any_model(lambda X: 2 * X[:, 0] - X[:, 1], *two(), NAMES)
        assert np.allclose(found.parts[:, 2:], 0)

    def test_like_features_get_like_parts(self):
        X, ground = two()
        X[:, 1], ground[:, 1] = X[:, 0], ground[:, 0]
        product = lambda rows: rows[:, 0] * rows[:, 1]
        found = explain.any_model(product, X, ground, NAMES, n_orders=40)
        assert np.allclose(
            found.parts[:, 0], found.parts[:, 1], atol=0.1 * np.abs(found.parts).max()
        )

    def test_linear_models_have_a_formula(self):
        X, ground = two()
        weights = np.array([2.0, -1.0, 0.5, 0.0])
        found = explain.any_model(lambda rows: rows @ weights, X, ground, NAMES)
        assert np.allclose(found.parts, weights * (X - ground.mean(axis=0)))

    def test_agrees_with_trees(self, model):
        X, ground = two()
        raw = lambda rows: model.predict(rows, raw_score=True)
        walked = explain.any_model(raw, X, ground, NAMES, n_orders=40)
        exact = explain.trees(model, X, ground, NAMES)
        assert np.allclose(walked.parts, exact.parts, atol=0.05)

    def test_refuses_probabilities_that_are_not_deterministic(self):
        rng = np.random.default_rng(0)
        with pytest.raises(RecbalError, match="miss the model's log-odds"):
            explain.any_model(lambda rows: rng.normal(0, 9, len(rows)), *two(), NAMES)


def two():
    return data(12, 3)[0], data(30, 4)[0]


def test_correction_moves_the_base_value_alone(model):
    X, ground = two()
    shift = float(np.log(0.01))
    corrected = lambda rows: logit(shift_log_odds(model.predict_proba(rows)[:, 1], shift))
    before = explain.trees(model, X, ground, NAMES)
    after = explain.any_model(corrected, X, ground, NAMES, n_orders=60)
    assert after.base == pytest.approx(before.base + shift, abs=1e-4)
    assert np.allclose(after.parts, before.parts, atol=0.05)
    assert np.allclose(before.shifted(shift).log_odds(), corrected(X), atol=1e-4)
    assert before.shifted(shift).parts is before.parts


def test_permutation_importance_of_noise_is_near_zero(model):
    X, y = data(4000, 8)
    found = permutation_importance(model, X, y, scoring="roc_auc", n_repeats=5, random_state=0)
    fall = dict(zip(NAMES, found.importances_mean, strict=True))
    assert abs(fall["noise"]) < 0.01
    assert min(fall["a"], fall["b"]) > 0.05


class TestAgreement:
    def of(self, *parts):
        return [explain.Explanation(0.0, np.array(p), ("a", "b", "c")) for p in parts]

    def test_same_and_opposite_orders(self):
        up, down = [[1.0, 2.0, 3.0]] * 2, [[3.0, 2.0, 1.0]] * 2
        assert explain.agreement(self.of(up, up)) == pytest.approx(1)
        assert explain.agreement(self.of(up, down)) == pytest.approx(-1)
        assert explain.agreement(self.of(up, up, down)) == pytest.approx(-1 / 3)

    def test_signs_do_not_count(self):
        assert explain.agreement(self.of([[1.0, 2.0, 3.0]], [[-1.0, 2.0, -3.0]])) == pytest.approx(
            1
        )

    def test_needs_two_alike(self):
        with pytest.raises(RecbalError, match="give two or more"):
            explain.agreement(self.of([[1.0, 2.0, 3.0]]))


ONE = explain.Explanation(-6.0, np.array([[1.0, -0.5, 0.2, 0.0]]), NAMES)
PLAIN = dict(zip(NAMES, ("price", "season", "price", "luck"), strict=True))


class TestPage:
    def test_reasons_of_one_kind_are_added(self):
        speaks_for, against = explain.reasons(ONE, 0, PLAIN)
        assert speaks_for == ["price (raises the odds 3.3-fold)"]
        assert against == ["season (lowers the odds by 39 %)"]

    def test_says_probability_as_frequency(self):
        page = explain.page(ONE, 0, PLAIN, product="beans", usual=0.001)
        assert "**Offer: beans**" in page
        assert "About 5 of 1,000 such offers" in page
        assert "over all offers it is 1 of 1,000." in page

    def test_both_counts_are_out_of_the_same_number(self):
        page = explain.page(ONE.shifted(-4), 0, PLAIN, product="beans", usual=0.001)
        assert (
            "About 9 of 100,000 such offers end in a purchase; over all offers it is 100 of" in page
        )

    @pytest.mark.parametrize(
        ("factor", "said"),
        [
            (48.7, "raises the odds 49-fold"),
            (1234, "raises the odds 1,200-fold"),
            (1.1, "raises the odds by 10 %"),
            (1.001, "hardly changes the odds"),
            (0.9, "lowers the odds by 10 %"),
            (0.001, "lowers the odds by more than 99 %"),
        ],
    )
    def test_effect_on_odds_in_words(self, factor, said):
        assert explain.effect(np.log(factor)) == said

    def test_every_feature_has_words(self):
        with pytest.raises(RecbalError, match="no plain words for noise"):
            explain.reasons(ONE, 0, {n: n for n in NAMES[:3]})

    def test_the_log_has_words_without_ids(self):
        assert set(explain.WORDS) == set(datasets.FEATURES)
        assert not any("_" in words or "id" in words.split() for words in explain.WORDS.values())

    @pytest.mark.parametrize(
        ("p", "said"),
        [
            (0.0031, "3 of 1,000"),
            (0.5, "5 of 10"),
            (0.15, "15 of 100"),
            (0.00099, "1 of 1,000"),
            (0.9952, "995 of 1,000"),
            (0.0, "fewer than 1 of 100,000"),
            (0.0005, "5 of 10,000"),
            (1.0, "10 of 10"),
            (2e-7, "fewer than 1 of 100,000"),
        ],
    )
    def test_frequency(self, p, said):
        assert explain.frequency(p) == said

    def test_frequency_of_no_probability(self):
        with pytest.raises(RecbalError, match="give a probability"):
            explain.frequency(1.2)


def test_shapes_must_match(model):
    with pytest.raises(RecbalError, match="as many columns"):
        explain.trees(model, np.ones((2, 4)), np.ones((2, 3)), NAMES)
    with pytest.raises(RecbalError, match="no row"):
        explain.trees(model, np.ones((0, 4)), np.ones((2, 4)), NAMES)
