"""Diagnoses against hand-worked cases, closed forms, and themselves on another engine."""

import json
import re
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import _advice, diagnose
from recbal_utils._inequality import gini_by_chance
from recbal_utils.errors import RecbalError

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


@pytest.fixture
def lazy(tmp_path):
    """Turns a frame into a lazy table of DuckDB over a parquet file."""
    connection = ibis.duckdb.connect()

    def read(frame):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        frame.to_parquet(path)
        return connection.read_parquet(path)

    return read


@pytest.fixture
def both(lazy):
    """The same table in memory and lazy."""
    return lambda frame: (frame, lazy(frame))


def log(n=4000, seed=0, rate=0.1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "conversion": (rng.random(n) < rate).astype(int),
            "product_id": np.floor(rng.pareto(1.0, n)).clip(0, 300).astype(int),
            "household_id": rng.integers(0, 400, n),
            "week": rng.integers(1, 11, n),
            "price": rng.lognormal(0, 1, n),
        }
    )


def labels(positives, negatives):
    return pd.DataFrame({"y": [1] * positives + [0] * negatives})


# --- imbalance ---------------------------------------------------------------------


def test_imbalance_by_hand(both):
    for table in both(labels(2, 6)):
        found = diagnose.imbalance(table, "y")
        assert (found.rows, found.positives, found.represents) == (8, 2, 8)
        assert found.prevalence == 0.25
        assert found.ratio == 3
        assert found.effective_positives == pytest.approx(2)
        assert found.entropy == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))


def test_weights_count_as_rows_and_shrink_the_effective_number(both):
    frame = pd.DataFrame({"y": [1, 1, 0, 0], "w": [1.0, 3.0, 10.0, 6.0]})
    for table in both(frame):
        found = diagnose.imbalance(table, "y", weight="w")
        assert found.represents == 20
        assert found.prevalence == pytest.approx(4 / 20)
        assert found.ratio == pytest.approx(4)
        assert found.effective_positives == pytest.approx(16 / 10)
        assert found.effective_negatives == pytest.approx(256 / 136)


def test_effective_groups_by_hand(both):
    frame = pd.DataFrame({"y": [1, 1, 1, 1, 0, 0], "h": ["a", "a", "a", "b", "b", "c"]})
    for table in both(frame):
        found = diagnose.imbalance(table, "y", group="h")
        assert found.effective_groups == pytest.approx(16 / 10)
        assert found.effective_positives == pytest.approx(4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4)), min_size=2, max_size=15))
def test_an_integer_weight_is_a_repeated_row(pairs):
    frame = pd.DataFrame([*pairs, (0, 1), (1, 2)], columns=["y", "w"])
    weighted = diagnose.imbalance(frame, "y", weight="w")
    repeated = diagnose.imbalance(frame.loc[frame.index.repeat(frame["w"])], "y")
    assert weighted.prevalence == pytest.approx(repeated.prevalence)
    assert weighted.ratio == pytest.approx(repeated.ratio)
    assert weighted.represents == repeated.rows


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([True, False, False], None),
        ([1.0, 0.0, 0.0], None),
        (["yes", "no", "no"], "yes"),
        ([-1, 2, 2], -1),
        (pd.Categorical(["b", "a", "a"]), "b"),
    ],
)
def test_labels_of_every_kind(values, positive):
    found = diagnose.imbalance(pd.DataFrame({"y": values}), "y", positive=positive)
    assert (found.positives, found.ratio) == (1, 2)


@pytest.mark.parametrize(
    ("values", "positive", "says"),
    [
        ([], None, "empty"),
        ([1, 1], None, "one class only: all 2 rows are positive"),
        ([0, 0, 0], None, "one class only: all 3 rows are negative"),
        ([0, 1, 2], None, "not binary"),
        ([1, 2, 2], None, "positive="),
        ([0, 1, None], None, "missing in 1 of 3 rows"),
        (["yes", "no"], None, "positive="),
        (["yes", "no", "maybe"], "yes", "not binary"),
        (["yes", "no"], "ja", "does not occur"),
        (["yes", "no", None], "yes", "missing in 1 of 3 rows"),
    ],
)
def test_labels_that_are_none(values, positive, says, both):
    kind = "str" if any(isinstance(v, str) for v in values) else "float"
    for table in both(pd.DataFrame({"y": pd.Series(values, dtype=kind)})):
        for function in (diagnose.imbalance, diagnose.report):
            with pytest.raises(RecbalError, match=says):
                function(table, "y", positive=positive)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none(weight):
    frame = pd.DataFrame({"y": [0, 1, 1], "w": [1.0, 1.0, weight]})
    with pytest.raises(RecbalError, match="1 weights are missing, infinite or negative"):
        diagnose.imbalance(frame, "y", weight="w")


