"""More of what was known before the week: decayed counts, due dates, rates of earlier promotions.

A *history* is a lazy table with a row for each key and week with an event, holding sums over all
weeks up to and including that one. A row of week w takes the latest state of a week strictly
below w, so nothing of week w or later can reach it. What is known of week w beforehand is its
promotion calendar: what is promoted, where, and how.

Decayed counts halve every few weeks: what happened long ago counts less. Rates are conversions
per thousand impressions, drawn towards `PRIOR_RATE` where impressions are few. No column is
negative, so models can take ``log1p``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
from ibis import _

from recbal_utils.features import _as_of, _share, _since, _zero, left_join

FAST, SLOW = 3.0, 10.0  # half-lives in weeks
PRIOR_RATE = 1.0  # conversions per thousand impressions
PRIOR_WEIGHT = 1_000.0  # impressions that the prior counts for

VISIT = (
    "n_promoted",
    "s_visits",
    "s_conversions",
    "hs_visits",
    "hs_recency",
    "hs_share",
    "hs_items",
    "hs_conversions",
    "hs_conversions_fast",
    "hs_discount",
    "h_items_fast",
    "h_conversions",
    "h_conversions_fast",
    "h_rate",
    "h_discount",
)
PRODUCT = (
    "p_fast",
    "p_slow",
    "p_conversions",
    "p_rate",
    "p_rate_fast",
    "p_rate_last",
    "p_stores_last",
    "t_fast",
    "t_slow",
    "t_rate",
    "tm_fast",
    "tm_slow",
)
PLACEMENT = (
    "pa_rate",
    "pa_rate_last",
    "td_rate",
    "ta_rate",
    "cx_rate",
    "cx_rate_fast",
    "x_rate",
    "x_rate_last",
)
SHELF = ("ps_fast", "ps_slow", "ps_recency")
KIND = (
    "ht_weeks",
    "ht_fast",
    "ht_slow",
    "ht_recency",
    "ht_due",
    "ht_discount",
    "ht_price",
)
CATEGORY = ("hc_fast", "hc_slow", "hc_due")
MAKER = ("htm_weeks", "htm_fast", "htm_slow", "htm_recency", "htm_price")
PAIR = (
    "hp_fast",
    "hp_slow",
    "hp_interval",
    "hp_due",
    "hp_gap",
    "hp_quantity",
    "hp_discount",
)
GROUPS = {
    "visit": VISIT,
    "product": PRODUCT,
    "placement": PLACEMENT,
    "product and store": SHELF,
    "household and kind": KIND + CATEGORY + MAKER,
    "household and product": PAIR,
}
NUMERIC = tuple(name for names in GROUPS.values() for name in names)

BOUGHT = {  # what a purchase is counted by
    "hp": ["household_id", "product_id"],
    "ht": ["household_id", "type_id"],
    "hc": ["household_id", "category_id"],
    "htm": ["household_id", "type_id", "maker_id"],
    "p": ["product_id"],
    "ps": ["product_id", "store_id"],
    "t": ["type_id"],
    "tm": ["type_id", "maker_id"],
}
PROMOTED = {  # what an impression is counted by
    "p": ["product_id"],
    "pa": ["product_id", "mailer"],
    "t": ["type_id"],
    "td": ["type_id", "display"],
    "ta": ["type_id", "mailer"],
    "cx": ["category_id", "display", "mailer"],
    "x": ["display", "mailer"],
}
SHOPPED = {"hs": ["household_id", "store_id"], "h": ["household_id"], "s": ["store_id"]}


# --- histories ----------------------------------------------------------------------------------


def product_ids(products: ir.Table) -> ir.Table:
    """Integer ids of each product's type, category and maker; 0 for none.

    Parameters
    ----------
    products : ibis Table
        `product_id`, `product_type`, `product_category`, `manufacturer_id`.
    """

    def number(column):
        rank = ibis.dense_rank().over(ibis.window(order_by=column)) + 1
        return ibis.ifelse(products[column].isnull(), 0, rank).cast("int32")

    return products.select(
        product_id=_.product_id.cast("int32"),
        type_id=number("product_type"),
        category_id=number("product_category"),
        maker_id=_.manufacturer_id.cast("int32").fill_null(0),
    )


def with_ids(rows: ir.Table, ids: ir.Table) -> ir.Table:
    """Add the ids of `product_ids`; 0 for a product that has no metadata."""
    joined = left_join(rows, ids, ["product_id"])
    names = [name for name in ids.columns if name != "product_id"]
    return joined.mutate(**{name: _zero(joined[name]) for name in names})


def purchase_history(bought: ir.Table, keys: Sequence[str]) -> ir.Table:
    """Sums of purchases up to and including each week with one.

    Parameters
    ----------
    bought : ibis Table
        `recbal_utils.datasets.purchases` with the ids of `product_ids`.
    keys : sequence of str
        What to count by.

    Returns
    -------
    ibis Table
        The keys, `last_week`, `n` (lines), `weeks`, `first_week`, `gap` (weeks between the last
        two weeks with a purchase), `fast` and `slow` (decayed lines; see `decayed`), `quantity`,
        `spend`, `paid` and `discount` (cents).
    """
    weekly = bought.group_by(*keys, "week").agg(
        lines=_.count(),
        quantity=_.quantity.sum(),
        spend=_.spend_cents.sum(),
        paid=_.paid_cents.sum(),
        discount=_.discount_cents.sum(),
    )
    window = ibis.cumulative_window(group_by=keys, order_by="week")
    before = ibis.window(group_by=keys, order_by="week")
    sums = {name: weekly[name].sum().over(window) for name in ("quantity", "spend", "paid")}
    return weekly.select(
        *keys,
        last_week=_.week,
        n=_.lines.sum().over(window),
        weeks=weekly.count().over(window),
        first_week=_.week.min().over(window),
        gap=_zero(_.week - _.week.lag().over(before)),
        fast=_grown(weekly, "lines", FAST).sum().over(window),
        slow=_grown(weekly, "lines", SLOW).sum().over(window),
        discount=_.discount.sum().over(window),
        **sums,
    )


def placements(promotions: ir.Table, visits: ir.Table, bought: ir.Table) -> ir.Table:
    """Impressions and conversions of each product, week, display and mailer code.

    Parameters
    ----------
    promotions, visits, bought : ibis Table
        As `recbal_utils.datasets` returns them (`bought`: purchases).
    """
    shown = visits.group_by("store_id", "week").agg(visits=_.count())
    keys = ["product_id", "week", "display", "mailer"]
    seen = promotions.inner_join(shown, ["store_id", "week"])
    seen = seen.group_by(keys).agg(impressions=_.visits.sum())
    won = bought.inner_join(promotions, ["store_id", "week", "product_id"])
    won = won.group_by(keys).agg(conversions=_.count())
    return left_join(seen, won, keys).mutate(conversions=_zero(_.conversions))


def promotion_history(placed: ir.Table, keys: Sequence[str]) -> ir.Table:
    """Sums of `placements` up to and including each week with an impression.

    Returns
    -------
    ibis Table
        The keys, `last_week`, `impressions`, `conversions`, their decayed sums `impressions_fast`
        and `conversions_fast`, and `rate_last` (per thousand, of the last week).
    """
    weekly = placed.group_by(*keys, "week").agg(
        impressions=_.impressions.sum(), conversions=_.conversions.sum()
    )
    window = ibis.cumulative_window(group_by=keys, order_by="week")
    names = ("impressions", "conversions")
    return weekly.select(
        *keys,
        last_week=_.week,
        rate_last=_rate(weekly.conversions, weekly.impressions),
        **{name: weekly[name].sum().over(window) for name in names},
        **{f"{name}_fast": _grown(weekly, name, FAST).sum().over(window) for name in names},
    )


def shopping(visits: ir.Table, bought: ir.Table, promotions: ir.Table) -> ir.Table:
    """Each visit: lines bought, spend, discount, impressions and conversions."""
    keys = ["household_id", "store_id", "week"]
    shown = promotions.group_by("store_id", "week").agg(impressions=_.count())
    basket = bought.group_by(keys).agg(
        lines=_.count(), spend=_.spend_cents.sum(), discount=_.discount_cents.sum()
    )
    won = bought.semi_join(promotions, ["store_id", "week", "product_id"])
    won = won.group_by(keys).agg(conversions=_.count())
    rows = left_join(visits, shown, ["store_id", "week"])
    rows = left_join(left_join(rows, basket, keys), won, keys)
    names = ("impressions", "lines", "spend", "discount", "conversions")
    return rows.mutate(**{name: _zero(rows[name]) for name in names})


def shopping_history(shopped: ir.Table, keys: Sequence[str]) -> ir.Table:
    """Sums of `shopping` up to and including each week with a visit."""
    names = ("visits", "impressions", "lines", "spend", "discount", "conversions")
    sums = {name: shopped[name].sum() for name in names[1:]}
    weekly = shopped.group_by(*keys, "week").agg(visits=_.count(), **sums)
    window = ibis.cumulative_window(group_by=keys, order_by="week")
    faded = ("visits", "lines", "conversions")
    return weekly.select(
        *keys,
        last_week=_.week,
        **{name: weekly[name].sum().over(window) for name in names},
        **{f"{name}_fast": _grown(weekly, name, FAST).sum().over(window) for name in faded},
    )


# --- features -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Features that are alike in all rows with the same keys.

    Attributes
    ----------
    names : tuple of str
        The features.
    keys : tuple of str
        Columns that decide them.
    compute : callable
        From an ibis Table of rows, whose columns stay, and the past: a dict of ibis Tables with
        "calendar" (stores that promote a product in a week: `product_id`, `week`, `stores`),
        "promoted" (`store_id`, `week`, `n_promoted`), and histories named "bought hp",
        "promoted pa", "shopped hs" and so on, for the keys of `BOUGHT`, `PROMOTED` and `SHOPPED`.
    more : tuple of str
        Columns that `compute` needs and the keys decide.
    history : str
        Of `BOUGHT`: where its keys were never bought, every feature is 0. Empty: no such rule.
    """

    names: tuple
    keys: tuple
    compute: Callable
    more: tuple = ()
    history: str = ""


