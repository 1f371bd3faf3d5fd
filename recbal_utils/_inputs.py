"""What the metrics accept: anything else gives one clear sentence, never a wrong number."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbal_utils.errors import RecbalError


@dataclass(frozen=True)
class Units:
    """Rows sorted into units (households, visits): a code from 0 to n - 1 for each row."""

    codes: np.ndarray
    n: int


def check_shapes(**columns):
    """Raise unless every column is 1-D, of one length and index, not empty; None is skipped."""
    for name, values in columns.items():
        _refuse_a_name(values, name)
    shapes = {name: _shape(values, name) for name, values in columns.items() if values is not None}
    seen = ", ".join(f"{name} has shape {shape}" for name, shape in shapes.items())
    if any(len(shape) != 1 for shape in shapes.values()):
        raise RecbalError(f"{seen}: pass 1-D arrays (a column of shape (n, 1) by its .ravel()).")
    if len(set(shapes.values())) > 1:
        raise RecbalError(f"{seen}: pass arrays of one length, a value for each row.")
    if 0 in next(iter(shapes.values())):
        raise RecbalError(f"{seen}: there is no row to evaluate; check how the rows were selected.")
    _check_indexes(columns)


def _refuse_a_name(values, name):
    if isinstance(values, str):
        what = "id" if name in {"groups", "visits"} else "value"
        raise RecbalError(
            f"{name} must be an array with one {what} a row, not the name {values!r}."
        )


def _check_indexes(columns):
    """Rows are matched by position, so that indexes that differ tell of rows mixed up."""
    series = {name: values for name, values in columns.items() if isinstance(values, pd.Series)}
    first, *others = series or [None]
    for name in others:
        if not series[name].index.equals(series[first].index):
            raise RecbalError(
                f"{first} and {name} have different indexes, and rows are matched by position: "
                "align them, or pass both with .to_numpy() if their rows are in the same order."
            )


def labels(y):
    """Return y as float64 zeros and ones."""
    if _is_text(np.asarray(y)):
        raise RecbalError(
            "y must hold numbers, 0 or 1, and it holds text: pass (y == 'yes').astype(int), with "
            "your word for a positive in place of 'yes'."
        )
    y = numbers(y, "y")
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        raise RecbalError(f"y must be 0 or 1 (or bool) in every row; {_first(y, wrong)}.")
    return y


def numbers(values, name):
    """Return values as a finite float64 array."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufO" or _is_text(array):
        raise RecbalError(f"{name} must hold numbers; its type is {array.dtype}. Convert it first.")
    try:
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise RecbalError(f"{name} holds missing values or values that are no numbers.") from None
    if not np.isfinite(array).all():
        wrong = ~np.isfinite(array)
        raise RecbalError(
            f"{name} must be finite; {_first(array, wrong)}. Fill or drop those rows."
        )
    return array


def _is_text(array):
    kind = array.dtype.kind
    return kind in "UST" or (kind == "O" and any(isinstance(value, str) for value in array))


def number(value, name):
    """Return one number as a float."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RecbalError(f"{name} must be one number; it is {value!r}.") from None


def open_share(value, name):
    """Return a share of rows, above 0 and below 1."""
    share = number(value, name)
    if not 0 < share < 1:
        raise RecbalError(
            f"{name} must lie in (0, 1); it is {value!r}. Give a share, such as 0.05."
        )
    return share


def check_probabilities(p, name="p"):
    """Raise unless every value of p lies in [0, 1]."""
    wrong = (p < 0) | (p > 1)
    if wrong.any():
        raise RecbalError(
            f"{name} must be probabilities in [0, 1] for log loss, normalised entropy, ratio and "
            f"calibration error; {_first(p, wrong)}. Scores suit only the ranking metrics."
        )


def weights(sample_weight):
    """Return weights as float64, at least one above zero; None stays None."""
    if sample_weight is None:
        return None
    weight = numbers(sample_weight, "sample_weight")
    wrong = weight < 0
    if wrong.any():
        raise RecbalError(f"sample_weight must not be negative; {_first(weight, wrong)}.")
    if not weight.any():
        raise RecbalError("sample_weight is 0 in every row; give at least one row a weight.")
    return weight


def mask(subset, name="subset"):
    """Return subset as a bool array."""
    array = np.asarray(subset)
    if array.dtype.kind != "b":
        raise RecbalError(f"{name} must be a bool for each row; its type is {array.dtype}.")
    return array


def units(values, name):
    """Sort rows into units by their ids; the codes do not depend on the order of rows."""
    found, ids = factorise(values, name)
    return Units(found, len(ids))


def factorise(values, name):
    """Return a code per row and the sorted ids; raise where an id is missing."""
    codes, ids = pd.factorize(values if hasattr(values, "dtype") else np.asarray(values), sort=True)
    if (codes < 0).any():
        raise RecbalError(
            f"{name} has {(codes < 0).sum()} rows without an id, the first at row "
            f"{np.argmax(codes < 0)}: give every row an id, or drop those rows."
        )
    return codes.astype(np.int64, copy=False), ids


def count(value, name, least):
    """Return value as an int of at least `least`."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise RecbalError(f"{name} must be a whole number of at least {least}; it is {value!r}.")
    return int(value)


def _shape(values, name):
    try:
        return np.shape(values)
    except ValueError:
        raise RecbalError(f"{name} is ragged: pass a 1-D array, a value for each row.") from None


def _first(array, wrong):
    row = int(np.argmax(wrong))
    return f"{int(wrong.sum())} rows break this, the first is row {row} with {array[row]:g}"
