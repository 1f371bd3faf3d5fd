"""Ranks and tests over data sets, against the tables of Demšar (2006) and scipy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recbal_utils import ranks
from recbal_utils.errors import RecbalError

SCORES = pd.DataFrame(np.random.default_rng(0).normal([0, 0.1, 0.2, 0.3], 0.3, (9, 4)))


@pytest.mark.parametrize(
    ("k", "q"),
    list(enumerate([1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], start=2)),
)
def test_critical_values_are_those_in_print(k, q):
    assert ranks.nemenyi_q(k) == pytest.approx(q, abs=1.1e-3)


def test_critical_difference_in_print():
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert ranks.critical_difference(4, 14, 0.1) == pytest.approx(1.12, abs=5e-3)


def test_friedman_follows_scipy_and_its_f_form():
    found, expected = ranks.friedman(SCORES), stats.friedmanchisquare(*SCORES.to_numpy().T)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.f == pytest.approx(8 * expected.statistic / (9 * 3 - expected.statistic))
    assert found.p_value == pytest.approx(stats.f.sf(found.f, 3, 24))


def test_sets_that_all_agree():
    scores = pd.DataFrame([[3, 2, 1]] * 4, columns=list("abc"))
    assert ranks.friedman(scores).p_value == 0
    assert ranks.average_ranks(scores).to_dict() == {"a": 1, "b": 2, "c": 3}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(1, 9), st.integers(0, 999))
def test_ranks_sum_and_turn_around(k, n, seed):
    scores = pd.DataFrame(np.random.default_rng(seed).integers(0, 4, (n, k)))
    up, down = ranks.ranks(scores), ranks.ranks(scores, higher_is_better=False)
    np.testing.assert_allclose(up.sum(axis=1), k * (k + 1) / 2)
    np.testing.assert_allclose(up + down, k + 1)


def test_holm_by_hand():
    assert ranks.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert ranks.holm([0.9, 0.8]).tolist() == [1, 1]


def test_against_counts_wins_and_uses_wilcoxon():
    scores = pd.DataFrame(
        {"nothing": [0.5, 0.6, 0.7, 0.8, 0.9], "SMOTE": [0.6, 0.8, 0.6, 0.8, 0.94]}
    )
    row = ranks.against(scores.assign(copy=scores["nothing"]), "nothing").loc
    assert row["SMOTE", ["wins", "losses"]].tolist() == [3, 1]
    assert row["SMOTE", "mean"] == pytest.approx(0.048)
    assert row["copy", ["mean", "p_value", "holm"]].tolist() == [0, 1, 1]
    gain = scores["SMOTE"] - scores["nothing"]
    expected = stats.wilcoxon(gain, zero_method="zsplit", method="approx").pvalue
    assert row["SMOTE", "p_value"] == pytest.approx(expected)


def test_groups_that_cannot_be_told_apart():
    average = pd.Series({"d": 4.0, "a": 1.0, "b": 1.5, "c": 2.5})
    assert ranks.groups_alike(average, 1.2) == [("a", "b"), ("b", "c")]
    assert ranks.groups_alike(average, 9) == [("a", "b", "c", "d")]
    assert ranks.groups_alike(average, 0.1) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ranks.ranks([[1, 2]]), "must be a DataFrame"),
        (lambda: ranks.ranks(pd.DataFrame({"a": [1.0]})), "2 methods or more"),
        (lambda: ranks.ranks(pd.DataFrame({"a": [1.0], "b": [np.nan]})), "missing or"),
        (lambda: ranks.ranks(pd.DataFrame({"a": [1.0], "b": ["x"]})), "numbers only"),
        (lambda: ranks.friedman(pd.DataFrame({"a": [1, 2], "b": [1, 3]})), "takes 3 methods"),
        (lambda: ranks.friedman(pd.DataFrame(np.ones((3, 3)))), "nothing to rank"),
        (lambda: ranks.against(SCORES.add_prefix("m"), "SMOTE"), "no method 'SMOTE'"),
        (lambda: ranks.nemenyi_q(1), "2 or more"),
        (lambda: ranks.critical_difference(4, 0), "1 or more"),
        (lambda: ranks.critical_difference(4, 9, 1), "between 0 and 1"),
        (lambda: ranks.holm([0.5, np.nan]), "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(RecbalError, match=said):
        call()
