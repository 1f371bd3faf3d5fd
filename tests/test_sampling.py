"""Hash-kept samples: the same keys everywhere, and as good as chance."""

import itertools

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recbal_utils import sampling
from recbal_utils.errors import RecbalError

PRIME, SECOND = 2**31 - 1, 2**31 - 19
INTEGERS = st.integers(-(2**62), 2**62)


def by_hand(keys, seed):
    """The hash in exact integers of Python, written from its definition."""
    state = pow(1_179_649_823 + seed, 5, PRIME)
    for key in keys:
        first, second = key % PRIME, key % SECOND
        folded = (first + (first - second) % PRIME * 1_566_083_941) % PRIME
        state = pow(state + folded, 5, PRIME)
    return state


def grid(**ranges):
    return pd.DataFrame(np.array(list(itertools.product(*ranges.values()))), columns=list(ranges))


def kept(frame, keys, share, seed=0):
    """Which rows of the frame are kept, as a boolean array in its order."""
    table = ibis.memtable(frame.assign(row=np.arange(len(frame))))
    rows = sampling.keep_share(table, keys, share, seed).row.execute()
    return np.isin(np.arange(len(frame)), rows)


@given(
    pairs=st.lists(st.tuples(INTEGERS, INTEGERS), min_size=1, max_size=20), seed=st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_hash_equals_exact_arithmetic(pairs, seed):
    frame = pd.DataFrame(pairs, columns=["a", "b"])
    got = sampling.hash_state(ibis.memtable(frame), ["a", "b"], seed).hash_state.execute()
    assert sorted(got) == sorted(by_hand(pair, seed) for pair in pairs)


def test_negative_seed_equals_exact_arithmetic():
    table = ibis.memtable(pd.DataFrame({"a": [7]}))
    assert sampling.hash_state(table, ["a"], -5).hash_state.execute()[0] == by_hand((7,), -5)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_row_order_do_not_matter(threads):
    frame = grid(household=range(300), product=range(1000))
    expected = set(map(tuple, frame[kept(frame, ["household", "product"], 0.02)].to_numpy()))
    connection = ibis.duckdb.connect(threads=threads)
    shuffled = frame.sample(frac=1, random_state=threads)
    table = connection.create_table("t", ibis.memtable(shuffled))
    rows = sampling.keep_share(table, ["household", "product"], 0.02).execute()
    assert set(map(tuple, rows.to_numpy())) == expected


def test_type_of_the_key_does_not_matter():
    frame = grid(a=range(200), b=range(200))
    narrow, wide = (kept(frame.astype(kind), ["a", "b"], 0.1) for kind in ("int16", "int64"))
    assert (narrow == wide).all()


def test_a_state_carried_over_equals_mixing_at_once():
    frame = grid(a=range(30), b=range(40), c=range(50))
    table = ibis.memtable(frame)
    carried = sampling.hash_state(table, ["a", "b"], 7, name="state")
    in_two = sampling.keep_share(carried, ["c"], 0.05, start="state").execute()
    at_once = sampling.keep_share(table, ["a", "b", "c"], 0.05, 7).execute()
    assert list(in_two.columns) == ["a", "b", "c"]
    assert set(map(tuple, in_two.to_numpy())) == set(map(tuple, at_once.to_numpy()))


def test_uniform_on_the_unit_interval():
    table = ibis.memtable(grid(a=range(400), b=range(400)))
    values = sampling.hash_uniform(table, ["a", "b"]).hash_uniform.execute()
    assert values.between(0, 1, inclusive="left").all()
    assert stats.kstest(values, "uniform").pvalue > 1e-4


def dispersion(keep, share, first, second):
    """Squared standardised counts of joint keeps; independent samples give their number."""
    n = keep.shape[1]
    joint = (keep[first] & keep[second]).sum(axis=1)
    return (joint - n * share**2) ** 2 / (n * share**2 * (1 - share**2))


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_keeps_of_different_weeks_or_stores_are_independent(position):
    share, n_weeks, n_other = 0.05, 40, 8000
    order = {
        "first": ["week", "other", "fixed"],
        "middle": ["fixed", "week", "other"],
        "last": ["fixed", "other", "week"],
    }[position]
    frame = grid(week=range(1, n_weeks + 1), other=range(n_other)).assign(fixed=17)
    keep = kept(frame, order, share).reshape(n_weeks, n_other)
    first, second = np.triu_indices(n_weeks, 1)
    spread = dispersion(keep, share, first, second)
    # Pairs share weeks, so the sum is a little wider than chi-square: 5 of its deviations.
    assert abs(spread.mean() - 1) < 5 * np.sqrt(2 / len(spread))
    assert spread.max() < stats.chi2.isf(1e-4 / len(spread), 1)


def test_keeps_of_different_seeds_are_independent():
    share, n_seeds = 0.05, 20
    frame = grid(household=range(100), product=range(200))
    keep = np.stack([kept(frame, ["household", "product"], share, s) for s in range(n_seeds)])
    first, second = np.triu_indices(n_seeds, 1)
    spread = dispersion(keep, share, first, second)
    assert abs(spread.mean() - 1) < 5 * np.sqrt(2 / len(spread))
    assert spread.max() < stats.chi2.isf(1e-4 / len(spread), 1)


def test_the_number_kept_varies_like_a_coin_over_seeds():
    share, frame = 0.03, grid(household=range(60), product=range(100))
    counts = [kept(frame, ["household", "product"], share, seed).sum() for seed in range(80)]
    expected = len(frame) * share * (1 - share)
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 79) * expected / 79
    assert low < np.var(counts, ddof=1) < high
    assert abs(np.mean(counts) - len(frame) * share) < 4.5 * np.sqrt(expected / 80)


