"""The coupon table: its size, its past-only features, its split."""

import numpy as np
import pandas as pd
import pytest

from recbal_utils import coupons
from recbal_utils._journey import journey


@pytest.fixture(scope="module")
def rows():
    return coupons.load()


def test_a_row_for_each_mailing(rows):
    assert len(rows) == len(journey("campaigns").execute()) == 6589
    assert not rows.duplicated(list(coupons.KEYS)).any()
    assert 0.11 < rows[coupons.LABEL].mean() < 0.13


def test_features_are_finite_and_not_negative(rows):
    values = rows[list(coupons.FEATURES)].to_numpy()
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert (values >= 0).all()


def test_the_split_is_in_time(rows):
    early, late = coupons.split(rows)
    assert len(early) + len(late) == len(rows)
    assert early["start"].max() < pd.Timestamp("2017-09-04") <= late["start"].min()
    assert min(early[coupons.LABEL].sum(), late[coupons.LABEL].sum()) > 100


def test_purchases_before_the_start_alone_are_counted(rows):
    lines = journey("transactions").execute()
    for i in (0, len(rows) // 2, len(rows) - 1):
        row = rows.loc[i]
        past = lines[
            (lines["household_id"] == row["household_id"])
            & (lines["transaction_timestamp"] < row["start"])
        ]
        assert row["trips"] == past["basket_id"].nunique()
        assert row["products_tried"] == past["product_id"].nunique()
        recent = past["transaction_timestamp"] >= row["start"] - pd.Timedelta(days=56)
        assert row["recent_trips"] == past.loc[recent, "basket_id"].nunique()


def test_redemptions_before_the_start_alone_are_counted(rows):
    used = journey("coupon_redemptions").execute()
    row = rows.loc[rows["coupons_redeemed"].idxmax()]
    mine = used[used["household_id"] == row["household_id"]]
    past = mine[pd.to_datetime(mine["redemption_date"]) < row["start"]]
    assert row["coupons_redeemed"] == len(past) > 0
    assert row["campaigns_redeemed"] == past["campaign_id"].nunique()