def test_what_is_no_table():
    with pytest.raises(RecbalError, match="DataFrame or an Ibis table, not list"):
        diagnose.imbalance([0, 1], "y")
    with pytest.raises(RecbalError, match=r"no column 'label'; it has y"):
        diagnose.imbalance(labels(1, 1), "label")
    with pytest.raises(RecbalError, match="columns of the same name"):
        diagnose.imbalance(pd.DataFrame([[0, 1]], columns=["y", "y"]), "y")


def test_an_error_of_the_engine_is_one_sentence(lazy, tmp_path):
    table = lazy(labels(1, 2))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(RecbalError, match="engine could not read the table") as caught:
        diagnose.imbalance(table, "y")
    assert "\n" not in str(caught.value)


# --- concentration -----------------------------------------------------------------


def test_gini_by_hand():
    assert diagnose.gini([1, 1, 1, 1]) == pytest.approx(0)
    assert diagnose.gini([0, 0, 0, 5]) == pytest.approx(3 / 4)
    assert diagnose.gini([1, 3]) == pytest.approx(1 / 4)


def test_gini_meets_its_closed_forms():
    quantiles = (np.arange(200_000) + 0.5) / 200_000
    assert diagnose.gini(-np.log1p(-quantiles)) == pytest.approx(1 / 2, abs=1e-4)
    pareto = (1 - quantiles) ** (-1 / 3)
    assert diagnose.gini(pareto) == pytest.approx(1 / (2 * 3 - 1), abs=1e-4)
    assert diagnose.gini(quantiles) == pytest.approx(1 / 3, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.randoms(use_true_random=False), st.floats(0.1, 100))
def test_gini_is_half_the_relative_mean_difference(counts, random, scale):
    x = np.array(counts, dtype=float)
    expected = np.abs(x[:, None] - x).mean() / (2 * x.mean())
    shuffled = random.sample(counts, len(counts))
    assert diagnose.gini(counts) == pytest.approx(expected, abs=1e-12)
    assert diagnose.gini(np.array(shuffled) * scale) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=12))
def test_repeats_are_units_written_out(pairs):
    x, repeats = np.array([*pairs, (3, 2)]).T
    written_out = diagnose.gini(np.repeat(x, repeats))
    assert diagnose.gini(x, repeats=repeats) == pytest.approx(written_out)


