"""Full-catalogue metrics against a plain loop, scikit-learn and `evaluate`; sampled ones too."""

import doctest
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array
from scipy.stats import hypergeom
from sklearn.metrics import ndcg_score

from recbal_utils import catalogue, evaluate
from recbal_utils.diagnose import gini
from recbal_utils.errors import RecbalError


def slow_list(scores, k, excluded=()):
    """Sort the whole row: best score first, then lower index; -1 where nothing is left."""
    items = [item for item in range(len(scores)) if item not in set(excluded)]
    items.sort(key=lambda item: (-float(scores[item]), item))
    return (items + [-1] * k)[:k]


def slow_metrics(top, relevant):
    """Recall and NDCG of one list, from their definitions."""
    if not relevant:
        return np.nan, np.nan
    gains = [1 / np.log2(place + 1) for place, item in enumerate(top, start=1) if item in relevant]
    best = sum(1 / np.log2(place + 1) for place in range(1, min(len(relevant), len(top)) + 1))
    return len(gains) / len(relevant), sum(gains) / best


def items_of(matrix):
    return [set(np.flatnonzero(row)) for row in matrix.toarray()]


def make_case(n_users=40, n_items=30, seed=0, decimals=1, rate=0.1):
    """Scores (rounded: ties), relevant items, and excluded items that are not relevant."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_users, n_items)).round(decimals)
    relevant = rng.random((n_users, n_items)) < rate
    exclude = (rng.random((n_users, n_items)) < 0.3) & ~relevant
    return scores, csr_array(relevant), csr_array(exclude)


@st.composite
def cases(draw):
    """Few users and items, scores of few values, any relevant and excluded items, any k."""
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    shape = (n_users, n_items)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(-2, draw(st.sampled_from([-1, 3, 100])), size=shape)
    scores = scores.astype(draw(st.sampled_from([np.float32, np.float64, np.int64])))
    relevant = rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 1]))
    exclude = (rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95]))) & ~relevant
    k = draw(st.integers(1, n_items))
    return scores, csr_array(relevant), csr_array(exclude), k


# --- against a plain loop -------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 7), st.integers(1, 3))
def test_lists_and_metrics_equal_a_plain_loop(case, block, n_threads):
    scores, relevant, exclude, k = case
    how = {"exclude": exclude, "block": block, "n_threads": n_threads}
    top = catalogue.top_k(scores, len(scores), k, **how)
    rows = zip(scores, items_of(exclude), strict=True)
    expected = [slow_list(row, k, excluded) for row, excluded in rows]
    assert top.tolist() == expected
    frame = catalogue.per_user(scores, relevant, k=k, **how)
    each = [slow_metrics(*pair) for pair in zip(expected, items_of(relevant), strict=True)]
    got = frame[[f"recall_at_{k}", f"ndcg_at_{k}"]].to_numpy()
    np.testing.assert_allclose(got, each, rtol=0, atol=1e-12)
    assert frame["n_relevant"].tolist() == [len(items) for items in items_of(relevant)]


def test_by_hand():
    # Best first: 2, 0, 3, 1. Relevant 0 and 1 stand on places 2 and 4; item 4 is excluded.
    scores = np.array([[0.7, 0.1, 0.9, 0.5, 2.0]])
    relevant = csr_array(np.array([[1, 1, 0, 0, 0]], dtype=bool))
    exclude = csr_array(np.array([[0, 0, 0, 0, 1]], dtype=bool))
    tiers = ["head", "tail", "tail", "head", "head"]
    row = catalogue.per_user(scores, relevant, k=3, exclude=exclude, tiers=tiers).iloc[0]
    best_of_two = 1 + 1 / np.log2(3)
    assert row["recall_at_3"] == 1 / 2
    assert row["ndcg_at_3"] == pytest.approx(1 / np.log2(3) / best_of_two)
    assert row["recall_at_3[head]"] == 1
    assert row["ndcg_at_3[head]"] == pytest.approx(1 / np.log2(3))
    assert row["recall_at_3[tail]"] == row["ndcg_at_3[tail]"] == 0
    assert row["n_relevant"] == 2


def test_equal_scores_go_by_index_or_share_their_places():
    # Items 1 to 4 tie for places 2 to 5; item 4 is relevant.
    scores = np.array([[1.0, 0.0, 0.0, 0.0, 0.0, -1.0]])
    relevant = csr_array(np.array([[0, 0, 0, 0, 1, 0]], dtype=bool))
    assert catalogue.top_k(scores, 1, 3).tolist() == [[0, 1, 2]]
    by_index = catalogue.per_user(scores, relevant, k=3).iloc[0]
    shared = catalogue.per_user(scores, relevant, k=3, ties="mean").iloc[0]
    assert by_index["recall_at_3"] == by_index["ndcg_at_3"] == 0
    assert shared["recall_at_3"] == 2 / 4
    assert shared["ndcg_at_3"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / 4)


def test_what_is_left_over_is_minus_one():
    exclude = csr_array(np.array([[1, 0, 1], [1, 1, 1]], dtype=bool))
    top = catalogue.top_k(np.zeros((2, 3)), 2, 2, exclude=exclude)
    assert top.tolist() == [[1, -1], [-1, -1]]


# --- against scikit-learn and evaluate ------------------------------------------------------


@pytest.mark.parametrize("ties", ["index", "mean"])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_ndcg_equals_scikit_learn(k, ties):
    scores, relevant, _ = make_case(decimals=15 if ties == "index" else 1)
    frame = catalogue.per_user(scores, relevant, k=k, ties=ties)
    for user, items in enumerate(relevant.toarray()):
        if items.any():
            expected = ndcg_score([items], [scores[user]], k=k, ignore_ties=ties == "index")
            assert frame.loc[user, f"ndcg_at_{k}"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_same_numbers_as_evaluate_within_visits(k, excluding):
    scores, relevant, exclude = make_case()
    tiers = np.array(["head", "tail"])[np.arange(30) % 2]
    kept = ~exclude.toarray() if excluding else np.ones(scores.shape, dtype=bool)
    y, p, visits = relevant.toarray()[kept], scores[kept], np.nonzero(kept)[0]
    tail = (np.broadcast_to(tiers, scores.shape) == "tail")[kept]
    how = {"exclude": exclude if excluding else None, "tiers": tiers, "ties": "mean"}
    means = catalogue.per_user(scores, relevant, k=k, **how).mean()
    for metric in ("recall_at", "ndcg_at"):
        function = getattr(evaluate, f"{metric}_k")
        assert means[f"{metric}_{k}"] == pytest.approx(function(y, p, visits, k), abs=1e-12)
        of_tail = function(y, p, visits, k, subset=tail)
        assert means[f"{metric}_{k}[tail]"] == pytest.approx(of_tail, abs=1e-12)


def test_intervals_equal_those_of_evaluate():
    scores, relevant, _ = make_case()
    household = np.arange(40) // 3
    y, p, visits = relevant.toarray().ravel(), scores.ravel(), np.repeat(np.arange(40), 30)
    how = {"n_replicates": 50, "seed": 3}
    rows = {"groups": household[visits], "visits": visits, "metrics": ["ndcg_at_5"], **how}
    frame = catalogue.per_user(scores, relevant, k=5, ties="mean")
    other = catalogue.per_user(-scores, relevant, k=5, ties="mean")
    got = catalogue.summary(frame, groups=household, **how).loc[["ndcg_at_5"]]
    pd.testing.assert_frame_equal(got, evaluate.report(y, p, **rows), check_like=True)
    got = catalogue.differences(frame, other, groups=household, **how).loc[["ndcg_at_5"]]
    pd.testing.assert_frame_equal(got, evaluate.difference(y, p, -p, **rows))


# --- properties -----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(cases())
def test_mean_over_ties_lies_between_the_two_orders_of_items(case):
    scores, relevant, exclude, k = case
    mean = catalogue.per_user(scores, relevant, k=k, exclude=exclude, ties="mean")
    forth = catalogue.per_user(scores, relevant, k=k, exclude=exclude)
    column = f"recall_at_{k}"
    has = mean["n_relevant"] > 0
    assert ((mean[column] >= 0) & (mean[column] <= 1 + 1e-12))[has].all()
    distinct = scores + np.linspace(0.4, 0, scores.shape[1])  # breaks ties by index
    frame = catalogue.per_user(distinct, relevant, k=k, exclude=exclude, ties="mean")
    pd.testing.assert_frame_equal(frame, forth)


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_mean_over_ties_does_not_depend_on_the_order_of_items(case, random):
    scores, relevant, exclude, k = case
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    frame = catalogue.per_user(scores, relevant, k=k, exclude=exclude, ties="mean")
    moved = [csr_array(m.toarray()[:, order]) for m in (relevant, exclude)]
    other = catalogue.per_user(scores[:, order], moved[0], k=k, exclude=moved[1], ties="mean")
    pd.testing.assert_frame_equal(frame, other, rtol=0, atol=1e-12)


def test_mean_over_ties_is_the_mean_over_random_orders():
    scores, relevant, _ = make_case(n_users=3, n_items=12, decimals=0, rate=0.3)
    rng = np.random.default_rng(1)
    orders = rng.permuted(np.tile(np.arange(12), (3 * 2000, 1)), axis=1)
    rows = np.repeat(np.arange(3), 2000)[:, None]
    shuffled = csr_array(relevant.toarray()[rows, orders])
    by_index = catalogue.per_user(scores[rows, orders], shuffled, k=4)
    expected = catalogue.per_user(scores, relevant, k=4, ties="mean")
    means, spread = by_index.groupby(rows[:, 0]).mean(), by_index.groupby(rows[:, 0]).std()
    assert (spread["ndcg_at_4"] > 0.1).any()
    np.testing.assert_allclose(means, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("function", [catalogue.per_user, catalogue.sampled])
@pytest.mark.parametrize("ties", ["index", "mean"])
def test_blocks_and_threads_change_nothing(function, ties):
    scores, relevant, exclude = make_case(n_users=101, n_items=60)
    how = {"k": 7, "exclude": exclude, "ties": ties, "tiers": np.arange(60) % 3}
    how |= {"n_negatives": 20} if function is catalogue.sampled else {}
    whole = function(scores, relevant, **how, block=101, n_threads=1)
    for block, n_threads in [(1, 4), (10, 2), (1000, None)]:
        blocks = function(
            lambda start, stop: scores[start:stop],
            relevant,
            **how,
            block=block,
            n_threads=n_threads,
        )
        pd.testing.assert_frame_equal(blocks, whole, check_exact=True)


def test_given_arrays_stay_as_they_are():
    scores, relevant, exclude = make_case()
    before = scores.copy(), relevant.toarray(), exclude.toarray()
    catalogue.per_user(scores, relevant, exclude=exclude)
    catalogue.sampled(scores, relevant, exclude=exclude, n_negatives=5)
    after = scores, relevant.toarray(), exclude.toarray()
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_the_scoring_function_runs_in_the_calling_thread():
    scores, relevant, _ = make_case()
    threads = set()

    def score(start, stop):
        threads.add(threading.get_ident())
        return scores[start:stop]

    catalogue.per_user(score, relevant, block=3, n_threads=4)
    assert threads == {threading.get_ident()}


def test_stored_zeros_and_repeated_entries_are_no_relevant_items():
    data, columns = np.array([True, False, True, True]), np.array([2, 0, 2, 1])
    relevant = csr_array((data, columns, np.array([0, 3, 4])), shape=(2, 3))
    frame = catalogue.per_user(np.eye(2, 3), relevant, k=1)
    assert frame["n_relevant"].tolist() == [1, 1]
    assert frame["recall_at_1"].tolist() == [0, 1]
    drawn = catalogue.sampled(np.eye(2, 3), relevant, n_negatives=2, k=1)  # two are left to draw
    pd.testing.assert_frame_equal(drawn, frame)


def test_tiers_keep_the_order_of_a_categorical():
    scores, relevant, _ = make_case(n_items=3)
    tiers = pd.Categorical(["tail", "head", "mid"], categories=["head", "mid", "tail"])
    frame = catalogue.per_user(scores, relevant, k=2, tiers=tiers)
    asked = [name for name in frame.columns if name.startswith("recall")]
    ends = ["", "[head]", "[mid]", "[tail]"]
    assert asked == [f"recall_at_2{end}" for end in ends]
    np.testing.assert_array_equal(frame["n_relevant[tail]"], relevant.toarray()[:, 0])


# --- sampled metrics ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(cases())
def test_with_all_negatives_sampled_metrics_are_the_whole_ones(case):
    scores, relevant, exclude, k = case
    left = scores.shape[1] - (relevant + exclude).sum(axis=1)
    if left.min() < 1 or left.min() != left.max():
        relevant = relevant[[left.argmax()]]
        exclude, scores = exclude[[left.argmax()]], scores[[left.argmax()]]
    if left.max() < 1:
        return
    how = {"k": k, "exclude": exclude, "ties": "mean"}
    whole = catalogue.per_user(scores, relevant, **how)
    drawn = catalogue.sampled(scores, relevant, n_negatives=int(left.max()), **how)
    pd.testing.assert_frame_equal(drawn, whole, check_exact=True)


def test_negatives_are_drawn_evenly_from_the_rest():
    n_users, n_items = 4000, 12
    taken = np.zeros((n_users, n_items), dtype=bool)
    taken[:, [0, 5, 6, 11]] = True
    taken = csr_array(taken)
    drawn = np.array([catalogue._negatives(taken, user, 3, 0) for user in range(n_users)])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    counts = np.bincount(drawn.ravel(), minlength=n_items)
    assert counts[[0, 5, 6, 11]].sum() == 0
    expected = n_users * 3 / 8
    free = np.delete(counts, [0, 5, 6, 11])
    assert np.abs(free - expected).max() < 5 * np.sqrt(expected)


def test_another_seed_draws_other_negatives():
    scores, relevant, _ = make_case(n_items=200, decimals=15)
    first, again, other = (
        catalogue.sampled(scores, relevant, n_negatives=20, k=3, seed=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


# Krichene and Rendle (KDD 2020) rank one relevant item of 10,000 for each of five instances.
N_ITEMS = 10_000
RANKS = {
    "A": [100, 100, 100, 100, 100],
    "B": [40, 40, 8437, 9266, 4482],
    "C": [212, 2, 743, 5342, 1548],
}
EXACT_NDCG = {"A": 0.150, "B": 0.122, "C": 0.208}
SAMPLED_NDCG = {"A": 0.728, "B": 0.447, "C": 0.460}


def scores_and_relevant(ranks):
    """Item r - 1 stands on place r; the relevant one of each user is on the rank given."""
    items = np.asarray(ranks) - 1
    relevant = csr_array(
        (np.ones(len(items), dtype=bool), items, np.arange(len(items) + 1)),
        shape=(len(items), N_ITEMS),
    )
    row = -np.arange(N_ITEMS, dtype=np.float32)
    return lambda start, stop: np.broadcast_to(row, (stop - start, N_ITEMS)), relevant


def ndcg_in_expectation(ranks, n_negatives=99):
    """The number of sampled items above the relevant one is hypergeometric."""
    above = np.arange(n_negatives + 1)
    chances = [hypergeom(N_ITEMS - 1, rank - 1, n_negatives).pmf(above) for rank in ranks]
    return np.mean(chances @ (1 / np.log2(above + 2)))


@pytest.mark.parametrize("model", "ABC")
def test_sampled_metrics_of_the_toy_table(model):
    score, relevant = scores_and_relevant(RANKS[model])
    exact = catalogue.per_user(score, relevant, k=N_ITEMS)[f"ndcg_at_{N_ITEMS}"].mean()
    assert exact == pytest.approx(EXACT_NDCG[model], abs=5e-4)
    expected = ndcg_in_expectation(RANKS[model])
    assert expected == pytest.approx(SAMPLED_NDCG[model], abs=5e-4)
    score, relevant = scores_and_relevant(RANKS[model] * 80)
    drawn = catalogue.sampled(score, relevant, n_negatives=99, k=100)["ndcg_at_100"]
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / np.sqrt(len(drawn)))


def test_sampling_puts_the_best_model_of_the_toy_table_behind():
    # Only C lists a relevant item among the first 10; the 1 + 99 test finds every one of A.
    exact, drawn = {}, {}
    for model, ranks in RANKS.items():
        score, relevant = scores_and_relevant(ranks * 40)
        exact[model] = catalogue.per_user(score, relevant, k=10)["recall_at_10"].mean()
        drawn[model] = catalogue.sampled(score, relevant, k=10)["recall_at_10"].mean()
    assert exact == {"A": 0, "B": 0, "C": pytest.approx(0.2)}
    assert drawn == pytest.approx({"A": 1, "B": 0.4, "C": 0.57}, abs=0.03)


# --- means over users, exposure -------------------------------------------------------------


def test_summary_by_hand_leaves_out_users_without_a_relevant_item():
    frame = pd.DataFrame({"recall_at_2": [1.0, np.nan, 0.0, 0.5], "n_relevant": [1, 0, 2, 2]})
    table = catalogue.summary(frame, groups=["a", "a", "b", "b"], n_replicates=400)
    assert table.index.tolist() == ["recall_at_2"]
    value, low, high = table.loc["recall_at_2"]
    assert value == 0.5
    assert (low, high) == (0.25, 1.0)  # only households b, only households a


def test_summary_of_several_models_stacks_their_tables():
    scores, relevant, _ = make_case()
    frames = {
        name: catalogue.per_user(s, relevant) for name, s in {"m": scores, "w": -scores}.items()
    }
    table = catalogue.summary(frames, n_replicates=20)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(table.loc[name], catalogue.summary(frame, n_replicates=20))


def test_a_model_does_not_differ_from_itself():
    scores, relevant, _ = make_case()
    frame = catalogue.per_user(scores, relevant)
    assert (catalogue.differences(frame, frame, n_replicates=20) == 0).all(axis=None)


def test_exposure_and_coverage_by_hand():
    top = np.array([[0, 2], [2, -1], [2, 0]])
    assert catalogue.exposure(top, 4).tolist() == [2, 0, 3, 0]
    assert catalogue.coverage(top, 4) == 0.5
    assert gini(catalogue.exposure(np.array([[0], [0]]), 4)) == pytest.approx(3 / 4)


def test_docstring_examples():
    found = doctest.testmod(catalogue)
    assert found.attempted > 0
    assert found.failed == 0


# --- bad input ------------------------------------------------------------------------------

SCORES, RELEVANT, EXCLUDE = make_case(n_users=4, n_items=5, rate=0.4)
FRAME = catalogue.per_user(SCORES, RELEVANT, k=2)


def spoilt(value):
    scores = SCORES.copy()
    scores[2, 3] = value
    return scores


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: catalogue.per_user(spoilt(np.nan), RELEVANT, k=2), "user 2 for item 3 is nan"),
        (lambda: catalogue.per_user(spoilt(-np.inf), RELEVANT, k=2, block=1), "user 2 for item 3"),
        (lambda: catalogue.top_k(spoilt(np.inf), 4, 2), "must be finite"),
        (lambda: catalogue.per_user(SCORES[:3], RELEVANT, k=2), "one row for each of the 4 users"),
        (lambda: catalogue.per_user(SCORES[:, :4], RELEVANT, k=2), r"shape \(4, 4\)"),
        (lambda: catalogue.per_user(SCORES[0], RELEVANT, k=2), r"shape \(5,\)"),
        (lambda: catalogue.per_user(lambda a, b: SCORES, RELEVANT, k=2, block=2), r"users 0 to 1"),
        (lambda: catalogue.top_k(lambda a, b: SCORES[0], 4, 2), r"shape \(5,\)"),
        (lambda: catalogue.per_user(SCORES.astype(str), RELEVANT, k=2), "must hold numbers"),
        (lambda: catalogue.per_user(SCORES, RELEVANT.toarray(), k=2), "CSR array of bool"),
        (lambda: catalogue.per_user(SCORES, csc_array(RELEVANT), k=2), "it is a csc array"),
        (lambda: catalogue.per_user(SCORES, RELEVANT.astype(int), k=2), "array of int64"),
        (lambda: catalogue.per_user(SCORES, csr_array((0, 5), dtype=bool), k=2), "at least one"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=0), "k must be a whole number"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=6), "at most the number of items, 5"),
        (lambda: catalogue.top_k(SCORES, 4, 10**12), "at most the number of items, 5"),
        (lambda: catalogue.top_k(SCORES, 4, 2.5), "k must be a whole number"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, block=0), "block must be"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, n_threads=0), "n_threads must be"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, ties="random"), "'index' or 'mean'"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, exclude=RELEVANT), "are excluded, the"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, exclude=EXCLUDE[:2]), "exclude has"),
        (lambda: catalogue.per_user(SCORES, RELEVANT, k=2, tiers=["a"] * 4), "each of the 5 items"),
        (
            lambda: catalogue.per_user(SCORES, RELEVANT, k=2, tiers=["a", "b", None, "a", "b"]),
            "tiers has 1 rows without an id",
        ),
        (lambda: catalogue.sampled(SCORES, RELEVANT, k=2), "n_negatives is 99, and user"),
        (lambda: catalogue.sampled(SCORES, RELEVANT, k=2, n_negatives=0), "n_negatives must be"),
        (lambda: catalogue.summary(FRAME, groups=[1, 2]), "each of the 4 rows"),
        (lambda: catalogue.summary(FRAME, groups=[1] * 4), "of one group"),
        (lambda: catalogue.summary(FRAME[["n_relevant"]]), "holds no metric"),
        (lambda: catalogue.summary({}), "no frame"),
        (lambda: catalogue.summary(FRAME, confidence=1), "confidence must lie"),
        (lambda: catalogue.differences(FRAME, FRAME[:3]), "other columns or rows"),
        (
            lambda: catalogue.differences(FRAME, FRAME.assign(n_relevant=9)),
            "other relevant items",
        ),
        (lambda: catalogue.exposure(np.array([[5]]), 5), "from 5 to 5"),
        (lambda: catalogue.coverage(np.array([0, 1]), 5), "row for each user"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, message):
    with pytest.raises(RecbalError, match=message):
        call()


def test_the_advice_about_excluded_relevant_items_works():
    exclude = csr_array(np.array([[1, 0, 0, 0, 0]] * 4, dtype=bool))
    relevant = csr_array(np.array([[1, 1, 0, 0, 0]] * 4, dtype=bool))
    frame = catalogue.per_user(SCORES, relevant > exclude, k=2, exclude=exclude)
    assert frame["n_relevant"].tolist() == [1] * 4


def test_no_relevant_item_at_all_is_nan_not_zero():
    nobody = csr_array((4, 5), dtype=bool)
    frame = catalogue.per_user(SCORES, nobody, k=2)
    assert frame[["recall_at_2", "ndcg_at_2"]].isna().all(axis=None)
    assert catalogue.summary(frame, n_replicates=20).isna().all(axis=None)