def _visit(rows, past):
    own = rows.columns
    rows = left_join(rows, past["promoted"], ["store_id", "week"])
    rows = _latest(rows, past["shopped s"], ["store_id"], "s")
    rows = _latest(rows, past["shopped h"], ["household_id"], "h")
    rows = _latest(rows, past["shopped hs"], ["household_id", "store_id"], "hs")
    found = {
        "n_promoted": rows.n_promoted,
        "s_visits": _faded(rows, "s_visits_fast", FAST),
        "s_conversions": _share(rows.s_conversions_fast, rows.s_visits_fast),
        "hs_visits": rows.hs_visits,
        "hs_recency": _since(rows.week, rows.hs_last_week),
        "hs_share": _share(rows.hs_visits, rows.h_visits),
        "hs_items": _share(rows.hs_lines, rows.hs_visits),
        "hs_conversions": _share(rows.hs_conversions, rows.hs_visits),
        "hs_conversions_fast": _share(rows.hs_conversions_fast, rows.hs_visits_fast),
        "hs_discount": _share(rows.hs_discount, rows.hs_discount + rows.hs_spend),
        "h_items_fast": _share(rows.h_lines_fast, rows.h_visits_fast),
        "h_conversions": _share(rows.h_conversions, rows.h_visits),
        "h_conversions_fast": _share(rows.h_conversions_fast, rows.h_visits_fast),
        "h_rate": _rate(rows.h_conversions, rows.h_impressions),
        "h_discount": _share(rows.h_discount, rows.h_discount + rows.h_spend),
    }
    return _selected(rows, own, found)


