"""Columns that know the answer: a copy of the label, or one that alone ranks nearly perfectly."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbal_utils.evaluate import roc_auc

SUSPICIOUS_AUC = 0.99
LEAST_RARE = 5  # rows of the rarer class; with fewer, chance ranks perfectly now and then
MAX_LEVELS = 1_000
N_BINS = 50
SEED = 0


@dataclass(frozen=True)
class Suspect:
    """A column that alone tells the label: its name, why, and its ROC-AUC."""

    name: str
    why: str
    auc: float


def suspects(frame, y, columns, *, threshold=SUSPICIOUS_AUC) -> list[Suspect]:
    """Return the columns that are a copy of the label or alone reach an AUC above the threshold.

    Parameters
    ----------
    frame : DataFrame of shape (n, d)
        Cleaned columns.
    y : ndarray of shape (n,), 0 or 1
    columns : dict of str to Column
        Empty ones and ones of one value are passed over.
    threshold : float, default .99

    Returns
    -------
    list of Suspect
        Empty where the rarer class has fewer than 5 rows, of which chance may be the cause.
    """
    if min(y.sum(), len(y) - y.sum()) < LEAST_RARE:
        return []
    found = []
    for name, column in columns.items():
        if column.kind not in ("empty", "constant"):
            suspect = _suspect(name, frame[name], y, threshold)
            found += [suspect] if suspect else []
    return found


def _suspect(name, values, y, threshold):
    absent = values.isna().to_numpy()
    filled = _either_way(y, absent.astype(float)) if 0 < absent.sum() < len(y) else 0.5
    if filled > threshold:
        return Suspect(name, "it is filled in for one class only", filled)
    if values.nunique() == 2 and not absent.any() and _tells(values, y):
        return Suspect(name, "a copy of the label", 1.0)
    auc = max(_order_auc(values, y), _level_auc(values, y))
    return Suspect(name, "it alone ranks the rows", auc) if auc > threshold else None


def _tells(values, y):
    """Whether each value goes with one class."""
    rates = pd.Series(y).groupby(values.to_numpy()).mean()
    return bool(rates.isin([0, 1]).all())


def _either_way(y, score):
    auc = roc_auc(y, score)
    return max(auc, 1 - auc)


def _order_auc(values, y):
    """AUC of the values as they are ordered, missing ones in the middle."""
    if values.dtype.kind == "M":
        values = values.astype("int64").where(values.notna()).astype("float64")
    if values.dtype.kind != "f":
        return 0.5
    return _either_way(y, values.fillna(values.median()).to_numpy())


def _level_auc(values, y):
    """AUC of the rate of positives of a value, or of a range of values, in the other half."""
    levels = values
    if values.dtype.kind in "fM" and values.nunique() > MAX_LEVELS:
        levels = pd.qcut(values.rank(method="average"), N_BINS, labels=False, duplicates="drop")
    codes = pd.factorize(levels)[0] + 1
    half = np.zeros(len(y), dtype=bool)
    rng = np.random.default_rng(SEED)
    for of_class in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == of_class))
        half[rows[::2]] = True
    score = np.empty(len(y))
    for part in (half, ~half):
        score[part] = _rates(codes[~part], y[~part], codes.max() + 1)[codes[part]]
    return roc_auc(y, score)


def _rates(codes, y, n):
    """Rate of positives of each code, drawn towards the rate of all by one row's weight."""
    rows, positives = np.bincount(codes, minlength=n), np.bincount(codes, y, minlength=n)
    return (positives + y.mean()) / (rows + 1)
