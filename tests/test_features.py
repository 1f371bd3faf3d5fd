"""Features know earlier weeks only, and equal what plain Python counts."""

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import features

CATEGORIES = {1: 10, 2: 10, 3: 20}


@st.composite
def histories(draw):
    """Purchases of 3 households, 4 products (one without a category), 8 weeks, 2 stores."""
    event = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 8), st.integers(1, 4))
    keys = draw(st.lists(event, min_size=1, max_size=25, unique=True))
    frame = pd.DataFrame(keys, columns=["household_id", "store_id", "week", "product_id"])
    money = st.integers(0, 900)
    for name in ("spend_cents", "discount_cents", "paid_cents"):
        frame[name] = draw(st.lists(money, min_size=len(frame), max_size=len(frame)))
    frame["quantity"] = draw(st.lists(st.integers(1, 4), min_size=len(frame), max_size=len(frame)))
    visit = frame.groupby(["household_id", "store_id", "week"]).ngroup()
    n_visits = int(visit.max()) + 1
    trips = draw(st.lists(st.integers(1, 3), min_size=n_visits, max_size=n_visits))
    return frame.assign(trips=np.array(trips)[visit])


def rows_to_describe():
    """Every household and product in weeks 1 to 10, the last two without any purchase."""
    index = pd.MultiIndex.from_product(
        [range(1, 4), range(1, 5), range(1, 11)], names=["household_id", "product_id", "week"]
    )
    return index.to_frame(index=False)


def described(purchases):
    """All history features of `rows_to_describe`, as the library computes them."""
    bought, rows = ibis.memtable(purchases), ibis.memtable(rows_to_describe())
    products = ibis.memtable(
        pd.DataFrame({"product_id": list(CATEGORIES), "category_id": list(CATEGORIES.values())})
    )
    shown = rows.select("product_id", "week").distinct()
    rows = features.left_join(rows, features.household_weeks(bought), ["household_id", "week"])
    rows = features.left_join(rows, features.product_weeks(bought, shown), ["product_id", "week"])
    rows = features.add_pair_history(rows, bought)
    rows = features.add_category_history(rows, bought, products)
    names = [n for n in features.NUMERIC if n not in features.PLACEMENT]
    keys = ["household_id", "product_id", "week"]
    frame = rows.select(*keys, *names).execute().set_index(keys).sort_index()
    # A household that never bought anything in the whole history has no row of its own.
    return frame.fillna({name: 0.0 for name in features.HOUSEHOLD})


def share(part, whole):
    return part / whole if whole else 0.0


def recency(week, weeks):
    return 1 / (week - max(weeks)) if len(weeks) else 0.0


def by_hand(purchases, household, product, week):
    """The same features, counted row by row from the purchases of earlier weeks."""
    past = purchases[purchases.week < week]
    mine, its = past[past.household_id == household], past[past.product_id == product]
    visits = mine.drop_duplicates(["store_id", "week"])
    recent_visits = visits[visits.week >= week - 4]
    trips = visits.trips.sum()
    pair = mine[mine.product_id == product]
    category = CATEGORIES.get(product)
    kin = mine[mine.product_id.map(CATEGORIES) == category] if category else mine[:0]
    last = its[its.week == its.week.max()]
    buys = its.drop_duplicates(["household_id", "week"])
    price = share(its.paid_cents.sum() / 100, its.quantity.sum())
    last_price = share(last.paid_cents.sum() / 100, last.quantity.sum())
    product_weeks = mine.drop_duplicates(["product_id", "week"])
    kin_weeks = kin.drop_duplicates(["product_id", "week"])
    return {
        "h_trips": trips,
        "h_trips_4w": recent_visits.trips.sum(),
        "h_items_per_trip": share(len(mine), trips),
        "h_spend_per_trip": share(mine.spend_cents.sum() / 100, trips),
        "h_products": mine.product_id.nunique(),
        "h_recency": recency(week, mine.week),
        "p_purchases": len(buys),
        "p_purchases_4w": (buys.week >= week - 4).sum(),
        "p_buyers": its.household_id.nunique(),
        "p_recency": recency(week, its.week),
        "p_price": price,
        "p_price_ratio": share(last_price, price),
        "p_discount": share(its.discount_cents.sum(), (its.discount_cents + its.paid_cents).sum()),
        "p_discount_last": share(
            last.discount_cents.sum(), (last.discount_cents + last.paid_cents).sum()
        ),
        "hp_purchases": pair.week.nunique(),
        "hp_recency": recency(week, pair.week),
        "hc_purchases": len(kin_weeks),
        "hc_recency": recency(week, kin.week),
        "hc_share": share(len(kin_weeks), len(product_weeks)),
    }


@given(purchases=histories())
@settings(max_examples=6, deadline=None)
def test_features_equal_a_count_by_hand(purchases):
    got = described(purchases)
    for key, row in got.iterrows():
        want = by_hand(purchases, *key)
        assert row.to_numpy() == pytest.approx([float(want[name]) for name in row.index])


@given(purchases=histories(), week=st.integers(1, 8))
@settings(max_examples=8, deadline=None)
def test_a_purchase_of_this_week_or_later_changes_nothing(purchases, week):
    """The leak test: the week's own purchases, and all later ones, are taken away."""
    past = purchases[purchases.week < week]
    if past.empty:
        past = purchases.head(1).assign(week=week)
    before, after = described(past), described(purchases)
    known = before.index.get_level_values("week") <= week
    pd.testing.assert_frame_equal(before[known], after[known], check_dtype=False)


def test_placement_flags():
    rows = pd.DataFrame(
        {
            "product_id": [1, 2, 3],
            "week": [5, 5, 6],
            "display": ["0", "7", "A"],
            "mailer": ["D", "0", "A"],
        }
    )
    calendar = pd.DataFrame({"product_id": [1, 2, 3], "week": [5, 5, 6], "p_stores": [9, 1, 4]})
    placed = features.add_placement(ibis.memtable(rows), ibis.memtable(calendar)).execute()
    placed = placed.sort_values("product_id")
    assert placed[["on_display", "on_mailer", "on_cover", "p_stores"]].to_numpy().tolist() == [
        [0, 1, 1, 9],
        [1, 0, 0, 1],
        [1, 1, 0, 4],
    ]
