"""A stranger's columns as a matrix of finite numbers, fitted on training rows alone."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from recbal_utils.errors import RecbalError

MISSING_LEVEL = "(missing)"
FEW_LEVELS = 20  # up to here each level gets a column of its own
LEAST_LEVEL = 5  # rows a level needs for that
MAX_WORDS = 50
WORD_ROWS = 20  # rows in which a word must stand
LARGEST = 1e100  # of a number; beyond, differences and squares overflow
MOSTLY_NEW = 0.5  # share of the test rows
LEFT_OUT = ("id", "constant", "empty")


def fleeting(frame, columns, test) -> list[str]:
    """Names of the columns whose values in most test rows do not occur in the training rows.

    A category of them is new; a number or a date lies outside the range of the training rows, as
    a running number or a date of its own does where the test is later. Labels are not looked at.

    Parameters
    ----------
    frame : DataFrame of shape (n, d)
    columns : dict of str to Column
    test : ndarray of bool, shape (n,)
    """
    found = []
    for name, column in columns.items():
        values = frame[name]
        before, after = values[~test].dropna(), values[test].dropna()
        if not len(before) or not len(after):
            continue
        if column.kind == "category":
            new = ~after.isin(before.unique())
        elif column.kind in ("number", "date"):
            new = (after < before.min()) | (after > before.max())
        else:
            continue
        found += [name] if new.mean() > MOSTLY_NEW else []
    return found


class TableEncoder:
    """Numbers, flags, dates, categories and text as one float32 matrix.

    Numbers are centred, scaled and their tails compressed by a logarithm, an order that trees and
    linear models both take. Categories of few levels become flags; of many, their rate of
    positives in the training rows (cross-fitted, so a row's own label is not in it) and their
    frequency. Text becomes its length and its 50 most frequent words. Missing values are filled,
    and that they were missing is a column.

    Parameters
    ----------
    columns : dict of str to Column
        As in `Log.columns`.
    skip : collection of str
        Columns to leave out, beside ids and columns of one value.
    time : str, optional
        The column of time: only its hour and weekday are used, as later rows have later dates.
    seed : int, default 0
        Of the folds behind the rates of categories.
    """

    def __init__(self, columns, *, skip=(), time=None, seed=0):
        self.columns = columns
        self.skip = frozenset(skip)
        self.time = time
        self.seed = seed

    def fit_transform(self, frame, y) -> pd.DataFrame:
        """Learn from training rows, y in {0, 1}, and return their matrix.

        Raises
        ------
        RecbalError
            If no column is left.
        """
        self._parts = {}
        for name, column in self.columns.items():
            if name not in self.skip and column.kind not in LEFT_OUT:
                self._parts[name] = self._part(name, column.kind)
        blocks = [part.fit(frame[name], y) for name, part in self._parts.items()]
        self.names_ = [f"x{i}" for i in range(sum(block.shape[1] for block in blocks))]
        if not self.names_:
            raise RecbalError("No column is left to learn from, without ids and suspected leaks.")
        return self._matrix(blocks, frame)

    def transform(self, frame) -> pd.DataFrame:
        """Return the matrix of other rows."""
        blocks = [part.transform(frame[name]) for name, part in self._parts.items()]
        return self._matrix(blocks, frame)

    def _part(self, name, kind):
        if kind == "date":
            return _Date(with_day=name != self.time)
        if kind == "category":
            return _Category(self.seed)
        if kind == "text":
            return _Text()
        return _Nothing() if name == self.time else _Number()

    def _matrix(self, blocks, frame):
        values = np.hstack(blocks).astype(np.float32)
        return pd.DataFrame(values, columns=self.names_, index=frame.index)


class _Nothing:
    def fit(self, values, y):
        return self.transform(values)

    def transform(self, values):
        return np.empty((len(values), 0))


class _Number:
    def fit(self, values, y):
        present = np.clip(values.dropna().to_numpy(), -LARGEST, LARGEST)
        self.centre = float(np.median(present)) if len(present) else 0.0
        spread = float(np.std(np.clip(present, *_inner(present)))) if len(present) else 0.0
        self.scale = spread if np.isfinite(spread) and spread > 0 else 1.0
        self.flag = bool(values.isna().any())
        return self.transform(values)

    def transform(self, values):
        filled = np.clip(values.fillna(self.centre).to_numpy(), -LARGEST, LARGEST)
        z = (filled - self.centre) / self.scale
        z = np.sign(z) * np.log1p(np.abs(z))
        flag = values.isna().to_numpy()[:, None]
        return np.hstack([z[:, None], flag]) if self.flag else z[:, None]


def _inner(present):
    """The range without the outermost values, which would set the scale alone."""
    return np.quantile(present, [0.01, 0.99])


class _Date:
    def __init__(self, with_day):
        self.with_day = with_day

    def fit(self, values, y):
        self.start = values.min()
        self.with_hour = bool((values.dt.hour.dropna() != 0).any())
        self.numbers = [_Number() for _ in self._columns(values)]
        columns = zip(self.numbers, self._columns(values), strict=True)
        return np.hstack([number.fit(column, y) for number, column in columns] or [_none(values)])

    def transform(self, values):
        columns = zip(self.numbers, self._columns(values), strict=True)
        return np.hstack(
            [number.transform(column) for number, column in columns] or [_none(values)]
        )

    def _columns(self, values):
        weekday = values.dt.day_of_week
        found = [(weekday == day).astype("float64") for day in range(7)]
        if self.with_day:
            found.append((values - self.start).dt.total_seconds() / 86_400)
        if self.with_hour:
            found.append(values.dt.hour.astype("float64"))
        return found


def _none(values):
    return np.empty((len(values), 0))


class _Category:
    def __init__(self, seed):
        self.seed = seed

    def fit(self, values, y):
        text = self._text(values)
        counts = text.value_counts()
        common = sorted(counts.index[counts >= LEAST_LEVEL])
        self.levels = common if len(counts) <= FEW_LEVELS and common else None
        if self.levels:
            return self.transform(values)
        self.counts = np.log(counts)
        folds = StratifiedKFold(_folds(y), shuffle=True, random_state=self.seed)
        self.encoder = TargetEncoder(target_type="binary", cv=folds)
        rates = self.encoder.fit_transform(text.to_numpy(dtype=object)[:, None], y)
        return np.hstack([_log_odds(rates), self._frequency(text)])

    def transform(self, values):
        text = self._text(values)
        if self.levels is not None:
            return np.column_stack([text == level for level in self.levels])
        rates = self.encoder.transform(text.to_numpy(dtype=object)[:, None])
        return np.hstack([_log_odds(rates), self._frequency(text)])

    def _frequency(self, text):
        return text.map(self.counts).fillna(-1.0).to_numpy(dtype=float)[:, None]

    @staticmethod
    def _text(values):
        return values.astype(object).where(values.notna(), MISSING_LEVEL)


def _folds(y):
    return int(np.clip(min(np.sum(y == 1), np.sum(y == 0)), 2, 5))


def _log_odds(rates):
    """Rates as log-odds, in which rare positives are told apart; scaled to about one."""
    rates = np.clip(rates, 1e-6, 1 - 1e-6)
    return (np.log(rates) - np.log1p(-rates)) / 2


class _Text:
    def fit(self, values, y):
        text = values.fillna("")
        self.length = _Number()
        self.words = CountVectorizer(binary=True, max_features=MAX_WORDS, min_df=WORD_ROWS)
        try:
            flags = self.words.fit_transform(text).toarray()
        except ValueError:  # no word stands in enough rows
            self.words, flags = None, _none(values)
        return np.hstack([self.length.fit(text.str.len().astype("float64"), y), flags])

    def transform(self, values):
        text = values.fillna("")
        flags = self.words.transform(text).toarray() if self.words else _none(values)
        return np.hstack([self.length.transform(text.str.len().astype("float64")), flags])