def _product(rows, past):
    own = rows.columns
    last = past["calendar"].select("product_id", week=_.week + 1, stores_last=_.stores)
    rows = left_join(rows, last, ["product_id", "week"])
    for name, prefix in {"p": "bp", "t": "bt", "tm": "btm"}.items():
        rows = _latest(rows, past[f"bought {name}"], BOUGHT[name], prefix)
    for name in ("p", "t"):
        rows = _latest(rows, past[f"promoted {name}"], PROMOTED[name], name)
    found = {
        **_both_faded(rows, {"p": "bp", "t": "bt", "tm": "btm"}),
        "p_conversions": rows.p_conversions,
        "p_rate": _rate(rows.p_conversions, rows.p_impressions),
        "p_rate_fast": _fast_rate(rows, "p"),
        "p_rate_last": rows.p_rate_last,
        "p_stores_last": rows.stores_last,
        "t_rate": _fast_rate(rows, "t"),
    }
    return _selected(rows, own, found)


def _placement(rows, past):
    own = rows.columns
    for name in ("pa", "td", "ta", "cx", "x"):
        rows = _latest(rows, past[f"promoted {name}"], PROMOTED[name], name)
    found = {
        "pa_rate": _rate(rows.pa_conversions, rows.pa_impressions),
        "pa_rate_last": rows.pa_rate_last,
        "td_rate": _rate(rows.td_conversions, rows.td_impressions),
        "ta_rate": _rate(rows.ta_conversions, rows.ta_impressions),
        "cx_rate": _rate(rows.cx_conversions, rows.cx_impressions),
        "cx_rate_fast": _fast_rate(rows, "cx"),
        "x_rate": _rate(rows.x_conversions, rows.x_impressions),
        "x_rate_last": rows.x_rate_last,
    }
    return _selected(rows, own, found)


def _kind(rows, past):
    own = rows.columns
    rows = _latest(rows, past["bought ht"], BOUGHT["ht"], "ht")
    found = {
        "ht_weeks": rows.ht_weeks,
        **_both_faded(rows, {"ht": "ht"}),
        "ht_recency": _since(rows.week, rows.ht_last_week),
        "ht_due": _due(rows, "ht"),
        "ht_discount": _share(rows.ht_discount, rows.ht_discount + rows.ht_paid),
        "ht_price": _share(rows.ht_spend / 100, rows.ht_n),
    }
    return _selected(rows, own, found)


