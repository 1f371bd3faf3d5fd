"""Baskets of product types: what a household bought on one receipt, and what it had bought before.

An *item* is a product type. Item ids are those of the models: 0 is padding, 1 a type that the
catalogue lacks, and real types start at 2. Column j of a matrix over the catalogue is item id
j + `FIRST_ID`.
"""

from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
from ibis import _
from scipy import sparse

from recbal_utils import _journey
from recbal_utils._journey import journey, journey_file
from recbal_utils.cache import cached_parquet
from recbal_utils.errors import RecbalError
from recbal_utils.periods import TEST_WEEKS, TRAIN_WEEKS

PADDING, UNKNOWN, FIRST_ID = 0, 1, 2
HALF_LIVES = (7.0, 28.0, 112.0)  # days after which a purchase counts half
CATALOGUE_WEEKS = range(1, TRAIN_WEEKS[-1] + 1)
LAST_WEEK = TEST_WEEKS[-1]
COLUMNS = ("household_id", "basket_id", "week", "hour", "item")
PAIR_FEATURES = (
    "purchases",
    "share of baskets",
    "log share of baskets",
    "days since",
    "baskets since",
    *(f"recent purchases, half-life {half:g} days" for half in HALF_LIVES),
    "days since ÷ usual gap",
)
USUAL_GAP = 60.0  # days, for a type that was bought once


@dataclass(frozen=True)
class Baskets:
    """Baskets, sorted by household and time.

    Attributes
    ----------
    household : ndarray of shape (n,)
        Household ids.
    week : ndarray of int, shape (n,)
    day : ndarray of float, shape (n,)
        Days since the first basket of all.
    items : scipy CSR array of bool, shape (n, n_items)
        What each basket holds of the catalogue.
    names : ndarray of str, shape (n_items,)
        The product types, in the order of the columns.
    n_unknown : int
        Lines of types outside the catalogue, which `items` cannot hold.
    """

    household: np.ndarray
    week: np.ndarray
    day: np.ndarray
    items: sparse.csr_array
    names: np.ndarray
    n_unknown: int = 0

    def __len__(self):
        return len(self.household)

    @property
    def starts(self) -> np.ndarray:
        """Row of each basket's first basket of the same household, shape (n,)."""
        new = np.r_[True, self.household[1:] != self.household[:-1]]
        return np.flatnonzero(new)[np.cumsum(new) - 1]

    @property
    def earlier(self) -> np.ndarray:
        """Number of earlier baskets of the same household, shape (n,)."""
        return np.arange(len(self)) - self.starts

    def rows(self, weeks) -> np.ndarray:
        """Rows of the baskets of some weeks that have an earlier basket of the household."""
        return np.flatnonzero(np.isin(self.week, list(weeks)) & (self.earlier > 0))

    def counts(self, weeks) -> np.ndarray:
        """In how many baskets of some weeks each item is, shape (n_items,)."""
        inside = self.items[np.isin(self.week, list(weeks))]
        return np.asarray(inside.sum(axis=0)).ravel()


@dataclass(frozen=True)
class Histories:
    """What the household of each basket had bought before it: a row for each type it knew.

    Attributes
    ----------
    offsets : ndarray of int, shape (n + 1,)
        The pairs of basket r are offsets[r] to offsets[r + 1] - 1.
    item : ndarray of int, shape (n_pairs,)
        Columns of the catalogue, rising within a basket.
    purchases : ndarray of float, shape (n_pairs,)
        Earlier baskets with the item, at least 1.
    recent : ndarray of float, shape (n_pairs, len(HALF_LIVES))
        The same, each basket counting 2^(-days ago / half-life).
    features : ndarray of float32, shape (n_pairs, len(PAIR_FEATURES))
        What the neural models see of a pair; logarithms of counts and days.
    n_items : int
    """

    offsets: np.ndarray
    item: np.ndarray
    purchases: np.ndarray
    recent: np.ndarray
    features: np.ndarray
    n_items: int

    def __len__(self):
        return len(self.offsets) - 1

    def matrix(self, values=None) -> sparse.csr_array:
        """CSR array (n, n_items) of a value for each pair; of True by default."""
        values = np.ones(len(self.item), dtype=bool) if values is None else values
        return sparse.csr_array((values, self.item, self.offsets), (len(self), self.n_items))


def load(last_week: int = LAST_WEEK) -> Baskets:
    """Return every basket up to a week; its catalogue is the types sold in weeks 1 to 40.

    Parameters
    ----------
    last_week : int, default 48
        At least 40. Weeks 49 to 52 stay closed here.

    Raises
    ------
    RecbalError
        If last_week is out of range, or the data package is missing.
    """
    if not CATALOGUE_WEEKS[-1] <= last_week <= LAST_WEEK:
        raise RecbalError(f"last_week is {last_week}; give a week from 40 to {LAST_WEEK}.")
    lines = pd.read_parquet(_lines_file())
    lines = lines[lines["week"] <= last_week]
    sold = lines.loc[lines["week"].isin(CATALOGUE_WEEKS), "item"]
    return from_lines(lines, catalogue=np.sort(sold.unique()))


