"""Checks for noise: each with the rows it touches and what to do about them."""

from __future__ import annotations

import re

import ibis
import pandas as pd

from recbal_utils._lazy import as_ibis, check_columns, label_counts, labelled, missing, row, run
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
    flagged, names = with_rules(table, rules)
    t = as_ibis(flagged, names)
    counts = merged(run(t.aggregate(rows=t.count(), **column_checks(t))))
    return findings(table, counts, names, rules, label, keys, duplicates, positive)


def with_rules(table, rules) -> tuple:
    """The table with a column for each rule; and new short names of all columns, c… and r…."""
    check_columns(table, [])
    names = {f"c{i}": column for i, column in enumerate(table.columns)}
    flags = {f"recbal_rule_{i}": _flags(table, *rule) for i, rule in _numbered(rules)}
    if flags:
        table = table.assign(**flags) if isinstance(table, pd.DataFrame) else table.mutate(**flags)
    return table, names | {f"r{i}": flag for i, flag in enumerate(flags)}


def _numbered(rules):
    return enumerate((rules or {}).items())


def _flags(table, name, rule):
    """The rule as a boolean column of the table."""
    try:
        if isinstance(rule, ibis.Deferred) and isinstance(table, pd.DataFrame):
            t = as_ibis(table, {str(column): column for column in table.columns})
            return t.select(flag=rule).execute()["flag"].set_axis(table.index)
        flags = rule.resolve(table) if isinstance(rule, ibis.Deferred) else rule(table)
        boolean = flags.type().is_boolean() if isinstance(table, ibis.Table) else _are_bool(flags)
    except Exception as error:
        raise RecbalError(f"The rule {name!r} cannot be applied to the table: {error}") from error
    if not boolean:
        raise RecbalError(f"The rule {name!r} must give true or false for each row.")
    return flags


def _are_bool(flags) -> bool:
    return pd.api.types.is_bool_dtype(pd.Series(flags).dropna().infer_objects())


def column_checks(t) -> dict:
    """What a pass over the table tells of each column; parts can be put together by `merged`."""
    checks = {}
    for name in t.columns:
        column = t[name]
        if re.fullmatch(r"r\d+", name):
            checks[f"rule_{name}"] = column.sum()
        elif re.fullmatch(r"c\d+", name):
            floating = column.type().is_floating()
            absent = missing(column).sum() if floating else t.count() - column.count()
            checks[f"missing_{name}"] = absent
            checks |= _ends(name, column)
    return checks


def _ends(name, column) -> dict:
    kind = column.type()
    if kind.is_boolean():
        column = column.cast("int8")
    elif not (kind.is_numeric() or kind.is_string() or kind.is_temporal()):
        return {}
    return {f"low_{name}": column.min(), f"high_{name}": column.max()}


def merged(parts: pd.DataFrame) -> dict:
    """Counts of the whole from counts of its parts, one row each."""
    how = {"low": "min", "high": "max"}
    return {
        name: getattr(parts[name].dropna(), how.get(name.split("_")[0], "sum"))()
        for name in parts.columns
    }


def findings(table, counts, names, rules, label, keys, duplicates, positive) -> pd.DataFrame:
    """The table of checks, from the counts of the columns and the passes they did not need."""
    rows = int(counts["rows"])
    if rows == 0:
        raise RecbalError("The table is empty: there is no row to check.")
    keys = [keys] if isinstance(keys, str) else list(keys or [])
    check_columns(table, [*keys, *([label] if label is not None else [])])
    columns = {c: str(names[c]) for c in names if c.startswith("c")}
    missing_in = {c: int(counts[f"missing_{c}"]) for c in columns}
    found = []
    if duplicates:
        everything = {c: names[c] for c in columns}
        found.append(
            ("duplicate rows", "all columns", rows - _distinct(as_ibis(table, everything)))
        )
    if keys:
        found += _key_checks(table, keys, label, positive, rows)
    found += [("rule", name, int(counts[f"rule_r{i}"])) for i, (name, _) in _numbered(rules)]
    found += [("missing values", name, missing_in[c]) for c, name in columns.items()]
    found += [
        ("constant column", name, rows)
        for c, name in columns.items()
        if missing_in[c] == 0 and f"low_{c}" in counts and counts[f"low_{c}"] == counts[f"high_{c}"]
    ]
    return _frame(found, rows)


def _frame(found, rows) -> pd.DataFrame:
    frame = pd.DataFrame(found, columns=["check", "where", "rows"])
    frame["share"] = frame["rows"] / rows
    frame["what_to_do"] = frame["check"].map(ADVICE).where(frame["rows"] > 0, "nothing")
    return frame


def _distinct(t) -> int:
    return int(row(t.distinct().aggregate(n=lambda d: d.count()))["n"])


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
