"""Negative down-sampling: imbalanced-learn's contract, the same rows everywhere, exact undoing."""

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from imblearn.utils.estimator_checks import estimator_checks_generator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from recbal_utils import sampling
from recbal_utils.balance import NegativeDownsampler
from recbal_utils.calibrate import shift_log_odds
from recbal_utils.errors import RecbalError

NOT_APPLICABLE = {
    "check_samplers_sampling_strategy_fit_resample": (
        "sampling_strategy is no parameter: a keep rate or a ratio takes its place"
    )
}
CHECKS = list(
    estimator_checks_generator(
        NegativeDownsampler(random_state=0), expected_failed_checks=NOT_APPLICABLE, mark="xfail"
    )
)


@pytest.mark.parametrize(
    ("sampler", "check"), CHECKS, ids=lambda value: getattr(value, "func", type(value)).__name__
)
def test_contract_of_imbalanced_learn(sampler, check):
    check(sampler)


def frame(n=2_000, positives=100, seed=0):
    """Rows with an index of their own, a key, a number and a category."""
    rng = np.random.default_rng(seed)
    index = pd.Index(rng.permutation(10 * n)[:n], name="row")
    X = pd.DataFrame(
        {
            "key": np.arange(n, dtype=np.int32),
            "x": rng.normal(size=n).astype(np.float32),
            "kind": pd.Categorical(rng.choice(list("abc"), n)),
        },
        index=index,
    )
    y = pd.Series(np.arange(n) < positives, index=index, name="bought").astype("int8")
    return X, y.sample(frac=1, random_state=seed).loc[X.index]


# --- in memory ------------------------------------------------------------------------------


def test_counts_are_as_asked():
    X, y = frame()
    _, by_rate = NegativeDownsampler(keep_rate=0.1, random_state=0).fit_resample(X, y)
    _, by_ratio = NegativeDownsampler(negatives_per_positive=7, random_state=0).fit_resample(X, y)
    assert by_rate.value_counts().to_dict() == {0: 190, 1: 100}
    assert by_ratio.value_counts().to_dict() == {0: 700, 1: 100}


def test_pandas_in_pandas_out_and_no_row_invented():
    X, y = frame()
    sampler = NegativeDownsampler(keep_rate=0.1, random_state=3)
    X_kept, y_kept = sampler.fit_resample(X, y)
    assert X_kept.index.is_unique
    pd.testing.assert_frame_equal(X_kept, X.loc[X_kept.index])
    pd.testing.assert_series_equal(y_kept, y.loc[X_kept.index])
    pd.testing.assert_frame_equal(X.iloc[sampler.sample_indices_], X_kept)


def test_drops_the_rows_that_imbalanced_learn_drops():
    X, y = frame()
    sampler = NegativeDownsampler(negatives_per_positive=4, random_state=5).fit_resample(X, y)
    oracle = RandomUnderSampler(sampling_strategy=1 / 4, random_state=5).fit_resample(X, y)
    pd.testing.assert_frame_equal(sampler[0], oracle[0])


