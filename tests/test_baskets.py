"""Baskets, histories and padded ids: worked by hand, and against a plain loop."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import baskets as bk
from recbal_utils.errors import RecbalError

HAND = pd.DataFrame(
    [
        (1, 10, 1, 0.0, "milk"),
        (1, 10, 1, 0.0, "bread"),
        (1, 11, 2, 168.0, "milk"),
        (1, 12, 3, 336.0, "eggs"),
        (2, 20, 1, 24.0, "eggs"),
        (2, 21, 2, 192.0, "eggs"),
    ],
    columns=list(bk.COLUMNS),
)  # items: bread 0, eggs 1, milk 2


@pytest.fixture(scope="module")
def hand():
    return bk.from_lines(HAND.sample(frac=1, random_state=0))


def test_baskets_by_hand(hand):
    assert hand.names.tolist() == ["bread", "eggs", "milk"]
    assert hand.household.tolist() == [1, 1, 1, 2, 2]
    assert hand.day.tolist() == [0, 7, 14, 1, 8]
    assert hand.items.toarray().astype(int).tolist() == [
        [1, 0, 1],
        [0, 0, 1],
        [0, 1, 0],
        [0, 1, 0],
        [0, 1, 0],
    ]
    assert hand.earlier.tolist() == [0, 1, 2, 0, 1]
    assert hand.rows([1, 2]).tolist() == [1, 4]
    assert hand.counts([1, 2]).tolist() == [1, 2, 2]


def test_history_by_hand(hand):
    history = bk.histories(hand, [2, 4])
    assert history.offsets.tolist() == [0, 2, 3]
    assert history.item.tolist() == [0, 2, 1]
    assert history.purchases.tolist() == [1, 2, 1]
    feature = dict(zip(bk.PAIR_FEATURES, history.features.T, strict=True))
    np.testing.assert_allclose(np.expm1(feature["days since"]), [14, 7, 7], rtol=1e-5)
    np.testing.assert_allclose(np.expm1(feature["baskets since"]), [2, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(feature["share of baskets"], [0.5, 1, 1])
    milk = feature["days since ÷ usual gap"][1]
    np.testing.assert_allclose(milk, 0, atol=1e-6)  # bought every 7 days, 7 days ago
    week = history.recent[:, bk.HALF_LIVES.index(7.0)]
    np.testing.assert_allclose(week, [0.25, 0.5 + 0.25, 0.5], rtol=1e-6)


def test_a_first_basket_has_no_history(hand):
    history = bk.histories(hand, [0, 1])
    assert np.diff(history.offsets).tolist() == [0, 2]
    assert history.matrix().toarray().tolist() == [[False] * 3, [True, False, True]]


def lines_of(bought):
    """Lines from (household, days since the one before, items)."""
    rows, hour = [], 0.0
    for number, (household, gap, items) in enumerate(bought):
        hour += 24.0 * gap + 1
        rows += [(household, number, 1, hour, f"type {item}") for item in items]
    return pd.DataFrame(rows, columns=list(bk.COLUMNS))


purchases = st.lists(
    st.tuples(
        st.integers(1, 3), st.integers(0, 40), st.sets(st.integers(0, 5), min_size=1, max_size=4)
    ),
    min_size=2,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(purchases)
def test_histories_against_a_plain_loop(bought):
    baskets = bk.from_lines(lines_of(bought))
    rows = np.arange(len(baskets))
    history = bk.histories(baskets, rows)
    counts = history.matrix(history.purchases).toarray()
    fading = history.matrix(history.recent[:, 1]).toarray()
    held = baskets.items.toarray()
    for row in rows:
        earlier = [r for r in range(row) if baskets.household[r] == baskets.household[row]]
        ago = baskets.day[row] - baskets.day[earlier]
        np.testing.assert_array_equal(counts[row], held[earlier].sum(axis=0))
        weights = 0.5 ** (ago / bk.HALF_LIVES[1])
        np.testing.assert_allclose(fading[row], weights @ held[earlier], rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(purchases, st.integers(1, 4), st.integers(1, 9))
def test_sequences_against_a_plain_loop(bought, n_baskets, length):
    baskets = bk.from_lines(lines_of(bought))
    rows = np.flatnonzero(baskets.earlier)
    ids, age = bk.sequences(baskets, rows, n_baskets, length)
    for found, ages, row in zip(ids, age, rows, strict=True):
        expected = [
            (item + bk.FIRST_ID, back)
            for back in range(1, n_baskets + 1)
            if baskets.earlier[row] >= back
            for item in baskets.items[[row - back]].indices
        ][:length]
        assert [(i, a) for i, a in zip(found, ages, strict=True) if i] == expected


def test_a_sequence_may_look_further_back_than_there_are_baskets(hand):
    ids, age = bk.sequences(hand, [1, 4], 9, 5)
    assert ids.tolist() == [[2, 4, 0, 0, 0], [3, 0, 0, 0, 0]]
    assert age.tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_the_future_changes_nothing():
    early = lines_of([(1, 1, {0, 1}), (1, 2, {1}), (2, 1, {3})])
    late = lines_of([(1, 1, {0, 1}), (1, 2, {1}), (2, 1, {3}), (1, 9, {2, 3}), (2, 1, {0})])
    names = sorted(late["item"].unique())
    small, large = (bk.from_lines(lines, catalogue=names) for lines in (early, late))
    before, after = bk.histories(small, [1]), bk.histories(large, [1])
    np.testing.assert_array_equal(before.features, after.features)
    np.testing.assert_array_equal(before.item, after.item)


def test_padded_keeps_the_most_bought_of_late(hand):
    ids, features = bk.padded(bk.histories(hand, [2, 4]), 2)
    assert ids.tolist() == [[4, 2], [3, 0]]
    assert (features[1, 1] == 0).all()
    short, _ = bk.padded(bk.histories(hand, [2, 4]), 1)
    assert short.tolist() == [[4], [3]]


def test_items_outside_the_catalogue_are_counted():
    baskets = bk.from_lines(HAND, catalogue=["eggs", "milk"])
    assert baskets.n_unknown == 1
    assert baskets.items.sum() == len(HAND) - 1
    assert len(baskets) == 5


@pytest.mark.parametrize(("ids", "fine"), [([0, 1, 4], True), ([5], False), ([-1], False)])
def test_ids_out_of_range(ids, fine):
    if fine:
        assert bk.check_ids(ids, 3).tolist() == ids
    else:
        with pytest.raises(RecbalError, match="2 to 4"):
            bk.check_ids(ids, 3)


def test_ids_that_are_no_whole_numbers():
    with pytest.raises(RecbalError, match="whole numbers"):
        bk.check_ids([0.5], 3)


def test_wrong_lines():
    with pytest.raises(RecbalError, match="lack the column hour"):
        bk.from_lines(HAND.drop(columns="hour"))
    with pytest.raises(RecbalError, match="no line"):
        bk.from_lines(HAND.iloc[:0])
    with pytest.raises(RecbalError, match="two households"):
        bk.from_lines(HAND.assign(basket_id=1))
    with pytest.raises(RecbalError, match="twice"):
        bk.from_lines(HAND, catalogue=["eggs", "eggs"])


def test_wrong_rows(hand):
    with pytest.raises(RecbalError, match="rise"):
        bk.histories(hand, [2, 1])
    with pytest.raises(RecbalError, match="outside"):
        bk.histories(hand, [9])
    with pytest.raises(RecbalError, match="no basket"):
        bk.histories(hand, [])


@pytest.mark.parametrize("week", [30, 49, 53])
def test_closed_weeks_stay_closed(week):
    with pytest.raises(RecbalError, match="last_week"):
        bk.load(week)


def test_the_log():
    baskets = bk.load()
    assert baskets.week.max() == 48
    assert len(baskets.names) == 2147
    assert len(baskets) == 140_877
    order = np.lexsort((baskets.day, baskets.household))
    np.testing.assert_array_equal(order, np.arange(len(baskets)))
    assert (baskets.counts(range(1, 41)) > 0).all()
