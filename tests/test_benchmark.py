"""One split, one way to choose a threshold: for every method alike, on rows not yet seen."""

import numpy as np
import pandas as pd
import pytest
from imblearn.under_sampling import RandomUnderSampler
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score

from recbal_utils import benchmark
from recbal_utils.errors import RecbalError

LINEAR = {"logistic": lambda seed, weight: LogisticRegression(class_weight=weight)}


def shop(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"age": rng.normal(size=n), "colour": rng.choice(["red", "blue"], n)})
    logit = -2.5 + 1.5 * X["age"] + (X["colour"] == "red")
    return X, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int).to_numpy()


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    p = rng.random(60).round(1)
    y = (rng.random(60) < p).astype(int)
    for decision, score in (("balanced_accuracy", balanced_accuracy_score), ("f1", f1_score)):
        chosen = benchmark.best_threshold(y, p, decision)
        best = max(score(y, p >= t) for t in np.arange(0, 1.05, 0.05))
        assert benchmark.decide(y, p, chosen)[decision] == pytest.approx(best)
        assert benchmark.decide(y, p, 0.5)[decision] == pytest.approx(score(y, p >= 0.5))


def test_threshold_by_hand():
    assert benchmark.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.9]) == pytest.approx(0.3)


def test_equal_rows_stay_on_one_side():
    X, y = shop()
    X, y = pd.concat([X, X[:200]], ignore_index=True), np.r_[y, y[:200]]
    train, test = benchmark.split_distinct(X, y, seed=3)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert X.iloc[train].merge(X.iloc[test]).empty


def test_weights_and_samplers_are_undone_in_name_and_in_mean():
    X, y = shop(4000)
    train, test = benchmark.split_distinct(X, y)
    methods = {name: benchmark.METHODS[name] for name in ("nothing", "class weights", "SMOTE")}
    found = benchmark.compare_on(X, y, train, test, methods=methods, learners=LINEAR)
    found = found.loc["logistic"]
    assert list(found.index) == [
        *("nothing", "class weights", "class weights, corrected", "SMOTE", "SMOTE, corrected"),
    ]
    assert found.loc["class weights", "ratio"] > 2
    assert found["ratio"][["nothing", "class weights, corrected"]].between(0.8, 1.2).all()
    assert found.loc["SMOTE", "roc_auc"] == found.loc["SMOTE, corrected", "roc_auc"]
    assert found.loc["nothing", "balanced_accuracy[half]"] < 0.7
    assert found.loc["nothing", "balanced_accuracy[chosen]"] > 0.7
    assert found.loc["SMOTE", "rows"] == 2 * (y[train] == 0).sum()


def test_the_test_part_does_not_choose():
    """Turning the labels of the test part around leaves thresholds where they were."""
    X, y = shop()
    train, test = benchmark.split_distinct(X, y)
    turned = y.copy()
    turned[test] = 1 - turned[test]
    methods = {"nothing": benchmark.METHODS["nothing"]}
    a, b = (
        benchmark.compare_on(X, labels, train, test, methods=methods, learners=LINEAR).iloc[0]
        for labels in (y, turned)
    )
    name = "balanced_accuracy[chosen]"
    assert a[name] == pytest.approx(1 - b[name])


def test_held_rows_choose():
    X, y = shop()
    train, held, test = np.arange(700), np.arange(700, 1100), np.arange(1100, 1500)
    methods = {"nothing": benchmark.METHODS["nothing"]}
    constant = {"constant": lambda seed, weight: DummyClassifier()}
    found = benchmark.compare_on(
        X, y, train, test, held=held, methods=methods, learners=constant
    ).iloc[0]
    assert found["balanced_accuracy[chosen]"] == 0.5
    assert found["scaled_brier"] == pytest.approx(1, abs=0.05)
    assert found["rows"] == 700


def test_a_sampler_that_refuses_leaves_the_rows():
    X, y = shop()
    train, test = benchmark.split_distinct(X, y)
    refuses = benchmark.Balance(lambda seed: RandomUnderSampler(sampling_strategy=0.01))
    found = benchmark.compare_on(X, y, train, test, methods={"m": refuses}, learners=LINEAR)
    assert found.index.tolist() == [("logistic", "m")]
    assert found["rows"].tolist() == [len(train)]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: benchmark.best_threshold([1, 1], [0.1, 0.2]), "one class only"),
        (lambda: benchmark.best_threshold([0, 1], [0.1, np.nan]), "finite"),
        (lambda: benchmark.best_threshold([0, 1], [0.1, 0.2], "accuracy"), "choose one of"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(RecbalError, match=said):
        call()


def test_too_few_rows_to_choose_on():
    X, y = shop(60)[0], np.arange(60) < 2
    with pytest.raises(RecbalError, match="thresholds cannot be chosen"):
        benchmark.compare_on(X, y, np.arange(40), np.arange(40, 60), learners=LINEAR)
