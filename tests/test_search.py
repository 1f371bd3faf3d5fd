"""Search: the judged file is sound, scores and metrics agree with independent ones."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from recbal_utils import search
from recbal_utils.errors import RecbalError


@pytest.fixture(scope="module")
def judged():
    return search.judged()


@pytest.fixture(scope="module")
def shelves():
    try:
        return search.shelves()
    except RecbalError as error:
        pytest.skip(str(error))


# ---- the judged file ----------------------------------------------------------------------


def test_there_are_enough_queries_of_every_kind(judged):
    kinds = judged.queries.kind.value_counts()
    assert len(judged.queries) >= 150
    assert set(kinds.index) == set(search.KINDS)
    assert kinds.min() >= 20


def test_every_judged_type_exists_and_every_query_is_answered(judged, shelves):
    assert judged.grades.product_type.isin(shelves.product_type).all()
    best = judged.grades.groupby("query").grade.max()
    assert best.min() >= search.RELEVANT
    assert (best == search.HIGHEST).mean() > 0.95
    assert set(judged.grades.grade) == {1, 2, 3}


def test_relevance_is_not_the_words_that_a_retriever_reads(judged):
    """Were a shared word enough, comparing words would win by construction."""
    best = judged.grades[judged.grades.grade == search.HIGHEST]
    shared = [
        bool(set(q.lower().split()) & set(t.lower().replace("/", " ").split()))
        for q, t in zip(best["query"], best.product_type, strict=True)
    ]
    assert np.mean(shared) < 0.5


@pytest.mark.parametrize(
    ("file", "row", "word"),
    [
        ("queries", {"query": "a", "kind": "item", "brand": ""}, "stands twice"),
        ("queries", {"query": "b", "kind": "sport", "brand": ""}, "'b' needs a kind"),
        ("queries", {"query": "b", "kind": "item", "brand": "Own"}, "brand class"),
        ("queries", {"query": "b", "kind": "item", "brand": ""}, "'b' has no product type"),
        ("grades", {"query": "z", "product_type": "X", "grade": "2"}, "'z' is no query"),
        ("grades", {"query": "a", "product_type": "X", "grade": "1"}, "product type twice"),
        ("grades", {"query": "a", "product_type": "Y", "grade": "4"}, "not 1 to 3"),
        ("grades", {"query": "a", "product_type": "Y", "grade": ""}, "not 1 to 3"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path, file, row, word):
    tables = {
        "queries": [{"query": "a", "kind": "item", "brand": ""}],
        "grades": [{"query": "a", "product_type": "X", "grade": "3"}],
    }
    tables[file].append(row)
    pd.DataFrame(tables["queries"]).to_csv(tmp_path / search.QUERY_FILE, index=False)
    pd.DataFrame(tables["grades"]).to_csv(tmp_path / search.GRADE_FILE, index=False)
    with pytest.raises(RecbalError, match=word):
        search.judged(tmp_path)


def test_a_missing_file_or_column_is_named(tmp_path):
    with pytest.raises(RecbalError, match=search.QUERY_FILE):
        search.judged(tmp_path)
    (tmp_path / search.QUERY_FILE).write_text("query,kind\na,item\n")
    with pytest.raises(RecbalError, match="lacks the column brand"):
        search.judged(tmp_path)


# ---- shelves ------------------------------------------------------------------------------


def test_shelves_hold_nearly_all_products_once(shelves):
    assert not shelves.duplicated(["product_type", "brand"]).any()
    assert shelves.groupby("product_type").product_category.nunique().max() == 1
    assert 85_000 < shelves["products"].sum() < 92_331
    assert set(shelves.brand) == set(search.BRANDS)
    milk = shelves[shelves.product_type == "FLUID MILK WHITE ONLY"].bought.sum()
    assert milk == shelves.groupby("product_type").bought.sum().max() > 20_000


def small():
    table = pd.DataFrame(
        {"product_type": ["A", "A", "B"], "brand": ["National", "Private"] * 1 + ["Private"]}
    )
    queries = pd.DataFrame({"query": ["p", "q"], "kind": "item", "brand": ["", "Private"]})
    grades = pd.DataFrame(
        {"query": ["p", "q", "q"], "product_type": ["B", "A", "B"], "grade": [2, 3, 1]}
    )
    return search.Judged(queries, grades), table


def test_a_wish_for_a_brand_takes_one_grade_off_the_other():
    assert search.grade_matrix(*small()).tolist() == [[0, 0, 2], [2, 3, 1]]


def test_a_judged_type_without_shelf_is_named():
    judged, table = small()
    with pytest.raises(RecbalError, match="'B' is judged and has no shelf"):
        search.grade_matrix(judged, table[:2])


# ---- scores -------------------------------------------------------------------------------

TEXTS = ["grocery, milk, fluid milk, national", "produce, broccoli, broccoli whole, national"]


def test_bm25_counts_shared_words_and_forgives_plurals_only():
    scores = search.bm25(
        [*TEXTS, "pastry, donuts, glazed"], ["broccoli", "brocolli", "donut", "the"]
    )
    assert scores.shape == (4, 3)
    assert scores[0].argmax() == 1
    assert scores[0, 0] == 0
    assert not scores[[1, 3]].any()
    assert scores[2].argmax() == 2


def test_bm25_is_lucenes_formula():
    texts = ["apple pie", "apple apple juice", "orange juice fresh cold"]
    (score,) = search.bm25(texts, ["apple"])
    n, lengths = 3, np.array([2, 3, 4])
    tf = np.array([1, 2, 0])
    idf = np.log(1 + (n - 2 + 0.5) / (2 + 0.5))
    right = idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * lengths / lengths.mean()))
    np.testing.assert_allclose(score, right, rtol=1e-5)


def test_letters_meet_a_misspelling():
    scores = search.letters(TEXTS, ["brocolli"])
    assert scores[0, 1] > 0.3 > scores[0, 0]


def test_features_are_standard_and_named():
    rng = np.random.default_rng(0)
    scores = {name: rng.random((4, 6)) for name in search.FEATURES[:3]}
    table = pd.DataFrame({"bought": range(6), "brand": ["National", "Private"] * 3})
    found = search.features(scores, table)
    assert found.shape == (4, 6, len(search.FEATURES))
    np.testing.assert_allclose(found.reshape(-1, 5).mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.reshape(-1, 5).std(axis=0), 1, atol=1e-5)
    assert (np.diff(found[0, :, 3]) > 0).all()
    with pytest.raises(RecbalError, match="lack letters"):
        search.features({"words": scores["words"], "meaning": scores["meaning"]}, table)


# ---- ranking ------------------------------------------------------------------------------


def test_pages_break_ties_by_the_second_score_then_by_place():
    scores = np.array([[1.0, 2.0, 1.0, 1.0]])
    assert search.page(scores, 4).tolist() == [[1, 0, 2, 3]]
    assert search.page(scores, 3, np.array([0, 0, 5, 1])).tolist() == [[1, 2, 3]]
    with pytest.raises(RecbalError, match="k is 5"):
        search.page(scores, 5)


def test_candidates_are_the_union_of_the_best():
    a, b = np.array([[3.0, 2, 1, 0]]), np.array([[0.0, 1, 2, 3]])
    assert [c.tolist() for c in search.candidates([a, b], 1)] == [[0, 3]]


def test_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    scores, grades = rng.random((20, 40)), rng.integers(0, 4, (20, 40))
    ours = search.ndcg_at_k(search.page(scores, 10), grades)
    right = [ndcg_score([2.0**g - 1], [s], k=10) for g, s in zip(grades, scores, strict=True)]
    np.testing.assert_allclose(ours, right)


def test_ndcg_and_recall_by_hand():
    grades = np.array([[3, 0, 2, 1]])
    pages = np.array([[1, 0]])
    gain = 7 / np.log2(3)
    np.testing.assert_allclose(search.ndcg_at_k(pages, grades, 2), gain / (7 + 3 / np.log2(3)))
    assert search.recall_at_k(pages, grades, 2).tolist() == [0.5]
    assert search.recall_at_k(pages, grades, 2, least=1).tolist() == [1 / 3]


def test_queries_without_an_answer_are_refused():
    pages = np.array([[0, 1], [0, 1]])
    with pytest.raises(RecbalError, match="Query 1 has nothing relevant"):
        search.ndcg_at_k(pages, np.array([[1, 0], [0, 0]]), 2)
    with pytest.raises(RecbalError, match="Query 0 has no item of grade 2"):
        search.recall_at_k(pages, np.array([[1, 0], [2, 0]]), 2)
    with pytest.raises(RecbalError, match="at least 3 places"):
        search.ndcg_at_k(pages, np.ones((2, 4)), 3)
