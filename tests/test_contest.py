"""Models compared on the same households, and parts of a test."""

import numpy as np
import pandas as pd
import pytest

from recbal_utils import compare, contest, evaluate, simulate
from recbal_utils.compare import WHOLE
from recbal_utils.errors import RecbalError

METRICS = ["roc_auc", "recall_at_5", "ratio"]


@pytest.fixture(scope="module")
def log():
    return simulate.shopping_log(1500, rate=0.03, n_households=300, seed=1)


@pytest.fixture(scope="module")
def test(log):
    segments = pd.DataFrame({"department": log["department"].astype(str)})
    return compare.Test(
        np.zeros((len(log), 1)),
        log["label"].to_numpy(),
        groups=log["household"].to_numpy(),
        visits=log["visit"].to_numpy(),
        segments=segments,
    )


def noisy(log, sd, seed):
    odds = log["log_odds"] + sd * np.random.default_rng(seed).standard_normal(len(log))
    return (1 / (1 + np.exp(-odds))).to_numpy()


@pytest.fixture(scope="module")
def scores(log):
    return {
        "poor": {s: noisy(log, 3, s) for s in range(2)},
        "poor too": {s: noisy(log, 3, s + 10) for s in range(2)},
        "good": {0: log["probability"].to_numpy()},
    }


@pytest.fixture(scope="module")
def runs(scores, test):
    return contest.runs(scores, test, n_replicates=100)


def test_runs_are_those_of_evaluate(runs, scores, test):
    found = runs.loc[("poor", 1, WHOLE)]
    assert found["roc_auc"] == pytest.approx(evaluate.roc_auc(test.y, scores["poor"][1]))
    recall = evaluate.recall_at_k(test.y, scores["poor"][1], test.visits, 50)
    assert found["recall_at_50"] == pytest.approx(recall)
    assert len(runs) == 5 * 101


def test_a_checkpoint_gives_the_same(runs, scores, test, tmp_path):
    first = contest.runs(scores, test, n_replicates=100, checkpoint=tmp_path / "parts")
    pd.testing.assert_frame_equal(first, runs)
    only = {name: {0: None} for name in scores}
    again = contest.runs(only, test, n_replicates=100, checkpoint=tmp_path / "parts")
    pd.testing.assert_frame_equal(again, runs)


def test_verdicts_find_the_better_and_not_the_equal(runs):
    found = contest.verdicts(runs, "poor", ["roc_auc", "average_precision"])
    assert (found.loc["good", "low"] > 0).all()
    assert (found.loc["good", "holm"] < 0.05).all()
    assert (found.loc["poor too", "holm"] > 0.2).all()
    assert (found["holm"] >= found["p_value"]).all()
    expected = compare.differences(runs, "poor").loc[("good", "roc_auc")]
    assert found.loc[("good", "roc_auc"), "low"] == pytest.approx(expected["low"])


def test_p_values_by_hand():
    index = pd.MultiIndex.from_product([["a", "b"], [0], [WHOLE, 0, 1, 2]])
    index.names = ["method", "seed", "replicate"]
    runs = pd.DataFrame({"roc_auc": [0.0] * 4 + [0.196, 0.1, 0.2, 0.3]}, index=index)
    found = contest.verdicts(runs, "a", ["roc_auc"])["p_value"]
    assert found.tolist() == pytest.approx([0.05], abs=1e-4)


def test_metrics_a_model_lacks_are_left_out(runs):
    without = runs.copy()
    without.loc["good", "ratio"] = np.nan
    found = contest.verdicts(without, "poor", ["roc_auc", "ratio"])
    assert ("good", "ratio") not in found.index
    assert len(found) == 3


def test_segments_agree_with_report_by(log, test, scores):
    options = {"groups": test.groups, "visits": test.visits, "metrics": METRICS, "seed": 3}
    parts = log["department"].to_numpy()
    p = scores["poor"][0]
    found = contest.by_segment(test.y, p, {"d": parts}, n_replicates=50, **options).loc["d"]
    expected = evaluate.report_by(test.y, p, parts, n_replicates=50, **options)
    for part in range(4):
        interval = contest.interval(found.loc[part])
        pd.testing.assert_frame_equal(interval, expected.loc[part], check_names=False)


def test_gaps_are_paired_and_the_widest_is_above_zero_by_chance(test, scores):
    rng = np.random.default_rng(5)
    parts = rng.integers(6, size=300)[test.groups]
    options = {"groups": test.groups, "visits": test.visits, "metrics": ["recall_at_5"]}
    p = scores["poor"][0]
    draws = contest.by_segment(test.y, p, {"luck": parts}, n_replicates=100, **options).loc["luck"]
    named, widest = contest.gap(draws, 0, 1), contest.widest(draws)
    assert named.loc["recall_at_5", "low"] < 0 < named.loc["recall_at_5", "high"]
    assert widest.loc["recall_at_5", "low"] > 0
    assert contest.gap(draws, 2, 2).to_numpy().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({}, "predictions is empty"),
        ({"a": {}}, "no seed of 'a'"),
        ({"a": {0: [0.5]}}, "one length"),
        ({"a": {0: np.full(30_000, 1.5)}}, "probabilities in"),
    ],
)
def test_bad_input_gives_one_sentence(predictions, message, test):
    with pytest.raises(RecbalError, match=message):
        contest.runs(predictions, test, n_replicates=2)


def test_a_p_value_needs_replicates(scores, test):
    with pytest.raises(RecbalError, match="replicates"):
        contest.verdicts(contest.runs(scores, test, n_replicates=0), "poor", ["roc_auc"])