def test_lorenz_by_hand():
    curve = diagnose.lorenz([3, 1, 0, 0])
    assert curve["share_of_units"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve["share_of_total"].tolist() == [0, 0, 0, 0.25, 1]


@pytest.mark.parametrize("x", [[], [0, 0], [-1, 2], [np.nan, 1], [[1, 2]], ["a", "b"]])
@pytest.mark.parametrize("function", [diagnose.gini, diagnose.lorenz, diagnose.tiers])
def test_totals_that_are_none(function, x):
    with pytest.raises(RecbalError):
        function(x)


def test_tiers_by_hand():
    counts = pd.Series([9, 8, 7, 6, 5, 4, 3, 2, 1, 1], index=list("abcdefghij"))
    assert diagnose.tiers(counts).tolist() == ["head"] * 2 + ["mid"] * 3 + ["tail"] * 5


def test_ties_fall_by_label_whatever_the_order():
    counts = pd.Series([5, 5, 5, 5, 5], index=["e", "c", "a", "d", "b"])
    assert diagnose.tiers(counts).to_dict() == {
        "a": "head", "b": "mid", "c": "mid", "d": "tail", "e": "tail",
    }  # fmt: skip


def test_never_bought_units_are_tail():
    tiers = diagnose.tiers([7, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert tiers.tolist() == ["head"] + ["tail"] * 9


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.randoms(use_true_random=False))
def test_tiers_do_not_depend_on_row_order(counts, random):
    series = pd.Series(counts)
    shuffled = series.loc[random.sample(range(len(series)), len(series))]
    pd.testing.assert_series_equal(
        diagnose.tiers(shuffled).sort_index(), diagnose.tiers(series).sort_index()
    )


def test_long_tail_by_hand(both):
    bought = {"a": 4, "b": 3, "c": 1, "d": 0}
    frame = pd.DataFrame(
        [(unit, y) for unit, n in bought.items() for y in [1] * n + [0]], columns=["item", "y"]
    )
    for table in both(frame):
        tail = diagnose.long_tail(table, "item", "y", catalogue=10)
        assert tail["units"].to_dict() == {"head": 2, "mid": 1, "tail": 7, "all": 10}
        assert tail["total"].to_dict() == {"head": 7, "mid": 1, "tail": 0, "all": 8}
        assert tail.loc["head", "share_of_total"] == pytest.approx(7 / 8)
        assert tail.loc["all", "gini"] == pytest.approx(diagnose.gini([4, 3, 1] + [0] * 7))
        rows = diagnose.long_tail(table, "item")
        assert rows.loc["all", "total"] == len(frame)


def test_long_tail_is_what_the_totals_say(both):
    frame = log()
    catalogue = pd.Series(range(500))
    for table in both(frame):
        totals = diagnose.unit_totals(table, "product_id", "conversion", catalogue=catalogue)
        tail = diagnose.long_tail(table, "product_id", "conversion", catalogue=catalogue)
        by_tier = totals.groupby(diagnose.tiers(totals)).sum()
        assert len(totals) == tail.loc["all", "units"] == 500
        assert totals.sum() == frame["conversion"].sum()
        assert tail.loc["all", "gini"] == pytest.approx(diagnose.gini(totals))
        for tier in ("head", "mid", "tail"):
            assert tail.loc[tier, "total"] == by_tier.get(tier, 0)


def test_a_lazy_catalogue(lazy):
    frame = log()
    catalogue = lazy(pd.DataFrame({"product_id": range(500)}))
    tail = diagnose.long_tail(
        lazy(frame), "product_id", "conversion", catalogue=catalogue.product_id
    )
    totals = diagnose.unit_totals(
        lazy(frame), "product_id", "conversion", catalogue=catalogue.product_id
    )
    assert tail.loc["all", "units"] == len(totals) == 500


def test_units_that_are_none():
    frame = pd.DataFrame({"y": [0, 1], "item": ["a", None]})
    for function in (diagnose.long_tail, diagnose.unit_totals):
        with pytest.raises(RecbalError, match="Some rows have no 'item'"):
            function(frame, "item", "y")
    with pytest.raises(RecbalError, match="fewer than the 2"):
        diagnose.long_tail(labels(1, 1).assign(item=[1, 2]), "item", "y", catalogue=1)


# --- noise -------------------------------------------------------------------------


def rows_of(checks, check, where=None):
    found = checks[(checks["check"] == check) & ((checks["where"] == where) | (where is None))]
    assert len(found) == 1
    return found["rows"].iloc[0]


def test_noise_by_hand(both):
    frame = pd.DataFrame(
        {
            "visit": [1, 1, 1, 2, 2, 3],
            "item": ["a", "a", "b", "a", "a", None],
            "y": [0, 0, 1, 0, 1, 0],
            "store": [7] * 6,
            "quantity": [1.0, 1.0, 2.0, 5000.0, np.nan, 1.0],
        }
    )
    rules = {"quantity over 1000": lambda t: t.quantity > 1000, "deferred": ibis._.visit == 2}
    for table in both(frame):
        checks = diagnose.noise(table, label="y", keys=["visit", "item"], rules=rules)
        assert rows_of(checks, "duplicate rows") == 1
        assert rows_of(checks, "duplicate keys") == 2
        assert rows_of(checks, "conflicting labels") == 2
        assert rows_of(checks, "missing values", "item") == 1
        assert rows_of(checks, "missing values", "quantity") == 1
        assert rows_of(checks, "missing values", "visit") == 0
        assert rows_of(checks, "constant column", "store") == 6
        assert rows_of(checks, "rule", "quantity over 1000") == 1
        assert rows_of(checks, "rule", "deferred") == 2
        assert checks["share"].to_list() == pytest.approx((checks["rows"] / 6).to_list())
        assert (checks.loc[checks["rows"] == 0, "what_to_do"] == "nothing").all()


def test_clean_data_has_no_noise(both):
    for table in both(pd.DataFrame({"k": [1, 2, 3], "y": [0, 1, 0]})):
        checks = diagnose.noise(table, label="y", keys="k")
        assert checks["rows"].sum() == 0
        assert "constant column" not in set(checks["check"])


def test_noise_takes_columns_of_any_kind():
    frame = pd.DataFrame(
        {0: [1, "a", 1], "c": pd.Categorical(["x", "y", "x"]), "d": [[1], [2], [1]]}
    )
    assert rows_of(diagnose.noise(frame), "duplicate rows") == 1


@pytest.mark.parametrize("rule", [lambda t: t.k + 1, lambda t: t.nothing > 1, ibis._.nothing > 1])
def test_rules_that_are_none(rule, both):
    for table in both(pd.DataFrame({"k": [1, 2, 3]})):
        with pytest.raises(RecbalError, match="rule 'odd'"):
            diagnose.noise(table, rules={"odd": rule})


# --- cold start --------------------------------------------------------------------


def test_cold_start_by_hand(both):
    train = pd.DataFrame({"item": ["a", "b", "b"], "user": [1, 1, 2]})
    test = pd.DataFrame(
        {"item": ["a", "a", "c", "b"], "user": [1, 2, 1, 2], "y": [1, 0, 1, 0]},
    )
    keys = ["item", "user", ("user", "item")]
    for past, future in zip(both(train), both(test), strict=True):
        cold = diagnose.cold_start(past, future, keys, "y")
        assert list(cold.index) == ["item", "user", "user × item"]
        assert cold["unseen_rows"].tolist() == [1, 0, 2]
        assert cold["unseen_positives"].tolist() == [1, 0, 1]
        assert cold["unseen_values"].tolist() == [1, 0, 2]
        assert cold["share_of_rows"].tolist() == [0.25, 0, 0.5]
        assert cold["share_of_positives"].tolist() == [0.5, 0, 0.5]
        assert cold.loc["item", "rate_seen"] == pytest.approx(1 / 3)
        assert cold.loc["item", "rate_unseen"] == 1
        assert np.isnan(cold.loc["user", "rate_unseen"])


def test_a_missing_key_was_never_seen():
    train = pd.DataFrame({"item": ["a", None]})
    test = pd.DataFrame({"item": ["a", None], "y": [0, 1]})
    assert diagnose.cold_start(train, test, "item", "y")["unseen_rows"].tolist() == [1]


def test_cold_start_that_cannot_be():
    test = pd.DataFrame({"item": ["a", "b"], "y": [0, 1]})
    with pytest.raises(RecbalError, match="no column 'item'"):
        diagnose.cold_start(pd.DataFrame({"product": ["a"]}), test, ["item"], "y")
    with pytest.raises(RecbalError, match="one class only"):
        diagnose.cold_start(test, test.iloc[:1], ["item"], "y")
    with pytest.raises(RecbalError, match="at least one key"):
        diagnose.cold_start(test, test, [], "y")
    with pytest.raises(RecbalError):
        diagnose.cold_start(pd.DataFrame({"item": [1.5]}), test, ["item"], "y")


# --- report ------------------------------------------------------------------------

ROLES = {"item": "product_id", "user": "household_id", "time": "week"}


def answers(report):
    return " ".join(
        [report.decision["imbalanced"], report.decision["matters"], *report.decision["first"]]
    )


def test_report_is_the_same_in_memory_and_lazy(both):
    in_memory, lazy_one = (
        diagnose.report(table, "conversion", **ROLES, duplicates=True).to_dict()
        for table in both(log())
    )
    assert in_memory == lazy_one
    json.dumps(in_memory, allow_nan=False)


def test_report_does_not_depend_on_row_order():
    frame = log()
    shuffled = frame.sample(frac=1, random_state=1)
    assert str(diagnose.report(frame, "conversion", **ROLES)) == str(
        diagnose.report(shuffled, "conversion", **ROLES)
    )


def test_report_never_brings_a_lazy_table_into_memory(lazy, monkeypatch):
    table, largest = lazy(log(20_000)), []
    execute = ibis.expr.types.core.Expr.execute

    def watched(self, *args, **kwargs):
        result = execute(self, *args, **kwargs)
        largest.append(len(result))
        return result

    monkeypatch.setattr(ibis.expr.types.core.Expr, "execute", watched)
    diagnose.report(table, "conversion", **ROLES)
    assert largest
    assert max(largest) < 400


def test_report_agrees_with_its_parts():
    frame = log()
    report = diagnose.report(frame, "conversion", **ROLES)
    assert report.imbalance == diagnose.imbalance(frame, "conversion", group="household_id")
    pd.testing.assert_frame_equal(
        report.long_tail["product_id"], diagnose.long_tail(frame, "product_id", "conversion")
    )
    assert report.late_from == 9
    early, late = frame[frame["week"] < 9], frame[frame["week"] >= 9]
    for past, name in ((early, "unseen"), (early[early["conversion"] == 1], "unbought")):
        cold = diagnose.cold_start(past, late, ["product_id"], "conversion").loc["product_id"]
        found = report.cold_start.loc["product_id"]
        assert found[f"{name}_share_of_rows"] == pytest.approx(cold["share_of_rows"])
        assert found[f"{name}_share_of_positives"] == pytest.approx(cold["share_of_positives"])
        assert found[f"{name}_rate"] == pytest.approx(cold["rate_unseen"])
        assert found[f"{name}_values"] == cold["unseen_values"]


def test_noise_of_a_report_is_that_of_noise():
    frame = log()[["conversion", "week"]].assign(store=7)
    found = diagnose.report(frame, "conversion", time="week").noise
    pd.testing.assert_frame_equal(found, diagnose.noise(frame))


def test_rows_without_a_time_count_as_early():
    frame = pd.DataFrame(
        {"y": [1, 0, 1, 0, 0], "item": [1, 2, 2, 3, 3], "week": [1, np.nan, 2, 2, 2]}
    )
    cold = diagnose.report(frame, "y", item="item", time="week").cold_start.loc["item"]
    assert cold["rows"] == 3
    assert cold["unseen_values"] == 1


def test_rows_without_a_unit_are_counted():
    frame = log().astype({"product_id": float})
    frame.loc[:9, "product_id"] = np.nan
    report = diagnose.report(frame, "conversion", item="product_id")
    assert report.without_unit == {"product_id": 10}
    assert "Rows without product_id, left out | 10" in str(report)


def imbalanced(positives, negatives, **options):
    return diagnose.report(labels(positives, negatives), "y", duplicates=False, **options)


@pytest.mark.parametrize(
    ("positives", "negatives", "says"),
    [
        (500, 500, "No"),
        (500, 749, "No"),
        (500, 751, "Mildly"),
        (500, 4499, "Mildly"),
        (500, 4501, "Yes: positives"),
        (500, 60_000, "Yes, extremely: positives"),
        (60_000, 500, "Yes, extremely: negatives"),
    ],
)
def test_is_it_imbalanced(positives, negatives, says):
    assert imbalanced(positives, negatives).decision["imbalanced"].startswith(says)


def test_the_number_of_positives_decides_not_the_ratio():
    assert imbalanced(99, 9_900).decision["matters"].startswith("Too few positives to tell")
    assert imbalanced(9_900, 99).decision["matters"].startswith("Too few negatives to tell")
    assert imbalanced(2_000, 200_000).decision["matters"].startswith("Not for learning")
    assert imbalanced(500, 500).decision["matters"].startswith("No: there is nothing")
    few = imbalanced(200, 9_000, n_features=50)
    assert few.decision["matters"].startswith("The number of positives matters")
    assert "4 for each of 50 features" in str(few)


def test_few_positives_call_for_data_and_not_for_fewer_rows():
    advice = answers(imbalanced(99, 9_900))
    assert "Collect more positives" in advice
    assert "Do not throw the other rows away" in advice
    assert "keep rate" not in advice


def test_positives_of_few_households_are_too_few_to_tell():
    frame = labels(1000, 9000).assign(h=np.arange(10_000) % 20)
    assert "Too few groups to tell" in diagnose.report(frame, "y", group="h").decision["matters"]


def test_a_huge_log_keeps_every_positive_and_a_share_of_negatives(monkeypatch):
    monkeypatch.setattr(_advice, "LARGE_ROWS", 100_000)
    report = imbalanced(10_000, 1_000_000)
    assert "β = 0.2; then add ln β = -1.61" in answers(report)
    assert "1,010,000 rows would become 210,000" in str(report)
    assert "keep rate" not in answers(imbalanced(9_999, 1_000_000))
    assert "keep rate" not in answers(imbalanced(60_000, 1_000_000))


def test_an_already_sampled_table_is_not_sampled_again(monkeypatch):
    monkeypatch.setattr(_advice, "LARGE_ROWS", 1_000)
    frame = labels(10_000, 300_000).assign(w=1.0)
    assert "already" not in answers(diagnose.report(frame, "y"))
    assert "a sample with weights" in answers(diagnose.report(frame, "y", weight="w"))


def test_no_report_calls_balancing_good():
    for report in (imbalanced(50, 5_000), imbalanced(5_000, 50_000), imbalanced(500, 500)):
        assert "Do not balance at first" in answers(report)
        assert "Do not resample" in answers(report)


def test_a_decision_takes_its_threshold_from_costs():
    report = imbalanced(500, 5000, need="decision", costs=(1, 9))
    assert "above 0.1;" in answers(report)
    assert "For ranking?" not in str(report)


def test_repairs_come_before_balancing():
    frame = labels(300, 3000).assign(k=range(3300))
    frame.loc[300, "k"] = 0
    report = diagnose.report(frame, "y", keys=["k"])
    assert report.decision["first"][0].startswith("Duplicate keys (k)")
    assert report.decision["first"][1].startswith("Conflicting labels (k): repair the labels")


def test_a_long_tail_and_cold_items_are_named():
    frame = log()
    frame["product_id"] = frame["product_id"] + 1000 * frame["week"]
    lines = {
        line.question: line for line in diagnose.report(frame, "conversion", **ROLES).lines[-4:]
    }
    assert set(lines) == {"Long tail?", "Cold start?"}
    report = diagnose.report(frame, "conversion", item="product_id", time="week")
    cold = next(line for line in report.lines if line.question == "Cold start?")
    assert cold.answer.startswith("Judge unseen product_id apart")
    assert cold.figure.startswith("100 % of the rows and 100 % of the positives from week 9 on")


def test_names_and_values_are_shown_letter_by_letter():
    name = "<b>y</b> | $x$ *z* [a](b)"
    frame = labels(5, 9).rename(columns={"y": name}).assign(**{"<i>same</i> | *": 1})
    report = diagnose.report(frame, name)
    page, text = report._repr_html_(), report._repr_markdown_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert r"\<i\>same\</i\> \| \*" in text
    assert "&lt;b&gt;y&lt;/b&gt;" in page
    assert r"\<b\>y\</b\> \| \$x\$ \*z\* \[a\](b)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bars = {line.replace(r"\|", "").count("|") for line in lines}
    assert bars == {3, 4}


def test_every_line_says_its_figure():
    report = diagnose.report(log(), "conversion", **ROLES)
    assert all(
        any(c.isdigit() for c in line.figure) for line in report.lines if "costs" not in line.answer
    )
    for line in report.lines:
        assert line.answer in str(report)
        assert line.figure in str(report)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"need": "fame"}, "need='fame'"),
        ({"costs": (0, 0)}, "costs"),
        ({"costs": (1, -1)}, "costs"),
        ({"n_features": 0}, "n_features"),
        ({"item": "nothing"}, "no column 'nothing'"),
        ({"item": "item", "time": "one"}, "1 value"),
        ({"n_features": "ten"}, "n_features must be a number, 1 or more; it is 'ten'"),
        ({"n_features": np.nan}, "n_features"),
        ({"costs": 5}, "costs must be two numbers"),
        ({"costs": ("a", "b")}, "costs must be two numbers"),
        ({"item": "y"}, "'y' is given as label and as item: a column has one role"),
        ({"group": "y"}, "as label and as group"),
        ({"item": "one", "user": "one"}, "as item and as user"),
        ({"weight": "one", "time": "one"}, "as weight and as time"),
        ({"item": ["one"]}, "item must be a column name, not a list"),
    ],
)
def test_options_that_are_none(options, says):
    with pytest.raises(RecbalError, match=says):
        diagnose.report(labels(5, 9).assign(one=1, item=range(14)), "y", **options)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.000993, "0.0993 %"),
        (0.999007, "99.9007 %"),
        (0.25, "25.0 %"),
        (0.0199, "1.99 %"),
        (0, "0 %"),
        (1, "100 %"),
        (float("nan"), "unknown"),
    ],
)
def test_percentages_keep_their_digits(share, text):
    assert _advice.percent(share) == text


