"""Tables in memory and lazy tables, read alike: everything is aggregated by the engine."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import combinations

import ibis
import pandas as pd
import pyarrow as pa

from recbal_utils.errors import RecbalError

ROLES = {"y": "label", "w": "weight"}  # what the user calls the columns y and w
ONE_ROLE = ("y", "w", "time", "item", "user", "unit")
MAY_BE_GROUP = ("time", "item", "user")


def check_columns(table, columns) -> None:
    """Raise unless the table is one we can read and has the columns, each once.

    Columns are names, or a mapping of role to name.
    """
    if not isinstance(table, pd.DataFrame | ibis.Table):
        raise RecbalError(
            f"The table must be a pandas DataFrame or an Ibis table, not {type(table).__name__}."
        )
    if isinstance(table, pd.DataFrame) and not table.columns.is_unique:
        twice = list(table.columns[table.columns.duplicated()])
        raise RecbalError(f"The table has columns of the same name ({twice[0]}): rename them.")
    named = columns.items() if isinstance(columns, dict) else [(None, name) for name in columns]
    for role, column in named:
        _check_name(column, role)
        if column not in table.columns:
            raise RecbalError(
                f"The table has no column {column!r}; it has {', '.join(map(str, table.columns))}."
            )


def _check_name(column, role) -> None:
    if not isinstance(column, Hashable) or isinstance(column, ibis.Expr | ibis.Deferred):
        kind = type(column).__name__
        what = "a key" if role is None else ROLES.get(role, role)
        raise RecbalError(f"{what} must be a column name, not {_article(kind)} {kind}.")


def _article(word) -> str:
    return "an" if word[0] in "AEIOUaeiou" else "a"


def _check_roles(roles) -> None:
    """Raise if a column has two roles; rows may well be grouped by item, user or time."""
    for (one, a), (two, b) in combinations(roles.items(), 2):
        both = {one, two}
        allowed = "group" in both and not both.isdisjoint(MAY_BE_GROUP)
        if a == b and both <= {*ONE_ROLE, "group"} and not allowed:
            raise RecbalError(
                f"The column {a!r} is given as {ROLES.get(one, one)} and as "
                f"{ROLES.get(two, two)}: a column has one role."
            )


def missing(column):
    """Where an Ibis column is missing: null, and for floats not-a-number too."""
    null = column.isnull()  # noqa: PD003 (Ibis, not pandas)
    return null | column.isnan() if column.type().is_floating() else null


def as_ibis(table, columns: dict) -> ibis.Table:
    """An Ibis table with the columns asked for, renamed: a mapping of new name to old."""
    check_columns(table, columns)
    if isinstance(table, ibis.Table):
        return table.select(**{new: table[old] for new, old in columns.items()})
    frame = pd.DataFrame({new: _plain(table[old]) for new, old in columns.items()})
    return ibis.memtable(frame.reset_index(drop=True))


def _plain(column: pd.Series) -> pd.Series:
    """A column that Arrow can take: categories as their values, mixed objects as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return column.map(repr, na_action="ignore")
    return column


def run(expression):
    """Execute; an error of the engine becomes one sentence with its first line."""
    try:
        return expression.execute()
    except RecbalError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecbalError(f"The engine could not read the table: {first}") from error


def row(expression) -> dict:
    """The single row of an aggregate, with missing values as None."""
    values = run(expression).iloc[0].to_dict()
    return {name: None if pd.isna(value) else value for name, value in values.items()}


def labelled(table, label, *, positive=None, **roles) -> ibis.Table:
    """Columns y (1 for positive, 0 for negative) and the roles named; role w holds weights.

    Roles with a column of None are left out. Values that are no label stay missing or
    odd in y: `label_counts` finds them in the pass that counts.
    """
    named = {role: column for role, column in roles.items() if column is not None}
    t = as_ibis(table, {"y": label, **named})
    _check_roles({"y": label, **named})
    if positive is not None:
        t = t.mutate(y=_is_positive(t, label, positive))
    elif t.y.type().is_boolean():
        t = t.mutate(y=t.y.cast("int8"))
    elif not t.y.type().is_numeric():
        _not_zero_one(t, label)
    return weighted(t, named["w"]) if "w" in named else t


def weighted(t, name) -> ibis.Table:
    """The table with its weights in w as floats."""
    if not (t.w.type().is_numeric() or t.w.type().is_boolean()):
        raise RecbalError(f"The weights in column {name!r} must be numbers.")
    return t.mutate(w=t.w.cast("float64"))


