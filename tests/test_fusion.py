"""Networks of several kinds of input, and vectors between others."""

import numpy as np
import pytest

from recbal_utils.errors import RecbalError
from recbal_utils.fusion import WAYS, FusionClassifier, between

GROUPS = {"numbers": 3, "text": 4, "series": 2}


def made(n=4000, seed=0):
    """Rows whose label depends on the first column of the second group alone."""
    X = np.random.default_rng(seed).standard_normal((n, 9)).astype(np.float32)
    y = (np.random.default_rng(seed + 1).random(n) < 1 / (1 + np.exp(-3 * X[:, 3]))).astype(int)
    return X, y


@pytest.fixture(scope="module")
def fitted():
    X, y = made()
    options = {"hidden": (8,), "epochs": 8, "batch_size": 256, "learning_rate": 0.02}
    return {how: FusionClassifier(GROUPS, how, **options).fit(X, y) for how in WAYS}


@pytest.mark.parametrize("how", WAYS)
class TestWays:
    def test_probabilities(self, fitted, how):
        p = fitted[how].predict_proba(made(50, 9)[0])
        assert p.shape == (50, 2)
        assert np.allclose(p.sum(axis=1), 1)

    def test_learns_from_the_group_that_tells(self, fitted, how):
        X, y = made(2000, 5)
        assert np.mean(fitted[how].predict(X) == y) > 0.8
        without = X.copy()
        without[:, 3:7] = 0
        assert np.mean(fitted[how].predict(without) == y) < 0.6

    def test_same_seed_same_network(self, fitted, how):
        X, y = made()
        again = FusionClassifier(**fitted[how].get_params()).fit(X, y)
        assert np.array_equal(again.predict_proba(X), fitted[how].predict_proba(X))


def log_odds(model, X):
    p = model.predict_proba(X)[:, 1]
    return np.log(p) - np.log1p(-p)


def test_late_fusion_adds_up_over_groups(fitted):
    """What a change in one group does is the same whatever the other groups say."""
    X = made(200, 7)[0]
    moved, other = X.copy(), X.copy()
    moved[:, 3] += 1
    other[:, :3] = 0
    both = other.copy()
    both[:, 3] += 1
    by = {}
    for how in ("early", "late"):
        found = [log_odds(fitted[how], rows) for rows in (X, moved, other, both)]
        by[how] = np.abs((found[1] - found[0]) - (found[3] - found[2])).max()
    assert by["late"] < 1e-3
    assert by["early"] > 1e-2


def test_gate_weighs_all_groups(fitted):
    gate = fitted["gated"].gate(made(30, 3)[0])
    assert gate.shape == (30, 3)
    assert np.allclose(gate.sum(axis=1), 1, atol=1e-6)
    assert (gate >= 0).all()
    with pytest.raises(RecbalError, match="only a gated network"):
        fitted["late"].gate(made(3)[0])


def test_columns_of_other_groups_do_not_matter_to_a_single_one():
    X, y = made(500)
    one = FusionClassifier({"text": 4}, "late", hidden=(4,), epochs=1).fit(X[:, 3:7], y)
    assert one.predict_proba(X[:, 3:7]).shape == (500, 2)


@pytest.mark.parametrize(
    ("groups", "how", "said"),
    [
        ({"a": 4}, "early", "The groups name 4 columns and X has 9"),
        ({"a": 9}, "middle", "choose one of early, late, gated"),
        ({"a": 9, "b": 0}, "late", "groups"),
    ],
)
def test_bad_settings(groups, how, said):
    with pytest.raises(RecbalError, match=said):
        FusionClassifier(groups, how).fit(*made(50))


class TestBetween:
    def test_lies_on_the_segment(self):
        vectors = np.random.default_rng(0).standard_normal((40, 6))
        new, first, second, u = between(vectors, 200, random_state=3)
        start, end = vectors[first], vectors[second]
        whole = np.linalg.norm(end - start, axis=1)
        there = np.linalg.norm(new - start, axis=1) + np.linalg.norm(end - new, axis=1)
        assert np.allclose(there, whole)
        assert np.allclose(np.linalg.norm(new - start, axis=1), u * whole)
        assert ((u >= 0) & (u < 1)).all()

    def test_partners_are_near_and_others(self):
        vectors = np.arange(50, dtype=float)[:, None]
        _, first, second, _ = between(vectors, 500, n_neighbours=2)
        assert (first != second).all()
        assert np.abs(first - second).max() <= 2

    def test_seed(self):
        vectors = np.random.default_rng(1).standard_normal((9, 2))
        same, other = (between(vectors, 20, random_state=s)[0] for s in (1, 2))
        assert np.array_equal(between(vectors, 20, random_state=1)[0], same)
        assert not np.array_equal(same, other)

    def test_refuses_one_vector(self):
        with pytest.raises(RecbalError, match="2 rows or more"):
            between(np.ones((1, 3)), 5)
