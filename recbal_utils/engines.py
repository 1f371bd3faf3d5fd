"""The same lazy expression on two engines, and whether they returned the same rows.

DuckDB runs in this process. Apache Spark is an optional extra (`make scale-test`): it needs Java
and the package pyspark, and runs here in local mode, with one process and as many threads as cores.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import ibis
import pandas as pd

from recbal_utils.errors import RecbalError

OLDEST_JAVA = 17
INSTALL_JAVA = "install one (Debian, Ubuntu: sudo apt install default-jre-headless)"
_SPARK = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "8",
    # Spark copies each step of the hash into the next one, 5 times a key, until the expression is
    # beyond what it can compile. Left apart, the steps run compiled.
    "spark.sql.optimizer.excludedRules": "org.apache.spark.sql.catalyst.optimizer.CollapseProject",
}


def java_version(command: str = "java") -> int:
    """Major version of the Java on the path (17 of 17.0.15, 8 of 1.8.0).

    Raises
    ------
    RecbalError
        There is no Java, or it does not tell its version.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which(f"{home}/bin/{command}" if home else command)
    if path is None:
        where = f"in JAVA_HOME={home}" if home else "on the path"
        raise RecbalError(
            f"There is no Java {where}, and Spark needs {OLDEST_JAVA}: {INSTALL_JAVA}."
        )
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if found is None:
        raise RecbalError(f"{path} -version does not tell a version; {INSTALL_JAVA}.")
    return int(found[1])


def check_java() -> int:
    """Major version of the Java that Spark would run on.

    Raises
    ------
    RecbalError
        Java is missing or too old.
    """
    found = java_version()
    if found < OLDEST_JAVA:
        raise RecbalError(
            f"This Java is version {found}, Spark needs {OLDEST_JAVA}: {INSTALL_JAVA}."
        )
    return found


def spark(memory: str = "2g", cores: int = 2) -> ibis.BaseBackend:
    """Connect to a Spark that runs in local mode.

    Parameters
    ----------
    memory : str, default "2g"
        Upper bound of the Java heap, as Spark writes it.
    cores : int, default 2
        Threads that work at a time.

    Returns
    -------
    ibis backend
        PySpark, silent unless something fails. End it with `stop(connection)`.

    Raises
    ------
    RecbalError
        Java is missing or too old, or the package pyspark is missing.
    """
    check_java()
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise RecbalError("pyspark is not installed: run 'make scale-test'.") from None
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(f"local[{cores}]").appName("recbal")
    for name, value in {**_SPARK, "spark.driver.memory": memory, "spark.log.level": "OFF"}.items():
        builder = builder.config(name, value)
    return ibis.pyspark.connect(builder.getOrCreate())


def stop(connection: ibis.BaseBackend) -> None:
    """End a Spark that `spark` started."""
    connection._session.stop()


def plain(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Rows in an order and in types that do not depend on the engine.

    Integers become 64 bits wide, other numbers floats of 64 bits, all else text. Rows are sorted
    by `keys`, columns by name.
    """
    columns = {}
    for name in sorted(frame.columns):
        column = frame[name]
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_integer_dtype(column):
            columns[name] = column.astype("int64")
        elif pd.api.types.is_float_dtype(column):
            columns[name] = column.astype("float64")
        else:
            columns[name] = column.astype(str)
    return pd.DataFrame(columns).sort_values(list(keys), ignore_index=True)


def fingerprint(frame: pd.DataFrame, keys: Sequence[str]) -> str:
    """SHA-256 of the rows, the same whatever the engine, the order and the width of integers.

    Parameters
    ----------
    frame : pandas.DataFrame
    keys : sequence of str
        Columns that together name a row; rows are sorted by them.

    Returns
    -------
    str
        64 hexadecimal digits. Floats must be equal to the last bit.
    """
    digest = hashlib.sha256()
    for name, column in plain(frame, keys).items():
        digest.update(f"{name}:{column.dtype}:{len(column)};".encode())
        numeric = pd.api.types.is_numeric_dtype(column)
        values = column.to_numpy().tobytes() if numeric else "\0".join(column).encode()
        digest.update(values)
    return digest.hexdigest()


def compare_rows(left: pd.DataFrame, right: pd.DataFrame, keys: Sequence[str]) -> dict[str, int]:
    """Lay two samples side by side, row by row.

    Parameters
    ----------
    left, right : pandas.DataFrame
        With the same columns, `keys` naming each row once.
    keys : sequence of str

    Returns
    -------
    dict
        `left`, `right`: rows of each; `both`: rows whose keys are in both; `equal`: of those, rows
        equal in every column.

    Raises
    ------
    RecbalError
        The columns differ, or keys repeat.
    """
    if set(left.columns) != set(right.columns):
        odd = sorted(set(left.columns) ^ set(right.columns))
        raise RecbalError(f"The column {odd[0]!r} is in one of the two samples only.")
    left, right = plain(left, keys), plain(right, keys)
    for frame in (left, right):
        if frame.duplicated(list(keys)).any():
            raise RecbalError(
                f"Rows share the keys {', '.join(keys)}; name keys that tell them apart."
            )
    both = left.merge(right, on=list(keys), suffixes=("", "_right"))
    others = [name for name in left.columns if name not in keys]
    same = pd.Series(True, index=both.index)
    for name in others:
        same &= both[name] == both[f"{name}_right"]
    return {"left": len(left), "right": len(right), "both": len(both), "equal": int(same.sum())}


def jaccard(counts: dict[str, int]) -> float:
    """Rows that both samples hold, as a share of the rows that either holds; in [0, 1]."""
    return counts["both"] / (counts["left"] + counts["right"] - counts["both"])
