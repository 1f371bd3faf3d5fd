"""What the book relies on in every sampler it uses, imbalanced-learn's and its own."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import ADASYN, SMOTE, SMOTENC, BorderlineSMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import (
    EditedNearestNeighbours,
    NearMiss,
    RandomUnderSampler,
    TomekLinks,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from recbal_utils import studies
from recbal_utils.balance import NegativeDownsampler

OVER = [RandomOverSampler, SMOTE, BorderlineSMOTE, ADASYN]
UNDER = [RandomUnderSampler, TomekLinks, EditedNearestNeighbours, NearMiss, NegativeDownsampler]
INTERPOLATING = [SMOTE, BorderlineSMOTE, ADASYN]
EXACT = [RandomOverSampler, SMOTE, BorderlineSMOTE, RandomUnderSampler, NearMiss]


def make(sampler, seed=0):
    takes_seed = "random_state" in sampler().get_params()
    return sampler(random_state=seed) if takes_seed else sampler()


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    n, n_positive = 400, 40
    y = pd.Series(np.r_[np.zeros(n), np.ones(n_positive)].astype(int), name="bought")
    X = pd.DataFrame(rng.normal(size=(len(y), 3)), columns=["trips", "price", "weeks"])
    X.loc[y == 1, "trips"] += 1
    X = X.astype({"price": np.float32})
    X.index = y.index = pd.RangeIndex(1000, 1000 + len(y))
    return X, y


def as_set(X):
    return {tuple(row) for row in np.asarray(X)}


@pytest.mark.parametrize("sampler", [*OVER, *UNDER])
def test_the_training_rows_given_are_left_alone(sampler, rows):
    X, y = (part.copy() for part in rows)
    make(sampler).fit_resample(X, y)
    pd.testing.assert_frame_equal(X, rows[0])
    pd.testing.assert_series_equal(y, rows[1])


@pytest.mark.parametrize("sampler", [*OVER, *UNDER])
def test_a_pipeline_resamples_what_it_fits_and_never_what_it_predicts(sampler, rows):
    X, y = rows
    pipeline = make_pipeline(make(sampler), LogisticRegression()).fit(X, y)
    test = X.iloc[::3]
    by_hand = LogisticRegression().fit(*make(sampler).fit_resample(X, y))
    found = pipeline.predict_proba(test)
    assert len(found) == len(test)
    np.testing.assert_allclose(found, by_hand.predict_proba(test))


@pytest.mark.parametrize("sampler", EXACT)
def test_counts_are_as_asked(sampler, rows):
    X, y = rows
    wanted = {"sampling_strategy": 0.5} | (
        {"random_state": 0} if "random_state" in sampler().get_params() else {}
    )
    counts = sampler(**wanted).fit_resample(X, y)[1].value_counts()
    assert counts[1] == 0.5 * counts[0]
    kept = counts[0] if sampler in OVER else counts[1]
    assert kept == (y == (0 if sampler in OVER else 1)).sum()


@pytest.mark.parametrize("sampler", [*OVER, *UNDER])
def test_one_seed_one_result(sampler, rows):
    first, again = (make(sampler, seed=3).fit_resample(*rows)[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    if "random_state" in sampler().get_params():
        other = make(sampler, seed=4).fit_resample(*rows)[0]
        assert not other.equals(first)


@pytest.mark.parametrize("sampler", [*OVER, *UNDER])
def test_columns_and_types_are_kept(sampler, rows):
    X, y = make(sampler).fit_resample(*rows)
    assert list(X.columns) == list(rows[0].columns)
    assert y.name == "bought"
    assert y.dtype == rows[1].dtype
    pd.testing.assert_series_equal(X.dtypes, rows[0].dtypes)


@pytest.mark.parametrize("sampler", UNDER)
def test_under_samplers_invent_no_row_and_say_which_they_kept(sampler, rows):
    X, y = rows
    fitted = make(sampler)
    kept, labels = fitted.fit_resample(X, y)
    assert as_set(kept) <= as_set(X)
    assert len(as_set(kept)) == len(kept)
    np.testing.assert_array_equal(kept, X.iloc[fitted.sample_indices_])
    np.testing.assert_array_equal(labels, y.iloc[fitted.sample_indices_])
    assert (labels == 1).sum() == (y == 1).sum()


def test_random_over_sampling_only_copies(rows):
    X, y = rows
    more, labels = RandomOverSampler(random_state=0).fit_resample(X, y)
    assert as_set(more) == as_set(X)
    assert as_set(more[labels == 1]) == as_set(X[y == 1])


@pytest.mark.parametrize("sampler", INTERPOLATING)
def test_every_synthetic_row_lies_between_a_positive_and_a_near_positive(sampler, rows):
    X, y = rows
    more, labels = make(sampler).fit_resample(X, y)
    made, positives = more.to_numpy()[len(X) :], X[y == 1].to_numpy()
    assert (labels[len(X) :] == 1).all()
    near = NearestNeighbors(n_neighbors=6).fit(positives)
    pairs = near.kneighbors(return_distance=False)[:, :5]
    a, b = np.repeat(np.arange(len(pairs)), 5), pairs.ravel()
    step = positives[b] - positives[a]
    for row in made:
        u = np.einsum("ij,ij->i", row - positives[a], step) / (step**2).sum(1)
        off = np.abs(positives[a] + u[:, None] * step - row).max(1)
        on_line = (off < 1e-5) & (u > -1e-6) & (u < 1 + 1e-6)
        assert on_line.any()


def test_smote_by_hand():
    X = np.array([[0.0, 0.0], [2.0, 4.0], [10.0, 0.0], [11.0, 0.0], [12.0, 0.0], [13.0, 0.0]])
    more, _ = SMOTE(k_neighbors=1, random_state=0).fit_resample(X, [1, 1, 0, 0, 0, 0])
    made = more[len(X) :]
    assert made.shape == (2, 2)
    np.testing.assert_allclose(made[:, 1], 2 * made[:, 0])
    assert ((made[:, 0] >= 0) & (made[:, 0] <= 2)).all()


def test_smote_nc_takes_categories_of_neighbours(rows):
    X, y = rows
    rng = np.random.default_rng(1)
    place = pd.Categorical.from_codes(rng.integers(4, size=len(X)), list("ABCD"))
    place = pd.Series(place, index=X.index)
    place[y == 1] = rng.choice(["A", "B"], size=(y == 1).sum())
    sampler = SMOTENC(["place"], random_state=0)
    made = sampler.fit_resample(X.assign(place=place), y)[0].iloc[len(X) :]
    assert set(made["place"]) <= {"A", "B"}
    assert set(made["place"]) == {"A", "B"}


def test_smote_nc_takes_the_category_of_most_neighbours():
    # Of four positives one has another category: it never wins a vote of three.
    positives = np.array([[0.0, 0], [1.0, 0], [2.0, 0], [3.0, 1]])
    negatives = np.column_stack([np.linspace(20, 30, 40), np.tile([0, 1], 20)])
    X, y = np.vstack([positives, negatives]), np.repeat([1, 0], [4, 40])
    made = SMOTENC([1], k_neighbors=3, random_state=0).fit_resample(X, y)[0][len(X) :]
    assert len(made) == 36
    assert (made[:, 1] == 0).all()
    assert ((made[:, 0] >= 0) & (made[:, 0] <= 3)).all()


def test_tomek_removes_the_negative_of_a_pair():
    # The negative at 1.0 and the positive at 1.1 are each other's nearest; no other pair is.
    X = np.array([[0.0], [0.3], [0.5], [0.6], [1.0], [1.1], [1.3], [1.4]])
    kept = TomekLinks().fit_resample(X, [0, 0, 0, 0, 0, 1, 1, 1])[0].ravel()
    np.testing.assert_array_equal(kept, [0.0, 0.3, 0.5, 0.6, 1.1, 1.3, 1.4])


def crowd():
    """Positives alone among negatives, at their border, and among themselves; on a line."""
    negatives = np.r_[np.linspace(0, 1, 40), np.linspace(-40, -20, 30)]
    alone, border, safe = [0.5], np.linspace(1.02, 1.2, 8), np.linspace(10, 11, 12)
    kinds = np.repeat(["negative", "alone", "border", "safe"], [len(negatives), 1, 8, 12])
    return np.r_[negatives, alone, border, safe][:, None], (kinds != "negative") * 1, kinds


def test_borderline_starts_at_the_border_only():
    X, y, kinds = crowd()
    sampler = BorderlineSMOTE(random_state=0)
    sampler.fit_resample(X, y)
    assert set(kinds[sampler.in_danger_indices[1]]) == {"border"}


def test_adasyn_makes_rows_of_positives_among_negatives():
    X, y, _ = crowd()
    made = ADASYN(random_state=0).fit_resample(X, y)[0][len(X) :, 0]
    assert len(made) > 30
    assert made.max() < 2, "none near the positives that have only positives around them"
    smote = SMOTE(random_state=0).fit_resample(X, y)[0][len(X) :, 0]
    assert (smote > 2).mean() > 0.3


def test_adasyn_comes_out_nearly_equal(rows):
    # It rounds the number of rows of each positive, by at most one half.
    counts = ADASYN(random_state=0).fit_resample(*rows)[1].value_counts()
    assert abs(counts[0] - counts[1]) <= rows[1].sum() / 2


@pytest.mark.parametrize("sampler", [TomekLinks, EditedNearestNeighbours, NearMiss, *OVER[1:]])
def test_samplers_that_number_rows_anew(sampler, rows):
    # imbalanced-learn drops the index here; `sample_indices_` finds the rows that were kept.
    X, y = make(sampler).fit_resample(*rows)
    assert X.index.equals(pd.RangeIndex(len(X)))
    assert y.index.equals(X.index)


def test_random_under_sampling_keeps_the_index(rows):
    X, y = RandomUnderSampler(random_state=0).fit_resample(*rows)
    pd.testing.assert_frame_equal(X, rows[0].loc[X.index])
    pd.testing.assert_series_equal(y, rows[1].loc[y.index])


# --- as the study of chapter 5 uses them --------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    return studies.script("05_oversampling")


@pytest.fixture(scope="module")
def coded(study):
    """Rows in the study's columns: numbers, then a 0/1 column for each placement."""
    rng = np.random.default_rng(0)
    n, blocks = 600, [np.eye(size) for size in study.SIZES]
    places = [block[rng.integers(len(block), size=n)] for block in blocks]
    X = np.hstack([rng.normal(size=(n, len(study.NUMBERS))), *places]).astype(np.float32)
    return X, (np.arange(n) < 30) * 1


def test_folding_loses_nothing(study, coded):
    np.testing.assert_array_equal(study.unfolded(study.folded(coded[0])), coded[0])


def test_methods_of_the_study_share_their_negatives_and_equal_the_classes(study, coded):
    drawn = {}
    for name in study.samplers(0):
        X, y = study.capped(name, 3, cap=200).fit_resample(*coded)
        drawn[name] = as_set(X[y == 0])
        assert (y == 0).sum() == 200
        wanted, spare = 30 if name == "nothing" else 200, 15 if name == "ADASYN" else 0
        assert abs((y == 1).sum() - wanted) <= spare, name
    assert all(rows == drawn["nothing"] for rows in drawn.values())
    assert drawn["nothing"] <= as_set(coded[0])


def test_smote_nc_of_the_study_leaves_one_place_each(study, coded):
    X, _ = study.smote_nc(*coded, random_state=0)
    made, first = X[len(coded[0]) :, len(study.NUMBERS) :], study.SIZES[0]
    assert len(made) == 540
    for places in (made[:, :first], made[:, first:]):
        assert np.isin(places, (0, 1)).all()
        np.testing.assert_array_equal(places.sum(axis=1), 1)
