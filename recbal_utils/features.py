"""What was known before the week: features of household, product and their history.

Every function takes lazy tables and returns a lazy table with one row for each key and week.
A row of week `w` is computed from purchases of weeks below `w` only; what is known of week `w`
beforehand is its promotion calendar.

Money is summed in whole cents, so that sums do not depend on the order of the rows. Recency
is ``1 / weeks since``: 1 for last week, 0 for never. Counts and amounts are left as they are,
so that a row can be read; none is negative, so models can take ``log1p``.
"""

import ibis
import ibis.expr.types as ir
from ibis import _

from recbal_utils.periods import N_WEEKS

HOUSEHOLD = (
    "h_trips",
    "h_trips_4w",
    "h_items_per_trip",
    "h_spend_per_trip",
    "h_products",
    "h_recency",
)
PRODUCT = (
    "p_purchases",
    "p_purchases_4w",
    "p_buyers",
    "p_recency",
    "p_price",
    "p_price_ratio",
    "p_discount",
    "p_discount_last",
)
PAIR = ("hp_purchases", "hp_recency")
CATEGORY = ("hc_purchases", "hc_recency", "hc_share")
PLACEMENT = ("on_display", "on_mailer", "on_cover", "p_stores")
NUMERIC = HOUSEHOLD + PRODUCT + PAIR + CATEGORY + PLACEMENT

COVER_PAGES = ("D", "F", "H", "L")


def household_weeks(purchases: ir.Table) -> ir.Table:
    """Activity of every household before every week.

    Parameters
    ----------
    purchases : ibis Table
        As `recbal_utils.datasets.purchases` returns them.

    Returns
    -------
    ibis Table
        `household_id`, `week` (1 to 53) and the columns of `HOUSEHOLD`: trips so far, trips in
        the last 4 weeks, product lines and dollars a trip, different products so far, recency.
    """
    unit = "household_id"
    visits = purchases.group_by(unit, "store_id", "week").agg(
        trips=_.trips.max(), items=_.count(), spend=_.spend_cents.sum()
    )
    weekly = visits.group_by(unit, "week").agg(
        trips=_.trips.sum(), items=_.items.sum(), spend=_.spend.sum()
    )
    found = _first_weeks(purchases, unit, "product_id").group_by(unit, "week").agg(found=_.count())
    filled = _fill(_grid(weekly, unit), [weekly, found], [unit, "week"])
    visited = ibis.ifelse(filled.trips > 0, filled.week, None)
    return filled.select(
        "household_id",
        "week",
        h_trips=_before(filled.trips, unit),
        h_trips_4w=_before(filled.trips, unit, weeks=4),
        h_items_per_trip=_zero(_share(_before(filled["items"], unit), _before(filled.trips, unit))),
        h_spend_per_trip=_zero(
            _share(_before(filled.spend, unit) / 100, _before(filled.trips, unit))
        ),
        h_products=_before(filled.found, unit),
        h_recency=_since(filled.week, visited.max().over(_earlier(unit))),
    )


def product_weeks(purchases: ir.Table, calendar: ir.Table) -> ir.Table:
    """Sales, price and discount history of each promoted product before each of its weeks.

    Parameters
    ----------
    purchases : ibis Table
        As in `household_weeks`.
    calendar : ibis Table
        One row for each `product_id` and `week` in which it is promoted.

    Returns
    -------
    ibis Table
        `product_id`, `week` and the columns of `PRODUCT`: household-weeks with a purchase so
        far and in the last 4 weeks, households that ever bought, recency, mean unit price in
        dollars, price in the last week of sale over that mean, discount as a share of the
        shelf value so far and in the last week of sale. All 0 for a product never sold before.
    """
    weekly = purchases.group_by("product_id", "week").agg(
        buys=_.household_id.nunique(),
        quantity=_.quantity.sum(),
        paid=_.paid_cents.sum(),
        off=_.discount_cents.sum(),
    )
    found = (
        _first_weeks(purchases, "product_id", "household_id")
        .group_by("product_id", "week")
        .agg(found=_.count())
    )
    history = _fill(weekly, [found], ["product_id", "week"])
    so_far = history.select(
        "product_id",
        last_week=_.week,
        p_purchases=_through(history.buys, "product_id"),
        p_buyers=_through(history.found, "product_id"),
        p_price=_share(
            _through(history.paid, "product_id") / 100, _through(history.quantity, "product_id")
        ),
        last_price=_share(history.paid / 100, history.quantity),
        p_discount=_share(
            _through(history.off, "product_id"),
            _through(history.off + history.paid, "product_id"),
        ),
        p_discount_last=_share(history.off, history.off + history.paid),
    )
    latest = _as_of(calendar, so_far, ["product_id"])
    earlier = so_far.select("product_id", "last_week", before_4w=_.p_purchases)
    # Sales of the last 4 weeks: all before this week less all before 4 weeks ago.
    past = _as_of(
        calendar.select("product_id", this_week=_.week, week=_.week - 4), earlier, ["product_id"]
    ).select("product_id", week=_.this_week, before_4w=_.before_4w)
    joined = left_join(latest, past, ["product_id", "week"])
    return joined.select(
        "product_id",
        "week",
        p_purchases=_zero(joined.p_purchases),
        p_purchases_4w=_zero(joined.p_purchases) - _zero(joined.before_4w),
        p_buyers=_zero(joined.p_buyers),
        p_recency=_since(joined.week, joined.last_week),
        p_price=_zero(joined.p_price),
        p_price_ratio=_zero(_share(joined.last_price, joined.p_price)),
        p_discount=_zero(joined.p_discount),
        p_discount_last=_zero(joined.p_discount_last),
    )


