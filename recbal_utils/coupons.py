"""Who redeems a coupon: one row for each household and campaign of *The Complete Journey*.

Features hold only what was known before the campaign started. Of the campaigns that end after 2017
the log holds the redemptions of 2017 only.
"""

import ibis
import pandas as pd
from ibis import _

from recbal_utils._journey import journey

KEYS = ("household_id", "campaign_id")
LABEL = "redeemed"
SPLIT = pd.Timestamp("2017-09-04")
RECENT_DAYS = 56
FEATURES = (
    "type_a",
    "type_b",
    "days_long",
    "coupons_in_campaign",
    "products_in_campaign",
    "days_of_history",
    "trips",
    "recent_trips",
    "days_since_trip",
    "spend_per_trip",
    "products_tried",
    "discount_share",
    "coupon_share",
    "campaigns_before",
    "campaigns_redeemed",
    "coupons_redeemed",
    "same_type_redeemed",
    "listed_products_tried",
    "listed_trips",
    "listed_recent_trips",
    "listed_spend_share",
)
_FIRST_DAY = pd.Timestamp("2017-01-01")


def load() -> pd.DataFrame:
    """Every household that a campaign was sent to, and whether it redeemed a coupon of it.

    Returns
    -------
    pandas.DataFrame
        6,589 rows by start, household and campaign: `household_id`, `campaign_id`, `start`,
        `redeemed` (0 or 1) and `FEATURES`, finite floats of 0 or more, from purchases and
        redemptions before `start`. "Recent" is the last 56 days; "listed" are products that a
        coupon of the campaign is for; spend is in dollars; `days_since_trip` of a household
        without one is `days_of_history`.

    Raises
    ------
    RecbalError
        The data package, a file or a column is missing.
    """
    rows = _mailings()
    for table in (_purchases(rows, listed=False), _purchases(rows, listed=True), _redeemed(rows)):
        rows = rows.merge(table, how="left", on=list(KEYS), validate="one_to_one")
    rows = _features(rows).sort_values(["start", *KEYS], ignore_index=True)
    return rows[[*KEYS, "start", LABEL, *FEATURES]]


def split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of campaigns that started before 2017-09-04, and of those from then on."""
    late = rows["start"] >= SPLIT
    return rows[~late], rows[late]


def _mailings() -> pd.DataFrame:
    """Household and campaign, with what is known of each when the campaign starts."""
    campaigns, coupons = _table("campaign_descriptions"), journey("coupons")
    offer = coupons.group_by("campaign_id").agg(
        coupons_in_campaign=_.coupon_upc.nunique(), products_in_campaign=_.product_id.nunique()
    )
    redeemed = _table("coupon_redemptions")[list(KEYS)].drop_duplicates().assign(redeemed=1)
    rows = _table("campaigns").merge(campaigns, on="campaign_id", validate="many_to_one")
    rows = rows.merge(offer.execute(), how="left", on="campaign_id")
    rows = rows.merge(redeemed, how="left", on=list(KEYS))
    rows = rows.rename(columns={"start_date": "start", "end_date": "end"})
    return rows.sort_values(["start", *KEYS], ignore_index=True)


def _purchases(rows: pd.DataFrame, *, listed: bool) -> pd.DataFrame:
    """Purchases of each household before each of its campaigns; of the listed products, or all."""
    sent, lines = ibis.memtable(rows[[*KEYS, "start"]]), journey("transactions")
    earlier = lines.transaction_timestamp < sent.start
    past = sent.inner_join(lines, [sent.household_id == lines.household_id, earlier])
    if listed:
        on_offer = journey("coupons").select("campaign_id", "product_id").distinct()
        past = past.semi_join(on_offer, ["campaign_id", "product_id"])
    recent = _.transaction_timestamp >= _.start - ibis.interval(days=RECENT_DAYS)
    prefix = "listed_" if listed else ""
    totals = {
        "trips": _.basket_id.nunique(),
        "recent_trips": _.basket_id.nunique(where=recent),
        "last_trip": _.transaction_timestamp.max(),
        "products_tried": _.product_id.nunique(),
        "spend": _cents(_.sales_value).sum(),
        "discount": _cents(_.retail_disc).sum(),
        "coupon": _cents(_.coupon_disc).sum(),
    }
    grouped = past.group_by(list(KEYS)).agg(**{prefix + k: v for k, v in totals.items()})
    return grouped.execute()


def _redeemed(rows: pd.DataFrame) -> pd.DataFrame:
    """Campaigns sent to the household before, and what it redeemed before the start."""
    types = rows[["campaign_id", "campaign_type"]].drop_duplicates()
    used = _table("coupon_redemptions").merge(types, on="campaign_id")
    pairs = rows[[*KEYS, "start", "campaign_type"]].merge(
        used, on="household_id", suffixes=("", "_used")
    )
    pairs = pairs[pairs["redemption_date"] < pairs["start"]]
    same = (pairs["campaign_type"] == pairs["campaign_type_used"]).astype(int)
    found = (
        pairs.assign(same=same)
        .groupby(list(KEYS), as_index=False)
        .agg(
            campaigns_redeemed=("campaign_id_used", "nunique"),
            coupons_redeemed=("coupon_upc", "size"),
            same_type_redeemed=("same", "sum"),
        )
    )
    started = rows.groupby("household_id")["start"].rank(method="min") - 1
    before = rows[list(KEYS)].assign(campaigns_before=started)
    return before.merge(found, how="left", on=list(KEYS))


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill in what a household without a past lacks, and make amounts comparable."""
    history = (rows["start"] - _FIRST_DAY).dt.days.clip(lower=0)
    since = (rows["start"] - rows["last_trip"]).dt.total_seconds() / 86_400
    rows = rows.fillna(dict.fromkeys(rows.select_dtypes("number").columns, 0))
    price = rows["spend"] + rows["discount"] + rows["coupon"]
    return rows.assign(
        redeemed=rows["redeemed"].astype(int),
        type_a=rows["campaign_type"] == "Type A",
        type_b=rows["campaign_type"] == "Type B",
        days_long=(rows["end"] - rows["start"]).dt.days,
        days_of_history=history,
        days_since_trip=since.fillna(history),
        spend_per_trip=_share(rows["spend"] / 100, rows["trips"]),
        discount_share=_share(rows["discount"], price),
        coupon_share=_share(rows["coupon"], price),
        listed_spend_share=_share(rows["listed_spend"], rows["spend"]),
    ).astype(dict.fromkeys(FEATURES, float))


def _share(part: pd.Series, whole: pd.Series) -> pd.Series:
    return (part / whole.where(whole > 0)).fillna(0)


def _cents(dollars):
    """Whole cents: their sum does not depend on the order of the rows."""
    return (dollars * 100).round().cast("int64")


def _table(name: str) -> pd.DataFrame:
    return journey(name).execute()
