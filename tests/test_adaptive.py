"""Stages, the ratio chosen online, and the tracked rate, against what must come out."""

import numpy as np
import pytest
from scipy.special import expit

from recbal_utils import adaptive, calibrate
from recbal_utils.adaptive import Stage, StagedNetwork, online_ratio, track
from recbal_utils.errors import RecbalError

BATCH = {"batch_size": 500, "learning_rate": 0.02}


def rows(n=12_000, intercept=-3.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)).astype(np.float32)
    p = expit(intercept + X @ np.array([1.0, -0.5, 0.0]))
    return X, (rng.random(n) < p).astype(int), p


X, Y, P = rows()


def fitted(*stages, **settings):
    return StagedNetwork(stages, hidden=(8,), **{**BATCH, **settings}).fit(X, Y)


def intercept(model):
    """The shift that brings the model to the natural rate, by the true probabilities."""
    return calibrate.calibration_intercept(Y, model.predict_proba(X)[:, 1])


def test_plain_training_finds_the_probabilities():
    model = fitted(Stage(4))
    assert abs(intercept(model)) < 0.1
    assert np.corrcoef(model.decision_function(X), np.log(P / (1 - P)))[0, 1] > 0.97
    assert model.log_odds_shift_ == 0
    assert model.n_steps_ == 4 * len(X) // 500


def test_weights_shift_by_their_logarithm_whenever_they_come():
    for stages in (Stage(4, 5.0),), (Stage(2), Stage(4, 5.0)):
        model = fitted(*stages)
        assert model.log_odds_shift_ == pytest.approx(np.log(5))
        assert intercept(model) == pytest.approx(-np.log(5), abs=0.15)


def test_balanced_weights_are_negatives_per_positive():
    model = fitted(Stage(1), Stage(1, "balanced"))
    assert model.log_odds_shift_ == pytest.approx(np.log((Y == 0).sum() / Y.sum()))


def test_head_only_leaves_the_hidden_layers_and_starts_the_head_anew():
    trainer = adaptive.Trainer(X, Y, hidden=(8,), rate=0.05, seed=1)
    batches = np.arange(2000).reshape(4, 500)
    trainer.run(batches, np.full(4, 0.05))
    hidden = [v.numpy() for v in trainer.model.trainable_variables[:2]]
    bias = trainer.head.bias.numpy()
    trainer.train_head()
    assert trainer.head.bias.numpy() == pytest.approx(np.log(0.05 / 0.95))
    trainer.run(batches, np.full(4, 0.05))
    for before, now in zip(hidden, trainer.model.trainable_variables, strict=False):
        np.testing.assert_array_equal(before, now.numpy())
    assert trainer.head.bias.numpy() != bias
    trainer.train_all()
    trainer.run(batches, np.full(4, 0.05))
    assert (trainer.model.trainable_variables[0].numpy() != hidden[0]).any()


def test_an_offset_in_the_loss_keeps_the_network_at_the_natural_rate():
    kept = np.flatnonzero((Y == 1) | (np.arange(len(Y)) % 10 == 0))
    trainer = adaptive.Trainer(X, Y, hidden=(8,), rate=0.05)
    batches = np.random.default_rng(0).choice(kept, (400, 500))
    trainer.run(batches, adaptive.cosine(0.02, 400), offset=np.log(10))
    p = expit(trainer.log_odds(X))
    assert abs(calibrate.calibration_intercept(Y, p)) < 0.1