def _category(rows, past):
    own = rows.columns
    rows = _latest(rows, past["bought hc"], BOUGHT["hc"], "hc")
    found = {
        **_both_faded(rows, {"hc": "hc"}),
        "hc_due": _due(rows, "hc"),
    }
    return _selected(rows, own, found)


def _maker(rows, past):
    own = rows.columns
    rows = _latest(rows, past["bought htm"], BOUGHT["htm"], "htm")
    found = {
        "htm_weeks": rows.htm_weeks,
        **_both_faded(rows, {"htm": "htm"}),
        "htm_recency": _since(rows.week, rows.htm_last_week),
        "htm_price": _share(rows.htm_spend / 100, rows.htm_n),
    }
    return _selected(rows, own, found)


def _pair(rows, past):
    own = rows.columns
    rows = _latest(rows, past["bought hp"], BOUGHT["hp"], "b")
    found = {
        **_both_faded(rows, {"hp": "b"}),
        "hp_interval": _share(rows.b_last_week - rows.b_first_week, rows.b_weeks - 1),
        "hp_due": _due(rows, "b"),
        "hp_gap": rows.b_gap,
        "hp_quantity": _share(rows.b_quantity, rows.b_n),
        "hp_discount": _share(rows.b_discount, rows.b_discount + rows.b_paid),
    }
    return _selected(rows, own, found)


def _shelf(rows, past):
    own = rows.columns
    rows = _latest(rows, past["bought ps"], BOUGHT["ps"], "b")
    found = {
        **_both_faded(rows, {"ps": "b"}),
        "ps_recency": _since(rows.week, rows.b_last_week),
    }
    return _selected(rows, own, found)


def _latest(rows, history, keys, prefix):
    """Add the columns of the latest state before the week, each with a prefix."""
    joined = _as_of(rows, history, keys)
    new = [name for name in history.columns if name not in keys]
    return joined.rename(**{f"{prefix}_{name}": name for name in new})


def _selected(rows, keys, found):
    return rows.select(*keys, **{name: _zero(column) for name, column in found.items()})


def _grown(weekly, name, half_life):
    """An event of week w counts 2 ** (w / half-life): divided by that of a later week it fades."""
    return weekly[name] * (2.0 ** (weekly.week.cast("float64") / half_life))


def _faded(rows, name, half_life):
    return rows[name] * (2.0 ** (-rows.week.cast("float64") / half_life))


def _both_faded(rows, prefixes):
    """Decayed counts, fast and slow, by the name of the feature and the prefix of the history."""
    return {
        f"{name}_{pace}": _faded(rows, f"{prefix}_{pace}", half_life)
        for name, prefix in prefixes.items()
        for pace, half_life in {"fast": FAST, "slow": SLOW}.items()
    }


def _due(rows, prefix):
    """Weeks since the last purchase over the mean interval: 1 where the next one is due."""
    last, first = rows[f"{prefix}_last_week"], rows[f"{prefix}_first_week"]
    return _share((rows.week - last) * (rows[f"{prefix}_weeks"] - 1), last - first)


def _fast_rate(rows, prefix):
    faded = (_faded(rows, f"{prefix}_{name}_fast", FAST) for name in ("conversions", "impressions"))
    return _rate(*faded)


def _rate(conversions, impressions):
    """Conversions per thousand impressions, drawn towards the prior."""
    return (
        1_000.0
        * (_zero(conversions) + PRIOR_RATE * PRIOR_WEIGHT / 1_000.0)
        / (_zero(impressions) + PRIOR_WEIGHT)
    )


_OF_PRODUCT = ("type_id", "category_id", "maker_id")
LEVELS = (
    Level(VISIT, ("household_id", "store_id", "week"), _visit),
    Level(PRODUCT, ("product_id", "week"), _product, _OF_PRODUCT),
    Level(PLACEMENT, ("product_id", "week", "display", "mailer"), _placement, _OF_PRODUCT),
    Level(SHELF, ("product_id", "store_id", "week"), _shelf, history="ps"),
    Level(KIND, ("household_id", "type_id", "week"), _kind, history="ht"),
    Level(CATEGORY, ("household_id", "category_id", "week"), _category, history="hc"),
    Level(MAKER, ("household_id", "type_id", "maker_id", "week"), _maker, history="htm"),
    Level(PAIR, ("household_id", "product_id", "week"), _pair, history="hp"),
)