def from_lines(lines: pd.DataFrame, catalogue=None) -> Baskets:
    """Put lines of purchases together to baskets.

    Parameters
    ----------
    lines : DataFrame
        The columns household_id, basket_id, week, hour (a number that orders baskets, in hours)
        and item (a name). A line may come twice.
    catalogue : array-like of str, optional
        Names of the items, each once; by default all of `lines`, sorted. Other items are left
        out and counted.

    Raises
    ------
    RecbalError
        If a column is missing, there is no line, a basket has two households or times, or a name
        stands in the catalogue twice.
    """
    _check_lines(lines)
    names = np.sort(lines["item"].unique()) if catalogue is None else np.asarray(catalogue)
    if len(set(names.tolist())) < len(names):
        raise RecbalError("A name stands in the catalogue twice: give each item once.")
    column = pd.Index(names).get_indexer(lines["item"])
    keys = ["household_id", "hour", "basket_id"]
    heads = lines[[*keys, "week"]].drop_duplicates()
    if heads["basket_id"].duplicated().any():
        raise RecbalError("A basket has two households, weeks or hours: make its id unique.")
    heads = heads.sort_values(keys)
    place = pd.Series(np.arange(len(heads)), index=heads["basket_id"])
    row = place.loc[lines["basket_id"]].to_numpy()
    known = column >= 0
    items = sparse.coo_array(
        (np.ones(known.sum(), dtype=bool), (row[known], column[known])), (len(heads), len(names))
    ).tocsr()
    items.sum_duplicates()
    hours = heads["hour"].to_numpy(dtype=float)
    return Baskets(
        household=heads["household_id"].to_numpy(),
        week=heads["week"].to_numpy(),
        day=(hours - hours.min()) / 24,
        items=items,
        names=names,
        n_unknown=int((~known).sum()),
    )


def histories(baskets: Baskets, rows) -> Histories:
    """Return what the household of each chosen basket had bought before it.

    Parameters
    ----------
    baskets : Baskets
    rows : array-like of int
        Rising row numbers of `baskets`. Only earlier baskets of the household are used, whatever
        their week.

    Raises
    ------
    RecbalError
        If rows do not rise or lie outside.
    """
    rows = _checked_rows(baskets, rows)
    edges = np.flatnonzero(np.r_[True, baskets.starts[1:] != baskets.starts[:-1]])
    parts = []
    for start, stop in zip(edges, np.r_[edges[1:], len(baskets)], strict=True):
        first, last = np.searchsorted(rows, [start, stop])
        if last > first:
            parts.append(_household(baskets, start, stop, rows[first:last] - start))
    if not parts:
        raise RecbalError("There is no basket: choose weeks that have some.")
    sizes, item, counts, recent, features = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Histories(
        offsets=np.r_[0, np.cumsum(sizes)],
        item=item,
        purchases=counts,
        recent=recent,
        features=features,
        n_items=len(baskets.names),
    )


def _household(baskets, start, stop, wanted):
    """Histories before the wanted baskets of one household (numbered within it)."""
    block = baskets.items[start:stop]
    known = np.unique(block.indices)
    bought = block[:, known].toarray()
    day = baskets.day[start:stop]
    counts = _before(np.cumsum(bought, axis=0, dtype=np.float32), 0)
    row, column = np.nonzero(counts[wanted])
    sizes = np.bincount(row, minlength=len(wanted))
    row = wanted[row]
    number = np.arange(stop - start)[:, None]
    last = _before(np.maximum.accumulate(np.where(bought, number, -1), axis=0), -1)[row, column]
    first = bought.argmax(axis=0)[column]
    count = counts[row, column]
    recent = np.column_stack(
        [_decayed(bought, day, half)[row, column] for half in HALF_LIVES]
    ).astype(np.float32)
    features = _pair_features(count, row, last, day, first, recent)
    return sizes, known[column].astype(np.int32), count, recent, features


def _before(values, empty):
    """Shift by one row, so that a row sees only earlier ones."""
    return np.concatenate([np.full((1, values.shape[1]), empty, values.dtype), values[:-1]])


def _decayed(bought, day, half_life):
    """Sum of 2^(-days ago / half-life) over earlier purchases."""
    grown = np.exp2((day - day[0]) / half_life)[:, None]
    return _before(np.cumsum(bought * grown, axis=0), 0.0) / grown


def _pair_features(count, row, last, day, first, recent):
    """Columns of PAIR_FEATURES."""
    since = day[row] - day[last]
    repeated = count > 1
    gap = np.where(repeated, (day[last] - day[first]) / np.maximum(count - 1, 1), USUAL_GAP)
    share = count / row
    columns = [
        np.log1p(count),
        share,
        np.log(share + 0.01),
        np.log1p(since),
        np.log1p(row - last),
        *np.log1p(recent).T,
        np.log1p(since) - np.log1p(gap),
    ]
    return np.column_stack(columns).astype(np.float32)


# --- what models take -----------------------------------------------------------------------


