"""Product search: shelves to find, queries with judged relevance, scores, and graded metrics.

A *shelf* is all products of one product type and one brand class (store brand or national) in
the type's main category. Relevance is judged by product type, from 0 to 3, from the list of types
and the meaning of a query, not from what a retriever finds.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ibis import _

from recbal_utils import _inputs, datasets, encoder
from recbal_utils.errors import RecbalError
from recbal_utils.periods import CHOOSE_WEEKS

DATA = Path(__file__).with_name("data")
QUERY_FILE, GRADE_FILE = "search_queries.csv", "search_grades.csv"
KINDS = ("item", "need", "dish", "diet", "occasion", "brand", "misspelling")
BRANDS = ("National", "Private")
RELEVANT, HIGHEST = 2, 3
FEATURES = ("words", "letters", "meaning", "popularity", "store brand")


@dataclass(frozen=True)
class Judged:
    """Queries and what was judged relevant.

    Attributes
    ----------
    queries : pandas.DataFrame
        `query`, `kind` (one of `KINDS`), `brand` ("National", "Private", or "" for no wish).
    grades : pandas.DataFrame
        `query`, `product_type`, `grade` (1, 2 or 3). A type that is not listed has grade 0.
    """

    queries: pd.DataFrame
    grades: pd.DataFrame


def judged(folder: str | Path = DATA) -> Judged:
    """Read the judged queries and check them.

    Parameters
    ----------
    folder : path, optional
        Holds `search_queries.csv` and `search_grades.csv`; those of the package by default.

    Raises
    ------
    RecbalError
        If a file or a column is missing, a query stands twice or has no type of grade 2 or 3, or a
        kind, a brand or a grade is not one of those allowed.
    """
    queries = _table(Path(folder) / QUERY_FILE, ("query", "kind", "brand"))
    grades = _table(Path(folder) / GRADE_FILE, ("query", "product_type", "grade"))
    _refuse(queries["query"].duplicated(), queries["query"], "stands twice")
    _refuse(~queries["kind"].isin(KINDS), queries["query"], f"needs a kind of {', '.join(KINDS)}")
    _refuse(~queries["brand"].isin(("", *BRANDS)), queries["query"], "has an unknown brand class")
    _refuse(~grades["query"].isin(queries["query"]), grades["query"], "is no query of the list")
    twice = grades.duplicated(["query", "product_type"])
    _refuse(twice, grades["query"], "has a product type twice")
    allowed = grades["grade"].isin([str(grade) for grade in range(1, HIGHEST + 1)])
    _refuse(~allowed, grades["query"], f"has a grade that is not 1 to {HIGHEST}")
    grades = grades.assign(grade=grades["grade"].astype(np.int8))
    best = queries["query"].map(grades.groupby("query")["grade"].max()).fillna(0)
    _refuse(best < RELEVANT, queries["query"], f"has no product type of grade {RELEVANT} or above")
    return Judged(queries, grades)


def shelves() -> pd.DataFrame:
    """Return every shelf of the catalogue, with its real purchases before the test weeks.

    Returns
    -------
    pandas.DataFrame
        `department`, `product_category`, `product_type`, `brand`; `products` on the shelf and
        how often they were `bought` in weeks 1 to 40; `text`, the four words in lower case.
        Sorted by category, type and brand.

    Raises
    ------
    RecbalError
        If the data package is missing.

    Notes
    -----
    A type filed in several categories counts in the one with most of its products.
    """
    bought = datasets.purchases().filter(_.week < CHOOSE_WEEKS[0])
    bought = bought.group_by("product_id").agg(bought=_.count()).execute()
    products = datasets.journey("products").execute()
    products = products[products.product_type.notna() & products.product_category.notna()]
    products = _at_home(products.merge(bought, on="product_id", how="left"))
    names = ["department", "product_category", "product_type", "brand"]
    found = products.groupby(names[1:], as_index=False).agg(
        department=("department", _commonest), products=("brand", "size"), bought=("bought", "sum")
    )
    found["bought"] = found["bought"].astype(np.int64)
    found["text"] = [", ".join(row).lower() for row in found[names].itertuples(index=False)]
    return found[[*names, "products", "bought", "text"]]


def grade_matrix(judgements: Judged, table: pd.DataFrame) -> np.ndarray:
    """Return the grade of every shelf for every query.

    A query that asks for a brand class takes one grade off the shelves of the other.

    Parameters
    ----------
    judgements : Judged
    table : pandas.DataFrame
        As from `shelves`; needs `product_type` and `brand`.

    Returns
    -------
    ndarray of int8, shape (n_queries, n_shelves), 0 to 3

    Raises
    ------
    RecbalError
        If a judged type has no shelf.
    """
    known = judgements.grades["product_type"].isin(table["product_type"])
    _refuse(~known, judgements.grades["product_type"], "is judged and has no shelf")
    types = pd.Index(table["product_type"].unique())
    row = pd.Index(judgements.queries["query"]).get_indexer(judgements.grades["query"])
    column = types.get_indexer(judgements.grades["product_type"])
    by_type = np.zeros((len(judgements.queries), len(types)), dtype=np.int8)
    by_type[row, column] = judgements.grades["grade"]
    grades = by_type[:, types.get_indexer(table["product_type"])]
    wish = judgements.queries["brand"].to_numpy(dtype=object)[:, None]
    other = (wish != "") & (wish != table["brand"].to_numpy(dtype=object))
    return np.maximum(grades - other, 0).astype(np.int8)


# --- scores ---------------------------------------------------------------------------------


def bm25(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Return BM25 scores: words in common, the rarer the more they count.

    Parameters
    ----------
    texts, queries : sequence of str
        Plural endings and English stop words are dropped from both.

    Returns
    -------
    ndarray of float32, shape (n_queries, n_texts)
        0 where no word is shared.

    Notes
    -----
    Robertson and Zaragoza (2009), in the variant of Lucene, by the package `bm25s`.
    """
    bm25s = _bm25s()

    def tokens(of):
        return bm25s.tokenize(
            list(of), stopwords="en", stemmer=_singular, return_ids=False, show_progress=False
        )

    index = bm25s.BM25()
    index.index(tokens(texts), show_progress=False)
    nothing = np.zeros(len(texts), dtype=np.float32)
    return np.array([index.get_scores(words) if words else nothing for words in tokens(queries)])


