"""Columns of a table nobody has described: what kind each is, and its values made clean."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "\\n"})
PLACEHOLDERS = frozenset({"-", "--", "?", "."})  # missing too where the other values are numbers
TRUE_FALSE = (
    ("1", "0"),
    ("true", "false"),
    ("yes", "no"),
    ("t", "f"),
    ("y", "n"),
    ("on", "off"),
    ("1", "-1"),
    ("positive", "negative"),
)
MOSTLY = 0.95  # share of values that must read as a number or a date
NEARLY_UNIQUE = 0.9
WORDS_OF_TEXT = 4  # mean number of words from which values are text, not categories
FEW_VALUES = 50  # up to here repeated sentences are categories
LEAST_FOR_ID = 50  # rows; in fewer, hardly any value repeats anyway
FORMATS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
_ID_NAME = re.compile(r"(^|[_\W])(id|uid|guid|uuid|sku|ean|key|hash|cookie)$|[a-z]I[dD]$", re.I)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")


@dataclass(frozen=True)
class Column:
    """What was found out about one column.

    Attributes
    ----------
    name : str
    kind : str
        "number", "boolean", "date", "category", "text", "id", "constant" or "empty".
    missing : float
        Share of rows without a value, in [0, 1].
    n_values : int
        Different values, a missing one not counted.
    unread : int
        Values that did not read as the others did and count as missing.
    """

    name: str
    kind: str
    missing: float
    n_values: int
    unread: int = 0


def clean(
    values: pd.Series, name: str, *, decimal_comma=False, is_name=None
) -> tuple[Column, pd.Series]:
    """Return the column's description and its values: floats, dates or text.

    Parameters
    ----------
    values : Series
        As read: text, numbers, booleans or dates; never lists or bytes.
    name : str
    decimal_comma : bool, default False
        Whether "3,5" is a number.
    is_name : bool, optional
        Whether whole numbers only name something; by default so under names such as user_id.
    """
    names = looks_like_id(name) if is_name is None else is_name
    if values.dtype.kind in "biuf":
        numbers = _finite(values)
        found = _codes(numbers) if names and _whole(numbers) else numbers
        return _describe(name, found, values, given=values.dtype.kind)
    if values.dtype.kind == "M":
        return _describe(name, values, values)
    text = stripped(values)
    for read in (_as_boolean, lambda t: _as_number(t, names, decimal_comma), _as_date):
        found = read(text)
        if found is not None:
            return _describe(name, found, text)
    return _describe(name, text, text)


def looks_like_id(name) -> bool:
    """Whether a column of this name is likely to hold ids."""
    return bool(_ID_NAME.search(name))


def stripped(values: pd.Series) -> pd.Series:
    """Text without spaces around it, and without the words that stand for a missing value."""
    text = values.astype("str").str.strip()
    return text.mask(text.str.lower().isin(MISSING))


def canonical(value) -> str:
    """One spelling of a label's value: 1, 1.0 and " 1 " are the same, Yes and yes too."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        known = {word for pair in TRUE_FALSE for word in pair}
        return text.lower() if text.lower() in known else text
    return str(int(number)) if np.isfinite(number) and number == int(number) else str(number)


def _as_boolean(text):
    """0 and 1 for two words that are each other's opposite, else None."""
    lower = text.str.lower()
    words = set(lower.dropna().unique()) if lower.nunique() <= 2 else set()
    for true, false in TRUE_FALSE:
        if words == {true, false} or (words in ({true}, {false}) and not true.isdigit()):
            return lower.map({true: 1.0, false: 0.0}).astype("float64")
    return None


def _as_number(text, names, decimal_comma):
    present = text.dropna()
    present = present[~present.isin(PLACEHOLDERS)]
    if present.empty or present.str.fullmatch(r"0\d+").any():  # 00123 is a code
        return None
    found = pd.to_numeric(_without_signs(present, decimal_comma), errors="coerce")
    if found.notna().mean() < MOSTLY:
        return None
    if found.isna().any() and present.nunique() <= FEW_VALUES:
        return None  # few values, not all of them numbers: codes, such as 0 to 9 and A
    found = _finite(found.astype("float64"))
    if names and _whole(found):
        return None  # it names something: a category, or an id
    return found.reindex(text.index)


def _without_signs(text, decimal_comma):
    """Numbers without currency, percent and thousands signs."""
    text = text.str.replace(r"^[$€£¥]\s*|\s*[%€]$", "", regex=True)
    if decimal_comma:
        return text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    if text.str.fullmatch(_THOUSANDS.pattern).any():
        return text.str.replace(",", "", regex=False)
    return text


def _finite(values):
    values = values.astype("float64")
    return values.where(np.isfinite(values))


def _as_date(text):
    present = text.dropna()
    if present.empty:
        return None
    sample = present.iloc[:: max(1, len(present) // 500)]
    if sample.str.match(_ISO.pattern).mean() >= MOSTLY:
        return _dates(text, "ISO8601")
    days = [f + c for f in FORMATS for c in CLOCKS]
    shares = {f: _dates(sample, f).notna().mean() for f in days}
    best = max(days, key=shares.get)
    return _dates(text, best) if shares[best] >= MOSTLY else None


def _whole(numbers):
    return bool((numbers.dropna() % 1 == 0).all())


def _codes(numbers):
    """Whole numbers as the text that names something."""
    return numbers.map(lambda value: f"{value:.0f}", na_action="ignore").astype("str")


def _dates(text, form):
    """Dates in universal time, without a zone; what is no date is missing."""
    found = pd.to_datetime(text, format=form, errors="coerce", utc=True)
    return found.dt.tz_localize(None)


def _describe(name, found, read, given="O"):
    """Name the kind of cleaned values; `read` is the column before."""
    n_values = int(found.nunique())
    missing = float(found.isna().mean()) if len(found) else 0.0
    unread = int((found.isna() & read.notna()).sum())
    if n_values == 0:
        kind = "empty"
    elif n_values == 1 and not missing:
        kind = "constant"
    elif found.dtype.kind == "M":
        kind = "date"
    elif found.dtype.kind == "f":
        kind = _kind_of_numbers(found, n_values, given)
    else:
        kind = _kind_of_text(found, n_values)
    return Column(name, kind, missing, n_values, unread), found


def _kind_of_numbers(found, n_values, given):
    present = found.dropna()
    if given == "b" or set(present.unique()) == {0.0, 1.0}:
        return "boolean"
    n = len(present)
    if (
        _whole(present)
        and n >= LEAST_FOR_ID
        and n_values == n
        and present.max() - present.min() < 2 * n
    ):
        return "id"  # a running number
    return "number"


def _kind_of_text(found, n_values):
    present = found.dropna()
    sample = present.iloc[:: max(1, len(present) // 2000)]
    if n_values > FEW_VALUES and sample.str.count(r"\S+").mean() >= WORDS_OF_TEXT:
        return "text"
    if len(present) >= LEAST_FOR_ID and n_values > NEARLY_UNIQUE * len(present):
        return "id"
    return "category"
