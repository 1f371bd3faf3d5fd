"""The tables behind `rich_features`, made once and cached; rows with all features, as a matrix."""

import functools
import sys
import tempfile
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from ibis import _

from recbal_utils import _journey, datasets, features, rich_features
from recbal_utils._files import connect, read_parquet
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
PART_ROWS = 1_500_000


@functools.cache
def past() -> dict:
    """Everything `rich_features.add` looks things up in; histories are cached files."""
    ids = rich_features.product_ids(_journey.journey("products"))
    promotions, visits = _journey.promotions(), _journey.visits()
    bought = rich_features.with_ids(_journey.purchases(), ids)
    counted = promotions.group_by("product_id", "week").agg(stores=_.store_id.nunique())
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


def rich_file(rows: Path) -> Path:
    """Parquet with `NUMERIC` of the impressions of a file, and `row`, their place in it."""
    return _cached(
        f"rich-{rows.stem.partition('-')[0]}", lambda path: _write_rich(rows, path), rows
    )


def matrix(rows: Path) -> np.ndarray:
    """Return `FEATURES` of the impressions of a cached table: float32 of shape (n, features)."""
    rich = rich_file(rows)
    base = pq.read_table(rows, columns=["week", *features.NUMERIC])
    week = base["week"].to_numpy()
    X = np.empty((base.num_rows, len(FEATURES)), dtype=np.float32)
    for i, name in enumerate(features.NUMERIC):
        X[:, i] = base[name].to_numpy()
    del base
    table = pq.read_table(rich)
    place = table["row"].to_numpy()
    for i, name in enumerate(rich_features.NUMERIC, start=len(features.NUMERIC)):
        X[place, i] = table[name].to_numpy()
    return steady(X, week)


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
        chosen, base, rich = (Path(folder) / f"{name}.parquet" for name in ("rows", "base", "rich"))
        plain = rows[keys].astype({"display": str, "mailer": str, "week": "uint8"})
        plain.assign(conversion=np.int8(0), weight=1.0).to_parquet(chosen)
        _journey._write_features(chosen, base)
        _write_rich(base, rich)
        found = pd.read_parquet(base)
        more = pd.read_parquet(rich).set_index("row").sort_index()
    both = pd.concat([found, more], axis=1)[[*_journey.IMPRESSION_KEYS, *FEATURES]]
    wanted = rows[list(_journey.IMPRESSION_KEYS)].astype(np.int64)
    order = wanted.merge(both, how="left", on=list(_journey.IMPRESSION_KEYS))
    X = steady(order[list(FEATURES)].to_numpy(np.float32), order["week"].to_numpy())
    return pd.DataFrame(X, rows.index, list(FEATURES))


def _write_rich(rows: Path, path: Path) -> None:
    """A part of the households at a time, so that the joins stay in memory."""
    table = connect().read_parquet(rows, file_row_number=True)
    keys = [*_journey.IMPRESSION_KEYS, "display", "mailer"]
    table = table.select(*keys, row=_.file_row_number.cast("int32"))
    parts = -(-pq.read_metadata(rows).num_rows // PART_ROWS)
    writer = None
    try:
        for part in range(parts):
            some = table.filter(_.household_id % parts == part)
            found = rich_features.add(some, _past_of(part, parts))
            found = found.select("row", *rich_features.NUMERIC).to_pyarrow()
            writer = writer or pq.ParquetWriter(path, found.schema, compression="zstd")
            writer.write_table(found)
    finally:
        if writer:
            writer.close()


def _past_of(part: int, parts: int) -> dict:
    """`past`, with the histories of some households only."""
    if parts == 1:
        return past()
    return {
        name: table.filter(_.household_id % parts == part)
        if "household_id" in table.columns
        else table
        for name, table in past().items()
    }


def _made(name, make) -> ibis.Table:
    return read_parquet(_cached(name, lambda path: make().to_parquet(path, compression="zstd")))


def _cached(name, write, rows: Path | None = None) -> Path:
    """A cached table: decided by this code, and by the name of the table it was made of."""
    decided_by = {
        "rows": rows and rows.name,
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
