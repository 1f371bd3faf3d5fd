"""Open a log of any origin: CSV or Parquet, checked first, sampled where it is large.

`open_log` returns a `Log`, whose columns have been told apart and cleaned. Nothing in the file is
trusted: names and values are data, sizes are checked before anything is unpacked, and whatever is
wrong with it is one `RecbalError` in one line.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from recbal_utils import _columns, _sniff
from recbal_utils._lazy import _examples
from recbal_utils._sniff import Problem
from recbal_utils.errors import RecbalError

MAX_ROWS = 200_000
MAX_ROWS_IF_RARE = 500_000
ENOUGH_RARE = 1_000  # rows of the rarer class a sample should hold
MAX_CELLS = 20_000_000  # rows times columns of a sample: 160 MB as float64
MEMORY = "2GB"  # of the engine; what does not fit goes to a temporary folder
MAX_TEXT = 300  # letters of a value that are read
MANY_GROUPS = 1_000  # from here on whole groups are sampled
MAX_BAD_LINES = 0.05
LARGEST_SET = 0.05  # share of rows; more rows than that are no copies of one
CLASSES_READ = 100_000
ROLES = ("time", "group", "user", "item")


@dataclass(frozen=True)
class Log:
    """A labelled table, ready to be analysed.

    Attributes
    ----------
    name : str
        Name of the file, without its folder.
    frame : DataFrame of shape (n, d)
        All columns but the label: floats, dates without a zone, or text.
    y : ndarray of shape (n,), int8
        1 for the positive class.
    label, positive, negative : str
        The label's column, and what its two classes are called in the file.
    columns : dict of str to Column
        Kind, missing share and number of values of each column of `frame`.
    roles : dict of str to str
        Which column is the time, group, user, item; only those given.
    rows, positives : int
        In the whole file, rows without a label left out.
    copies : ndarray of shape (n,)
        A code for each row: copies of one row share it. Rows that agree because the columns have
        few values are no copies.
    problems : list of Problem
    options : dict
        What the file was opened with, to be repeated in code.
    """

    name: str
    frame: pd.DataFrame
    y: np.ndarray
    label: str
    positive: str
    negative: str
    columns: dict
    roles: dict
    rows: int
    positives: int
    copies: np.ndarray
    problems: list = field(default_factory=list)
    options: dict = field(default_factory=dict)

    @property
    def sampled(self) -> bool:
        """Whether the rows in memory are only a sample of the file."""
        return len(self.y) < self.rows

    def role(self, name) -> pd.Series | None:
        """Return the column of a role, or None."""
        return self.frame[self.roles[name]] if name in self.roles else None


def open_log(
    path,
    label,
    *,
    time=None,
    group=None,
    user=None,
    item=None,
    positive=None,
    max_rows=None,
    seed=0,
) -> Log:
    """Read a labelled log from a CSV or Parquet file.

    Parameters
    ----------
    path : str or Path
        A plain CSV in UTF-8 (separated by comma, semicolon, tab or bar, with a line of names) or
        a Parquet file. Compressed files are refused.
    label : str
        Column of two classes: 0/1, True/False, yes/no, any two words; of more with `positive`.
    time : str, optional
        Column of dates or of numbers that grow with time.
    group, user, item : str, optional
        Columns that name the unit within which rows are alike, the visitor, the product.
    positive : str, optional
        The label's value that counts as positive; all others are then negative. Without it 1,
        true and yes are positive, and of two other words the rarer one.
    max_rows : int, optional
        Rows to read at most. By default 200,000, and up to 500,000 where positives are rare;
        fewer for tables of more than 100 columns. A larger file is sampled by a hash, whole
        groups together, at its natural rate.
    seed : int, default 0
        Of the sample.

    Returns
    -------
    Log

    Raises
    ------
    RecbalError
        If the file cannot be read as such a table, or a column or the label is unfit.
    """
    path = _sniff.checked_path(path)
    source = _sniff.source(path)
    chosen = {"time": time, "group": group, "user": user, "item": item}
    chosen = {role: _trimmed(name) for role, name in chosen.items()}
    label = _trimmed(label)
    roles = _checked_roles(source, label, chosen)
    source = source.naming([roles[r] for r in ("group", "user", "item") if r in roles], label)
    with _engine(path, source) as engine:
        counts = engine.label_counts(source.names.index(label))
        classes = _Classes.of(counts, label, positive)
        share = _share(classes, len(source.names), max_rows)
        raw, sampling = engine.rows(source, roles, share, seed)
    options = {**roles, "positive": positive, "max_rows": max_rows}
    return _log(path, source, raw, label, classes, roles, [*engine.problems, *sampling], options)


def open_rows(path, like) -> pd.DataFrame:
    """Read new rows, whose label is not known, as the columns of a log.

    Parameters
    ----------
    path : str or Path
        As for `open_log`; columns that the log lacks are passed over.
    like : Log

    Returns
    -------
    DataFrame of shape (n, d)
        The columns of `like.frame`, in the types they have there; what does not read so is
        missing.

    Raises
    ------
    RecbalError
        If the file cannot be read as a table, lacks a column, or is larger than 20 million cells.
    """
    path = _sniff.checked_path(path)
    source = _sniff.source(path)
    for name in like.frame:
        if name not in source.kept:
            raise RecbalError(_no_column("model", name, source.kept))
    source = source.naming([n for role, n in like.roles.items() if role != "time"], like.label)
    with _engine(path, source) as engine:
        raw = engine.all_rows(list(like.frame))
    return pd.DataFrame(
        {name: _alike(raw[name], like, name, source.delimiter == ";") for name in like.frame}
    )


def _alike(values, like, name, decimal_comma):
    """A column of new rows, as the log has it."""
    is_name = _is_name(name, like.roles)
    found = _columns.clean(values, name, decimal_comma=decimal_comma, is_name=is_name)[1]
    kind = like.frame[name].dtype.kind
    if kind == "f":
        return pd.to_numeric(found, errors="coerce").astype("float64")
    if kind == "M":
        return found if found.dtype.kind == "M" else pd.Series(pd.NaT, found.index)
    return found if found.dtype.kind not in "fM" else _columns.stripped(values)


# --- columns asked for ---------------------------------------------------------------------------


def _checked_roles(source, label, chosen: Mapping) -> dict:
    """Return the roles given; raise where a column is not there or has two roles that clash."""
    roles = {role: name for role, name in chosen.items() if name is not None}
    for role, name in {"label": label, **roles}.items():
        if name not in source.kept and name in source.names:
            raise RecbalError(
                f"The column {shown(name)} for the {role} holds lists, records, bytes or "
                "durations, which are not read: write it as text, numbers or dates."
            )
        if name not in source.kept:
            raise RecbalError(_no_column(role, name, source.kept))
    for role, name in roles.items():
        if name == label:
            raise RecbalError(f"The column {shown(name)} is given as the label and as the {role}.")
    return roles


def _trimmed(name):
    """A name as the names of the file are kept: without spaces around it."""
    return name.strip() if isinstance(name, str) else name


def _no_column(role, name, names) -> str:
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {shown(near[0])}?" if near else f"it has {_listed(names)}."
    return f"The file has no column {shown(name)} for the {role}: {hint}"


def _listed(names) -> str:
    few = ", ".join(shown(name) for name in names[:8])
    return f"{few}, … ({len(names)} columns)" if len(names) > 8 else few


def shown(name, length=60) -> str:
    """A name from a file on one line: quoted, no control characters, cut where it is long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))
    return f"'{text[: length - 1]}…'" if len(text) > length else f"'{text}'"


