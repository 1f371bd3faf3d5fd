"""Is a labelled table imbalanced, does it matter, and what to do first.

Works on a pandas DataFrame and on a lazy Ibis table alike; a lazy table is aggregated
by its engine and never brought into memory. `report` puts the single diagnoses together
and derives the advice, each line with the figure that led to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd

from recbal_utils._advice import Report, advise
from recbal_utils._inequality import gini, gini_by_chance, lorenz, tier_edges, tiers
from recbal_utils._lazy import (
    as_ibis,
    check_columns,
    checked_counts,
    label_counts,
    label_sums,
    labelled,
    missing,
    row,
    run,
    size,
    value,
    weighted,
)
from recbal_utils._noise import column_checks, findings, merged, noise, with_rules
from recbal_utils.errors import RecbalError

LATE_SHARE = 0.2  # of the time values: judged as the future of the others
MAX_TIMES = 100_000  # 270 years of days; more, and the time is finer than a split needs


@dataclass(frozen=True)
class Imbalance:
    """Counts of a labelled table.

    Attributes
    ----------
    rows, positives : int
        Rows of the table as it is, and those labelled positive.
    represents : float
        Rows that the table stands for: the sum of the weights, or `rows` without.
    prevalence : float in (0, 1)
        Share of positives, weighted.
    ratio : float
        Imbalance ratio: negatives per positive, weighted.
    effective_positives, effective_negatives : float
        Kish's effective number over the weights of the rows of a class,
        (Σw)² / Σw²: how many rows of equal weight would tell as much. Equal to the
        number of rows without weights.
    effective_groups : float or None
        Kish's effective number over groups, (Σ n_g)² / Σ n_g² with n_g the weighted
        positives of group g: how many groups of equal size would hold the positives. It
        is the cautious end, right if the positives of a group are copies of one
        another; `effective_positives` is right if they are independent.
    entropy : float
        Log loss, in nats, of predicting the prevalence for every row: the
        denominator of normalised entropy.

    Source: L. Kish (1965), Survey Sampling.
    """

    rows: int
    positives: int
    represents: float
    prevalence: float
    ratio: float
    effective_positives: float
    effective_negatives: float
    effective_groups: float | None
    entropy: float


def imbalance(table, label, *, weight=None, group=None, positive=None) -> Imbalance:
    """Prevalence, imbalance ratio and effective number of positives.

    Parameters
    ----------
    table : pandas DataFrame or Ibis table, one row an example
    label : str
        Name of a column of 0/1 or bool, or of any two values with `positive`.
    weight : str, optional
        Name of the column that says how many rows each row stands for.
    group : str, optional
        Name of the column within which rows are alike, for example the household.
        Rows without a group count as one group.
    positive : scalar, optional
        The positive value, where the label is not 0/1.

    Returns
    -------
    Imbalance

    Raises
    ------
    RecbalError
        If the table is empty, or the label is missing, has one class or more than two;
        if a weight is missing, infinite or negative.
    """
    t = labelled(table, label, positive=positive, w=weight, group=group)
    counts = label_counts(t, label)
    return _imbalance(counts, None if group is None else _effective_groups(t))


def _imbalance(counts, effective_groups) -> Imbalance:
    weight, positive = counts["weight"], counts["weight_positive"]
    rate = positive / weight
    negative = weight - positive
    return Imbalance(
        rows=int(counts["rows"]),
        positives=int(counts["positives"]),
        represents=float(weight),
        prevalence=float(rate),
        ratio=float(negative / positive),
        effective_positives=float(positive**2 / counts["squares_positive"]),
        effective_negatives=float(negative**2 / counts["squares_negative"]),
        effective_groups=effective_groups,
        entropy=float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate)),
    )


def _effective_groups(t) -> float:
    per_group = t.group_by("group").agg(n=value(t).sum().cast("float64"))
    sums = row(per_group.aggregate(a=per_group.n.sum(), b=(per_group.n * per_group.n).sum()))
    return float(sums["a"] ** 2 / sums["b"])


# --- long tail ---------------------------------------------------------------------


def unit_totals(table, unit, label=None, *, weight=None, catalogue=None, positive=None):
    """Positives (or rows, without a label) of each unit, largest first.

    Parameters
    ----------
    table : pandas DataFrame or Ibis table
    unit : str
        Name of the column of the unit: product, household, query, …
    label : str, optional
        Name of the label column; without it, rows are counted.
    weight : str, optional
        Name of the column that says how many rows each row stands for.
    catalogue : array-like or Ibis column of unit ids, optional
        All units there are: those that the table lacks are added with a total of 0.
    positive : scalar, optional
        The positive value, where the label is not 0/1.

    Returns
    -------
    Series of float indexed by unit: the result holds one row a unit in memory. Ties are
        in ascending order of the unit.

    Raises
    ------
    RecbalError
        If a column is missing, or some rows have no unit.
    """
    t = _unit_table(table, unit, label, weight, positive)
    per_unit = run(_per_unit(t))
    checked_counts(t, label, merged(per_unit.drop(columns=["unit", "total"])))
    totals = per_unit.set_index("unit")["total"]
    if totals.index.isna().any():
        raise RecbalError(_no_unit(unit))
    if catalogue is not None:
        ids = run(catalogue.as_table())[catalogue.get_name()] if _lazy(catalogue) else catalogue
        extra = pd.Index(ids).unique().dropna().difference(totals.index)
        totals = pd.concat([totals, pd.Series(0.0, index=extra)])
    totals = totals.sort_index().sort_values(ascending=False, kind="stable")
    return totals.rename_axis(unit).rename("rows" if label is None else str(label))


def _lazy(column) -> bool:
    return isinstance(column, ibis.Column)


def _no_unit(unit) -> str:
    return f"Some rows have no {unit!r}: drop them, or give them a name of their own, first."


def _unit_table(table, unit, label, weight, positive):
    """The unit with its label, or with y = 1 for every row where rows are counted."""
    if label is not None:
        return labelled(table, label, positive=positive, w=weight, unit=unit)
    t = as_ibis(table, {"unit": unit} if weight is None else {"unit": unit, "w": weight})
    return (t if weight is None else weighted(t, weight)).mutate(y=ibis.literal(1))


def _per_unit(t):
    """Total of each unit, and what tells of bad labels or weights, in the same pass."""
    return t.group_by("unit").agg(total=value(t).sum().cast("float64"), **label_sums(t))


def long_tail(table, unit, label=None, *, weight=None, catalogue=None, positive=None):
    """How concentrated the positives are: head, mid and tail units, their share, Gini.

    Parameters
    ----------
    table : pandas DataFrame or Ibis table
    unit : str
        Name of the column of the unit: product, household, query, …
    label : str, optional
        Name of the label column; without it, rows are counted instead of positives.
    weight : str, optional
        Name of the column that says how many rows each row stands for.
    catalogue : int, array-like or Ibis column of unit ids, optional
        The number of all units, or their ids: those that the table lacks are
        never-bought units of the tail.
    positive : scalar, optional
        The positive value, where the label is not 0/1.

    Returns
    -------
    DataFrame indexed by tier: head (top 20 % of the units), mid (next 30 %), tail (the
        rest, and every unit with none), all. Columns `units`, `share_of_units`,
        `total`, `share_of_total`, and `gini` within the tier (NaN where all are zero).
        The engine aggregates to one row for each different total, so that the number
        of units does not matter.

    Raises
    ------
    RecbalError
        If a column is missing, some rows have no unit, or the catalogue holds fewer
        units than the table.
    """
    t = _unit_table(table, unit, label, weight, positive)
    totals = _count_of_totals(t)
    checked_counts(t, label, merged(totals.drop(columns=["units", "total", "no_unit"])))
    if totals["no_unit"].any():
        raise RecbalError(_no_unit(unit))
    more = _never_seen(t, catalogue, int(totals["units"].sum()))
    return _tier_table(totals["total"], totals["units"], more)


def _count_of_totals(t) -> pd.DataFrame:
    """How many units have each total: one row a total, however many units there are."""
    p = _per_unit(t)
    sums = {name: p[name].sum() for name in label_sums(t)}
    return run(p.group_by(p.total, no_unit=missing(p.unit)).agg(units=p.count(), **sums))


def _never_seen(t, catalogue, n_units) -> int:
    """Units of the catalogue that the table lacks."""
    if catalogue is None:
        return 0
    if isinstance(catalogue, int | np.integer):
        if catalogue < n_units:
            raise RecbalError(
                f"The catalogue is said to hold {catalogue:,} units, fewer than the {n_units:,} "
                "of the table."
            )
        return int(catalogue) - n_units
    if _lazy(catalogue):
        ids = catalogue.as_table().rename(unit=catalogue.get_name())
    else:
        ids = as_ibis(pd.DataFrame({"unit": pd.Series(catalogue)}), {"unit": "unit"})
    ids = ids.filter(~missing(ids.unit)).distinct()
    fresh = ids.anti_join(t.select("unit").distinct(), "unit")
    return int(row(fresh.aggregate(n=fresh.count()))["n"])


def _unit_profile(t, unit, cut=None) -> tuple[pd.DataFrame, dict]:
    """How many units have each total; late rows of units unseen early; rows without a unit.

    One pass over the table: the engine sums per unit and half, then per unit, then per total.
    """
    late = ibis.literal(False) if cut is None else (t.time >= cut) & ~missing(t.time)
    t = t.mutate(late=late)
    halves = t.group_by(unit=t[unit], late=t.late).agg(
        n=t.count(), size=size(t).cast("float64"), value=value(t).sum().cast("float64")
    )
    is_late = halves.late
    per_unit = halves.group_by("unit").agg(
        n=halves.n.sum(),
        total=halves.value.sum(),
        early_rows=is_late.ifelse(0, halves.n).sum(),
        early_positives=is_late.ifelse(0.0, halves.value).sum(),
        late_weight=is_late.ifelse(halves["size"], 0.0).sum(),
        late_positive=is_late.ifelse(halves.value, 0.0).sum(),
    )
    p = per_unit.mutate(
        unseen=(per_unit.early_rows == 0).ifelse(1.0, 0.0),
        unbought=(per_unit.early_positives == 0).ifelse(1.0, 0.0),
        present=(per_unit.late_weight > 0).ifelse(1.0, 0.0),
    )
    sums = {
        f"{name}_{what}": (p[name] * p[column]).sum()
        for name in ("unseen", "unbought")
        for what, column in (
            ("units", "present"),
            ("rows", "late_weight"),
            ("positives", "late_positive"),
        )
    }
    frame = run(
        p.group_by(p.total, no_unit=missing(p.unit)).agg(
            units=p.count(),
            rows=p.n.sum(),
            late_units=p.present.sum(),
            late_rows=p.late_weight.sum(),
            late_positives=p.late_positive.sum(),
            **sums,
        )
    )
    without = frame[frame["no_unit"]][["rows", "total"]].sum().to_dict()
    return frame[~frame["no_unit"]].astype(float), without


def _tier_table(total, units, never_seen=0) -> pd.DataFrame:
    order = np.argsort(-np.asarray(total))
    value = np.append(np.asarray(total, dtype=float)[order], 0.0)
    repeats = np.append(np.asarray(units, dtype=float)[order], float(never_seen))
    ends = np.cumsum(repeats)
    n, with_any = int(ends[-1]), repeats[value > 0].sum()
    head, mid = (min(edge, with_any) for edge in tier_edges(n))
    bounds = {"head": (0, head), "mid": (head, mid), "tail": (mid, n), "all": (0, n)}
    rows = {}
    for name, (start, stop) in bounds.items():
        inside = np.clip(ends, start, stop) - np.clip(ends - repeats, start, stop)
        held = float((inside * value).sum())
        index = gini(value, repeats=inside) if held > 0 else np.nan
        rows[name] = (int(inside.sum()), held, index)
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["units", "total", "gini"])
    frame.insert(1, "share_of_units", frame["units"] / n)
    frame.insert(3, "share_of_total", frame["total"] / frame.loc["all", "total"])
    return frame.rename_axis("tier")


# --- cold start --------------------------------------------------------------------


def cold_start(train, test, keys, label, *, positive=None) -> pd.DataFrame:
    """How much of the test traffic is of products, households or pairs unseen in training.

    Parameters
    ----------
    train : pandas DataFrame or Ibis table with the key columns
        What counts as having been seen: the training rows, or the purchases up to
        the last training week.
    test : pandas DataFrame or Ibis table with the key columns and the label
    keys : list of str and of tuples of str
        Each a column, or several columns that count as one key, for example
        ``["product_id", "household_id", ("household_id", "product_id")]``.
    label : str
        Name of the label column of `test`.
    positive : scalar, optional
        The positive value, where the label is not 0/1.

    Returns
    -------
    DataFrame indexed by key: `rows`, `positives` of the test set; `unseen_values`,
        `unseen_rows`, `unseen_positives` of key values that training lacks;
        `share_of_rows`, `share_of_positives` of them in [0, 1]; `rate_seen`,
        `rate_unseen`: the prevalence among seen and unseen (NaN without rows). A key
        with a missing part was never seen.

    Raises
    ------
    RecbalError
        If a column is missing, or the test set is empty or has one class only.
    """
    keys = [keys] if isinstance(keys, str | tuple) else list(keys)
    if not keys:
        raise RecbalError("Name at least one key, for example keys=['product_id'].")
    label_counts(labelled(test, label, positive=positive), label)
    names = [(key,) if isinstance(key, str) else tuple(key) for key in keys]
    rows = [_cold_row(train, test, columns, label, positive) for columns in names]
    index = pd.Index([" × ".join(map(str, columns)) for columns in names], name="key")
    return pd.DataFrame(rows, index=index)


def _cold_row(train, test, columns, label, positive) -> dict:
    roles = {f"k{i}": column for i, column in enumerate(columns)}
    check_columns(train, columns)
    seen = as_ibis(train, roles).distinct().mutate(seen=ibis.literal(True))
    t = labelled(test, label, positive=positive, **roles)
    per_key = t.group_by(list(roles)).agg(rows=t.count(), positives=t.y.sum())
    try:
        joined = per_key.left_join(seen, list(roles))
        unseen = missing(joined.seen)
    except Exception as error:
        raise RecbalError(
            f"The key {', '.join(columns)} cannot be compared between training and test: give it "
            "the same type in both, on one engine."
        ) from error
    counts = row(
        joined.aggregate(
            rows=joined.rows.sum(),
            positives=joined.positives.sum(),
            unseen_values=unseen.sum(),
            unseen_rows=unseen.ifelse(joined.rows, 0).sum(),
            unseen_positives=unseen.ifelse(joined.positives, 0).sum(),
        )
    )
    return _cold_figures({name: int(value) for name, value in counts.items()})


def _cold_figures(counts) -> dict:
    seen = counts["rows"] - counts["unseen_rows"]
    seen_positives = counts["positives"] - counts["unseen_positives"]
    return {
        **counts,
        "share_of_rows": _ratio(counts["unseen_rows"], counts["rows"]),
        "share_of_positives": _ratio(counts["unseen_positives"], counts["positives"]),
        "rate_seen": _ratio(seen_positives, seen),
        "rate_unseen": _ratio(counts["unseen_positives"], counts["unseen_rows"]),
    }


def _ratio(a, b) -> float:
    return float(a / b) if b else float("nan")


# --- report ------------------------------------------------------------------------


def report(
    table,
    label,
    *,
    group=None,
    item=None,
    user=None,
    time=None,
    weight=None,
    n_features=None,
    positive=None,
    need=None,
    costs=None,
    keys=None,
    rules=None,
    duplicates=None,
) -> Report:
    """Is the table imbalanced, does it matter, what to do first: with the figures.

    Parameters
    ----------
    table : pandas DataFrame or Ibis table
        A lazy table is never brought into memory. It is read once for labels, columns
        and time together, and once for each of `item`, `user` and a `group` that is
        neither; `keys` and `duplicates` read it once more each.
    label : str
        Name of a column of 0/1 or bool, or of any two values with `positive`.
    group : str, optional
        Column within which rows are alike (default: `user`).
    item, user : str, optional
        Columns of the product and of the household or visitor: their long tail, and
        their cold start if `time` is given.
    time : str, optional
        Column of the time (week, date; not text): its last 20 % of values are taken as
        the future of the earlier ones, with which rows without a time are put.
    weight : str, optional
        Column that says how many rows each row stands for.
    n_features : int, optional
        Number of features the model will have, for the positives per feature.
    positive : scalar, optional
        The positive value, where the label is not 0/1.
    need : {"ranking", "probabilities", "decision"}, optional
        What the model is for; without it the advice covers all three.
    costs : (float, float), optional
        Cost of a false positive and of a false negative, for the threshold.
    keys, rules : optional
        As in `noise`.
    duplicates : bool, optional
        Whether to look for repeated rows; by default only in memory.

    Returns
    -------
    Report
        Shows itself in notebooks; `.decision`, `.lines`, `.to_dict()`, and the parts
        `.imbalance`, `.long_tail`, `.noise`, `.cold_start`.

    Raises
    ------
    RecbalError
        If the table is empty, a column is missing, or the label is missing in some
        rows, has one class or more than two; if a column has two roles (the group may be
        the item, the user or the time), or the time is text.
    """
    _check_options(need, costs, n_features)
    group = user if group is None else group
    flagged, names = with_rules(table, rules)
    roles = {"w": weight, "group": group, "time": time, "item": item, "user": user}
    t = labelled(flagged, label, positive=positive, **roles, **names)
    counts, cut, timeless = _first_pass(t, label, time)
    units = {column: role for role, column in roles.items() if role in ("item", "user") and column}
    profiles = {column: _unit_profile(t, role, cut) for column, role in units.items()}
    if duplicates is None:
        duplicates = isinstance(table, pd.DataFrame)
    figures = _imbalance(counts, _groups_of(t, group, profiles))
    facts = {
        "label": str(label),
        "imbalance": figures,
        "weighted": weight is not None,
        "group": group,
        "n_features": n_features,
        "noise": findings(table, counts, names, rules, label, keys, duplicates, positive),
        "duplicates_checked": bool(duplicates),
        "long_tail": {column: _tails(profile, column) for column, (profile, _) in profiles.items()},
        "gini_by_chance": {
            column: _chance(profile, figures) for column, (profile, _) in profiles.items()
        },
        "without_time": timeless,
        "without_unit": {
            c: int(without["rows"]) for c, (_, without) in profiles.items() if without["rows"]
        },
        "cold_start": _cold_table(profiles, cut),
        "late_from": cut,
        "time": time,
    }
    return Report(**facts, lines=advise(facts, need, costs))


def _tails(profile, column) -> pd.DataFrame:
    if profile["total"].sum() == 0:
        raise RecbalError(f"No positive row has a {column!r}: there is no long tail to show.")
    return _tier_table(profile["total"], profile["units"])


def _chance(profile, figures) -> float:
    """Gini of as many positives thrown evenly; weighted ones by their effective number."""
    weight = (profile["total"] * profile["units"]).sum() / (figures.represents * figures.prevalence)
    return gini_by_chance(figures.effective_positives * weight / profile["units"].sum())


def _check_options(need, costs, n_features) -> None:
    if need not in (None, "ranking", "probabilities", "decision"):
        raise RecbalError(
            f"need={need!r} is not known: use 'ranking', 'probabilities', 'decision' or None."
        )
    if costs is not None and not _are_costs(costs):
        raise RecbalError(
            "costs must be two numbers, 0 or more: of a false positive, a false negative."
        )
    if n_features is not None and not (_is_number(n_features) and n_features >= 1):
        raise RecbalError(f"n_features must be a number, 1 or more; it is {n_features!r}.")


def _is_number(value) -> bool:
    kinds = int | float | np.integer | np.floating
    return isinstance(value, kinds) and not isinstance(value, bool) and bool(np.isfinite(value))


def _are_costs(costs) -> bool:
    if not isinstance(costs, list | tuple | np.ndarray) or len(costs) != 2:
        return False
    return all(_is_number(cost) and cost >= 0 for cost in costs) and sum(costs) > 0


def _first_pass(t, label, time) -> tuple[dict, object, int]:
    """Counts of labels and columns, first of the late times, rows without a time, in one pass."""
    sums = {**label_sums(t), **column_checks(t)}
    if time is None:
        return checked_counts(t, label, merged(run(t.aggregate(**sums)))), None, 0
    if t.time.type().is_string():
        raise RecbalError(
            f"The time {time!r} is text: convert it with pd.to_datetime (dates sort wrongly as "
            "text)."
        )
    parts = run(t.group_by("time").agg(**sums).limit(MAX_TIMES + 1))
    if len(parts) > MAX_TIMES:
        raise RecbalError(
            f"The time {time!r} has over {MAX_TIMES:,} values: round it to days first."
        )
    counts = checked_counts(t, label, merged(parts.drop(columns="time")))
    times = parts["time"].dropna().sort_values()
    if len(times) < 2:
        raise RecbalError(
            f"The time {time!r} has {len(times)} value(s): a split into then and now needs two."
        )
    timeless = int(parts.loc[parts["time"].isna(), "rows"].sum())
    return counts, times.iloc[-max(1, round(LATE_SHARE * len(times)))], timeless


def _groups_of(t, group, profiles) -> float | None:
    """Effective number of groups, from the profile of the item or user if that is the group."""
    if group is None:
        return None
    if group not in profiles:
        return _effective_groups(t)
    profile, without = profiles[group]
    total = (profile["units"] * profile["total"]).sum() + without["total"]
    squares = (profile["units"] * profile["total"] ** 2).sum() + without["total"] ** 2
    return float(total**2 / squares)


def _cold_table(profiles, cut) -> pd.DataFrame:
    rows = {} if cut is None else {c: _cold_parts(profile) for c, (profile, _) in profiles.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("key")


def _cold_parts(profile) -> dict:
    sums = profile.sum()
    parts = {"rows": sums["late_rows"], "positives": sums["late_positives"]}
    for name in ("unseen", "unbought"):
        parts[f"{name}_values"] = int(sums[f"{name}_units"])
        parts[f"{name}_share_of_rows"] = _ratio(sums[f"{name}_rows"], sums["late_rows"])
        parts[f"{name}_share_of_positives"] = _ratio(
            sums[f"{name}_positives"], sums["late_positives"]
        )
        parts[f"{name}_rate"] = _ratio(sums[f"{name}_positives"], sums[f"{name}_rows"])
    return parts


__all__ = [
    "Imbalance",
    "Report",
    "cold_start",
    "gini",
    "imbalance",
    "long_tail",
    "lorenz",
    "noise",
    "report",
    "tiers",
    "unit_totals",
]