def test_rows_with_equal_keys_stay_together():
    frame = grid(visit=range(500), product=range(7))
    keep = kept(frame, ["visit"], 0.3).reshape(500, 7)
    assert set(keep.sum(axis=1)) == {0, 7}


def test_share_one_keeps_every_row():
    assert kept(grid(a=range(50), b=range(50)), ["a", "b"], 1).all()


def negatives(keep_rate, seed=0):
    frame = grid(household=range(200), product=range(500))
    frame["bought"] = (frame.household * 31 + frame["product"] * 17) % 97 == 0
    table = ibis.memtable(frame)
    keys = ["household", "product"]
    return frame, sampling.sample_negatives(table, "bought", keys, keep_rate, seed).execute()


def test_every_positive_is_kept_with_weight_one():
    frame, sample = negatives(0.02)
    positives = sample[sample.bought]
    assert len(positives) == frame.bought.sum()
    assert (positives.weight == 1).all()


def test_weights_estimate_the_negatives_of_the_log():
    frame, sample = negatives(0.02)
    drawn = sample[~sample.bought]
    assert (drawn.weight == 50).all()
    n = (~frame.bought).sum()
    assert abs(drawn.weight.sum() - n) < 4.5 * 50 * np.sqrt(n * 0.02 * 0.98)


def test_negatives_are_those_that_keep_share_keeps():
    frame, sample = negatives(0.1, seed=3)
    drawn = set(map(tuple, sample.loc[~sample.bought, ["household", "product"]].to_numpy()))
    keep = kept(frame, ["household", "product"], 0.1, 3) & ~frame.bought.to_numpy()
    assert drawn == set(map(tuple, frame.loc[keep, ["household", "product"]].to_numpy()))


TABLE = ibis.memtable(pd.DataFrame({"a": [1], "text": ["x"], "y": [1]}))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sampling.keep_share(TABLE, ["a"], 0), "share is 0; give a number above 0"),
        (lambda: sampling.keep_share(TABLE, ["a"], 1.5), "share is 1.5"),
        (lambda: sampling.keep_share(TABLE, ["a"], float("nan")), "share is nan"),
        (lambda: sampling.keep_share(TABLE, ["b"], 0.5), "key 'b' is not a column"),
        (lambda: sampling.keep_share(TABLE, ["text"], 0.5), "key 'text' is of type string"),
        (lambda: sampling.keep_share(TABLE, [], 0.5), "one or more column names"),
        (lambda: sampling.keep_share(TABLE, "a", 0.5), "keys is 'a'"),
        (lambda: sampling.hash_uniform(TABLE, ["a"], 1.5), "seed is 1.5"),
        (lambda: sampling.sample_negatives(TABLE, "z", ["a"], 0.5), "label 'z' is not a column"),
        (lambda: sampling.sample_negatives(TABLE, "y", ["a"], -1), "keep_rate is -1"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says):
    with pytest.raises(RecbalError, match=says):
        call()