@pytest.mark.parametrize("function", [diagnose.long_tail, diagnose.unit_totals])
def test_the_long_tail_of_bad_labels_or_weights(function, both):
    frame = pd.DataFrame({"item": [1, 2, 2], "y": [0, 1, 2], "w": [1.0, 1.0, -1.0]})
    for table in both(frame):
        with pytest.raises(RecbalError, match="not binary"):
            function(table, "item", "y")
        with pytest.raises(RecbalError, match="1 weights are missing, infinite or negative"):
            function(table, "item", weight="w")
    with pytest.raises(RecbalError, match="empty"):
        function(frame.iloc[:0], "item")


def test_report_gathers_constant_columns_into_one_line():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.integers(0, 2, 500), "a": 1, "b": 2, "x": rng.random(500)})
    lines = [line for line in diagnose.report(frame, "y").lines if "onstant column" in line.answer]
    assert [("(a, b)" in line.answer, line.figure[:8]) for line in lines] == [(True, "500 rows")]


def test_report_says_how_much_less_a_repeating_household_is_worth():
    """400 positives in 100 households of 4 each: rows say 1.96/20, households 1.96/10."""
    frame = pd.DataFrame({"y": [1, 0] * 400, "household": np.repeat(np.arange(100), 8)})
    (line,) = [
        x for x in diagnose.report(frame, "y", user="household").lines if "matter" in x.question
    ]
    assert "±9.8 % of itself if rows are independent" in line.figure
    assert "to ±20 % if all household repeat" in line.figure