def letters(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Return the cosine of TF-IDF vectors of three-letter pieces, which forgives misspellings.

    Returns
    -------
    ndarray of float32, shape (n_queries, n_texts), in [0, 1]
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True)
    known = pieces.fit_transform(texts)
    return (pieces.transform(queries) @ known.T).toarray().astype(np.float32)


def meaning(texts: Sequence[str], queries: Sequence[str], *, progress: bool = True) -> np.ndarray:
    """Return cosines of a pretrained language model's vectors.

    The vectors of texts come from the cache where they were encoded before; queries are encoded
    on the spot, as a shop must.

    Returns
    -------
    ndarray of float32, shape (n_queries, n_texts), in [-1, 1]

    Raises
    ------
    RecbalError
        As for `encoder.embeddings`.
    """
    return encoder.encode(list(queries)) @ encoder.embeddings(texts, progress=progress).T


def features(scores: Mapping[str, np.ndarray], table: pd.DataFrame) -> np.ndarray:
    """Return what a ranker reads of each query and shelf, one standard deviation as the unit.

    Parameters
    ----------
    scores : mapping
        "words" (BM25; its logarithm is taken), "letters" and "meaning", each of shape
        (n_queries, n_shelves).
    table : pandas.DataFrame
        As from `shelves`; needs `bought` and `brand`.

    Returns
    -------
    ndarray of float32, shape (n_queries, n_shelves, 5), the last axis as in `FEATURES`

    Raises
    ------
    RecbalError
        If a score is missing.
    """
    missing = [name for name in FEATURES[:3] if name not in scores]
    if missing:
        raise RecbalError(f"scores lack {', '.join(missing)}: give words, letters and meaning.")
    columns = {name: np.asarray(scores[name]) for name in FEATURES[:3]}
    columns["words"] = np.log1p(columns["words"])
    columns["popularity"] = np.log1p(table["bought"].to_numpy())[None, :]
    columns["store brand"] = (table["brand"] == BRANDS[1]).to_numpy(float)[None, :]
    shape = columns["words"].shape
    parts = [np.broadcast_to(_standard(columns[name]), shape) for name in FEATURES]
    return np.stack(parts, axis=2).astype(np.float32)


# --- ranking --------------------------------------------------------------------------------


