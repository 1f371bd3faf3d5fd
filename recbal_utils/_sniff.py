"""What a file is, found out before anything in it is unpacked or believed."""

import codecs
import csv
import io
import stat
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from recbal_utils._columns import looks_like_id
from recbal_utils.errors import RecbalError

PACKED = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook)",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstandard-compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "lz4-compressed",
}
OTHER = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"ARROW1": "an Arrow file",
    b"\x80\x04": "a Python pickle, which is never opened here",
}
DELIMITERS = ",;\t|"
CHUNK = 1 << 20
HEAD = 1 << 16
MAX_COLUMNS = 2_000
MAX_PARQUET_ROWS = 1_000_000_000
# Judgement: honest tables pack 3 to 50 times.
MAX_EXPANSION, EXPANSION_FROM = 1_000, 256 << 20
WHOLE = ("int", "uint")
NUMBERS = ("float", "double", "halffloat", "decimal")


def checked_path(path) -> Path:
    """Return a path that is a readable, non-empty, regular file."""
    try:
        path = Path(path)
        info = path.stat()
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise RecbalError(f"Cannot open {_name(path)}: {why.lower()}.") from None
    if stat.S_ISDIR(info.st_mode):
        raise RecbalError(f"{_name(path)} is a folder: give the CSV or Parquet file itself.")
    if not stat.S_ISREG(info.st_mode):
        raise RecbalError(f"{_name(path)} is not a regular file: save the log as a file first.")
    if info.st_size == 0:
        raise RecbalError(f"{_name(path)} is empty: it has no byte in it.")
    return path


def _name(path) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(path))[-80:]


@dataclass(frozen=True)
class Problem:
    """Something found wrong with the data, and what was done about it."""

    what: str
    where: str
    rows: int | None
    done: str


@dataclass(frozen=True)
class Source:
    """A file that looks like a table: its columns, and how the engine reads it."""

    name: str
    kind: str
    names: list
    size: int
    delimiter: str = ""
    types: tuple = ()
    ends_whole: bool = True
    problems: tuple = ()

    def query(self, link) -> str:
        """SQL of all rows; `link` is a path of our own making."""
        if self.kind == "parquet":
            columns = ", ".join(f"c{i}" for i in range(len(self.names)))
            return f"SELECT * FROM read_parquet('{link}') AS t({columns})"
        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(self.names)))
        return (
            f"SELECT * FROM read_csv('{link}', header=true, auto_detect=false, "
            f"delim='{self.delimiter}', quote='\"', escape='\"', store_rejects=true, "
            f"rejects_limit=0, columns={{{columns}}})"
        )

    def naming(self, names, label) -> "Source":
        """The same, with the label and whole numbers that name something read as text.

        So no digit of them is lost, and a class is spelt as it was when classes were counted.
        """
        types = tuple(
            "text"
            if name == label or (kind == "whole" and (name in names or looks_like_id(name)))
            else kind
            for name, kind in zip(self.names, self.types, strict=True)
        )
        return replace(self, types=types)

    @property
    def chosen(self) -> list:
        """Numbers of the columns that are read: all but lists, bytes and the like."""
        return [i for i, kind in enumerate(self.types) if kind != "left out"]

    @property
    def kept(self) -> list:
        """Names of the columns that are read."""
        return [self.names[i] for i in self.chosen]

    @property
    def selections(self) -> list:
        """SQL of each column that is read, as a type that pandas has; text is cut."""
        casts = {"number": "DOUBLE", "whole": "DOUBLE", "date": "TIMESTAMP", "boolean": "BOOLEAN"}
        return [
            f"CAST(c{i} AS {casts[self.types[i]]}) AS c{i}"
            if self.types[i] in casts
            else f"substr(CAST(c{i} AS VARCHAR), 1, 300) AS c{i}"
            for i in self.chosen
        ]

    def explain(self, said) -> str:
        """An error of the engine in one line."""
        first = said.strip().partition("\n")[0]
        if "Out of Memory" in first:
            return f"{self.name} needs more memory than is allowed: give a smaller extract."
        if self.kind == "parquet":
            return f"{self.name} is damaged or cut short: its pages cannot be read. Export it anew."
        return f"{self.name} cannot be read as a table: {first[:160]}"

    def judge_bad_lines(self, bad, rows) -> None:
        """Raise where lines that do not fit tell of a file cut short, or of no table."""
        if not len(bad):
            return
        last = bad.iloc[-1]
        at_the_end = int(last["start"]) + int(last["length"]) >= self.size - 1
        if not self.ends_whole and at_the_end:
            raise RecbalError(
                f"{self.name} is cut short: its last line, {int(last['line']):,}, ends in the "
                "middle. Export or download it again."
            )
        share = len(bad) / (len(bad) + rows)
        if share > 0.05:
            raise RecbalError(
                f"{self.name} is not one table: {len(bad):,} of {len(bad) + rows:,} lines have "
                f"not the {len(self.names)} fields of its first line."
            )