def test_no_line_calls_a_count_effective_without_weights():
    frame = labels(400, 4000).assign(household=np.arange(4400) % 100, w=1.0)
    plain = diagnose.report(frame, "y", user="household", n_features=2)
    few = imbalanced(50, 5_000)
    assert "ffective" not in str(plain) + str(few)
    assert "400 positives: their rate" in str(plain)
    assert "Positives, if all household repeat themselves | worth 100 independent ones" in str(
        plain
    )
    weighted = diagnose.report(frame, "y", user="household", weight="w")
    assert "400 effective positives: their rate" in str(weighted)


@pytest.mark.parametrize("negatives", [300_000, 1_010_000, 1_234_567, 9_876_543])
def test_the_keep_rate_shown_and_its_logarithm_agree(negatives, monkeypatch):
    monkeypatch.setattr(_advice, "LARGE_ROWS", 100_000)
    counts = diagnose.imbalance(labels(10, 90), "y")
    facts = {
        "imbalance": replace(
            counts, rows=10_000 + negatives, positives=10_000, effective_positives=10_000.0
        ),
        "weighted": False,
        "n_features": None,
    }
    (line,) = _advice._rows_first(facts)
    beta, logarithm = re.search(r"β = (\S+); then add ln β = (\S+) to", line.answer).groups()
    assert float(beta) == pytest.approx(200_000 / negatives, rel=0.005)
    assert f"{np.log(float(beta)):.2f}" == logarithm