def padded(history: Histories, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the known items of each basket as padded ids, with the features of each pair.

    Parameters
    ----------
    history : Histories
    length : int
        Places for ids; of longer histories the pairs most often bought of late are kept
        (half-life 112 days).

    Returns
    -------
    ids : ndarray of int32, shape (n, length)
        Item ids from 2; 0 is padding, at the end.
    features : ndarray of float16, shape (n, length, len(PAIR_FEATURES))
        0 where padded.
    """
    row = np.repeat(np.arange(len(history)), np.diff(history.offsets))
    order = np.lexsort((-history.recent[:, -1], row))
    place = np.arange(len(row)) - history.offsets[row]
    kept = place < length
    row, place, order = row[kept], place[kept], order[kept]
    ids = np.zeros((len(history), length), np.int32)
    ids[row, place] = history.item[order] + FIRST_ID
    features = np.zeros((*ids.shape, history.features.shape[1]), np.float16)
    features[row, place] = history.features[order]
    return ids, features


def sequences(baskets: Baskets, rows, n_baskets: int, length: int):
    """Return the last purchases before each chosen basket, in order, with their baskets' age.

    Parameters
    ----------
    baskets : Baskets
    rows : array-like of int
        Rising row numbers.
    n_baskets : int
        How many baskets to look back.
    length : int
        Places for ids; of longer sequences the last are kept.

    Returns
    -------
    ids : ndarray of int32, shape (n, length)
        Item ids from 2, latest basket first, padded by 0. Within a basket the order means
        nothing.
    age : ndarray of int32, shape (n, length)
        1 for the latest basket, up to n_baskets; 0 where padded.

    Raises
    ------
    RecbalError
        As `histories`.
    """
    rows = _checked_rows(baskets, rows)
    ids = np.zeros((len(rows), length), np.int32)
    age = np.zeros_like(ids)
    filled = np.zeros(len(rows), np.int64)
    starts, sizes = baskets.starts, np.diff(baskets.items.indptr)
    for back in range(1, n_baskets + 1):
        inside = rows - back >= starts[rows]
        from_row = np.where(inside, rows - back, 0)
        size = np.where(inside, sizes[from_row], 0)
        size = np.minimum(size, length - filled)
        at = np.repeat(np.arange(len(rows)), size)
        step = np.arange(len(at)) - np.repeat(np.cumsum(size) - size, size)
        bought = baskets.items.indices[baskets.items.indptr[from_row[at]] + step]
        ids[at, filled[at] + step] = bought + FIRST_ID
        age[at, filled[at] + step] = back
        filled += size
    return ids, age


def check_ids(ids, n_items: int) -> np.ndarray:
    """Return ids as an array; raise where one is no id of the catalogue.

    Parameters
    ----------
    ids : array-like of int
    n_items : int
        Real types; ids run from 0 (padding) to n_items + 1.

    Raises
    ------
    RecbalError
        If ids are not whole numbers, or one is out of range.
    """
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        raise RecbalError(f"Item ids must be whole numbers; they are of type {ids.dtype}.")
    highest = n_items + FIRST_ID - 1
    if ids.size and (ids.min() < 0 or ids.max() > highest):
        raise RecbalError(
            f"Item ids run from {ids.min()} to {ids.max()}; this catalogue has 0 (padding), "
            f"1 (unknown) and 2 to {highest}: map other types to 1."
        )
    return ids


# --- lines of the log -----------------------------------------------------------------------


def _lines_file() -> Path:
    """Parquet of basket, hour and product type; lines of quantity 0 or without a type left out."""
    tables = ("transactions", "products")
    decided_by = {
        "sources": {name: _journey._digest(journey_file(name)) for name in tables},
        "code": _journey._logic_digest(Path(__file__).read_text("utf-8")),
    }
    return cached_parquet("baskets", decided_by, _write_lines)


def _write_lines(path: Path) -> None:
    bought = journey("transactions").filter(_.quantity > 0, _.week <= LAST_WEEK)
    typed = journey("products").filter(_.product_type.notnull())  # noqa: PD004
    lines = bought.inner_join(typed.select("product_id", item=_.product_type), "product_id")
    start = ibis.timestamp("2017-01-01 00:00:00")
    lines.select(
        "basket_id",
        household_id=_.household_id.cast("int32"),
        week=_.week.cast("int16"),
        hour=(_.transaction_timestamp.epoch_seconds() - start.epoch_seconds()) / 3600,
        item=_.item,
    ).distinct().order_by("household_id", "hour", "basket_id", "item").to_parquet(path)


def _check_lines(lines):
    missing = [name for name in COLUMNS if name not in lines.columns]
    if missing:
        raise RecbalError(f"The lines lack the column {', '.join(missing)}.")
    if lines.empty:
        raise RecbalError("There is no line, so there is no basket: check how rows were chosen.")


def _checked_rows(baskets, rows):
    rows = np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or (np.diff(rows) <= 0).any():
        raise RecbalError("rows must rise: give each basket once, in the order of `baskets`.")
    if len(rows) and (rows[0] < 0 or rows[-1] >= len(baskets)):
        raise RecbalError(f"rows lie outside the {len(baskets)} baskets.")
    return rows
