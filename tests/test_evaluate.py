"""Metrics against scikit-learn, by hand, and by properties; replicates against a naive loop."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from recbal_utils import _tables, evaluate
from recbal_utils._bootstrap import draw_weights
from recbal_utils.errors import RecbalError

ROW_FUNCTIONS = {
    "roc_auc": evaluate.roc_auc,
    "average_precision": evaluate.average_precision,
    "log_loss": evaluate.log_loss,
    "normalised_entropy": evaluate.normalised_entropy,
    "ratio": evaluate.ratio,
    "expected_calibration_error": evaluate.expected_calibration_error,
}


def make_log(seed=0, n=600, households=25, rate=0.15, decimals=2):
    """Return rows in visits of 12, visits in households; rounding p makes ties."""
    rng = np.random.default_rng(seed)
    visit = np.repeat(np.arange(n // 12), 12)
    household = rng.integers(households, size=n // 12)[visit]
    y = (rng.random(n) < rate).astype(int)
    p = np.clip(0.3 * y + 0.5 * rng.random(n), 0.01, 0.99).round(decimals)
    return pd.DataFrame({"y": y, "p": p, "visit": visit, "household": household})


@st.composite
def scored_rows(draw, min_size=4):
    """Return outcomes of both classes, probabilities with ties, and small whole weights."""
    n = draw(st.integers(min_size, 30))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    y[0], y[1] = 0, 1
    p = draw(st.lists(st.sampled_from(np.linspace(0.05, 0.95, 10)), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    weight[0] = weight[1] = 1
    return np.array(y), np.array(p), np.array(weight)


# --- oracles --------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "no ties"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "log_loss"])
def test_equals_scikit_learn(name, weighted, decimals):
    expected = {
        "roc_auc": oracle.roc_auc_score,
        "average_precision": oracle.average_precision_score,
        "log_loss": oracle.log_loss,
    }[name]
    log = make_log(decimals=decimals)
    weight = np.random.default_rng(1).random(len(log)) if weighted else None
    got = ROW_FUNCTIONS[name](log["y"], log["p"], weight)
    assert got == pytest.approx(expected(log["y"], log["p"], sample_weight=weight), abs=1e-12)


def test_a_sparse_table_keeps_the_weights(monkeypatch):
    monkeypatch.setattr(_tables, "DENSE_CELLS", 0)
    log = make_log(decimals=1)
    weight = np.random.default_rng(1).random(len(log))
    got = evaluate.average_precision(log["y"], log["p"], weight)
    expected = oracle.average_precision_score(log["y"], log["p"], sample_weight=weight)
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 50])
@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "no ties"])
def test_ndcg_equals_scikit_learn_per_visit(k, decimals):
    log = make_log(decimals=decimals)
    each = [
        oracle.ndcg_score([rows["y"]], [rows["p"]], k=k)
        for _, rows in log.groupby("visit")
        if rows["y"].any()
    ]
    got = evaluate.ndcg_at_k(log["y"], log["p"], log["visit"], k)
    assert got == pytest.approx(np.mean(each), abs=1e-12)


def test_log_loss_of_certain_and_wrong_is_clipped_as_in_scikit_learn():
    y, p = [0, 1, 1], [1.0, 0.0, 1.0]
    assert evaluate.log_loss(y, p) == pytest.approx(oracle.log_loss(y, p), rel=1e-12)


# --- by hand --------------------------------------------------------------------------------

# Six rows of two visits, best score first:
#
#   p    y  visit        p    y  visit
#   .8   1  a            .4   0  b
#   .6   0  a            .4   1  b       (tied with the row above)
#   .5   0  a            .2   0  b
SIX_Y = np.array([1, 0, 0, 0, 1, 0])
SIX_P = np.array([0.8, 0.6, 0.5, 0.4, 0.4, 0.2])
SIX_VISITS = np.array(["a", "a", "a", "b", "b", "b"])


def test_ranking_by_hand():
    # The first positive beats all 4 negatives; the second beats 1 and ties with 1: 5.5 of 8 pairs.
    assert evaluate.roc_auc(SIX_Y, SIX_P) == pytest.approx(5.5 / 8)
    # Precision 1 of 1 at .8 and 2 of 5 at .4, half of the positives each.
    assert evaluate.average_precision(SIX_Y, SIX_P) == pytest.approx((1 + 2 / 5) / 2)


def test_probabilities_by_hand():
    rate = 2 / 6
    likelihood = 0.8 * 0.4 * 0.5 * 0.6 * 0.4 * 0.8
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert evaluate.log_loss(SIX_Y, SIX_P) == pytest.approx(-np.log(likelihood) / 6)
    ne = evaluate.normalised_entropy(SIX_Y, SIX_P)
    assert ne == pytest.approx(-np.log(likelihood) / 6 / entropy)
    assert evaluate.ratio(SIX_Y, SIX_P) == pytest.approx(2.9 / 2)


def test_visits_by_hand():
    # Visit a: its positive is first. Visit b: its positive shares places 1 and 2.
    half = (1 + 1 / np.log2(3)) / 2
    assert evaluate.ndcg_at_k(SIX_Y, SIX_P, SIX_VISITS, 10) == pytest.approx((1 + half) / 2)
    assert evaluate.ndcg_at_k(SIX_Y, SIX_P, SIX_VISITS, 1) == pytest.approx((1 + 0.5) / 2)
    assert evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS, 1) == pytest.approx((1 + 0.5) / 2)
    assert evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS, 2) == 1


def test_calibration_error_by_hand():
    # Equal mass, 2 bins: {.2, .4, .4} with mean 1/3 and rate 1/3; {.5, .6, .8} with 1.9/3 and 1/3.
    assert evaluate.expected_calibration_error(SIX_Y, SIX_P, n_bins=2) == pytest.approx(0.15)
    relative = evaluate.expected_calibration_error(SIX_Y, SIX_P, n_bins=2, relative=True)
    assert relative == pytest.approx(0.15 / (2 / 6))
    # Equal width, 5 bins, edges .2 .4 .6 .8 within the lower bin:
    # {.2}: gap .2; {.4, .4}: .8 - 1 = -.2; {.5, .6}: 1.1; {.8}: -.2. Sum of distances 1.7 of 6.
    uniform = evaluate.expected_calibration_error(SIX_Y, SIX_P, n_bins=5, strategy="uniform")
    assert uniform == pytest.approx(1.7 / 6)


def test_reliability_curve_by_hand():
    curve = evaluate.reliability_curve(SIX_Y, SIX_P, n_bins=2)
    expected = pd.DataFrame(
        {"predicted": [1 / 3, 1.9 / 3], "observed": [1 / 3, 1 / 3], "n": [3, 3], "weight": [3, 3]},
        index=pd.RangeIndex(2, name="bin"),
    )
    pd.testing.assert_frame_equal(curve, expected, check_dtype=False, check_index_type=False)


def test_reliability_curve_weighs_means_and_leaves_out_empty_bins():
    curve = evaluate.reliability_curve([0, 1, 1], [0.1, 0.2, 0.9], [3, 1, 2], strategy="uniform")
    assert curve["predicted"].tolist() == pytest.approx([0.1, 0.2, 0.9])
    two = evaluate.reliability_curve([0, 1, 1], [0.1, 0.2, 0.9], [3, 1, 2], n_bins=2)
    assert two["predicted"].tolist() == pytest.approx([0.1, (0.2 + 1.8) / 3])
    assert two["observed"].tolist() == pytest.approx([0, 1])
    assert two["n"].tolist() == [1, 2]
    assert two["weight"].tolist() == [3, 3]


def test_equal_mass_bins_hold_equally_many_rows():
    log = make_log(n=6000, decimals=15)
    curve = evaluate.reliability_curve(log["y"], log["p"], n_bins=7)
    assert len(curve) == 7
    assert np.ptp(curve["n"]) <= 1


def test_the_rate_alone_scores_one_and_fools_the_calibration_error():
    y = np.arange(1000) < 11
    p = np.full(1000, 0.011)
    assert evaluate.normalised_entropy(y, p) == pytest.approx(1)
    assert evaluate.ratio(y, p) == pytest.approx(1)
    assert evaluate.expected_calibration_error(y, p) == pytest.approx(0, abs=1e-12)
    assert evaluate.roc_auc(y, p) == 0.5
    assert evaluate.average_precision(y, p) == pytest.approx(0.011)


def test_recall_of_a_subset_ranks_the_whole_visit():
    y, p, visits = [1, 1, 0, 1], [0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1]
    tail = np.array([False, True, True, False])
    # The tail's one conversion stands second in visit 0; visit 1 has none and does not count.
    assert evaluate.recall_at_k(y, p, visits, 1, subset=tail) == 0
    assert evaluate.recall_at_k(y, p, visits, 2, subset=tail) == 1
    assert evaluate.ndcg_at_k(y, p, visits, 2, subset=tail) == pytest.approx(1 / np.log2(3))


def test_visits_without_a_conversion_do_not_count():
    with_it = evaluate.recall_at_k([1, 0, 0, 0], [0.9, 0.1, 0.8, 0.7], [0, 0, 1, 1], 1)
    assert with_it == 1


# --- properties -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
@settings(max_examples=40, deadline=None)
@given(rows=scored_rows())
def test_weights_count_as_repeats(name, rows):
    y, p, weight = rows
    repeated = ROW_FUNCTIONS[name](np.repeat(y, weight), np.repeat(p, weight))
    assert ROW_FUNCTIONS[name](y, p, weight) == pytest.approx(repeated, abs=1e-10)


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(rows=scored_rows(), seed=st.integers(0, 100))
def test_row_metrics_do_not_depend_on_row_order(name, rows, seed):
    y, p, weight = rows
    order = np.random.default_rng(seed).permutation(len(y))
    shuffled = ROW_FUNCTIONS[name](y[order], p[order], weight[order])
    assert shuffled == pytest.approx(ROW_FUNCTIONS[name](y, p, weight), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(rows=scored_rows(), seed=st.integers(0, 100), k=st.integers(1, 12))
def test_visit_metrics_do_not_depend_on_row_order_even_with_ties(rows, seed, k):
    y, p, visit = rows  # the small whole numbers serve as visits
    order = np.random.default_rng(seed).permutation(len(y))
    for metric in (evaluate.ndcg_at_k, evaluate.recall_at_k):
        shuffled = metric(y[order], p[order], visit[order], k)
        assert shuffled == pytest.approx(metric(y, p, visit, k), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(rows=scored_rows(), seed=st.integers(0, 100))
def test_tied_visit_metrics_are_the_mean_over_random_orders(rows, seed):
    y, _, _ = rows
    visits, p = np.zeros(len(y)), np.full(len(y), 0.5)
    # With all rows tied, the expected recall at k is k / n whatever the outcomes.
    assert evaluate.recall_at_k(y, p, visits, 3) == pytest.approx(3 / len(y))
    rng = np.random.default_rng(seed)
    rounds = [evaluate.ndcg_at_k(y, rng.random(len(y)), visits, 5) for _ in range(300)]
    error = np.std(rounds) / np.sqrt(300)
    assert abs(evaluate.ndcg_at_k(y, p, visits, 5) - np.mean(rounds)) <= 6 * error + 1e-9


@settings(max_examples=25, deadline=None)
@given(rows=scored_rows())
def test_ranking_metrics_keep_under_monotone_transforms(rows):
    y, p, visit = rows
    scores = np.log(p / (1 - p)) + np.log(0.01)
    for metric in (evaluate.roc_auc, evaluate.average_precision):
        assert metric(y, scores) == pytest.approx(metric(y, p), abs=1e-12)
    for metric in (evaluate.ndcg_at_k, evaluate.recall_at_k):
        assert metric(y, scores, visit, 2) == pytest.approx(metric(y, p, visit, 2), abs=1e-12)


def test_one_bin_of_calibration_error_is_the_distance_of_the_ratio_from_one():
    log = make_log()
    one = evaluate.expected_calibration_error(log["y"], log["p"], n_bins=1, relative=True)
    assert one == pytest.approx(abs(evaluate.ratio(log["y"], log["p"]) - 1))


@pytest.mark.parametrize("kind", [list, pd.Series, np.asarray])
def test_accepts_lists_series_and_bools(kind):
    y = kind([bool(v) for v in SIX_Y])
    assert evaluate.roc_auc(y, kind(list(SIX_P))) == evaluate.roc_auc(SIX_Y, SIX_P)


# --- the bootstrap --------------------------------------------------------------------------


def naive_draws(log, n_replicates, seed):
    """Gather the rows of each replicate and send them through scikit-learn or the metrics."""
    rows_of = [rows.index.to_numpy() for _, rows in log.groupby("household")]
    (drawn,) = draw_weights(len(rows_of), n_replicates, seed, n_replicates)
    for weight in drawn.astype(int):
        times = zip(rows_of, weight, strict=True)
        rows = log.loc[np.concatenate([np.tile(rows, n) for rows, n in times])]
        copies = rows.assign(copy=rows.groupby(level=0).cumcount())
        visits = copies.groupby(["visit", "copy"]).ngroup()
        y, p = rows["y"], rows["p"]
        yield {
            "roc_auc": oracle.roc_auc_score(y, p),
            "average_precision": oracle.average_precision_score(y, p),
            "log_loss": oracle.log_loss(y, p),
            "normalised_entropy": oracle.log_loss(y, p) / oracle.log_loss(y, [y.mean()] * len(y)),
            "ratio": p.mean() / y.mean(),
            "ndcg_at_10": evaluate.ndcg_at_k(y, p, visits, 10),
            "recall_at_50": evaluate.recall_at_k(y, p, visits, 50),
            "recall_at_2": evaluate.recall_at_k(y, p, visits, 2),
        }


@pytest.mark.parametrize("cells", [_tables.DENSE_CELLS, 0], ids=["dense", "sparse"])
@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "no ties"])
def test_replicates_equal_a_naive_loop(decimals, cells, monkeypatch):
    monkeypatch.setattr(_tables, "DENSE_CELLS", cells)
    log = make_log(decimals=decimals)
    expected = pd.DataFrame(naive_draws(log, 12, seed=3))
    got = evaluate.replicates(
        log["y"],
        log["p"],
        groups=log["household"],
        visits=log["visit"],
        n_replicates=12,
        seed=3,
        metrics=list(expected),
    )
    assert expected.nunique().drop("recall_at_50").min() > 5  # the replicates do differ
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_calibration_error_of_a_replicate_keeps_the_bins_of_the_sample():
    log = make_log(decimals=15)
    edges = np.quantile(log["p"], np.arange(1, 5) / 5, method="inverted_cdf")
    (drawn,) = draw_weights(log["household"].nunique(), 4, 0, 4)
    codes = log["household"].rank(method="dense").astype(int) - 1
    bins = np.searchsorted(edges, log["p"])
    expected = []
    for weight in drawn[:, codes]:
        gap = pd.Series(weight * (log["p"] - log["y"])).groupby(bins).sum().abs().sum()
        expected.append(gap / weight.sum())
    names = ["expected_calibration_error"]
    got = evaluate.replicates(
        log["y"], log["p"], groups=log["household"], n_replicates=4, n_bins=5, metrics=names
    )
    np.testing.assert_allclose(got[names[0]], expected, atol=1e-12)


def test_chunks_do_not_change_the_draws(monkeypatch):
    log = make_log()
    whole = evaluate.replicates(log["y"], log["p"], groups=log["household"], n_replicates=20)
    monkeypatch.setattr("recbal_utils._bootstrap.CHUNK_CELLS", 700)
    parts = evaluate.replicates(log["y"], log["p"], groups=log["household"], n_replicates=20)
    np.testing.assert_allclose(parts, whole, atol=1e-12)


def test_drawn_weights_are_draws_with_replacement():
    (drawn,) = draw_weights(30, 2000, 0, 2000)
    assert (drawn.sum(1) == 30).all()
    assert drawn.mean() == 1
    assert drawn.var() == pytest.approx(1 - 1 / 30, abs=0.03)  # multinomial


def test_report_has_values_and_percentiles_of_its_replicates():
    log = make_log()
    units = {"groups": log["household"], "visits": log["visit"], "n_replicates": 50, "seed": 4}
    table = evaluate.report(log["y"], log["p"], confidence=0.8, **units)
    draws = evaluate.replicates(log["y"], log["p"], **units)
    assert list(table.index) == [*evaluate.ROW_METRICS, "ndcg_at_10", "recall_at_50"]
    assert list(table.columns) == ["value", "low", "high"]
    for name, function in ROW_FUNCTIONS.items():
        assert table.loc[name, "value"] == pytest.approx(function(log["y"], log["p"]))
    visit_value = evaluate.ndcg_at_k(log["y"], log["p"], log["visit"])
    assert table.loc["ndcg_at_10", "value"] == pytest.approx(visit_value)
    np.testing.assert_allclose(table["low"], draws.quantile(0.1))
    np.testing.assert_allclose(table["high"], draws.quantile(0.9))


def test_report_does_not_depend_on_row_order():
    log = make_log()
    mixed = log.sample(frac=1, random_state=0)
    one, two = (
        evaluate.report(
            rows["y"], rows["p"], groups=rows["household"], visits=rows["visit"], n_replicates=20
        )
        for rows in (log, mixed)
    )
    pd.testing.assert_frame_equal(one, two, rtol=1e-9)


def test_household_intervals_are_wider_than_row_intervals_where_rows_are_alike():
    log = make_log(n=240, households=20)
    alike = pd.concat([log] * 20, ignore_index=True)
    alike["household"] = np.tile(np.arange(len(log)), 20)  # a household holds copies of one row
    grouped = evaluate.report(alike["y"], alike["p"], groups=alike["household"], n_replicates=200)
    rows = evaluate.report(alike["y"], alike["p"], n_replicates=200)
    width = {name: table["high"] - table["low"] for name, table in [("g", grouped), ("r", rows)]}
    share = width["g"]["roc_auc"] / width["r"]["roc_auc"]
    assert share == pytest.approx(np.sqrt(20), rel=0.3)


def test_without_groups_visits_are_drawn():
    log = make_log()
    implied = evaluate.report(log["y"], log["p"], visits=log["visit"], n_replicates=20)
    stated = evaluate.report(
        log["y"], log["p"], groups=log["visit"], visits=log["visit"], n_replicates=20
    )
    pd.testing.assert_frame_equal(implied, stated)


def test_no_replicates_leave_the_interval_empty():
    table = evaluate.report(SIX_Y, SIX_P, visits=SIX_VISITS, n_replicates=0)
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


def test_replicates_without_a_positive_do_not_count():
    # One household of two holds every positive: a quarter of the replicates have none.
    y, groups = [1, 0, 0, 0], ["a", "a", "b", "b"]
    draws = evaluate.replicates(
        y, [0.9, 0.1, 0.3, 0.2], groups=groups, n_replicates=400, metrics=["roc_auc", "ratio"]
    )
    undefined = draws.isna()
    assert (undefined["roc_auc"] == undefined["ratio"]).all()
    assert undefined["ratio"].mean() == pytest.approx(0.25, abs=0.1)
    table = evaluate.report(y, [0.9, 0.1, 0.3, 0.2], groups=groups, metrics=["roc_auc"])
    assert table.loc["roc_auc"].tolist() == [1, 1, 1]


def test_difference_is_paired():
    log = make_log()
    other = np.random.default_rng(7).permutation(log["p"])
    units = {"groups": log["household"], "visits": log["visit"], "n_replicates": 40}
    table = evaluate.difference(log["y"], log["p"], other, **units)
    draws = evaluate.replicates(log["y"], other, **units)
    draws -= evaluate.replicates(log["y"], log["p"], **units)
    auc = evaluate.roc_auc(log["y"], other) - evaluate.roc_auc(log["y"], log["p"])
    assert auc < -0.2
    assert table.loc["roc_auc", "value"] == pytest.approx(auc)
    np.testing.assert_allclose(table["low"], draws.quantile(0.025), atol=1e-12)
    np.testing.assert_allclose(table["high"], draws.quantile(0.975), atol=1e-12)


def test_difference_of_a_model_with_itself_is_nothing():
    log = make_log()
    table = evaluate.difference(log["y"], log["p"], log["p"], groups=log["household"])
    assert (table == 0).all(axis=None)


# --- segments -------------------------------------------------------------------------------


def test_report_by_segments_rows_and_ranks_whole_visits():
    log = make_log()
    tiers = np.where(np.arange(len(log)) % 3 == 0, "head", "tail")
    table = evaluate.report_by(
        log["y"],
        log["p"],
        tiers,
        groups=log["household"],
        visits=log["visit"],
        n_replicates=10,
        metrics=["roc_auc", "log_loss", "recall_at_3"],
    )
    assert table.index.names == ["segment", "metric"]
    for tier in ("head", "tail"):
        rows = log[tiers == tier]
        auc = oracle.roc_auc_score(rows["y"], rows["p"])
        loss = oracle.log_loss(rows["y"], rows["p"])
        recall = evaluate.recall_at_k(log["y"], log["p"], log["visit"], 3, subset=tiers == tier)
        assert table.loc[tier, "value"].tolist() == pytest.approx([auc, loss, recall])
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()


def test_intervals_of_a_segment_draw_the_households_of_the_whole():
    log = make_log()
    head = np.arange(len(log)) % 3 == 0
    (drawn,) = draw_weights(log["household"].nunique(), 30, 0, 30)
    of_row = drawn[:, log["household"].rank(method="dense").astype(int) - 1]
    draws = [
        oracle.log_loss(log["y"][head], log["p"][head], sample_weight=weight[head])
        for weight in of_row
    ]
    table = evaluate.report_by(
        log["y"], log["p"], head, groups=log["household"], n_replicates=30, metrics=["log_loss"]
    )
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose(table.loc[True, ["low", "high"]].to_numpy()[0], expected)


def test_report_by_of_one_segment_is_the_report():
    log = make_log()
    units = {"groups": log["household"], "visits": log["visit"], "n_replicates": 10}
    by = evaluate.report_by(log["y"], log["p"], ["all"] * len(log), **units)
    pd.testing.assert_frame_equal(by.loc["all"], evaluate.report(log["y"], log["p"], **units))


def test_report_by_leaves_what_a_segment_cannot_tell_undefined():
    segments = pd.Categorical(["tail"] * 3 + ["head"] * 3, categories=["tail", "head"])
    table = evaluate.report_by(
        [1, 0, 1, 0, 0, 0], SIX_P, segments, visits=[0, 0, 1, 0, 1, 1], n_replicates=5
    )
    assert list(table.index.get_level_values("segment").unique()) == ["tail", "head"]
    undefined = table.loc["head", "value"].isna()
    assert set(undefined.index[~undefined]) == {"log_loss", "expected_calibration_error"}
    assert table.loc["tail", "value"].notna().all()


# --- bad input ------------------------------------------------------------------------------

GROUPS = np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P[:, None]), r"y has shape \(6,\), p has .*\(6, 1\)"),
        (lambda: evaluate.log_loss(SIX_Y[:, None], SIX_P[:, None]), r"\(6, 1\).*ravel"),
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P[:5]), r"\(6,\), p has shape \(5,\)"),
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P, [1, 2]), r"sample_weight has shape \(2,\)"),
        (lambda: evaluate.roc_auc([], []), "no row"),
        (lambda: evaluate.roc_auc([[1], [1, 2]], [0, 1]), "y is ragged"),
        (lambda: evaluate.roc_auc([0, 1, 2], [0.1, 0.2, 0.3]), "row 2 with 2"),
        (lambda: evaluate.roc_auc([0, 1, -1], [0.1, 0.2, 0.3]), "y must be 0 or 1"),
        (lambda: evaluate.roc_auc([0, 1, 1], [0.1, np.nan, 0.3]), "finite.*row 1 with nan"),
        (lambda: evaluate.roc_auc([0, 1, 1], [0.1, np.inf, 0.3]), "finite"),
        (lambda: evaluate.roc_auc([0, 1, None], [0.1, 0.2, 0.3]), "y must be finite"),
        (lambda: evaluate.roc_auc(pd.array([0, 1, None]), [0.1, 0.2, 0.3]), "y must be finite"),
        (
            lambda: evaluate.roc_auc(pd.array([True, False, None], "boolean"), [0.1, 0.2, 0.3]),
            "y holds missing",
        ),
        (lambda: evaluate.roc_auc(["0", "1"], [0.1, 0.2]), "y must hold numbers"),
        (lambda: evaluate.roc_auc([0, 1], pd.Series(["0.1", "0.2"])), "p must hold numbers"),
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P, [-1, 1, 1, 1, 1, 1]), "not be negative"),
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P, np.zeros(6)), "0 in every row"),
        (lambda: evaluate.roc_auc(SIX_Y, SIX_P, 1 - SIX_Y), "only negatives"),
        (lambda: evaluate.roc_auc([1, 1], [0.1, 0.2]), "only positives, so roc_auc"),
        (lambda: evaluate.average_precision([0, 0], [0.1, 0.2]), "only negatives"),
        (lambda: evaluate.normalised_entropy([1, 1], [0.1, 0.2]), "normalised_entropy"),
        (lambda: evaluate.ratio([0, 0], [0.1, 0.2]), "ratio is undefined"),
        (lambda: evaluate.log_loss([0, 1], [0.1, 1.2]), r"p must be probabilities.*1\.2"),
        (lambda: evaluate.ratio([0, 1], [-0.1, 0.2]), "probabilities"),
        (lambda: evaluate.expected_calibration_error([0, 1], [0.1, 2]), "probabilities"),
        (lambda: evaluate.reliability_curve([0, 1], [0.1, 2]), "probabilities"),
        (lambda: evaluate.expected_calibration_error(SIX_Y, SIX_P, n_bins=0), "n_bins"),
        (lambda: evaluate.expected_calibration_error(SIX_Y, SIX_P, strategy="x"), "strategy"),
        (lambda: evaluate.ndcg_at_k(SIX_Y, SIX_P, SIX_VISITS, 0), "k must .* at least 1"),
        (lambda: evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS, 2.5), "k must .*2.5"),
        (lambda: evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS[:5], 2), "visits has shape"),
        (lambda: evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS, subset=SIX_Y), "subset must be"),
        (lambda: evaluate.recall_at_k(SIX_Y, SIX_P, SIX_VISITS, subset=SIX_Y > 1), "No visit"),
        (lambda: evaluate.recall_at_k(SIX_Y, SIX_P, ["a"] * 5 + [None], 2), "row 5"),
        (lambda: evaluate.report(SIX_Y, SIX_P, metrics=["auc"]), "'auc'"),
        (lambda: evaluate.report(SIX_Y, SIX_P, metrics=["ndcg_at_0"]), "ndcg_at_0"),
        (lambda: evaluate.report(SIX_Y, SIX_P, metrics=[]), "choose from"),
        (lambda: evaluate.report(SIX_Y, SIX_P, metrics=["ndcg_at_5"]), "pass visits"),
        (lambda: evaluate.report(SIX_Y, SIX_P, groups=[0] * 6), "one group"),
        (lambda: evaluate.report(SIX_Y, SIX_P, groups=GROUPS[:3]), "groups has shape"),
        (
            lambda: evaluate.report(SIX_Y, SIX_P, groups=[0, 1] * 3, visits=SIX_VISITS),
            "more than one group",
        ),
        (lambda: evaluate.report(SIX_Y, SIX_P, n_replicates=-1), "n_replicates"),
        (lambda: evaluate.report(SIX_Y, SIX_P, seed=None), "seed"),
        (lambda: evaluate.report(SIX_Y, SIX_P, confidence=95), "confidence"),
        (lambda: evaluate.report(SIX_Y * 0, SIX_P, visits=SIX_VISITS), "only negatives"),
        (lambda: evaluate.difference(SIX_Y, SIX_P, SIX_P[:4]), r"p_b has shape \(4,\)"),
        (lambda: evaluate.difference(SIX_Y, SIX_P + 1, SIX_P), "p_a must be probabilities"),
        (lambda: evaluate.report_by(SIX_Y, SIX_P, ["a"] * 5 + [None]), "segments has 1 rows"),
        (lambda: evaluate.report_by(SIX_Y, SIX_P, ["a"] * 5), "segments has shape"),
        (
            lambda: evaluate.report(SIX_Y, SIX_P, groups="user"),
            "groups must be an array with one id a row, not the name 'user'",
        ),
        (
            lambda: evaluate.report(SIX_Y, SIX_P, visits="visit"),
            "visits must be an array with one id a row, not the name 'visit'",
        ),
        (lambda: evaluate.roc_auc("y", SIX_P), "y must be an array with one value a row"),
        (
            lambda: evaluate.report(SIX_Y * 0, SIX_P, metrics=list(evaluate.RANKING_METRICS)),
            "roc_auc, average_precision are undefined: .* leave them out",
        ),
        (lambda: evaluate.roc_auc(["yes", "no"], [0.1, 0.2]), r"\(y == 'yes'\)\.astype\(int\)"),
        (
            lambda: evaluate.roc_auc(pd.Series(["yes", "no"]), [0.1, 0.2]),
            r"\(y == 'yes'\)\.astype\(int\)",
        ),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, message):
    with pytest.raises(RecbalError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_scores_suit_ranking_metrics_alone():
    names = ["roc_auc", "average_precision", "ndcg_at_2"]
    table = evaluate.report(
        SIX_Y, SIX_P * 10 - 5, groups=GROUPS, visits=SIX_VISITS, metrics=names, n_replicates=5
    )
    assert table.loc["roc_auc", "value"] == pytest.approx(5.5 / 8)


def test_log_loss_of_one_class_is_defined():
    assert evaluate.log_loss([0, 0], [0.5, 0.5]) == pytest.approx(np.log(2))


def test_examples_of_the_docstrings_run():
    result = doctest.testmod(evaluate)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", ["p", "groups", "visits"])
def test_series_of_other_indexes_are_refused(name):
    log = make_log()
    columns = {
        "y": log["y"],
        "p": log["p"],
        "groups": log["household"],
        "visits": log["visit"],
    }
    sorted_apart = columns | {name: columns[name].sort_values(kind="stable").iloc[::-1]}
    with pytest.raises(RecbalError, match=f"y and {name} have different indexes"):
        evaluate.report(**sorted_apart, n_replicates=5)
    by_position = {key: values.to_numpy() for key, values in columns.items()}
    pd.testing.assert_frame_equal(
        evaluate.report(**columns, n_replicates=5), evaluate.report(**by_position, n_replicates=5)
    )


def test_metrics_refuse_series_of_other_indexes():
    y, p = pd.Series([0, 1, 1]), pd.Series([0.1, 0.2, 0.3], index=[2, 1, 0])
    for function in ROW_FUNCTIONS.values():
        with pytest.raises(RecbalError, match="y and p have different indexes"):
            function(y, p)
    with pytest.raises(RecbalError, match="y and p_b have different indexes"):
        evaluate.difference(y, p.sort_index(), p)


def test_frames_name_the_unit_that_was_drawn():
    visits, groups = SIX_VISITS, GROUPS
    cases = {"rows": {}, "visits": {"visits": visits}, "groups": {"groups": groups}}
    for unit, units in [*cases.items(), ("groups", {"visits": visits, "groups": groups})]:
        options = {**units, "n_replicates": 3}
        frames = [
            evaluate.report(SIX_Y, SIX_P, **options),
            evaluate.difference(SIX_Y, SIX_P, SIX_P, **options),
            evaluate.report_by(SIX_Y, SIX_P, ["a"] * 6, **options),
            evaluate.replicates(SIX_Y, SIX_P, **options),
        ]
        assert [frame.attrs["unit"] for frame in frames] == [unit] * 4