@pytest.mark.parametrize("mean", [0.05, 0.3, 1.0, 4.0])
def test_gini_by_chance_is_that_of_poisson_numbers(mean):
    thrown = np.random.default_rng(0).poisson(mean, 200_000)
    assert gini_by_chance(mean) == pytest.approx(diagnose.gini(thrown), abs=0.004)


def thrown_on_users(shares, positives, seed=0):
    """A row for each user without a positive, and a positive row for each throw."""
    users = np.arange(len(shares))
    hit = np.random.default_rng(seed).choice(users, positives, p=shares / shares.sum())
    rows = [(user, 0) for user in users] + [(user, 1) for user in hit]
    return pd.DataFrame(rows, columns=["user", "y"])


def tail_line(frame):
    return next(
        x for x in diagnose.report(frame, "y", user="user").lines if x.question == "Long tail?"
    )


def test_an_even_throw_is_no_long_tail():
    for seed in range(5):
        few = tail_line(thrown_on_users(np.ones(300), 97, seed))
        assert few.answer == "Too few positives per user to tell a long tail from chance."
        assert "and 0.76 if chance threw" in few.figure
        assert tail_line(thrown_on_users(np.ones(300), 3000, seed)).answer.startswith("No long")
        assert "Report head" not in tail_line(thrown_on_users(np.ones(5), 5, seed)).answer