def test_same_seed_same_rows_and_other_seed_other_rows():
    X, y = frame()
    first, again, other = (
        NegativeDownsampler(keep_rate=0.2, random_state=s).fit_resample(X, y)[0] for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert set(first.index) != set(other.index)


def test_weights_add_up_to_the_rows_of_each_class():
    X, y = frame()
    sampler = NegativeDownsampler(keep_rate=0.03, random_state=0)
    _, y_kept = sampler.fit_resample(X, y)
    totals = pd.Series(sampler.sample_weight_).groupby(y_kept.to_numpy()).sum()
    assert totals.to_dict() == pytest.approx({0: 1900, 1: 100})


@given(negatives=st.integers(50, 400), positives=st.integers(1, 400), rate=st.floats(0.02, 1.0))
@settings(max_examples=40, deadline=None)
def test_shift_is_the_change_of_the_odds(negatives, positives, rate):
    y = np.r_[np.zeros(negatives), np.ones(positives)]
    sampler = NegativeDownsampler(keep_rate=rate, random_state=0)
    _, kept = sampler.fit_resample(y.reshape(-1, 1), y)
    change = np.log(positives / negatives) - np.log(kept.sum() / (kept == 0).sum())
    assert sampler.log_odds_shift_ == pytest.approx(change, abs=1e-12)
    assert shift_log_odds(kept.mean(), sampler.log_odds_shift_) == pytest.approx(y.mean())


def test_shift_also_undoes_equal_classes_when_positives_are_the_larger_one():
    y = np.r_[np.zeros(10), np.ones(90)]
    sampler = NegativeDownsampler(random_state=0)
    _, kept = sampler.fit_resample(y.reshape(-1, 1), y)
    assert kept.mean() == 0.5
    assert shift_log_odds(0.5, sampler.log_odds_shift_) == pytest.approx(0.9)


def test_a_model_on_the_sample_is_calibrated_after_the_shift():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 2))
    chance = 1 / (1 + np.exp(4.5 - X @ [1.0, 0.7]))
    y = rng.random(len(X)) < chance
    pipeline = make_pipeline(
        StandardScaler(), NegativeDownsampler(keep_rate=0.05, random_state=0), LogisticRegression()
    )
    p_sample = pipeline.fit(X, y).predict_proba(X)[:, 1]
    p = shift_log_odds(p_sample, pipeline[1].log_odds_shift_)
    assert p_sample.mean() / chance.mean() > 8
    assert p.mean() / chance.mean() == pytest.approx(1, abs=0.04)
    assert np.abs(np.log(p / chance)).mean() < 0.1


def test_other_labels_than_numbers():
    y = np.array(["no"] * 40 + ["yes"] * 5)
    sampler = NegativeDownsampler(keep_rate=0.5, random_state=0)
    _, kept = sampler.fit_resample(np.arange(45).reshape(-1, 1), y)
    assert (kept == "no").sum() == 20
    assert sampler.keep_rate_ == 0.5


# --- lazy tables ----------------------------------------------------------------------------

KEYS = ["household", "product"]


def log(households=200, products=500):
    grid = np.indices((households, products)).reshape(2, -1).T
    rows = pd.DataFrame(grid, columns=KEYS)
    return rows.assign(
        bought=((rows.household * 31 + rows["product"] * 17) % 97 == 0).astype("int8")
    )


def drawn(sampler, rows, **options):
    return sampler.collect(ibis.memtable(rows), "bought", KEYS, **options)


def test_lazy_sample_is_that_of_sampling():
    rows = log()
    got = drawn(NegativeDownsampler(keep_rate=0.02, random_state=4), rows)
    want = sampling.sample_negatives(ibis.memtable(rows), "bought", KEYS, 0.02, 4).execute()
    want = want.sort_values(KEYS, ignore_index=True)
    pd.testing.assert_frame_equal(got, want)


def test_lazy_sample_remembers_what_the_correction_needs():
    rows, sampler = log(), NegativeDownsampler(keep_rate=0.02)
    kept = drawn(sampler, rows)
    assert kept.bought.sum() == rows.bought.sum() == sampler.counts_["positives"]
    assert sampler.keep_rate_ == 0.02
    assert sampler.log_odds_shift_ == pytest.approx(np.log(0.02))
    assert set(kept.loc[kept.bought == 0, "weight"]) == {50}
    assert set(kept.loc[kept.bought == 1, "weight"]) == {1}


def test_lazy_ratio_is_met_up_to_chance():
    rows, sampler = log(), NegativeDownsampler(negatives_per_positive=5)
    kept = drawn(sampler, rows)
    positives, negatives = rows.bought.sum(), (rows.bought == 0).sum()
    assert sampler.keep_rate_ == pytest.approx(5 * positives / negatives)
    spread = np.sqrt(5 * positives * (1 - sampler.keep_rate_))
    assert abs((kept.bought == 0).sum() - 5 * positives) < 5 * spread


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_order_do_not_matter(threads):
    rows, sampler = log(), NegativeDownsampler(keep_rate=0.05, random_state=1)
    connection = ibis.duckdb.connect(threads=threads)
    shuffled = connection.create_table(
        "t", ibis.memtable(rows.sample(frac=1, random_state=threads))
    )
    got = sampler.collect(shuffled, "bought", KEYS)
    pd.testing.assert_frame_equal(got, drawn(sampler, rows))