def source(path: Path) -> Source:
    """Find out what a file is, and check it as far as can be done without reading it all."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for magic, what in PACKED.items():
        if head.startswith(magic):
            raise RecbalError(
                f"{path.name} is {what}: unpack it first; packed files are not opened."
            )
    for magic, what in OTHER.items():
        if head.startswith(magic):
            raise RecbalError(f"{path.name} is {what}, not a CSV or Parquet table.")
    if head.startswith(b"PAR1"):
        return _parquet(path)
    return _csv(path, head)


# --- Parquet -------------------------------------------------------------------------------------


def _parquet(path) -> Source:
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 4))
        if size < 12 or file.read() != b"PAR1":
            raise RecbalError(
                f"{path.name} is a Parquet file cut short: its end is missing. Copy it again."
            )
    try:
        meta = pq.read_metadata(path)
        schema = meta.schema.to_arrow_schema()
    except Exception:
        raise RecbalError(
            f"{path.name} is a damaged Parquet file: its footer cannot be read."
        ) from None
    _check_parquet_size(path.name, size, meta)
    names, problems = _names(list(schema.names))
    types = tuple(_kind(field.type) for field in schema)
    left = [n for n, kind in zip(names, types, strict=True) if kind == "left out"]
    problems += [Problem("lists, records or bytes", n, None, "left out") for n in left]
    return Source(path.name, "parquet", names, size, types=types, problems=tuple(problems))


def _check_parquet_size(name, size, meta):
    if meta.num_rows == 0:
        raise RecbalError(f"{name} is an empty table: it has columns and no row.")
    if meta.num_rows > MAX_PARQUET_ROWS:
        raise RecbalError(
            f"{name} claims {meta.num_rows:,} rows; more than {MAX_PARQUET_ROWS:,} are not opened."
        )
    unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    if unpacked > EXPANSION_FROM and unpacked > MAX_EXPANSION * size:
        raise RecbalError(
            f"{name} would unpack to {unpacked / 2**30:,.1f} GB, {unpacked / size:,.0f} times its "
            "size: such a file is not opened."
        )


def _kind(arrow_type) -> str:
    text = str(arrow_type)
    if text.startswith("dictionary"):
        text = str(arrow_type.value_type)
    if text == "bool":
        return "boolean"
    if text.startswith(WHOLE):
        return "whole"
    if text.startswith(NUMBERS):
        return "number"
    if text.startswith(("timestamp", "date")):
        return "date"
    if text.startswith(("string", "large_string", "time", "uuid", "null")):
        return "text"
    return "left out"


# --- CSV -----------------------------------------------------------------------------------------


def _csv(path, head) -> Source:
    _refuse_other_texts(path.name, head)
    _check_utf8(path)
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    delimiter, header = _header(path.name, text, len(head) < HEAD)
    names, problems = _names(header)
    with open(path, "rb") as file:
        file.seek(-1, 2)
        ends_whole = file.read() in (b"\n", b"\r")
    return Source(
        path.name,
        "csv",
        names,
        path.stat().st_size,
        delimiter,
        types=("text",) * len(names),
        ends_whole=ends_whole,
        problems=tuple(problems),
    )


def _refuse_other_texts(name, head):
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecbalError(f"{name} is UTF-16 text: save it as CSV in UTF-8.")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if start in (b"{", b"["):
        raise RecbalError(f"{name} looks like JSON: convert it to CSV or Parquet first.")
    if start == b"<":
        raise RecbalError(f"{name} looks like a web page or XML, not like a CSV table.")
    if not start:
        raise RecbalError(f"{name} is empty: it holds white space only.")


def _check_utf8(path):
    """Read the file once as UTF-8; bytes cut off in the middle of a letter are told apart."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            if 0 in chunk:
                raise RecbalError(
                    f"{path.name} holds binary data (byte {done + chunk.index(0):,} is 0): it is "
                    "no CSV in UTF-8."
                )
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                place = done + error.start
                raise RecbalError(
                    f"{path.name} is not in UTF-8 (near byte {place:,}): save it as CSV in UTF-8."
                ) from None
            done += len(chunk)
    if decoder.getstate()[0]:
        raise RecbalError(f"{path.name} is cut short: it ends in the middle of a letter.")


def _header(name, text, whole):
    """Return the delimiter and the names: the one by which most lines have as many fields."""
    if not whole:
        text = text[: text.rfind("\n") + 1] or text
    best = None
    for delimiter in DELIMITERS:
        rows = _parsed(text, delimiter)
        widths = Counter(len(row) for row in rows)
        if not rows or len(rows[0]) < 2:
            continue
        score = widths[len(rows[0])] / len(rows), len(rows[0])
        if best is None or score > best[0]:
            best = score, delimiter, rows[0]
    if best is None:
        raise RecbalError(
            f"{name} is not a table of several columns: its first line has no comma, semicolon, "
            "tab or bar."
        )
    if len(best[2]) > MAX_COLUMNS:
        raise RecbalError(
            f"{name} has {len(best[2]):,} columns; more than {MAX_COLUMNS:,} are not read: "
            "choose columns first."
        )
    return best[1], best[2]


def _parsed(text, delimiter):
    try:
        return [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r]
    except csv.Error:
        return []


def _names(given):
    """Make names complete and unique, and say which were not."""
    names, problems = [], []
    for i, name in enumerate(given):
        name = name.strip() or f"column {i + 1}"
        if not given[i].strip():
            problems.append(Problem("column without a name", name, None, "named by its place"))
        if name in names:
            number = next(k for k in range(2, len(given) + 2) if f"{name} ({k})" not in names)
            again = f"{name} ({number})"
            problems.append(Problem("name used twice", name, None, "second one renamed"))
            name = again
        names.append(name)
    return names, problems