def test_a_skewed_throw_is_a_long_tail():
    skewed = 1.0 / np.arange(1, 301) ** 1.5
    for positives in (97, 3000):
        assert tail_line(thrown_on_users(skewed, positives)).answer.startswith("Report head")


def test_equal_weights_do_not_change_what_chance_gives():
    frame = thrown_on_users(np.ones(300), 97).assign(w=7.0)
    with_weights = diagnose.report(frame, "y", user="user", weight="w").gini_by_chance
    assert with_weights == pytest.approx(diagnose.report(frame, "y", user="user").gini_by_chance)


def test_times_as_text_are_refused(both):
    frame = labels(5, 9).assign(when=["01/02/2024", "02/01/2024"] * 7)
    says = r"The time 'when' is text: convert it with pd.to_datetime \(dates sort wrongly as text"
    for table in both(frame):
        with pytest.raises(RecbalError, match=says):
            diagnose.report(table, "y", time="when")
    dates = frame.assign(when=pd.to_datetime(frame["when"], format="%d/%m/%Y"))
    assert diagnose.report(dates, "y", time="when").late_from == pd.Timestamp("2024-02-01")


def test_rows_without_a_time_are_said():
    frame = log().astype({"week": float})
    assert "Rows without week" not in str(diagnose.report(frame, "conversion", **ROLES))
    frame.loc[:11, "week"] = np.nan
    report = diagnose.report(frame, "conversion", **ROLES)
    assert report.without_time == 12
    assert "Rows without week, taken as early | 12" in str(report)


