"""Cold start: nothing of what is held out is seen, and histories end before their questions."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recbal_utils import cold_start, datasets, studies
from recbal_utils.errors import RecbalError
from recbal_utils.periods import CHOOSE_WEEKS, TEST_WEEKS


@pytest.fixture(scope="module")
def shop():
    try:
        return cold_start.load()
    except RecbalError as error:
        pytest.skip(str(error))


def test_new_products_were_not_sold_before(shop):
    first = shop.firsts.groupby("product").week.min()
    roles = shop.products.role
    for role, weeks in {
        cold_start.NEW_TO_CHOOSE: CHOOSE_WEEKS,
        cold_start.NEW_TO_TEST: TEST_WEEKS,
    }.items():
        rows = np.flatnonzero(roles == role)
        assert len(rows) > 1000
        assert first[rows].isin(weeks).all()


def test_known_products_have_ten_buyers(shop):
    early = shop.firsts[shop.firsts.week <= 40]
    buyers = early.groupby("product").household.nunique()
    known = np.flatnonzero(shop.products.role == cold_start.KNOWN)
    assert buyers[known].min() >= 10


def test_weeks_after_48_stay_closed(shop):
    assert shop.lines.week.max() <= 48
    assert shop.firsts.week.max() <= 48


def test_training_sees_nothing_held_out(shop):
    pairs = cold_start.training_pairs(shop)
    assert len(pairs) > 100_000
    assert not shop.products.held_out.to_numpy()[pairs["product"]].any()
    assert not shop.households.held_out.to_numpy()[pairs.household].any()
    assert (shop.products.role.to_numpy()[pairs["product"]] == cold_start.KNOWN).all()
    assert shop.trainable[shop.lines["product"]].all()


def test_a_pair_follows_its_snapshot(shop):
    pairs = cold_start.training_pairs(shop).merge(shop.firsts, on=["household", "product"])
    last = np.array(cold_start.SNAPSHOTS)[pairs.snapshot]
    assert ((pairs.week > last) & (pairs.week <= last + 4)).all()


def test_held_out_categories_are_whole(shop):
    assert shop.products.groupby("product_category").held_out.nunique().max() == 1
    assert 0.1 < shop.households.held_out.mean() < 0.3


def test_history_by_hand():
    products = pd.DataFrame(
        {"product_type": ["a", "b", "b", "c"], "role": cold_start.KNOWN, "held_out": False}
    )
    households = pd.DataFrame({"household_id": [7, 8], "held_out": False})
    lines = pd.DataFrame(
        {"household": [0, 0, 0, 0, 1], "product": [0, 1, 2, 3, 0], "week": [1, 1, 2, 9, 9]}
    )
    shop = cold_start.Shop(products, households, lines, lines)
    ids, weights = cold_start.histories(shop, 2, length=3)
    assert ids.tolist() == [[3, 2, 0], [0, 0, 0]]
    expected = np.log1p([2, 1]) / np.linalg.norm(np.log1p([2, 1]))
    np.testing.assert_allclose(weights, [[*expected, 0], [0, 0, 0]], atol=1e-6)


def test_codes_of_unknown_names_are_1():
    columns = pd.DataFrame({"x": ["b", "a", "b", "new"]})
    known = np.array([True, True, True, False])
    assert cold_start.codes(columns, known).tolist() == [3, 2, 3, 1]


def test_texts_leave_out_what_is_missing():
    described = pd.DataFrame([["GROCERY", "TEA", None, "National", "20 CT"], [None] * 5])
    described.columns = cold_start.DESCRIPTION
    assert cold_start.texts(described).tolist() == ["grocery, tea, national, 20 ct", "unknown"]


@pytest.mark.parametrize("name", cold_start.QUESTIONS)
def test_questions(shop, name):
    asked = cold_start.question(shop, name)
    assert asked.relevant.nnz > 500
    assert asked.relevant.multiply(asked.exclude).nnz == 0
    held = shop.products.held_out.to_numpy()[asked.products]
    assert held.all() if name == "new category" else not held.any()
    new = shop.products.role.to_numpy()[asked.products] == cold_start.NEW_TO_TEST
    assert new.all() if name in ("new product", "who buys") else not new.any()
    if name.endswith("household"):
        assert (
            shop.households.held_out.to_numpy()[asked.households] == (name == "new household")
        ).all()


def test_relevant_are_the_purchases_of_the_weeks(shop):
    asked = cold_start.question(shop, "new product", CHOOSE_WEEKS)
    household = shop.households.household_id.to_numpy()[asked.households[0]]
    ids = shop.products.product_id.to_numpy()[asked.products[asked.relevant[[0]].indices]]
    log = datasets.purchases()
    mine = log.filter((log.household_id == int(household)) & log.week.isin(CHOOSE_WEEKS))
    assert set(ids) <= set(mine.select("product_id").execute().product_id)
    assert asked.exclude.nnz == 0


def test_errors(shop):
    with pytest.raises(RecbalError, match="choose one of new product"):
        cold_start.question(shop, "no question")
    with pytest.raises(RecbalError, match="give CHOOSE_WEEKS or TEST_WEEKS"):
        cold_start.question(shop, "who buys", (49, 50, 51, 52))
    with pytest.raises(RecbalError, match="held_out must lie in"):
        cold_start.load(held_out=1)


# --- the study's baselines --------------------------------------------------------------------


@pytest.fixture
def toy():
    """Two households; products 0 and 1 known, 2 new of a known type, 3 new of a known category."""
    study = studies.script("12_large_model")
    products = pd.DataFrame(
        {
            "product_id": [10, 11, 12, 13],
            "department": "food",
            "product_category": ["tea", "oil", "tea", "oil"],
            "product_type": ["green", "olive", "green", "nut"],
            "role": [cold_start.KNOWN] * 2 + [cold_start.NEW_TO_TEST] * 2,
            "held_out": False,
        }
    )
    households = pd.DataFrame({"household_id": [1, 2], "held_out": False})
    lines = pd.DataFrame(
        {"household": [0, 0, 1, 1], "product": [0, 0, 1, 2], "week": [3, 4, 5, 46]}
    )
    firsts = lines.groupby(["household", "product"], as_index=False).week.min()
    lab = study.Lab.__new__(study.Lab)
    lab.shop = cold_start.Shop(products, households, firsts, lines[:3])
    return study, lab


def asked_of(households, products, by_product=False):
    shape = len(households), len(products)
    empty = sparse.csr_array(shape, dtype=bool)
    return cold_start.Question(np.array(households), np.array(products), empty, empty, by_product)


def test_counting_by_hand(toy):
    study, lab = toy
    found = study.baseline_scores(lab, "counting", asked_of([0, 1], [2, 3]))
    own = [[2 + 0.2 + 0.02, 0.02], [0.01, 0.1 + 0.01]]
    assert np.all(found >= own)
    np.testing.assert_allclose(found, own, atol=1.1e-3)


def test_popularity_falls_back_from_product_to_category(toy):
    study, lab = toy
    found = study.baseline_scores(lab, "popularity", asked_of([0], [0, 1, 2, 3]))
    known, category, department = 1.0, 1e-3, 2e-6
    expected = [known + category + department] * 2 + [category + department] * 2
    np.testing.assert_allclose(found, [expected])


def test_activity_is_the_popularity_of_households(toy):
    study, lab = toy
    found = study.baseline_scores(lab, "popularity", asked_of([0, 1], [2, 3], by_product=True))
    np.testing.assert_allclose(found, np.log1p([[2, 1], [2, 1]]))