def add_pair_history(rows: ir.Table, purchases: ir.Table) -> ir.Table:
    """Add `hp_purchases` (weeks in which the household bought the product) and `hp_recency`.

    Parameters
    ----------
    rows : ibis Table
        With `household_id`, `product_id`, `week`.
    purchases : ibis Table
        As in `household_weeks`.
    """
    return _add_history(rows, purchases, ["household_id", "product_id"], "hp")


def add_category_history(rows: ir.Table, purchases: ir.Table, products: ir.Table) -> ir.Table:
    """Add the household's history with the product's category.

    Parameters
    ----------
    rows : ibis Table
        With `household_id`, `product_id`, `week`.
    purchases : ibis Table
        As in `household_weeks`.
    products : ibis Table
        `product_id` and `category_id` (integer); a product without a category has none.

    Returns
    -------
    ibis Table
        `rows` with `category_id`, `hc_purchases` (product-weeks bought in the category so far),
        `hc_recency` and `hc_share` (their share of all the household's product-weeks).
    """
    categories = products.select("product_id", "category_id")
    bought = purchases.inner_join(categories, "product_id")
    total = _cumulative(purchases, ["household_id"]).rename(all_purchases="purchases")
    rows = left_join(rows, categories, ["product_id"])
    rows = _add_history(rows, bought, ["household_id", "category_id"], "hc")
    rows = _as_of(rows, total, ["household_id"]).drop("last_week")
    share = _zero(_share(rows.hc_purchases, rows.all_purchases))
    return rows.mutate(hc_share=share).drop("all_purchases")


def add_placement(rows: ir.Table, calendar: ir.Table) -> ir.Table:
    """Add what the promotion calendar tells of the week: placement flags and reach.

    Parameters
    ----------
    rows : ibis Table
        With `display` and `mailer` codes, `product_id` and `week`.
    calendar : ibis Table
        `product_id`, `week` and `p_stores`, the stores that promote the product that week.
    """
    return left_join(rows, calendar, ["product_id", "week"]).mutate(
        on_display=(_.display != "0").cast("int8"),
        on_mailer=(_.mailer != "0").cast("int8"),
        on_cover=_.mailer.isin(COVER_PAGES).cast("int8"),
    )


def left_join(rows: ir.Table, other: ir.Table, keys: list[str]) -> ir.Table:
    """Left join on equal keys, without the second copy of the keys."""
    return _tidy(rows.left_join(other, keys))


def _tidy(joined: ir.Table) -> ir.Table:
    return joined.drop(*(name for name in joined.columns if name.endswith("_right")))


def _add_history(rows: ir.Table, purchases: ir.Table, keys: list[str], prefix: str) -> ir.Table:
    joined = _as_of(rows, _cumulative(purchases, keys), keys)
    return joined.mutate(
        **{
            f"{prefix}_purchases": _zero(joined.purchases),
            f"{prefix}_recency": _since(joined.week, joined.last_week),
        }
    ).drop("purchases", "last_week")


def _cumulative(purchases: ir.Table, keys: list[str]) -> ir.Table:
    """Different products bought a week, summed over the weeks up to and including each."""
    weekly = purchases.group_by(*keys, "week").agg(products=_.product_id.nunique())
    return weekly.select(
        *keys,
        last_week=_.week,
        purchases=weekly.products.sum().over(
            ibis.cumulative_window(group_by=keys, order_by="week")
        ),
    )


def _as_of(rows: ir.Table, history: ir.Table, keys: list[str]) -> ir.Table:
    """Join the latest state of a week strictly below the row's own week."""
    return _tidy(rows.asof_join(history, on=rows.week > history.last_week, predicates=keys))


def _first_weeks(purchases: ir.Table, unit: str, other: str) -> ir.Table:
    return purchases.group_by(unit, other).agg(week=_.week.min())


def _grid(weekly: ir.Table, unit: str) -> ir.Table:
    weeks = ibis.range(1, N_WEEKS + 1).unnest().name("week").as_table()
    return weekly.select(unit).distinct().cross_join(weeks)


def _fill(grid: ir.Table, parts: list[ir.Table], keys: list[str]) -> ir.Table:
    """Left-join the parts; a week without an event counts 0."""
    for part in parts:
        grid = left_join(grid, part, keys)
    return grid.mutate(**{name: _zero(grid[name]) for name in grid.columns if name not in keys})


def _before(column: ir.NumericColumn, unit: str, weeks: int | None = None) -> ir.NumericColumn:
    """Sum over earlier weeks of a table that has a row for every week."""
    return _zero(column.sum().over(_earlier(unit, weeks)))


def _earlier(unit: str, weeks: int | None = None):
    return ibis.window(preceding=(weeks, 1), group_by=unit, order_by="week")


def _through(column: ir.NumericColumn, unit: str) -> ir.NumericColumn:
    return column.sum().over(ibis.cumulative_window(group_by=unit, order_by="week"))


def _since(week: ir.IntegerColumn, last_week: ir.IntegerColumn) -> ir.FloatingColumn:
    return _zero(1.0 / (week - last_week))


def _share(part: ir.NumericColumn, whole: ir.NumericColumn) -> ir.FloatingColumn:
    return part / whole.nullif(0)


def _zero(column: ir.NumericColumn) -> ir.NumericColumn:
    return column.fill_null(0)
