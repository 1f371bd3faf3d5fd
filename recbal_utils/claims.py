"""Claims: a chapter's headline findings, each held in a band and written to a ledger.

A chapter opens one `Ledger` and calls `claim` for each finding. A value outside its band stops the
run; a value inside is written to `<chapter>.json`, from which the book's page of claims is made.
"""

import json
import math
import os
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils._atomic import replacing
from recbal_utils.errors import RecbalError

FIELDS = ("id", "chapter", "value", "low", "high", "source", "statement")
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHAPTER = re.compile(r"[A-Za-z0-9_-]+")


class ClaimError(RecbalError):
    """A measured value lies outside the band of its claim."""


class Claimed(float):
    """A claimed value, which a notebook shows as a sentence.

    Parameters
    ----------
    record : dict
        As in the ledger's file.
    """

    def __new__(cls, record):
        claimed = super().__new__(cls, record["value"])
        claimed.record = record
        return claimed

    def _repr_markdown_(self):
        value, low, high = (f"{self.record[name]:.4g}" for name in ("value", "low", "high"))
        statement = self.record["statement"].strip().rstrip(".") or self.record["id"]
        return f"**Claim.** {statement}: **{value}**, within its band of {low} to {high}."


class Ledger:
    """The claims of one chapter, written to `<folder>/<chapter>.json` as they are made.

    Opening a ledger starts the chapter's file afresh.

    Parameters
    ----------
    chapter : str
        Name of the notebook without its ending, such as "01_promotion_log".
    folder : path, optional
        Where the file goes. By default the environment variable RECBAL_CLAIMS_DIR, else
        `_build/claims` under the nearest parent folder that holds `_config.yml`, else under the
        current folder.

    Raises
    ------
    RecbalError
        If the name holds anything but letters, digits, "_" and "-".

    Examples
    --------
    >>> import tempfile
    >>> ledger = Ledger("01_promotion_log", folder=tempfile.mkdtemp())
    >>> ledger.claim("one-in-a-thousand", 0.000993, 0.0009, 0.0011, "this chapter's count")
    0.000993
    """

    def __init__(self, chapter, folder=None):
        if not isinstance(chapter, str) or not _CHAPTER.fullmatch(chapter):
            raise RecbalError(
                f"Chapter {chapter!r} is no name for a ledger: use letters, digits, '_' and '-'."
            )
        self.chapter = chapter
        self.path = claims_folder(folder) / f"{chapter}.json"
        self._claims = {}
        self._write()

    def claim(self, id, value, low, high, source, statement=""):
        """Check that a value lies in its band, record it, and return it.

        Parameters
        ----------
        id : str
            Lower-case words joined by hyphens, once in a chapter.
        value, low, high : float
            The measured value and its band, ends included; all finite.
        source : str
            Where the expectation comes from: a publication, an algebraic fact, or the script that
            measured the band.
        statement : str, optional
            The finding in one sentence.

        Returns
        -------
        Claimed
            The value, a float, which shows its statement and band in a notebook.

        Raises
        ------
        ClaimError
            If the value lies outside the band. Nothing is recorded then.
        RecbalError
            If the id is malformed or taken, a number is not finite, low > high, or there is no
            source.
        """
        self._check_id(id)
        value, low, high = (
            _finite(number, name, id)
            for name, number in {"value": value, "low": low, "high": high}.items()
        )
        _check_words(id, source, statement)
        if low > high:
            raise RecbalError(f"Claim {id!r} has the band [{low:g}, {high:g}]: swap its ends.")
        if not low <= value <= high:
            raise ClaimError(
                f"Claim {id!r} of {self.chapter} is {value:.6g}, outside its band "
                f"[{low:g}, {high:g}]: find out what changed before you measure the band anew."
            )
        row = (id, self.chapter, value, low, high, source, statement)
        self._claims[id] = dict(zip(FIELDS, row, strict=True))
        self._write()
        return Claimed(self._claims[id])

    def _check_id(self, id):
        if not isinstance(id, str) or not _KEBAB.fullmatch(id):
            raise RecbalError(
                f"Claim id {id!r} is malformed: use lower-case words joined by hyphens."
            )
        if id in self._claims:
            raise RecbalError(
                f"Claim {id!r} is made twice in {self.chapter}: rename one, or, when a cell ran "
                "again, first run the cell that opens the ledger."
            )

    def _write(self):
        text = json.dumps(list(self._claims.values()), indent=2, ensure_ascii=False) + "\n"
        _write_atomically(self.path, text)