def page(scores: np.ndarray, k: int, tie_break: np.ndarray | None = None) -> np.ndarray:
    """Return the k best columns of each row, best first.

    Parameters
    ----------
    scores : ndarray of shape (n_queries, n_items)
    k : int
    tie_break : ndarray of shape (n_items,), optional
        Decides between equal scores, higher first; then the lower index comes first.

    Returns
    -------
    ndarray of int, shape (n_queries, k)

    Raises
    ------
    RecbalError
        If k is out of range.
    """
    scores = np.asarray(scores)
    k = _inputs.count(k, "k", 1)
    if k > scores.shape[1]:
        raise RecbalError(f"k is {k}, and there are {scores.shape[1]} items to rank.")
    second = np.zeros(scores.shape[1]) if tie_break is None else np.asarray(tie_break)
    by_second = np.argsort(-second, kind="stable")
    order = np.argsort(-scores[:, by_second], axis=1, kind="stable")[:, :k]
    return by_second[order]


def candidates(scores: Sequence[np.ndarray], k: int, tie_break: np.ndarray | None = None):
    """Return the union of the k best of several scores, a list of sorted arrays by query."""
    tops = np.concatenate([page(each, k, tie_break) for each in scores], axis=1)
    return [np.unique(row) for row in tops]


def ndcg_at_k(pages: np.ndarray, grades: np.ndarray, k: int = 10) -> np.ndarray:
    """Return the graded NDCG@k of each query.

    An item of grade g at place r gains ``(2**g - 1) / log2(r + 1)``; the sum is divided by that of
    the best possible page.

    Parameters
    ----------
    pages : ndarray of int, shape (n_queries, at least k)
        As from `page`.
    grades : ndarray of shape (n_queries, n_items)
        At least one above 0 in every row.
    k : int, default 10

    Returns
    -------
    ndarray of float, shape (n_queries,), in [0, 1]

    Raises
    ------
    RecbalError
        If shapes do not fit, or a query has nothing relevant.
    """
    pages, grades = _checked_pages(pages, grades, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gain = 2.0 ** np.take_along_axis(grades, pages, axis=1) - 1
    best = 2.0 ** -np.sort(-grades.astype(float), axis=1)[:, :k] - 1
    ideal = best @ discount[: best.shape[1]]
    if not (ideal > 0).all():
        raise RecbalError(f"Query {int(np.argmin(ideal))} has nothing relevant: leave it out.")
    return gain @ discount / ideal


def recall_at_k(
    pages: np.ndarray, grades: np.ndarray, k: int = 100, least: int = RELEVANT
) -> np.ndarray:
    """Return the share of each query's items of grade `least` or above among its first k.

    Raises
    ------
    RecbalError
        If shapes do not fit, or a query has no such item.
    """
    pages, grades = _checked_pages(pages, grades, k)
    relevant = grades >= least
    total = relevant.sum(axis=1)
    if not total.all():
        raise RecbalError(f"Query {int(np.argmin(total))} has no item of grade {least}.")
    return np.take_along_axis(relevant, pages, axis=1).sum(axis=1) / total


# --- helpers --------------------------------------------------------------------------------


def _table(path, columns):
    if not path.is_file():
        raise RecbalError(f"There is no file {path}: reinstall the package, or give its folder.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in columns if name not in table]
    if missing:
        raise RecbalError(f"{path.name} lacks the column {', '.join(missing)}.")
    return table[list(columns)]


def _refuse(wrong, names, what):
    wrong = np.asarray(wrong)
    if wrong.any():
        first = names.iloc[int(np.argmax(wrong))]
        raise RecbalError(f"{first!r} {what} ({int(wrong.sum())} such rows).")


def _at_home(products):
    """Only the rows in the category that holds most products of their type."""
    pair = ["product_type", "product_category"]
    sizes = products.groupby(pair, as_index=False).size()
    sizes = sizes.sort_values(["size", "product_category"], ascending=[False, True])
    return products.merge(sizes.drop_duplicates("product_type")[pair], on=pair)


def _commonest(values):
    return values.mode().iloc[0]


def _bm25s():
    """The package; its progress bars, unused here, ask a notebook for widgets when imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            import bm25s
        except ImportError:
            raise RecbalError("BM25 needs bm25s: run `pip install -r requirements.txt`.") from None
    return bm25s


def _singular(words):
    """Words without a plural s: enough to make `eggs` and `egg` one word."""
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words]


def _standard(column):
    spread = column.std()
    return (column - column.mean()) / (spread if spread > 0 else 1.0)


def _checked_pages(pages, grades, k):
    k = _inputs.count(k, "k", 1)
    pages, grades = np.asarray(pages), np.asarray(grades)
    if pages.ndim != 2 or grades.ndim != 2 or len(pages) != len(grades) or pages.shape[1] < k:
        raise RecbalError(
            f"pages has shape {pages.shape} and grades {grades.shape}: give a row for each query "
            f"and at least {k} places."
        )
    return pages[:, :k], grades
