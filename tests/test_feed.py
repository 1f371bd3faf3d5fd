"""The simulated feed: its books balance, its truth is what it says, and its loop can be opened."""

import numpy as np
import pytest

from recbal_utils import feed
from recbal_utils.errors import RecbalError

WORLD = feed.make_world(n_authors=60, n_communities=5, seed=3)


def last(run, column):
    return run.rounds[column].iloc[-5:].mean()


def test_followers_have_a_heavy_tail_that_quality_does_not_follow():
    many = feed.make_world(n_authors=5_000, seed=1)
    assert many.followers.sum() == pytest.approx(1)
    assert many.followers.max() / np.median(many.followers) == pytest.approx(2_500, rel=0.01)
    assert many.small.sum() == 2_500
    assert many.followers[many.small].max() < many.followers[~many.small].min()
    assert abs(np.corrcoef(np.log(many.followers), many.like.mean(axis=0))[0, 1]) < 0.05


def test_a_seed_gives_the_same_world_and_the_same_run():
    again = feed.make_world(n_authors=60, n_communities=5, seed=3)
    np.testing.assert_array_equal(again.like, WORLD.like)
    runs = [feed.play(WORLD, feed.by_rate(), explore=0.2, seed=5) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].clicks, runs[1].clicks)


def test_clicks_come_at_the_true_rate():
    run = feed.play(WORLD, feed.blindly, rounds=200, before=0, spread=0, seed=1)
    expected = (run.views * WORLD.like).sum()
    assert run.clicks.sum() == pytest.approx(expected, rel=0.02)
    assert (run.clicks <= run.views).all()


def test_without_sharing_views_are_the_places():
    run = feed.play(WORLD, feed.by_rate(), before=0, spread=0, seed=1)
    np.testing.assert_array_equal(run.views, run.places)
    assert run.passed_on.sum() == 0
    assert run.places.sum() == 20 * 10 * 5 * WORLD.readers


def test_nobody_sees_a_post_twice_in_a_round():
    run = feed.play(WORLD, feed.by_clicks(), rounds=1, before=0, spread=50, seed=1)
    assert run.views.max() <= WORLD.readers
    assert run.passed_on.sum() == run.views.sum() - run.places.sum() > 0


def test_few_posts_are_passed_on_far():
    run = feed.play(WORLD, feed.blindly, spread=2, seed=1)
    reached = np.sort(run.passed_on.ravel())[::-1]
    assert reached[: len(reached) // 10].sum() > 0.3 * reached.sum()


def test_the_truth_is_the_best_and_blindness_the_mean():
    best = np.sort(WORLD.like, axis=1)[:, -10:].mean()
    truth = feed.play(WORLD, feed.knowing(WORLD), seed=1)
    assert truth.rounds["welfare"].to_numpy() == pytest.approx(best)
    blind = feed.play(WORLD, feed.blindly, rounds=100, seed=1)
    assert blind.rounds["welfare"].mean() == pytest.approx(WORLD.like.mean(), rel=0.02)
    assert blind.rounds["small"].mean() == pytest.approx(0.5, abs=0.02)


def test_all_places_explored_is_blindness():
    run = feed.play(WORLD, feed.by_clicks(), explore=1.0, rounds=50, seed=1)
    assert run.rounds["welfare"].mean() == pytest.approx(WORLD.like.mean(), rel=0.03)


def test_balanced_scores_give_each_author_the_same_weight():
    clicks = np.random.default_rng(0).poisson(3, WORLD.like.shape).astype(float)
    scores = feed.by_clicks(1.0)(clicks, clicks * 10)
    np.testing.assert_allclose(scores.sum(axis=0), 1)
    plain = feed.by_clicks(0.0)(clicks, clicks * 10)
    assert (plain.argmax(axis=1) == clicks.argmax(axis=1)).all()


def test_the_rate_is_shrunk_to_the_author_and_to_everything():
    clicks, views = np.zeros((2, 2)), np.zeros((2, 2))
    clicks[0, 0], views[0] = 30, [60, 240]
    scores = feed.by_rate(20.0)(clicks, views)
    author = (30 + 20 * 0.1) / (60 + 20)
    assert scores[0, 0] == pytest.approx((30 + 20 * author) / 80)
    assert scores[1, 0] == pytest.approx(author)


def test_without_followers_of_unlike_numbers_clicks_do_not_favour_the_big():
    even = feed.make_world(n_authors=60, n_communities=5, tail=0.0, seed=3)
    found = [
        np.mean([last(feed.play(w, feed.by_clicks(), spread=0, seed=s), "small") for s in range(4)])
        for w in (even, WORLD)
    ]
    assert found[1] < 0.25 < found[0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: feed.make_world(tail=-1), "tail is -1"),
        (lambda: feed.make_world(n_authors=1), "n_authors"),
        (lambda: feed.play(WORLD, feed.blindly, explore=2), "explore is 2"),
        (lambda: feed.play(WORLD, feed.blindly, places=61), "there are 60 authors"),
        (lambda: feed.by_clicks(prior=0), "prior is 0"),
        (lambda: feed.by_clicks(np.nan), "power is nan"),
        (lambda: feed.by_rate(-1), "strength is -1"),
    ],
)
def test_bad_settings_are_told(call, said):
    with pytest.raises(RecbalError, match=said):
        call()