def claims_folder(folder=None):
    """Return the folder of the ledgers; see `Ledger` for how it is found."""
    if folder is not None:
        return Path(folder)
    if os.environ.get("RECBAL_CLAIMS_DIR"):
        return Path(os.environ["RECBAL_CLAIMS_DIR"])
    here = Path.cwd()
    book = next((path for path in (here, *here.parents) if (path / "_config.yml").is_file()), here)
    return book / "_build" / "claims"


def load(folder=None):
    """Read every ledger of a folder.

    Parameters
    ----------
    folder : path, optional
        As for `Ledger`.

    Returns
    -------
    pandas.DataFrame
        A row for each claim with the columns id, chapter, value, low, high, source, statement;
        chapters by name, claims in the order in which they were made.

    Raises
    ------
    RecbalError
        If the folder is missing, or a file is damaged (not JSON, a field missing, a value outside
        its band); the message names the file.
    """
    folder = claims_folder(folder)
    if not folder.is_dir():
        raise RecbalError(f"There is no folder {folder}: run the notebooks first (make book).")
    rows = [row for path in sorted(folder.glob("*.json")) for row in _read(path)]
    return pd.DataFrame(rows, columns=list(FIELDS))


def band(values, *, null=None, sds=4, possible=(-math.inf, math.inf)):
    """Return the band of a claim from draws of exactly the statistic that is printed.

    Parameters
    ----------
    values : array-like of shape (n,)
        At least 10 values of the statistic: one for each seed where training is random, else
        bootstrap draws.
    null : float, optional
        The value under no effect, which the band must exclude.
    sds : float, default 4
        How many standard deviations the band reaches to each side of the mean.
    possible : tuple of two floats
        Least and greatest value that the statistic can have, such as 0 and 1 for a share. The
        band ends there: it loses no value that could occur.

    Returns
    -------
    low, high : float
        Mean -/+ sds standard deviations (n - 1 in the denominator), rounded outward to two
        significant digits of the half-width; no wider than `possible`.

    Raises
    ------
    RecbalError
        If there are fewer than 10 values, one is not finite or not possible, they do not vary, or
        the band reaches `null`: the effect is then too small to be claimed from so little.
    """
    draws = np.asarray(values, dtype=np.float64)
    if draws.ndim != 1 or len(draws) < 10 or not np.isfinite(draws).all():
        raise RecbalError(
            f"A band needs at least 10 finite values in a 1-D array; these have shape "
            f"{draws.shape}, {int(np.isfinite(draws).sum())} of them finite."
        )
    least, greatest = possible
    if draws.min() < least or draws.max() > greatest:
        raise RecbalError(
            f"The values reach from {draws.min():g} to {draws.max():g}, beyond what is said to be "
            f"possible, {least:g} to {greatest:g}."
        )
    if np.ptp(draws) == 0:
        raise RecbalError("The values do not vary, so they tell no band: vary the seed.")
    low, high = _round_outward(float(draws.mean()), sds * float(draws.std(ddof=1)))
    low, high = max(low, least), min(high, greatest)
    if null is not None and low <= null <= high:
        raise RecbalError(
            f"The band [{low:g}, {high:g}] holds {null:g}, the value under no effect: use more "
            "data or average more runs, or drop the claim."
        )
    return low, high


def _round_outward(centre, half_width):
    step = Decimal(1).scaleb(math.floor(math.log10(half_width)) - 1)
    low = (Decimal(centre - half_width) / step).to_integral_value(ROUND_FLOOR) * step
    high = (Decimal(centre + half_width) / step).to_integral_value(ROUND_CEILING) * step
    return float(low), float(high)


def _finite(number, name, id):
    if not isinstance(number, Real) or isinstance(number, bool) or not math.isfinite(number):
        raise RecbalError(f"Claim {id!r} needs a finite number as {name}; it is {number!r}.")
    return float(number)


def _check_words(id, source, statement):
    if not isinstance(source, str) or not source.strip():
        raise RecbalError(f"Claim {id!r} has no source: say where its band comes from.")
    if not isinstance(statement, str):
        raise RecbalError(f"Claim {id!r} needs its statement as a string, not {statement!r}.")


def _write_atomically(path, text):
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecbalError(
            f"The ledger {path} cannot be written ({error.strerror}): make its folder writable, "
            "or name another one in RECBAL_CLAIMS_DIR."
        ) from None


def _read(path):
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise TypeError("it is no list")
        for row in rows:
            _check_row(row)
    except (OSError, ValueError, TypeError) as error:
        raise RecbalError(
            f"The ledger {path} is damaged ({error}): delete it and run its notebook again."
        ) from None
    return rows


def _check_row(row):
    missing = set(FIELDS) - set(row)
    if missing:
        raise ValueError(f"a claim has no {', '.join(sorted(missing))}")
    if not row["low"] <= row["value"] <= row["high"]:
        raise ValueError(f"{row['id']} lies outside its band")