def size(t):
    """Rows that the table stands for: the sum of its weights, or its number of rows."""
    return t.w.sum() if "w" in t.columns else t.count()


def value(t):
    """What a row adds to the positives: its weight, or 1, if it is positive."""
    return t.y * t.w if "w" in t.columns else t.y


def label_sums(t) -> dict:
    """What `label_counts` needs of a pass over the table; sums, so parts can be added up."""
    positive, negative = t.y == 1, t.y == 0
    sums = {
        "rows": t.count(),
        "missing": missing(t.y).sum(),
        "positives": positive.sum(),
        "negatives": negative.sum(),
    }
    if "w" in t.columns:
        squares = t.w * t.w
        sums |= {
            "bad_weights": (missing(t.w) | (t.w < 0) | t.w.isinf()).sum(),
            "weight": t.w.sum(),
            "weight_positive": positive.ifelse(t.w, 0.0).sum(),
            "squares_positive": positive.ifelse(squares, 0.0).sum(),
            "squares_negative": negative.ifelse(squares, 0.0).sum(),
        }
    return sums


def label_counts(t, label) -> dict:
    """Rows, positives and weights in one pass; raises if the label is not two classes."""
    return checked_counts(t, label, row(t.aggregate(**label_sums(t))))


def checked_counts(t, label, counts) -> dict:
    """The counts, those of the rows standing in where there are no weights; or an error.

    With a label of None only rows and weights are checked.
    """
    if "w" not in t.columns:
        counts |= {
            "bad_weights": 0,
            "weight": counts["rows"],
            "weight_positive": counts["positives"],
            "squares_positive": counts["positives"],
            "squares_negative": counts["negatives"],
        }
    if counts["rows"] == 0:
        raise RecbalError("The table is empty: there is no row to diagnose.")
    if counts["bad_weights"]:
        raise RecbalError(
            f"{int(counts['bad_weights']):,} weights are missing, infinite or negative: a weight "
            "says how many rows a row stands for."
        )
    if label is not None:
        _check_labels(t, label, counts)
    return counts


def _check_labels(t, label, counts) -> None:
    rows = int(counts["rows"])
    if counts["missing"]:
        raise RecbalError(
            f"The label {label!r} is missing in {int(counts['missing']):,} of {rows:,} rows: "
            "drop or fill them first, and say how many."
        )
    if counts["positives"] + counts["negatives"] < rows:
        _not_zero_one(t, label)
    if 0 in (counts["positives"], counts["negatives"]):
        name = "positive" if counts["positives"] else "negative"
        raise RecbalError(f"The label {label!r} has one class only: all {rows:,} rows are {name}.")
    if not 0 < counts["weight_positive"] < counts["weight"]:
        raise RecbalError("The weights leave one class only: those of a whole class add up to 0.")


def _present(t):
    return t.select("y").filter(~missing(t.y)).distinct()


def _values(t) -> list:
    return run(_present(t).limit(6))["y"].tolist()


def _n_classes(t) -> int:
    return int(row(_present(t).aggregate(n=lambda d: d.count()))["n"])


def _examples(values) -> str:
    shown = ", ".join(sorted(repr(value) for value in values[:5]))
    return shown + (", …" if len(values) > 5 else "")


def _not_zero_one(t, label) -> None:
    values = _values(t)
    if len(values) == 0:
        raise RecbalError(f"The label {label!r} holds no value: there is no row to diagnose.")
    if len(values) == 1:
        raise RecbalError(f"The label {label!r} has one class only: all rows hold {values[0]!r}.")
    if len(values) > 2:
        _not_binary(t, label, values)
    raise RecbalError(
        f"The label {label!r} holds {_examples(values)}, not 0 and 1: say which of the two is the "
        "positive one, with positive=."
    )


def _not_binary(t, label, values) -> None:
    raise RecbalError(
        f"The label {label!r} is not binary: it holds {_n_classes(t):,} classes "
        f"({_examples(values)}). Make a 0/1 column of one question first: is it this class or not?"
    )


def _is_positive(t, label, positive):
    values = _values(t)
    if values and positive not in values:
        raise RecbalError(
            f"positive={positive!r} does not occur in the label {label!r}, which holds "
            f"{_examples(values)}."
        )
    if len(values) > 2:
        _not_binary(t, label, values)
    return (t.y == ibis.literal(positive, type=t.y.type())).cast("int8")
