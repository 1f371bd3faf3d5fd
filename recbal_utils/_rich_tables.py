"""The histories behind `rich_features`, made once and cached; rows with all features, in pieces."""

import functools
import sys
import tempfile
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from ibis import _

from recbal_utils import _gather, _journey, datasets, features, rich_features
from recbal_utils._files import read_parquet
from recbal_utils.cache import cached_parquet

FEATURES = features.NUMERIC + rich_features.NUMERIC
# Counts over all weeks so far grow with the weeks; the model sees what they would be at week 41.
GROWING = (
    "h_trips",
    "h_products",
    "p_purchases",
    "p_buyers",
    "p_conversions",
    "hp_purchases",
    "hc_purchases",
    "hs_visits",
    "ht_weeks",
    "htm_weeks",
)
WEEKS = 40
PART_ROWS = 500_000


@functools.cache
def past() -> dict:
    """Everything that features are looked up in; histories are cached files."""
    ids = rich_features.product_ids(_journey.journey("products"))
    promotions, visits = _journey.promotions(), _journey.visits()
    bought = rich_features.with_ids(_journey.purchases(), ids)
    # The log has one promotion for each week, store and product, so rows are stores.
    counted = promotions.group_by("product_id", "week").agg(stores=_.count())
    found = {
        "ids": ids,
        "promoted": promotions.group_by("store_id", "week").agg(n_promoted=_.count()),
        "calendar": _made("calendar", lambda: counted),
    }
    placed = _made("placements", lambda: rich_features.placements(promotions, visits, bought))
    placed = rich_features.with_ids(placed, ids)
    shopped = _made("shopping", lambda: rich_features.shopping(visits, bought, promotions))
    for kind, make, source, groups in (
        ("bought", rich_features.purchase_history, bought, rich_features.BOUGHT),
        ("promoted", rich_features.promotion_history, placed, rich_features.PROMOTED),
        ("shopped", rich_features.shopping_history, shopped, rich_features.SHOPPED),
    ):
        for name, keys in groups.items():
            found[f"{kind} {name}"] = _made(f"{kind}-{name}", lambda: make(source, keys))  # noqa: B023
    return found


class Impressions:
    """Impressions with all `FEATURES`, whose matrix can be made in pieces.

    Parameters
    ----------
    rows : Path
        A cached table of impressions.

    Attributes
    ----------
    keys : pandas.DataFrame
        What the rows are looked up by.
    plain : ndarray of shape (n, len(features.NUMERIC)), float32
        The features that the table holds.
    """

    def __init__(self, rows: Path):
        names, words = [*_journey.IMPRESSION_KEYS, "display", "mailer"], ["display", "mailer"]
        self.keys = pq.read_table(rows, columns=names, read_dictionary=words).to_pandas()
        self.plain = _plain(rows)

    @functools.cached_property
    def levels(self):
        """The features that are looked up, at the first use."""
        return _gather.gather(self.keys, past())

    def __len__(self):
        return len(self.keys)

    def matrix(self, rows: slice = slice(None)) -> np.ndarray:
        """Return `FEATURES` of some rows: float32 of shape (rows, features)."""
        week = self.keys["week"].to_numpy()[rows]
        X = np.empty((len(week), len(FEATURES)), dtype=np.float32)
        X[:, : len(features.NUMERIC)] = self.plain[rows]
        _gather.fill(X[:, len(features.NUMERIC) :], self.levels, rows)
        return steady(X, week)

    def pieces(self, size: int):
        """Yield (slice, matrix) of so many rows at a time."""
        for first in range(0, len(self), size):
            part = slice(first, min(first + size, len(self)))
            yield part, self.matrix(part)


def _plain(rows: Path) -> np.ndarray:
    """Return the features that a table holds, read in pieces to spare memory."""
    file = pq.ParquetFile(rows)
    X = np.empty((file.metadata.num_rows, len(features.NUMERIC)), dtype=np.float32)
    first = 0
    for batch in file.iter_batches(PART_ROWS, columns=list(features.NUMERIC)):
        X[first : first + len(batch)] = np.column_stack([column.to_numpy() for column in batch])
        first += len(batch)
    return X


def matrix(rows: Path) -> np.ndarray:
    """Return `FEATURES` of the impressions of a cached table: float32 of shape (n, features)."""
    return Impressions(rows).matrix()


def steady(X: np.ndarray, week: np.ndarray) -> np.ndarray:
    """Bring the counts of `GROWING` to the same number of weeks, in place."""
    scale = (WEEKS / np.maximum(week.astype(np.float32) - 1, 1)).astype(np.float32)
    for name in GROWING:
        X[:, FEATURES.index(name)] *= scale
    return X


def features_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `FEATURES` of impressions that are in no cached table."""
    keys = [*_journey.IMPRESSION_KEYS, "display", "mailer"]
    with tempfile.TemporaryDirectory() as folder:
        chosen, base = (Path(folder) / f"{name}.parquet" for name in ("rows", "base"))
        plain = rows[keys].astype({"display": str, "mailer": str, "week": "uint8"})
        plain.assign(conversion=np.int8(0), weight=1.0).to_parquet(chosen)
        _journey._write_features(chosen, base)
        found = Impressions(base)
        X = pd.DataFrame(found.matrix(), columns=list(FEATURES))
    wanted = rows[list(_journey.IMPRESSION_KEYS)].astype(np.int64)
    X = pd.concat([found.keys[list(_journey.IMPRESSION_KEYS)], X], axis=1)
    order = wanted.merge(X, how="left", on=list(_journey.IMPRESSION_KEYS))
    return order[list(FEATURES)].set_index(rows.index)


def _made(name, make) -> ibis.Table:
    return read_parquet(_cached(name, lambda path: make().to_parquet(path, compression="zstd")))


def _cached(name, write) -> Path:
    """A cached table: decided by this code, and by the tables it was made of."""
    decided_by = {
        "purchases": _table_name("purchases"),
        "promotions": _table_name("promotions"),
        "code": _code_digest(),
    }
    return cached_parquet(name, decided_by, write)


@functools.cache
def _table_name(name: str) -> str:
    write = {"purchases": _journey._write_purchases, "promotions": _journey._write_promotions}
    source = {"purchases": "transactions", "promotions": "promotions"}
    return _journey._cached(name, write[name], [source[name]]).name


@functools.cache
def _code_digest() -> list[str]:
    modules = (features, rich_features, sys.modules[__name__])
    return [_journey._logic_digest(Path(module.__file__).read_text("utf-8")) for module in modules]


def training_file(weeks, keep_rate=0.01, seed=0) -> Path:
    """Cached table of `datasets.training_table`."""
    choice = {"weeks": tuple(weeks), "keep_rate": keep_rate, "seed": seed}
    return _journey.sample_file("training", lambda: _journey.training_rows(**choice), **choice)


def visit_file(weeks, share=datasets.TEST_SHARE, seed=0) -> Path:
    """Cached table of `datasets.visit_table`."""
    choice = {"weeks": tuple(weeks), "share": share, "seed": seed}
    return _journey.sample_file("visits", lambda: _journey.visit_rows(**choice), **choice)
