"""Features of many rows, computed once for all rows that share them.

Most of `rich_features` belongs to a visit, a product in a week, or a household and a kind of
product, of which there are far fewer than impressions. Each of its levels is computed for the
different keys only; a row keeps its place in that small table. So a log of millions of rows needs
no wide join, and its matrix can be made in pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd

from recbal_utils import rich_features


@dataclass(frozen=True)
class Gathered:
    """Features of a level: `table` (keys, features), and each row's `place` in them."""

    table: np.ndarray
    place: np.ndarray


def gather(rows: pd.DataFrame, past: dict) -> list[Gathered]:
    """Compute every level of `rich_features`.

    Parameters
    ----------
    rows : pandas.DataFrame
        household_id, store_id, week, product_id: whole numbers; display, mailer: categories.
    past : dict of ibis Table
        "ids" (`rich_features.product_ids`), and what `rich_features.Level` names.

    Returns
    -------
    list of Gathered
        In the order of `rich_features.LEVELS`.
    """
    rows = rows.assign(**_ids(rows["product_id"].to_numpy(), past["ids"].to_pandas()))
    return [_gathered(rows, level, past) for level in rich_features.LEVELS]


def fill(X: np.ndarray, found: Sequence[Gathered], rows: slice) -> None:
    """Write the features of some rows into X of shape (rows, len(rich_features.NUMERIC))."""
    first = 0
    for level in found:
        end = first + level.table.shape[1]
        X[:, first:end] = level.table[level.place[rows]]
        first = end


def _ids(product, ids):
    """Return ids of each row's product; 0 for a product without metadata."""
    place = pd.Index(ids["product_id"]).get_indexer(product)
    return {
        name: np.where(place < 0, 0, ids[name].to_numpy()[place])
        for name in ids.columns.drop("product_id")
    }


def _gathered(rows, level, past):
    known = _bought(rows, level.history, past) if level.history else np.arange(len(rows))
    place, firsts = _factorised(_codes([_whole(rows[name])[known] for name in level.keys]))
    table = rows[[*level.keys, *level.more]].iloc[known[firsts]]
    values = np.zeros((len(table) + 1, len(level.names)), dtype=np.float32)
    if len(table):
        values[:-1] = _computed(table, level, past)
    places = np.full(len(rows), len(table), dtype=np.int32)  # the last of the values: never bought
    places[known] = place
    return Gathered(values, places)


def _bought(rows, history, past):
    """Positions of the rows whose keys have any entry in a history."""
    keys = rich_features.BOUGHT[history]
    entries = past[f"bought {history}"].select(*keys).distinct().to_pandas()
    code = _codes([np.concatenate([entries[name], rows[name]]) for name in keys])
    return np.flatnonzero(pd.Series(code[len(entries) :]).isin(code[: len(entries)]))


def _computed(table, level, past):
    """Features of each row of a table of different keys, in its order."""
    words = {name: str for name in ("display", "mailer") if name in table}
    table = table.astype(words).assign(row=np.arange(len(table), dtype=np.int32))
    found = level.compute(ibis.memtable(table), past)
    numbers = {name: found[name].cast("float32") for name in level.names}
    made = found.select("row", **numbers).to_pandas().set_index("row").sort_index()
    return made[list(level.names)].to_numpy()


def _whole(column):
    """Whole numbers for a column, of its codes where it holds categories."""
    return column.cat.codes.to_numpy() if hasattr(column, "cat") else column.to_numpy()


def _codes(columns):
    """One whole number for each row, the same where all columns are the same."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns if len(code) else ():
        column = column.astype(np.int64) - column.min()
        code = code * (column.max() + 1) + column
    return code


def _factorised(code):
    """Return the number of each row's code, and where each number occurs first."""
    number, different = pd.factorize(code)
    first = np.empty(len(different), dtype=np.int64)
    first[number[::-1]] = np.arange(len(code))[::-1]
    return number, first
