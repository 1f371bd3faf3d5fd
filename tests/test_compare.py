"""`compare`: the same figures as `evaluate`, pairing by seed and household, checkpoints, errors."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from recbal_utils import evaluate
from recbal_utils.calibrate import shift_log_odds
from recbal_utils.compare import WHOLE, Method, Test, compare, differences, summary, table
from recbal_utils.errors import RecbalError

N_VISITS, PER_VISIT = 60, 80


def linear(seed=0):
    return LogisticRegression(C=10)


def logs(seed, n_visits=N_VISITS):
    rng = np.random.default_rng(seed)
    n = n_visits * PER_VISIT
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=list("abc"))
    p = 1 / (1 + np.exp(3.5 - X["a"] - 0.5 * X["b"]))
    y = pd.Series((rng.random(n) < p).astype(int))
    visit = np.repeat(np.arange(n_visits), PER_VISIT)
    return X, y, visit


@pytest.fixture(scope="module")
def train():
    return logs(1)[:2]


@pytest.fixture(scope="module")
def test():
    X, y, visit = logs(2)
    tier = pd.Series(pd.Categorical(np.where(X["c"] > 0, "head", "tail"), ["tail", "head"]))
    return Test(X, y, groups=visit // 2, visits=visit, segments={"tier": tier})


@pytest.fixture(scope="module")
def runs(train, test):
    methods = {
        "nothing": Method(linear, seeded=False),
        "RUS": Method(linear, lambda s: RandomUnderSampler(random_state=s), shift="prior"),
        "tree": Method(lambda s: DecisionTreeClassifier(max_features=1, random_state=s)),
    }
    return compare(methods, train, test, seeds=(3, 4), n_replicates=50, progress=False)


def test_figures_are_those_of_evaluate(runs, train, test):
    p = linear().fit(*train).predict_proba(test.X)[:, 1]
    shared = {"groups": test.groups, "visits": test.visits, "n_replicates": 50}
    report = evaluate.report(test.y, p, **shared)
    found = summary(runs).loc["nothing"]
    for metric in ("roc_auc", "average_precision", "normalised_entropy", "ratio", "ndcg_at_10"):
        np.testing.assert_allclose(found.loc[metric], report.loc[metric], rtol=1e-12)
    by = evaluate.report_by(test.y, p, test.segments["tier"], **shared)
    for tier in ("head", "tail"):
        np.testing.assert_allclose(
            found.loc[f"recall_at_50[{tier}]"], by.loc[(tier, "recall_at_50")], rtol=1e-12
        )


def test_correction_keeps_the_ranking_and_is_the_prior_shift(runs, train, test):
    X, y = RandomUnderSampler(random_state=3).fit_resample(*train)
    p = linear().fit(X, y).predict_proba(test.X)[:, 1]
    rate = train[1].mean()
    corrected = shift_log_odds(p, np.log(rate / (1 - rate)))
    run = runs.loc[("RUS, corrected", 3, WHOLE)]
    assert run["ratio"] == pytest.approx(evaluate.ratio(test.y, corrected), rel=1e-9)
    assert run["roc_auc"] == pytest.approx(runs.loc[("RUS", 3, WHOLE), "roc_auc"], abs=1e-12)
    assert runs.loc[("RUS", 3, WHOLE), "ratio"] > 3 * run["ratio"]


def test_unseeded_methods_run_once_and_rows_are_counted(runs, train):
    seeds = runs.index.to_frame(index=False).groupby("method")["seed"].nunique()
    assert seeds.to_dict() == {"nothing": 1, "RUS": 2, "RUS, corrected": 2, "tree": 2}
    rows = summary(runs)["value"].xs("rows", level="metric")
    assert rows["nothing"] == len(train[1])
    assert rows["RUS"] == 2 * train[1].sum()


def test_intervals_pool_seeds_and_households(runs):
    one = runs.xs("tree", level="method")["roc_auc"]
    found = summary(runs).loc[("tree", "roc_auc")]
    draws = one[one.index.get_level_values("replicate") != WHOLE]
    assert len(draws) == 100
    np.testing.assert_allclose(found[["low", "high"]], np.percentile(draws, [2.5, 97.5]))
    assert found["value"] == pytest.approx(one.xs(WHOLE, level="replicate").mean())


def test_the_price_is_the_median_so_that_a_slow_start_does_not_count():
    index = pd.MultiIndex.from_product([["net"], [0, 1, 2], [WHOLE]])
    index.names = ["method", "seed", "replicate"]
    runs = pd.DataFrame({"roc_auc": [0.5, 0.5, 0.8], "seconds": [60.0, 3.0, 2.0]}, index)
    found = summary(runs)["value"].loc["net"]
    assert found["seconds"] == 3
    assert found["roc_auc"] == pytest.approx(0.6)


def test_differences_are_paired(runs):
    gaps = differences(runs, "nothing")
    assert "nothing" not in gaps.index.get_level_values("method")
    whole = runs.xs(WHOLE, level="replicate")["roc_auc"]
    expected = whole.loc["RUS"].mean() - whole.loc[("nothing", 3)]
    assert gaps.loc[("RUS", "roc_auc"), "value"] == pytest.approx(expected, abs=1e-12)
    same = gaps.loc[("RUS, corrected", "roc_auc")] - gaps.loc[("RUS", "roc_auc")]
    np.testing.assert_allclose(same, 0, atol=1e-9)
    spread = summary(runs).loc[("RUS", "roc_auc")]
    paired = gaps.loc[("RUS", "roc_auc")]
    assert paired["high"] - paired["low"] < spread["high"] - spread["low"]


def test_table_is_text_in_the_order_asked_for(runs):
    shown = table(runs, ["ratio", "rows"], digits=2)
    assert list(shown.columns) == ["ratio", "rows"]
    assert list(shown.index) == ["nothing", "RUS", "RUS, corrected", "tree"]
    value, low, high = summary(runs).loc[("nothing", "ratio")]
    assert shown.loc["nothing", "ratio"] == f"{value:.2f} [{low:.2f}, {high:.2f}]"
    assert shown.loc["nothing", "rows"] == "4,800"
    with pytest.raises(RecbalError, match="no metric auc"):
        table(runs, ["auc"])


def test_rows_of_the_log_make_a_test():
    columns = {"conversion": [0, 1, 0], "visit": [5, 5, 6], "household_id": [1, 1, 2]}
    rows = pd.DataFrame({**columns, "product_id": [-1, -2, -3]}, index=[7, 8, 9])
    found = Test.of_log(rows, np.eye(3))
    assert found.X.shape == (3, 3)
    given = {"y": "conversion", "visits": "visit", "groups": "household_id"}
    for name, column in given.items():
        assert list(getattr(found, name)) == columns[column]
    assert list(found.segments["tier"]) == ["tail"] * 3  # products that nobody ever bought


def test_sample_weights_reach_the_model(train, test):
    X, y = train
    weight = np.where(y == 1, 5.0, 1.0)
    sets = {"plain": (X, y), "weighted": (X, y, weight)}
    methods = {name: Method(linear, train=name, seeded=False) for name in sets}
    ratios = summary(compare(methods, sets, test, n_replicates=0, progress=False))["value"]
    by_hand = linear().fit(X, y, weight).predict_proba(test.X)[:, 1]
    assert ratios[("weighted", "ratio")] == pytest.approx(evaluate.ratio(test.y, by_hand))
    assert ratios[("weighted", "ratio")] > 2 * ratios[("plain", "ratio")]


def test_an_interrupted_run_goes_on_where_it_stopped(train, test, tmp_path):
    trained = []

    def model(seed, stop_at=None):
        if seed == stop_at:
            raise KeyboardInterrupt
        trained.append(seed)
        return linear()

    def run(stop_at=None):
        methods = {
            "ROS": Method(
                lambda seed: model(seed, stop_at), lambda s: RandomOverSampler(random_state=s)
            )
        }
        options = {"seeds": (0, 1, 2), "n_replicates": 5, "progress": False}
        return compare(methods, train, test, checkpoint=tmp_path / "parts", **options)

    with pytest.raises(KeyboardInterrupt):
        run(stop_at=1)
    resumed = run()
    assert trained == [0, 1, 2]
    pd.testing.assert_frame_equal(run(), resumed)
    assert trained == [0, 1, 2]
    assert not list((tmp_path / "parts").glob(".*"))


def test_progress_is_one_line_for_each_training(train, test, capsys):
    compare({"a": Method(linear)}, train, test, seeds=(0, 1), n_replicates=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["[1/2] a, seed 0", "[2/2] a, seed 1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trains": lambda X, y: (X, y * 0)}, "'train' holds only negatives"),
        ({"trains": lambda X, y: (X[:-1], y)}, "needs 4800 rows"),
        ({"trains": lambda X, y: (X.assign(b=np.nan), y)}, "not finite in column 'b'"),
        ({"methods": {}}, "no method"),
        ({"methods": {"x": Method(linear, train="full")}}, "trains on 'full'; there is only train"),
        ({"methods": {"x": Method(linear, shift="odds")}}, "give a number or 'prior'"),
    ],
)
def test_bad_input_is_one_clear_sentence(train, test, change, message):
    methods = change.get("methods", {"x": Method(linear)})
    trains = change.get("trains", lambda X, y: (X, y))(*train)
    with pytest.raises(RecbalError, match=message):
        compare(methods, trains, test, n_replicates=0, progress=False)


def test_segments_need_visits_and_one_class_is_refused(train, test):
    alone = Test(test.X, test.y, segments=test.segments)
    with pytest.raises(RecbalError, match="segments need visits"):
        compare({"x": Method(linear)}, train, alone, n_replicates=0, progress=False)
    with pytest.raises(RecbalError, match="The test holds only positives"):
        compare({"x": Method(linear)}, train, Test(test.X, test.y * 0 + 1), progress=False)


def test_a_model_that_diverges_is_named(train, test):
    class Broken(LogisticRegression):
        def predict_proba(self, X):
            return np.full((len(X), 2), np.nan)

    with pytest.raises(RecbalError, match="x, seed 0: the model predicts"):
        compare({"x": Method(lambda s: Broken())}, train, test, n_replicates=0, progress=False)


def test_differences_need_a_known_baseline(runs):
    with pytest.raises(RecbalError, match="'none' is not among the methods: nothing, RUS"):
        differences(runs, "none")
    with pytest.raises(RecbalError, match="what `compare` returned"):
        summary(runs.reset_index())
