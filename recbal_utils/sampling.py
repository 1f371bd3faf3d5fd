"""Hash-kept samples of lazy tables, with weights.

A row is kept or dropped by arithmetic on its own keys, never by a random stream, so the same
keys are kept on every engine, for every number of threads and every order of the rows. Only
addition, multiplication and remainder of 64-bit integers are used: each engine has its own
``hash()``, but all whose remainder is exact agree on these three (DuckDB and Spark do;
SQLite's, a float, does not).

Keys are mixed one after another. Between two keys stands a step that is not linear,
``z -> z**5 mod (2**31 - 1)``, a permutation of the residues. Without it, two weeks (or two
seeds) would keep samples that avoid or repeat each other.
"""

import math
import numbers
from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from recbal_utils.errors import RecbalError

PRIME = 2**31 - 1
_SECOND_PRIME = 2**31 - 19
_SPREAD = 1_566_083_941
_START = 1_179_649_823


def hash_state(
    table: ir.Table,
    keys: Sequence[str],
    seed: int = 0,
    *,
    start: str | None = None,
    name: str = "hash_state",
) -> ir.Table:
    """Add a column that mixes `seed` and the values of `keys`, in their order.

    Parameters
    ----------
    table : ibis Table
    keys : sequence of str
        Integer columns without missing values. The order matters.
    seed : int
        Another seed gives an independent hash. Ignored when `start` is given.
    start : str, optional
        Column with the state of keys that were mixed before. Mixing ``a, b`` and then, on the
        joined table, ``c`` gives what mixing ``a, b, c`` at once gives; on a large join the
        first keys are mixed once in their own small table.
    name : str
        Name of the new column.

    Returns
    -------
    ibis Table
        `table` with an int64 column `name`, in [0, 2**31 - 1).

    Raises
    ------
    RecbalError
        A key is missing or is not an integer column, or no key was given.
    """
    _check_keys(table, keys)
    if start is None:
        mixed = table.mutate(**{name: ibis.literal(_seed_state(seed), type="int64")})
    else:
        mixed = table.mutate(**{name: table[start]})
    for key in keys:
        # One mutate a step: inside a single expression each step would repeat the one before.
        mixed = mixed.mutate(**{name: (mixed[name] + _residue(mixed[key])) % PRIME})
        mixed = mixed.mutate(**{name: _fifth_power(mixed[name])})
    return mixed


def hash_uniform(
    table: ir.Table, keys: Sequence[str], seed: int = 0, *, name: str = "hash_uniform"
) -> ir.Table:
    """Add a float column in [0, 1), a fixed function of `seed` and the values of `keys`.

    Parameters and errors as in `hash_state`.

    Returns
    -------
    ibis Table
        `table` with a float64 column `name`.
    """
    mixed = hash_state(table, keys, seed, name=name)
    return mixed.mutate(**{name: mixed[name] / float(PRIME)})


def keep_share(
    table: ir.Table,
    keys: Sequence[str],
    share: float,
    seed: int = 0,
    *,
    start: str | None = None,
) -> ir.Table:
    """Keep the rows whose hash falls in the first `share` of its range.

    Parameters
    ----------
    table, keys, seed, start
        As in `hash_state`. Rows with equal keys are kept or dropped together: with the keys of
        a visit, whole visits are kept.
    share : float
        In (0, 1]; the expected share of distinct keys kept.

    Returns
    -------
    ibis Table
        The kept rows, columns unchanged (a column named by `start` is dropped).

    Raises
    ------
    RecbalError
        `share` lies outside (0, 1], or as in `hash_state`.
    """
    limit = _limit(share, "share")
    mixed = hash_state(table, keys, seed, start=start, name="_hash")
    dropped = ["_hash"] if start is None else ["_hash", start]
    return mixed.filter(mixed["_hash"] < limit).drop(*dropped)


def sample_negatives(
    table: ir.Table,
    label: str,
    keys: Sequence[str],
    keep_rate: float,
    seed: int = 0,
    *,
    start: str | None = None,
    weight: str = "weight",
) -> ir.Table:
    """Keep every positive and a hash-kept share of the negatives, with weights.

    Parameters
    ----------
    table, keys, seed, start
        As in `hash_state`.
    label : str
        Boolean or 0/1 integer column.
    keep_rate : float
        In (0, 1], the share β of negatives kept.
    weight : str
        Name of the weight column: 1 for positives, 1/β for negatives, so that weighted counts
        estimate those of `table`.

    Returns
    -------
    ibis Table

    Raises
    ------
    RecbalError
        `keep_rate` lies outside (0, 1], `label` is missing, or as in `hash_state`.

    Notes
    -----
    A model fitted on the rows without their weights predicts odds that are 1/β too high; adding
    ln β to its log-odds undoes that (King & Zeng 2001; He et al. 2014).
    """
    if label not in table.columns:
        raise RecbalError(_missing("label", label, table))
    limit = _limit(keep_rate, "keep_rate")
    mixed = hash_state(table, keys, seed, start=start, name="_hash")
    positive = mixed[label].cast("boolean")
    kept = mixed.filter(positive | (mixed["_hash"] < limit))
    weights = ibis.ifelse(kept[label].cast("boolean"), 1.0, 1.0 / keep_rate)
    dropped = ["_hash"] if start is None else ["_hash", start]
    return kept.mutate(**{weight: weights}).drop(*dropped)


def _fifth_power(state: ir.IntegerValue) -> ir.IntegerValue:
    square = (state * state) % PRIME
    return ((square * square) % PRIME * state) % PRIME


def _residue(key: ir.IntegerValue) -> ir.IntegerValue:
    """Map any 64-bit integer into [0, PRIME); equal to the key where it lies there already."""
    key = key.cast("int64")
    first = ((key % PRIME) + PRIME) % PRIME
    second = ((key % _SECOND_PRIME) + _SECOND_PRIME) % _SECOND_PRIME
    # Ids beyond 2**31 that agree modulo one prime differ modulo the other.
    return (first + ((first - second + PRIME) % PRIME) * _SPREAD) % PRIME


def _seed_state(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise RecbalError(f"seed is {seed!r}; give a whole number.")
    return pow(_START + int(seed), 5, PRIME)


def _limit(share: float, name: str) -> int:
    if not isinstance(share, numbers.Real) or not 0 < share <= 1:
        raise RecbalError(f"{name} is {share!r}; give a number above 0 and at most 1.")
    return math.ceil(share * PRIME)


def _check_keys(table: ir.Table, keys: Sequence[str]) -> None:
    if isinstance(keys, str) or not keys:
        raise RecbalError(f"keys is {keys!r}; give a list of one or more column names.")
    for key in keys:
        if key not in table.columns:
            raise RecbalError(_missing("key", key, table))
        if not table[key].type().is_integer():
            raise RecbalError(
                f"key {key!r} is of type {table[key].type()}; hash integer columns only, "
                "for example a numbered dictionary of its values."
            )


def _missing(role: str, name: str, table: ir.Table) -> str:
    return f"{role} {name!r} is not a column; the table has {', '.join(table.columns)}."