# --- classes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Classes:
    """The two classes of a label: words of each, and rows of each."""

    positive: str
    negative: str
    n_positive: int
    n_negative: int
    n_missing: int
    words_count: bool  # "none" and the like are a class, as there is no other one
    problems: tuple = ()

    @classmethod
    def of(cls, counts: pd.DataFrame, label, positive) -> "_Classes":
        values = _label_words(counts["value"])
        n_missing = int(counts["n"][values.isna()].sum())
        present = values.notna()
        n = counts["n"][present].groupby(values[present].map(_columns.canonical)).sum()
        if n.empty:
            raise RecbalError(f"The label {shown(label)} holds no value in any row.")
        if len(n) == 1:
            raise RecbalError(
                f"The label {shown(label)} has one class only: all {int(n.iloc[0]):,} rows hold "
                f"{shown(n.index[0])}. There is nothing to compare."
            )
        chosen, problems = _positive_class(n, label, positive)
        others = [name for name in n.index if name != chosen]
        negative = others[0] if len(others) == 1 else f"not {chosen}"
        rows = int(counts["total"].iloc[0]) - n_missing
        return cls(
            chosen,
            negative,
            int(n[chosen]),
            rows - int(n[chosen]),
            n_missing,
            bool((values != _columns.stripped(counts["value"]))[present].any()),
            tuple(problems),
        )

    @property
    def rows(self):
        return self.n_positive + self.n_negative

    def of_rows(self, values: pd.Series):
        """Return 1, 0, or -1 where the label is missing, of each row."""
        text = values.astype("str").str.strip()
        if not self.words_count:
            text = _columns.stripped(values)
        known = {value: _columns.canonical(value) for value in text.dropna().unique()}
        y = np.where(text.map(known) == self.positive, 1, 0)
        return np.where(text.isna(), -1, y).astype(np.int8)