def test_two_runs_agree_and_another_seed_does_not():
    same = [fitted(Stage(1)).decision_function(X[:50]) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (fitted(Stage(1), random_state=1).decision_function(X[:50]) != same[0]).any()


def test_hardest_keeps_all_positives_and_the_top_negatives():
    y = np.array([0, 1, 0, 0, 1, 0])
    score = np.array([0.1, 0.0, 0.9, 0.5, 0.2, 0.3])
    np.testing.assert_array_equal(adaptive.hardest(score, y, 0.5), [1, 2, 3, 4])
    np.testing.assert_array_equal(adaptive.hardest(score, y, 1), np.arange(6))


def test_the_hardest_alone_turn_a_model_around():
    model = fitted(Stage(2), Stage(60, hardest=0.05))
    assert np.isnan(model.log_odds_shift_)
    assert np.corrcoef(model.decision_function(X), np.log(P / (1 - P)))[0, 1] < 0


class Fixed:
    """Pulls the arms in turn and remembers what it was paid."""

    def __init__(self, arms):
        self.arms, self.paid = list(arms), []

    def choose(self):
        return self.arms[len(self.paid)]

    def update(self, arm, reward):
        assert arm == self.arms[len(self.paid)]
        self.paid.append(reward)


@pytest.mark.parametrize("arms", [[0] * 12, [1] * 12, [0, 1] * 6])
def test_online_ratio_stays_at_the_natural_rate_whatever_is_chosen(arms):
    seen = []

    def gain_on(log_odds):
        z = log_odds(X)
        seen.append(float(np.mean(Y * z - np.logaddexp(0, z))))
        return seen[-1]

    chooser = Fixed(arms)
    settings = {"rounds": 12, "steps": 30, "batch_size": 500, "learning_rate": 0.02}
    trainer, chosen = online_ratio(X, Y, gain_on, (1, 10), chooser, **settings)
    assert chosen == arms
    np.testing.assert_allclose(np.cumsum(chooser.paid), np.array(seen[1:]) - seen[0])
    assert abs(calibrate.calibration_intercept(Y, expit(trainer.log_odds(X)))) < 0.15
    assert seen[-1] > seen[0]


def test_track_averages_without_drift_and_believes_the_last_with_much():
    asked, variance = np.array([0.3, -0.2, 0.5, 0.1]), np.array([0.1, 0.4, 0.2, 0.1])
    served = track(asked, variance, 0)
    mean = [np.average(asked[:n], weights=1 / variance[:n]) for n in range(1, 5)]
    np.testing.assert_allclose(served, [0, *mean])
    np.testing.assert_allclose(track(asked, variance, np.inf), [0, *asked])
    np.testing.assert_allclose(track(asked, variance, 1e4), [0, *asked], atol=1e-6)


def test_track_is_the_best_linear_forecast():
    """Against the conditional mean of a random walk seen with noise, by its covariances."""
    asked, variance, drift = np.array([0.3, -0.2, 0.5]), np.array([0.1, 0.4, 0.2]), 0.3
    start = 1e6  # variance of the first level: nothing is known of it
    walk = start + drift**2 * np.minimum.outer(np.arange(3), np.arange(3))
    weights = np.linalg.solve(walk + np.diag(variance), walk[2])
    assert track(asked, variance, drift)[-1] == pytest.approx(weights @ asked, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fitted(), "stages is empty"),
        (lambda: fitted(Stage(0)), "epochs"),
        (lambda: fitted(Stage(1, positive_weight=0.0)), "positive_weight"),
        (lambda: fitted(Stage(1, hardest=0)), "hardest"),
        (lambda: StagedNetwork().fit(X[:5], np.ones(5)), "1 class"),
        (lambda: adaptive.hardest([0.1], [0], 2), "share"),
        (lambda: adaptive.hardest([0.1], [1], 0.5), "no negative"),
        (lambda: online_ratio(X, np.ones(len(X)), None, (1,), None), "one class"),
        (lambda: online_ratio(X, Y, None, (0,), None), "above 0"),
        (lambda: track([0.1], [0.0], 1), "variance"),
        (lambda: track([0.1], [1.0], -1), "drift"),
        (lambda: track([0.1, 0.2], [1.0], 1), "shape"),
    ],
)
def test_bad_input_gives_one_sentence(call, words):
    with pytest.raises(RecbalError, match=words):
        call()
