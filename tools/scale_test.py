"""Run the scale test: the same expressions on DuckDB and on Apache Spark, row by row.

Spark goes to _build/spark/packages, apart from .venv, whose packages it only reads. The result is
_build/spark/record.json; with --keep it also replaces the record that the project carries.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

import psutil
from beside import install, machine, write_record
from common import BUILD, ROOT, data_cache, stop
from execute import native_stderr_to

HERE = BUILD / "spark"
PACKAGES = HERE / "packages"
REQUIREMENTS = ROOT / "requirements-spark.txt"
MEMORY = "2g"
IN_FILE = ("household_id", "store_id", "product_id")  # the keys within a week


def processor_seconds() -> float:
    """Processor time of this process and of the Java below it."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Cost:
    """Processor seconds of a block, which other work on the machine hardly moves."""

    def __enter__(self):
        self.spent = processor_seconds()
        return self

    def __exit__(self, *_):
        self.spent = processor_seconds() - self.spent

    def record(self, engine: str, what: str, rows: int) -> dict:
        """As a row of the record's table of costs."""
        spent = round(self.spent, 1)
        return {"engine": engine, "what": what, "rows": rows, "core_seconds": spent}


def diagnosed(log) -> dict:
    """What both engines must agree on before a row is sampled."""
    from recbal_utils import datasets, diagnose

    figures = asdict(diagnose.imbalance(log, datasets.LABEL, group="household_id"))
    tail = diagnose.long_tail(log, "product_id", datasets.LABEL)
    units = {f"{tier} products": int(n) for tier, n in tail["units"].items()}
    return {**figures, **units, "gini": float(tail.loc["all", "gini"])}


def own_hash(log):
    """One row in a hundred by the engine's own hash of the keys: not portable."""
    import ibis

    from recbal_utils import scale

    text = ibis.literal("").concat(*(log[key].cast("string") + "/" for key in scale.KEYS))
    return log.filter(text.hash().abs() % 100 == 0).select(*scale.KEYS)


def by_chance_spark(connection, folder: Path, partitions: int):
    """One row in a hundred by Spark's seeded random numbers, rows dealt to so many partitions."""
    from pyspark.sql import functions as F

    frame = connection._session.read.parquet(str(folder)).repartition(partitions)
    return frame.filter(F.rand(seed=0) < 0.01).select(*IN_FILE).toPandas()


def by_chance_duckdb(folder: Path, threads: int):
    """One row in a hundred by DuckDB's seeded random numbers, with so many threads."""
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    connection.execute("SELECT setseed(0.5)").fetchall()
    source = f"read_parquet('{folder}/*.parquet')"
    return connection.sql(f"SELECT {', '.join(IN_FILE)} FROM {source} WHERE random() < 0.01").df()


def keys_of(sample) -> list[str]:
    """The columns that tell the rows of a sample apart."""
    from recbal_utils import scale

    return [key for key in scale.KEYS if key in sample.columns]


def measure(folder: Path) -> dict:
    """Run everything once on each engine; returns the record without date and machine."""
    import ibis

    from recbal_utils import engines, partitioned, scale

    duck, spark = ibis.duckdb.connect(threads=2), engines.spark(memory=MEMORY, cores=2)
    found = {"diagnoses": {}, "samples": {}, "cost": []}
    samples, hashed = {}, {}
    for engine, connection in {"duckdb": duck, "spark": spark}.items():
        log = partitioned.read(connection, folder)
        log.count().execute()  # starts the engine's threads, which is no part of the cost
        n = int(partitioned.sizes(folder)["rows"].sum())
        with Cost() as cost:
            found["diagnoses"][engine] = diagnosed(log)
        found["cost"].append(cost.record(engine, "diagnose", n))
        with Cost() as cost:
            samples[engine] = scale.thinned(log).execute()
        found["cost"].append(cost.record(engine, "thin", n))
        table = scale.by_week(samples[engine])
        found["samples"][engine] = table.reset_index().to_dict(orient="records")
        hashed[engine] = own_hash(log.filter(log.week == scale.WEEKS[-1])).execute()
        print(f"scale-test: {engine}: {len(samples[engine]):,} of {n:,} rows kept", flush=True)
    last = folder / f"week={scale.WEEKS[-1]}"
    chance = {n: by_chance_duckdb(last, n) for n in (1, 2)}
    parts = {n: by_chance_spark(spark, last, n) for n in (2, 3)}
    engines.stop(spark)
    pairs = {
        "arithmetic on keys: DuckDB and Spark": (samples["duckdb"], samples["spark"]),
        "own hash(): DuckDB and Spark": (hashed["duckdb"], hashed["spark"]),
        "rand(seed): Spark, 2 and 3 partitions": (parts[2], parts[3]),
        "random(), seeded: DuckDB, 1 and 2 threads": (chance[1], chance[2]),
    }
    found["overlaps"] = [
        {"pair": name, **engines.compare_rows(left, right, keys_of(left))}
        for name, (left, right) in pairs.items()
    ]
    return found


def test(folder: Path) -> dict:
    """Write the log, run the engines, and describe the run."""
    from recbal_utils import engines, partitioned, scale

    java = engines.java_version()
    scale.write_log(folder)
    sizes = partitioned.sizes(folder)
    names = {"spark": "pyspark", "duckdb": "duckdb", "ibis": "ibis-framework"}
    versions = {name: importlib.metadata.version(package) for name, package in names.items()}
    log = {"weeks": list(scale.WEEKS), "rows": int(sizes["rows"].sum())}
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {**versions, "java": str(java), "python": platform.python_version()},
        "log": {**log, "bytes": int(sizes["bytes"].sum()), "spark_memory": MEMORY},
        **measure(folder),
    }


def verdict(found: dict) -> str:
    """One line on what came out; stops where the engines differ."""
    overlap = found["overlaps"][0]
    same = overlap["left"] == overlap["right"] == overlap["equal"]
    agreed = found["diagnoses"]["duckdb"] == found["diagnoses"]["spark"]
    if not same or found["samples"]["duckdb"] != found["samples"]["spark"]:
        stop(f"scale-test: the engines kept different rows: {overlap}")
    word = "the same" if agreed else "different (see the record)"
    return (
        f"{overlap['equal']:,} rows kept by both engines, equal in every column; diagnoses {word}"
    )


def main() -> None:
    """Check Java, install Spark, run, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="replace the project's record too")
    arguments = parser.parse_args()
    from recbal_utils import engines, scale
    from recbal_utils.errors import RecbalError

    os.environ["RECBAL_CACHE"] = data_cache()
    try:
        engines.check_java()
        install(PACKAGES, REQUIREMENTS, "scale-test", "Spark", "0.5 GB")
        sys.path.append(str(PACKAGES))
        with native_stderr_to(BUILD / "log" / "spark.txt"):
            found = test(HERE / "log")
        print(f"scale-test: {verdict(found)}")
    except RecbalError as error:
        stop(f"scale-test: {error}")
    write_record(found, "scale-test", scale.FRESH, scale.CARRIED if arguments.keep else None)


if __name__ == "__main__":
    main()