def test_a_state_carried_over_gives_the_same_rows():
    rows, sampler = log(), NegativeDownsampler(keep_rate=0.05, random_state=1)
    table = sampling.hash_state(ibis.memtable(rows), ["household"], 1, name="state")
    kept = sampler.sample(table, "bought", ["product"], start="state").execute()
    kept = kept.sort_values(KEYS, ignore_index=True)
    pd.testing.assert_frame_equal(kept, drawn(sampler, rows))


def test_the_sample_is_lazy():
    kept = NegativeDownsampler(keep_rate=0.1).sample(ibis.memtable(log()), "bought", KEYS)
    assert isinstance(kept, ibis.Table)
    assert kept.columns == ("household", "product", "bought", "weight")


def test_weights_that_do_not_add_up_are_told():
    rows = log(households=40, products=3000)
    rows["week"] = rows.household % 3
    # Two of three weeks are dropped as a whole, or all are kept: no weights mend that.
    sampler = NegativeDownsampler(keep_rate=0.4)
    with pytest.raises(RecbalError, match=r"weights add up to .* rows share the keys week"):
        sampler.collect(ibis.memtable(rows), "bought", ["week"])


# --- bad input ------------------------------------------------------------------------------


def memory(y, **settings):
    return lambda: NegativeDownsampler(**settings).fit_resample(np.zeros((len(y), 1)), y)


def lazy(keys=("household",), label="bought", changes=None, **settings):
    def call():
        rows = log(4, 100).assign(name="x", **(changes or {}))
        settings.setdefault("keep_rate", 0.5)
        return NegativeDownsampler(**settings).sample(ibis.memtable(rows), label, list(keys))

    return call


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (memory([0, 0, 0]), "one class only: all 3 rows hold 0. After a split"),
        (memory([0, 1, None]), "y is missing in 1 of 3 rows"),
        (memory([0.0, 1.0, np.nan]), "y is missing in 1 of 3 rows"),
        (memory([0, 0, 1], keep_rate=0), "keep_rate is 0; give a number above 0"),
        (memory([0, 0, 1], keep_rate=1.5), "keep_rate is 1.5"),
        (memory([0, 0, 1], keep_rate=np.nan), "keep_rate is nan"),
        (memory([0, 0, 1], keep_rate="half"), "keep_rate is 'half'"),
        (memory([0, 0, 1], keep_rate=0.5, negatives_per_positive=5), "not both"),
        (memory([0, 0, 1], negatives_per_positive=-1), "negatives_per_positive is -1"),
        (memory([0, 0, 1], negatives_per_positive=3), "wants 3 negatives; there are 2. Give at"),
        (memory([0, 0, 1], keep_rate=0.01), "leaves none of 2 negatives"),
        (memory([0, 1, 2], keep_rate=0.5), "y has 3 classes"),
        (lazy(changes={"bought": 0}), "one class only"),
        (lazy(changes={"bought": None}), "label 'bought'"),
        (lazy(changes={"bought": lambda d: d.bought.where(d.index > 9)}), "missing in 10 of 400"),
        (lazy(changes={"bought": lambda d: d.bought + 1}), "not 0 and 1"),
        (lazy(label="sold"), "no column 'sold'"),
        (lazy(keys=("shop",)), "key 'shop' is not a column"),
        (lazy(keys=("name",)), "hash integer columns only"),
        (lazy(keys=()), "one or more column names"),
        (lazy(keep_rate=2), "keep_rate is 2"),
        (lazy(keep_rate=None, negatives_per_positive=1e6), "Give at most"),
        (lazy(random_state=np.random.RandomState(0)), "give a whole number"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says):
    with pytest.raises(RecbalError, match=says):
        call()


def test_a_bad_number_leaves_the_sampler_unfitted():
    sampler = NegativeDownsampler(keep_rate=2)
    with pytest.raises(RecbalError):
        sampler.fit_resample(np.zeros((3, 1)), [0, 0, 1])
    assert not hasattr(sampler, "keep_rate_")