def _label_words(values):
    """The label's values; "none" and its like are a class where there is only one other."""
    text = values.astype("str").str.strip()
    text = text.mask(text.isin(["", "nan", "NaN"]))
    stripped = _columns.stripped(values)
    return text if stripped.nunique() == 1 < text.nunique() else stripped


def _positive_class(n, label, positive):
    """Return the positive class, and what there is to say about the choice."""
    if positive is not None:
        return _given_class(n, label, positive)
    if len(n) > 2:
        held = f": {_examples(list(n.index))}" if len(n) <= 20 else ""
        count = f"{len(n):,}" if len(n) < CLASSES_READ else "very many"
        raise RecbalError(
            f"The label {shown(label)} holds {count} classes{_printable(held)}; name the one that "
            "counts as positive with --positive (positive= in Python), all others are negative."
        )
    for true, false in _columns.TRUE_FALSE:
        if set(n.index) == {true, false}:
            return true, []
    rarer = n.sort_index(ascending=False).idxmin()
    done = f"the rarer one, {shown(rarer)}, counts as positive (--positive changes it)"
    return rarer, [Problem("label of two words", label, None, done)]


def _given_class(n, label, positive):
    chosen = _columns.canonical(positive)
    if chosen not in n.index:
        raise RecbalError(
            f"The label {shown(label)} never holds {shown(positive)}; it holds "
            f"{_printable(_examples(list(n.index)))}."
        )
    if len(n) == 2:
        return chosen, []
    what = f"label of {len(n):,} classes"
    return chosen, [Problem(what, label, None, f"{shown(chosen)} against all others")]


def _printable(text) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:200]


# --- the engine ----------------------------------------------------------------------------------


