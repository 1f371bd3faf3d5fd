"""Checks for noise: each with the rows it touches and what to do about them."""

from __future__ import annotations

import ibis
import pandas as pd

from recbal_utils._lazy import as_ibis, check_columns, label_counts, labelled, missing, row
from recbal_utils.errors import RecbalError

ADVICE = {
    "duplicate rows": "keep one of each, and say how many went",
    "duplicate keys": "decide which row is right, or whether the key is complete",
    "conflicting labels": "repair the labels first: balancing would copy the contradiction",
    "missing values": "find out why; fill within the training data, or keep as a category",
    "constant column": "drop it as a feature: it tells nothing",
    "rule": "look at some of them, then repair, drop or cap, and say how many",
}


def noise(table, *, label=None, keys=None, rules=None, duplicates=True, positive=None):
    """What is wrong in a table: every check, the rows it touches, what to do.

    Parameters
    ----------
    table : pandas DataFrame or Ibis table
        A lazy table is aggregated by its engine and never brought into memory.
    label : str, optional
        Name of the label column, needed to find keys whose labels disagree.
    keys : str or list of str, optional
        Columns that together should name a row, for example household, store, week
        and product.
    rules : mapping of str to predicate, optional
        What cannot be true, by name: a function of the table as it was given that
        returns a boolean column, or a deferred Ibis expression such as
        ``ibis._.quantity > 1000``. Rows where it is true are counted.
    duplicates : bool
        Whether to look for rows that repeat in all columns. On a log larger than
        memory this is the costly check.
    positive : scalar, optional
        The positive value, where the label is not 0/1.

    Returns
    -------
    DataFrame with the columns `check`, `where`, `rows`, `share` (of all rows, in
        [0, 1]) and `what_to_do`; checks that found nothing stay in it with 0 rows.
        `duplicate rows` and `duplicate keys` count the rows beyond the first of each;
        `conflicting labels` counts all rows of a key that has both labels.

    Raises
    ------
    RecbalError
        If a column is missing, the table is empty, or a rule gives no boolean column.
    """
    keys = [keys] if isinstance(keys, str) else list(keys or [])
    check_columns(table, [*keys, *([label] if label is not None else [])])
    t = as_ibis(table, {f"c{i}": column for i, column in enumerate(table.columns)})
    names = dict(zip(t.columns, table.columns, strict=True))
    counts = row(t.aggregate(rows=t.count(), **_column_checks(t), **_lazy_rules(table, rules)))
    rows = int(counts["rows"])
    if rows == 0:
        raise RecbalError("The table is empty: there is no row to check.")
    found = []
    if duplicates:
        found.append(("duplicate rows", "all columns", rows - _distinct(t)))
    if keys:
        found += _key_checks(table, keys, label, positive, rows)
    found += [("rule", name, n) for name, n in _rule_counts(table, rules, counts)]
    found += [("missing values", str(names[c]), int(counts[f"missing_{c}"])) for c in names]
    found += [
        ("constant column", str(names[c]), rows) for c in names if counts.get(f"constant_{c}")
    ]
    return _frame(found, rows)


def _frame(found, rows) -> pd.DataFrame:
    frame = pd.DataFrame(found, columns=["check", "where", "rows"])
    frame["share"] = frame["rows"] / rows
    frame["what_to_do"] = frame["check"].map(ADVICE).where(frame["rows"] > 0, "nothing")
    return frame


def _distinct(t) -> int:
    return int(row(t.distinct().aggregate(n=lambda d: d.count()))["n"])


def _column_checks(t) -> dict:
    checks = {}
    for name in t.columns:
        column = t[name]
        n_missing = missing(column).sum()
        checks[f"missing_{name}"] = n_missing
        if column.type().is_numeric() or column.type().is_string() or column.type().is_temporal():
            same = column.min() == column.max()
            checks[f"constant_{name}"] = same & (n_missing == 0)
        elif column.type().is_boolean():
            same = column.all() | ~column.any()
            checks[f"constant_{name}"] = same & (n_missing == 0)
    return checks


def _lazy_rules(table, rules) -> dict:
    """Rules of a lazy table, to be counted in the pass of the other checks."""
    if not isinstance(table, ibis.Table):
        return {}
    return {f"rule_{i}": _count(table, name, rule) for i, (name, rule) in _numbered(rules)}


def _numbered(rules):
    return list(enumerate((rules or {}).items()))


def _count(table, name, rule):
    try:
        flags = rule.resolve(table) if isinstance(rule, ibis.Deferred) else rule(table)
        boolean = flags.type().is_boolean()
    except Exception as error:
        raise RecbalError(f"The rule {name!r} cannot be applied to the table: {error}") from error
    if not boolean:
        raise RecbalError(f"The rule {name!r} must give true or false for each row.")
    return flags.sum()


def _rule_counts(table, rules, counts) -> list:
    if isinstance(table, ibis.Table):
        return [(name, int(counts[f"rule_{i}"] or 0)) for i, (name, _) in _numbered(rules)]
    return [(name, _count_in_memory(table, name, rule)) for _, (name, rule) in _numbered(rules)]


def _count_in_memory(table, name, rule) -> int:
    if isinstance(rule, ibis.Deferred):
        t = as_ibis(table, {str(column): column for column in table.columns})
        return int(row(t.aggregate(n=_count(t, name, rule)))["n"] or 0)
    try:
        flags = pd.Series(rule(table))
    except Exception as error:
        raise RecbalError(f"The rule {name!r} cannot be applied to the table: {error}") from error
    if len(flags) != len(table) or not pd.api.types.is_bool_dtype(flags.dropna().infer_objects()):
        raise RecbalError(f"The rule {name!r} must give true or false for each row.")
    return int(flags.fillna(False).sum())


def _key_checks(table, keys, label, positive, rows) -> list:
    roles = {f"k{i}": key for i, key in enumerate(keys)}
    where = ", ".join(map(str, keys))
    if label is None:
        return [("duplicate keys", where, rows - _distinct(as_ibis(table, roles)))]
    t = labelled(table, label, positive=positive, **roles)
    label_counts(t, label)
    per_key = t.group_by(list(roles)).agg(n=t.count(), low=t.y.min(), high=t.y.max())
    counts = row(
        per_key.aggregate(
            keys=per_key.count(),
            conflicts=(per_key.low != per_key.high).ifelse(per_key.n, 0).sum(),
        )
    )
    return [
        ("duplicate keys", where, rows - int(counts["keys"])),
        ("conflicting labels", where, int(counts["conflicts"])),
    ]
