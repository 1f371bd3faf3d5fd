"""Parquet files made once, checked at every use, rebuilt when damaged."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recbal_utils._atomic import replacing
from recbal_utils.errors import RecbalError


def cache_folder() -> Path:
    """Folder of the cached tables: ``$RECBAL_CACHE``, else ``~/.cache/recbal``.

    Raises
    ------
    RecbalError
        The folder cannot be made.
    """
    folder = Path(os.environ.get("RECBAL_CACHE") or Path.home() / ".cache" / "recbal")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecbalError(
            f"cannot make the cache folder {folder}: {error.strerror}; "
            "set RECBAL_CACHE to a folder you may write to."
        ) from error
    return folder


def cached_parquet(name: str, decided_by: dict, build: Callable[[Path], None]) -> Path:
    """Path of the table `name`, built if it is absent or damaged.

    Parameters
    ----------
    name : str
        Start of the file name.
    decided_by : dict
        Everything that decides the content (parameters, fingerprints of sources and code).
        Anything that JSON can hold; another value gives another file.
    build : callable
        Called with a path to write the parquet file to. It is moved into place only when
        `build` returns, so an interrupted build leaves nothing behind that could be read.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RecbalError
        The disk is full or the folder cannot be written.
    """
    text = json.dumps(decided_by, sort_keys=True, default=str)
    path = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"
    state = _state(path)
    if state == "good":
        return path
    if state == "damaged":
        _say(f"{path.name} in the cache is damaged: building it again")
    return _build(path, text, build)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state(path: Path) -> str:
    """One of absent, good, damaged."""
    seal = _seal(path)
    if not path.exists() or not seal.exists():
        return "absent"
    try:
        sealed = json.loads(seal.read_text())["sha256"]
    except (ValueError, KeyError, TypeError):
        return "damaged"
    return "good" if sealed == file_digest(path) else "damaged"


def _seal(path: Path) -> Path:
    return path.with_suffix(".json")


def _build(path: Path, decided_by: str, build: Callable[[Path], None]) -> Path:
    started = time.monotonic()
    _say(f"{path.stem}: building")
    try:
        with replacing(path) as part:
            build(part)
            seal = {"sha256": file_digest(part), "decided_by": json.loads(decided_by)}
            # The old seal goes first: between the two moves a table stands without one, and a
            # table without a seal is built again rather than trusted.
            _seal(path).unlink(missing_ok=True)
        with replacing(_seal(path)) as part:
            part.write_text(json.dumps(seal, indent=1))
    except OSError as error:
        raise RecbalError(
            f"cannot write {path.name} to the cache {path.parent}: {error.strerror or error}; "
            f"{_free(path.parent)}; make room or set RECBAL_CACHE to another folder."
        ) from error
    _say(f"{path.stem}: {path.stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
    return path


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB are free there"


def _say(line: str) -> None:
    """Progress goes to standard output: in a notebook, standard error is an alarm."""
    print(f"[recbal] {line}", file=sys.stdout, flush=True)