class _Engine:
    """DuckDB over one file. Columns are c0, c1, …: no name of the file gets into a query."""

    def __init__(self, connection, source):
        self._connection = connection
        self._source = source
        self.problems = list(source.problems)

    def label_counts(self, number) -> pd.DataFrame:
        """Rows of each value of the label, the most frequent first; counts lines left out."""
        found = self._ask(
            f"SELECT substr(CAST(c{number} AS VARCHAR), 1, {MAX_TEXT}) AS value, "
            "count(*)::BIGINT AS n, (sum(count(*)) OVER ())::BIGINT AS total FROM log "
            f"GROUP BY value ORDER BY n DESC, value LIMIT {CLASSES_READ}"
        )
        self._judge_lines(0 if found.empty else int(found["total"].iloc[0]))
        if found.empty:
            raise RecbalError("The file has a line of names and no row under it.")
        return found.astype({"value": "str"})

    def rows(self, source, roles, share, seed) -> tuple[pd.DataFrame, list]:
        """Return the sample's columns c0, c1, …, and what there is to say about it."""
        columns = ", ".join(source.selections)
        if share >= 1:
            return self._ask(f"SELECT {columns} FROM log"), []
        keys, unit = self._sampling_unit(source, roles)
        limit = int(share * 2**64)
        kept = self._ask(
            f"SELECT {columns} FROM log WHERE hash({int(seed)}, {keys}) < {limit}::UBIGINT"
        )
        done = f"the analysis uses {len(kept):,} of them, drawn by a hash of {unit}"
        return kept, [Problem("more rows than the analysis reads", "whole file", None, done)]

    def all_rows(self, names) -> pd.DataFrame:
        """Return every row of some columns."""
        n = int(self._ask("SELECT count(*) AS n FROM log")["n"].iloc[0])
        self._judge_lines(n)
        if n * len(names) > MAX_CELLS:
            raise RecbalError(
                f"{self._source.name} has {n:,} rows, more than are read at once: score it in "
                f"parts of at most {MAX_CELLS // len(names):,} rows."
            )
        chosen = dict(zip(self._source.kept, self._source.selections, strict=True))
        raw = self._ask(f"SELECT {', '.join(chosen[name] for name in names)} FROM log")
        return raw.set_axis(names, axis="columns")

    def _sampling_unit(self, source, roles):
        role = next((r for r in ("group", "user") if r in roles), None)
        if role is not None:
            number = source.names.index(roles[role])
            found = self._ask(f"SELECT approx_count_distinct(c{number}) AS n FROM log")
            if found["n"].iloc[0] >= MANY_GROUPS:
                return f"c{number}", f"the {role}, so that a {role} is in with all its rows"
        keys = ", ".join(f"c{i}" for i in range(len(source.names)))
        return keys, "the row, so that copies stay together"

    def _ask(self, query) -> pd.DataFrame:
        try:
            return self._connection.execute(query).df()
        except duckdb.Error as error:
            raise RecbalError(self._source.explain(str(error))) from None
        except (MemoryError, UnicodeDecodeError, OverflowError) as error:
            raise RecbalError(self._source.explain(type(error).__name__)) from None

    def _judge_lines(self, rows):
        if self._source.kind != "csv":
            return
        bad = self._ask(
            "SELECT line, min(line_byte_position) AS start, any_value(error_type::VARCHAR) AS why, "
            "max(octet_length(encode(csv_line))) AS length "
            "FROM reject_errors WHERE scan_id = (SELECT max(scan_id) FROM reject_errors) "
            "GROUP BY line ORDER BY line"
        )
        self._source.judge_bad_lines(bad, rows)
        if len(bad):
            done = f"left out; the first is line {int(bad['line'].iloc[0]):,}"
            what = "lines with too many or too few fields"
            self.problems.append(Problem(what, "whole file", len(bad), done))


