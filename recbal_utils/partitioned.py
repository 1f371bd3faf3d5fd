"""A log as folders of Parquet files, one folder for each value of a column.

The layout is the one that Hive began and every engine reads: ``log/week=37/part-0.parquet``. The
column stands in the folder's name, not in the files, so a query for one week opens no other.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow.parquet as pq

from recbal_utils._atomic import replacing
from recbal_utils.errors import RecbalError


def write(table: ir.Table, folder: Path, by: str, values: Iterable[int]) -> Path:
    """Write a lazy table, one partition after another; those that are there already stay.

    Parameters
    ----------
    table : ibis Table
    folder : path
        Made if missing.
    by : str
        Integer column to partition by.
    values : iterable of int
        Its values to write; a value without a row makes an empty file.

    Returns
    -------
    pathlib.Path
        `folder`. An interrupted write leaves whole partitions only.

    Raises
    ------
    RecbalError
        The column is missing or no integer column, or the disk refuses.
    """
    if by not in table.columns or not table[by].type().is_integer():
        raise RecbalError(f"by is {by!r}; name an integer column of {', '.join(table.columns)}.")
    folder = Path(folder)
    for value in values:
        target = folder / f"{by}={int(value)}" / "part-0.parquet"
        if not target.exists():
            rows = table.filter(table[by] == int(value)).drop(by)
            _write_file(rows, target)
    return folder


def read(connection: ibis.BaseBackend, folder: Path) -> ir.Table:
    """Lazy table over a partitioned folder, on DuckDB or on Spark.

    Parameters
    ----------
    connection : ibis backend
        DuckDB or PySpark, as `ibis.duckdb.connect` and `engines.spark` give them.
    folder : path

    Returns
    -------
    ibis Table
        The columns of the files, then the partitioning column.

    Raises
    ------
    RecbalError
        There is no such folder, or no Parquet file in it.
    """
    folder = Path(folder)
    files(folder)
    if connection.name == "pyspark":
        return connection.read_parquet(str(folder))
    pattern = f"{folder}/*/*.parquet"
    return connection.read_parquet(pattern, hive_partitioning=True)


def files(folder: Path) -> list[Path]:
    """Parquet files of a partitioned folder, in order.

    Raises
    ------
    RecbalError
        There is none.
    """
    found = sorted(Path(folder).glob("*=*/*.parquet"))
    if not found:
        raise RecbalError(
            f"{folder} holds no partition such as week=1/part-0.parquet; write the log there first."
        )
    return found


def sizes(folder: Path) -> pd.DataFrame:
    """Rows and bytes of each file, read from the files' own footers.

    Returns
    -------
    pandas.DataFrame
        Indexed by `partition`; `rows`, `bytes`, and `bytes_a_row`.
    """
    found = {
        path.parent.name: {"rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size}
        for path in files(folder)
    }
    frame = pd.DataFrame.from_dict(found, orient="index").rename_axis("partition")
    return frame.assign(bytes_a_row=frame["bytes"] / frame["rows"])


def remove(folder: Path) -> None:
    """Delete a partitioned folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_file(rows: ir.Table, target: Path) -> None:
    try:
        with replacing(target) as part:
            rows.to_parquet(part, compression="zstd")
    except OSError as error:
        raise RecbalError(
            f"cannot write {target.parent.name} to {target.parent.parent} ({error.strerror}); "
            "make room or choose another folder."
        ) from error