def test_a_label_that_is_no_name():
    frame = labels(5, 9)
    for function in (diagnose.report, diagnose.imbalance):
        with pytest.raises(RecbalError, match="label must be a column name, not a Series"):
            function(frame, label=frame["y"])


def test_rows_may_be_grouped_by_a_column_of_another_role():
    frame = log()
    for role in ("product_id", "household_id", "week"):
        assert diagnose.report(frame, "conversion", group=role, **ROLES).group == role


@pytest.mark.parametrize(
    ("values", "positive"),
    [(list("abcdefgh"), None), (list("abcdefgh"), "a"), (range(8), None)],
)
def test_more_than_two_classes_are_counted(values, positive, both):
    for table in both(pd.DataFrame({"y": values})):
        with pytest.raises(RecbalError, match=r"holds 8 classes .*Make a 0/1 column") as caught:
            diagnose.report(table, "y", positive=positive)
        assert "positive=" not in str(caught.value)


def test_one_class_of_another_name_is_one_class():
    with pytest.raises(RecbalError, match="one class only: all rows hold 'no'"):
        diagnose.imbalance(pd.DataFrame({"y": ["no", "no"]}), "y")


def test_a_time_that_is_not_a_number_counts_as_early_on_the_engine_too():
    columns = {"y": [1, 0, 1, 0], "item": [1, 2, 2, 3], "week": [1.0, float("nan"), 2.0, 2.0]}
    table = ibis.memtable(pa.table(columns))
    report = diagnose.report(table, "y", item="item", time="week")
    assert report.without_time == 1
    assert report.cold_start.loc["item", "rows"] == 2
