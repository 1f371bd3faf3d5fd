"""Exploring policies: tables of probabilities, a learner with a closed form, a truth to miss."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import Ridge

from recbal_utils import bandit, explore, policy
from recbal_utils.errors import RecbalError

SHOP = explore.shop(n_kinds=6, n_items=10, seed=3)
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(6, 10))
SD = RNG.uniform(0.1, 1, size=(6, 10))


def test_a_shop_has_its_rate_and_a_tail_that_is_shown_least():
    shop = explore.shop(rate=0.02, seed=1)
    assert shop.world.share @ shop.world.click.mean(axis=1) == pytest.approx(0.02)
    assert shop.tail.sum() == 20
    assert shop.first[0, shop.tail].max() < shop.first[0, ~shop.tail].min()
    np.testing.assert_allclose(shop.first.sum(axis=1), 1)
    np.testing.assert_array_equal(explore.shop(seed=1).features, explore.shop(seed=1).features)


def test_true_log_odds_are_linear_in_the_features():
    p = SHOP.world.click
    z = np.log(p / (1 - p))
    residual = z - SHOP.features @ np.linalg.lstsq(SHOP.features, z, rcond=None)[0]
    np.testing.assert_allclose(residual, 0, atol=1e-9)


@pytest.mark.parametrize(
    "choice",
    [
        explore.greedy,
        explore.uniform,
        explore.linucb(0.7),
        explore.thompson(0.5),
        explore.with_floor(explore.greedy, 0.2),
    ],
)
def test_policies_are_tables_of_probabilities(choice):
    table = choice(MEAN, SD, np.random.default_rng(1))
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert (table >= 0).all()


def test_linucb_adds_a_bonus_for_doubt():
    mean, sd = np.array([[0.5, 0.4]]), np.array([[0.01, 0.2]])
    assert explore.greedy(mean, sd, None).argmax() == 0
    assert explore.linucb(1)(mean, sd, None).argmax() == 1
    assert explore.linucb(0)(mean, sd, None).argmax() == 0


def test_thompson_shows_an_item_as_often_as_it_may_be_the_best():
    mean, sd = np.array([[0.5, 0.4]]), np.array([[0.1, 0.2]])
    table = explore.thompson(1, draws=200_000)(mean, sd, np.random.default_rng(2))
    assert table[0, 0] == pytest.approx(norm.cdf(0.1 / np.hypot(0.1, 0.2)), abs=0.005)
    certain = explore.thompson(0)(MEAN, SD, np.random.default_rng(2))
    np.testing.assert_array_equal(certain, explore.greedy(MEAN, SD, None))


def test_a_floor_shows_everything():
    table = explore.with_floor(explore.greedy, 0.2)(MEAN, SD, None)
    assert table.min() == pytest.approx(0.02)
    assert table.max() == pytest.approx(0.82)


def learnt():
    rng = np.random.default_rng(4)
    shown = rng.integers(0, 30, size=(6, 10))
    clicks = rng.binomial(shown, 0.3)
    learner = explore.Ridge(SHOP.features, 10, centre=0.2, noise=0.5, prior=0.4)
    learner.learn(shown, clicks)
    return learner, shown, clicks


def test_the_learner_is_ridge_regression():
    learner, shown, clicks = learnt()
    x = np.repeat(SHOP.features, 2, axis=0)
    y = np.tile([1.0, 0.0], 6) - 0.2
    for item in (0, 7):
        weight = np.column_stack([clicks[:, item], shown[:, item] - clicks[:, item]]).ravel()
        oracle = Ridge(alpha=(0.5 / 0.4) ** 2, fit_intercept=False).fit(x, y, weight)
        expected = 0.2 + oracle.predict(SHOP.features)
        np.testing.assert_allclose(learner.beliefs()[0][:, item], expected)


def test_its_doubt_is_that_of_bayesian_regression():
    learner, shown, _ = learnt()
    item = 2
    rows = np.repeat(np.arange(6), shown[:, item])
    A = SHOP.features[rows].T @ SHOP.features[rows] * 0.5**-2 + np.eye(5) * 0.4**-2
    expected = np.sqrt(np.einsum("kd,de,ke->k", SHOP.features, np.linalg.inv(A), SHOP.features))
    np.testing.assert_allclose(learner.beliefs()[1][:, item], expected)


def test_doubt_shrinks_with_impressions_and_an_unseen_item_is_the_centre():
    learner = explore.Ridge(SHOP.features, 10, centre=0.2, noise=0.5, prior=0.4)
    mean, before = learner.beliefs()
    np.testing.assert_allclose(mean, 0.2)
    learner.learn(np.full((6, 10), 100), np.full((6, 10), 20))
    assert (learner.beliefs()[1] < before / 3).all()


def play(choice, seed=0, **settings):
    settings = {"rounds": 30, "visitors": 100, "before": 500, **settings}
    return explore.play(SHOP, choice, seed=seed, **settings)


def test_the_log_holds_what_was_shown_with_its_propensities():
    run = play(explore.with_floor(explore.thompson(0.5), 0.2))
    assert len(run.log) == 3000
    assert run.log["propensity"].between(0.02 - 1e-12, 1).all()
    np.testing.assert_array_equal(np.bincount(run.log["item"], minlength=10), run.shown)
    np.testing.assert_array_equal(
        np.bincount(run.log["item"], run.log["click"], minlength=10), run.clicks
    )
    again = play(explore.with_floor(explore.thompson(0.5), 0.2))
    assert again.log.equals(run.log)


def test_random_has_the_regret_of_random():
    run = play(explore.uniform)
    world = SHOP.world
    missed = world.share @ (world.click.max(axis=1) - world.click.mean(axis=1))
    np.testing.assert_allclose(run.rounds["regret"], 100 * missed)
    assert explore.summary(SHOP, run)["regret"] == pytest.approx(1000 * missed)


def test_propensities_are_right():
    """Weighted by them, the log tells the value of another policy, on average over runs."""
    target = bandit.policy(SHOP.world, 1.0, by="appeal")
    choice = explore.with_floor(explore.thompson(0.5), 0.3)
    found = []
    for seed in range(40):
        log = play(choice, seed).log
        w = policy.weights(target[log["kind"], log["item"]], log["propensity"])
        found.append((w.mean(), policy.ips(log["click"], w)))
    weight, value = np.mean(found, axis=0)
    error = np.std(found, axis=0) / np.sqrt(40)
    assert abs(weight - 1) < 4 * error[0]
    assert abs(value - bandit.value(SHOP.world, target)) < 4 * error[1]


def test_a_deterministic_log_is_refused():
    log = play(explore.greedy).log
    assert (log["propensity"] == 1).all()
    target = bandit.policy(SHOP.world, 1.0, by="appeal")
    w = policy.weights(target[log["kind"], log["item"]], log["propensity"])
    with pytest.raises(policy.OverlapError):
        policy.estimate(log["click"], w, least_rewarded=1)


def test_exploring_learns_where_greed_stays():
    shops = [explore.shop(seed=seed) for seed in range(200, 206)]
    ends = {
        name: np.mean([explore.summary(s, explore.play(s, c, seed=1))["last"] for s in shops])
        for name, c in {"greedy": explore.greedy, "linucb": explore.linucb(1)}.items()
    }
    assert ends["linucb"] < 0.8 * ends["greedy"]


def test_thinning_is_undone_on_average_and_balance_gives_items_one_weight():
    plain, thinned = (play(explore.uniform, keep_rate=k, rounds=200) for k in (1, 0.2))
    assert thinned.mean.mean() == pytest.approx(plain.mean.mean(), rel=0.15)
    learner, *_ = learnt()
    weights = explore._item_weights(learner, "items")
    total = learner.shown.sum(axis=0) * weights
    np.testing.assert_allclose(total, total[0])
    assert total.sum() == pytest.approx(learner.shown.sum())


def test_the_discounted_bandit_finds_the_best_arm_and_follows_it():
    chooser, rng = explore.DiscountedThompson(3, discount=0.9, seed=1), np.random.default_rng(0)
    arms = []
    for t in range(1100):
        best = 0 if t < 1000 else 2
        arms.append(chooser.choose())
        chooser.update(arms[-1], rng.normal(1.0 * (arms[-1] == best), 0.2))
    assert set(arms[:3]) == {0, 1, 2}
    assert np.mean(np.array(arms[50:1000]) == 0) > 0.6
    assert np.mean(np.array(arms[1050:]) == 2) > 0.6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explore.shop(rate=1), "rate"),
        (lambda: explore.shop(n_items=1), "n_items"),
        (lambda: explore.linucb(-1), "alpha"),
        (lambda: explore.thompson(np.inf), "scale"),
        (lambda: explore.with_floor(explore.greedy, 2), "share"),
        (lambda: play(explore.greedy, balance="kinds"), "balance"),
        (lambda: play(explore.greedy, keep_rate=0), "keep_rate"),
        (lambda: play(explore.greedy, rounds=0), "rounds"),
        (lambda: explore.DiscountedThompson(2, discount=0), "discount"),
    ],
)
def test_bad_input_gives_one_sentence(call, words):
    with pytest.raises(RecbalError, match=words):
        call()