@contextmanager
def _engine(path, source):
    """Open the file in DuckDB, under a name of our own: a name may hold wildcards."""
    with tempfile.TemporaryDirectory(prefix="recbal-") as folder:
        link = Path(folder) / f"log.{source.kind}"
        link.symlink_to(path.resolve())
        settings = {
            "memory_limit": MEMORY,
            "temp_directory": str(Path(folder) / "spill"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        if threads := os.environ.get("RECBAL_THREADS"):
            settings["threads"] = threads
        with duckdb.connect(config=settings) as connection:
            with suppress(duckdb.Error):  # a notebook without widgets shows none, and refuses
                connection.execute("SET enable_progress_bar = false")
            try:
                connection.execute(f"CREATE VIEW log AS {source.query(link)}")
            except duckdb.Error as error:
                raise RecbalError(source.explain(str(error))) from None
            yield _Engine(connection, source)


def _share(classes, n_columns, max_rows) -> float:
    """Share of the rows to read."""
    if max_rows is None:
        rarer = min(classes.n_positive, classes.n_negative)
        wanted = ENOUGH_RARE / max(rarer, 1) * classes.rows
        max_rows = int(np.clip(wanted, MAX_ROWS, MAX_ROWS_IF_RARE))
        max_rows = min(max_rows, max(1_000, MAX_CELLS // n_columns))
    elif not isinstance(max_rows, int) or max_rows < 100:
        raise RecbalError(f"max_rows must be a whole number of at least 100; it is {max_rows!r}.")
    return max_rows / (classes.rows + classes.n_missing)


# --- the log -------------------------------------------------------------------------------------


def _log(path, source, raw, label, classes, roles, problems, options) -> Log:
    raw.columns = source.kept
    y = classes.of_rows(raw[label])
    raw, y = raw[y >= 0].reset_index(drop=True), y[y >= 0]
    if not 0 < y.sum() < len(y):
        raise RecbalError(
            f"All {len(y):,} rows of the sample are of one class, so rare is the other: read more "
            "of the file with --max-rows."
        )
    problems = [*problems, *classes.problems, *_missing_labels(classes, label)]
    columns, frame = {}, {}
    for name in source.kept:
        if name != label:
            columns[name], frame[name] = _columns.clean(
                raw[name],
                name,
                decimal_comma=source.delimiter == ";",
                is_name=_is_name(name, roles),
            )
    _check_useful(columns, roles)
    copies, copy_problems = _copies(raw, label, y)
    return Log(
        name=path.name,
        frame=pd.DataFrame(frame),
        y=y,
        label=label,
        positive=classes.positive,
        negative=classes.negative,
        columns=columns,
        roles=roles,
        rows=classes.rows,
        positives=classes.n_positive,
        copies=copies,
        problems=[*problems, *_column_problems(columns, len(y)), *copy_problems],
        options={name: value for name, value in options.items() if value is not None},
    )


def _is_name(name, roles):
    """Whether a column's numbers only name something; None where its own name must tell."""
    if name == roles.get("time"):
        return False
    named = {roles[role] for role in ("group", "user", "item") if role in roles}
    return True if name in named else None


def _check_useful(columns, roles):
    varied = [c for c in columns.values() if c.kind not in ("constant", "empty")]
    if not varied:
        raise RecbalError(
            "No column beside the label has more than one value: there is nothing to learn from."
        )
    for role, name in roles.items():
        if name in columns and columns[name].n_values < 2:
            raise RecbalError(
                f"The {role} column {shown(name)} has {columns[name].n_values} value: a split "
                "needs at least two."
            )
        if role == "time" and columns[name].kind not in ("date", "number", "id", "boolean"):
            raise RecbalError(
                f"The time column {shown(name)} reads neither as dates nor as numbers: write "
                "dates as 2024-12-31 or 2024-12-31T23:59:00."
            )


def _missing_labels(classes, label):
    if not classes.n_missing:
        return []
    done = "left out: a row without an answer can neither teach nor judge"
    return [Problem("missing labels", label, classes.n_missing, done)]


def _column_problems(columns, n):
    """What is wrong with single columns, worth a line each."""
    found = []
    for name, column in columns.items():
        absent = round(column.missing * n)
        if column.kind == "empty":
            found.append(Problem("column without a value", name, absent, "left out"))
        elif column.kind == "constant":
            found.append(Problem("column of one value", name, n, "left out"))
        elif column.kind == "id":
            done = "left out of the models: it names rows, it does not describe them"
            found.append(Problem("nearly every row has a value of its own", name, None, done))
        elif absent - column.unread:
            done = "kept: that it is missing is told to the models"
            found.append(Problem("missing values", name, absent - column.unread, done))
        if column.unread:
            done = f"taken as missing, as the others are {column.kind}s"
            found.append(Problem("values of another kind", name, column.unread, done))
    return found


def _copies(raw, label, y):
    """Return a code for each row, shared by copies, and what there is to say about them."""
    codes = _codes(raw.drop(columns=label))
    extra = len(raw) - len(np.unique(_codes(raw)))
    copied = _are_copies(codes, y)
    if not extra:
        return (codes if copied else np.arange(len(raw))), []
    done = "kept, but all copies of a row on one side of the split"
    if not copied:
        codes = np.arange(len(raw))
        done = "kept: rows alike differ in their label as often as by chance, so they are no copies"
    return codes, [Problem("rows that repeat another in every column", "whole file", extra, done)]


def _codes(frame):
    return pd.factorize(pd.util.hash_pandas_object(frame, index=False))[0]


def _are_copies(codes, y) -> bool:
    """Whether rows that agree in all columns but the label agree in it too, beyond chance."""
    rare = y == (y.mean() <= 0.5)
    sizes, of_rare = np.bincount(codes), np.bincount(codes, rare)
    asked = rare & (sizes[codes] > 1)
    if sizes.max() > LARGEST_SET * len(y):
        return False
    if not asked.any():
        return True
    mixed = np.mean(of_rare[codes[asked]] < sizes[codes[asked]])
    by_chance = np.mean(1 - rare.mean() ** (sizes[codes[asked]] - 1))
    return bool(mixed < by_chance / 2)
