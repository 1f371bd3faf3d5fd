"""Scale out: partitions, shards, engines and their record, without and with Spark."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, must

from recbal_utils import engines, partitioned, sampling, scale, shards
from recbal_utils.errors import RecbalError

SPARK = ROOT / "_build" / "spark" / "packages"


def small_log(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "household_id": rng.integers(-5, 2**40, n),
            "store_id": rng.integers(1, 9, n).astype("int32"),
            "week": rng.integers(1, 4, n).astype("int16"),
            "product_id": np.arange(n, dtype="int32"),
            "display": rng.choice(["0", "A", "é"], n),
            "price": rng.lognormal(size=n),
            "conversion": (rng.random(n) < 0.02).astype("int32"),
        }
    )


# ---- partitions ---------------------------------------------------------------------------


def test_partitions_hold_every_row_once_and_read_back_alike(tmp_path):
    frame = small_log()
    folder = partitioned.write(ibis.memtable(frame), tmp_path / "log", "week", (1, 2, 3))
    names = {path.parent.name for path in partitioned.files(folder)}
    assert names == {"week=1", "week=2", "week=3"}
    back = partitioned.read(ibis.duckdb.connect(), folder).execute()
    assert engines.fingerprint(back, ["product_id"]) == engines.fingerprint(frame, ["product_id"])
    sizes = partitioned.sizes(folder)
    assert sizes["rows"].to_dict() == {
        f"week={week}": n for week, n in frame["week"].value_counts().items()
    }


def test_a_partition_that_is_there_is_not_written_again(tmp_path):
    table = ibis.memtable(small_log())
    folder = partitioned.write(table, tmp_path, "week", (1,))
    before = partitioned.files(folder)[0].stat().st_mtime_ns
    partitioned.write(table, tmp_path, "week", (1, 2))
    assert partitioned.files(folder)[0].stat().st_mtime_ns == before
    assert len(partitioned.files(folder)) == 2


# ---- fingerprints and comparisons ----------------------------------------------------------


def test_a_fingerprint_sees_values_and_not_order_or_width():
    frame = small_log()
    shuffled = frame.sample(frac=1, random_state=1)[frame.columns[::-1]]
    wide = shuffled.astype({"store_id": "int64", "week": "int64", "conversion": "int64"})
    expected = engines.fingerprint(frame, ["product_id"])
    assert engines.fingerprint(wide, ["product_id"]) == expected
    for column, value in {"price": 1.0, "display": "B", "store_id": 99}.items():
        other = frame.copy()
        other.loc[17, column] = value
        assert engines.fingerprint(other, ["product_id"]) != expected


def test_rows_are_compared_in_every_column():
    left = small_log(100)
    right = left.iloc[10:].copy()
    right.loc[50, "price"] += 1
    counts = engines.compare_rows(left, right, ["product_id"])
    assert counts == {"left": 100, "right": 90, "both": 90, "equal": 89}
    assert engines.jaccard(counts) == 0.9


# ---- shards --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shard_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    table = ibis.memtable(small_log(20_000).assign(weight=2.0))
    cut = shards.sharded(table, ["household_id", "store_id", "week"], 6)
    return partitioned.write(cut, folder, "shard", range(6))


def read_all(folder, **options):
    batches = shards.dataset(folder, ["product_id", "price"], "conversion", "weight", **options)
    return [tuple(np.asarray(part) for part in batch) for batch in batches]


def test_workers_share_the_rows_without_gap_or_overlap(shard_folder):
    seen = []
    for worker in range(2):
        batches = read_all(shard_folder, batch_size=1, worker=worker, workers=2)
        seen.append({int(x[0, 0]) for x, _, _ in batches})
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(20_000))


def test_a_batch_holds_features_label_and_weight_of_the_same_row(shard_folder):
    frame = small_log(20_000).set_index("product_id")
    x, y, w = read_all(shard_folder, batch_size=512)[3]
    rows = frame.loc[x[:, 0].astype(int)]
    np.testing.assert_allclose(x[:, 1], rows["price"], rtol=1e-6)
    assert (y[:, 0] == rows["conversion"]).all()
    assert (w == 2).all()


def test_the_order_follows_from_the_seed_and_is_mixed(shard_folder):
    one, two = (read_all(shard_folder, batch_size=500, seed=3) for _ in range(2))
    other = read_all(shard_folder, batch_size=500, seed=4)
    assert (one[0][0] == two[0][0]).all()
    assert (one[0][0] != other[0][0]).any()
    first = one[0][0][:, 0]
    assert abs(np.corrcoef(first, np.arange(500))[0, 1]) < 0.2


def test_shards_by_hash_are_copies_of_the_whole():
    table = ibis.memtable(small_log(50_000))
    cut = shards.sharded(table, ["household_id", "product_id"], 5)
    counts = cut.group_by("shard").agg(n=cut.count(), hits=cut.conversion.sum()).execute()
    assert sorted(counts["shard"]) == list(range(5))
    rate = counts["hits"].sum() / counts["n"].sum()
    spread = np.sqrt(rate * (1 - rate) / 10_000)
    assert (abs(counts["hits"] / counts["n"] - rate) < 5 * spread).all()
    assert (abs(counts["n"] - 10_000) < 5 * np.sqrt(10_000 * 0.8)).all()


def test_moments_equal_those_in_memory():
    frame = small_log().assign(flat=1.0)
    mean, variance = shards.moments(ibis.memtable(frame), ["price", "flat"])
    logs = np.log1p(frame["price"])
    np.testing.assert_allclose(mean, [logs.mean(), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(variance, [logs.var(ddof=0), 1], rtol=1e-6)


# ---- the record ----------------------------------------------------------------------------


def project_with(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / getattr(scale, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def a_record(**changes):
    return json.dumps({**dict.fromkeys(scale.NEEDED, 0), "machine": "M", **changes})


def test_an_own_record_is_preferred_and_each_is_labelled(tmp_path):
    carried = project_with(tmp_path, CARRIED=a_record(date="2020-01-01"))
    assert scale.record(carried)["source"] == "recorded on 2020-01-01: M"
    both = project_with(tmp_path, FRESH=a_record(date="2021-01-01"))
    assert scale.record(both)["source"] == "measured on this machine on 2021-01-01: M"


@pytest.mark.parametrize("content", ["{", "[]", '{"date": 1}'])
def test_a_damaged_record_is_told_in_one_sentence(tmp_path, content):
    project = project_with(tmp_path, CARRIED=content)
    with pytest.raises(
        RecbalError, match=r"^The record 21_scale_out\.json .*make scale-test'[^\n]*$"
    ):
        scale.record(project)


def test_the_carried_record_names_no_host_and_no_path():
    text = (ROOT / scale.CARRIED).read_text(encoding="utf-8")
    assert set(scale.NEEDED) <= set(json.loads(text))
    assert os.uname().nodename not in json.loads(text)["machine"].split()
    assert not any(word in text for word in ("/home", "/root", "/tmp", "/work"))


# ---- bad input -----------------------------------------------------------------------------

TABLE = ibis.memtable(small_log(10))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: partitioned.files(Path("nowhere")), "holds no partition such as"),
        (lambda: partitioned.write(TABLE, Path("x"), "display", (1,)), "by is 'display'"),
        (lambda: partitioned.write(TABLE, Path("x"), "month", (1,)), "by is 'month'"),
        (lambda: shards.sharded(TABLE, ["product_id"], 0), "n is 0"),
        (lambda: shards.sharded(TABLE, ["product_id"], True), "n is True"),
        (lambda: shards.sharded(TABLE, ["display"], 2), "key 'display' is of type string"),
        (
            lambda: engines.compare_rows(small_log(5), small_log(5), ["store_id"]),
            "Rows share the keys",
        ),
        (
            lambda: engines.compare_rows(small_log(5), small_log(5)[["week"]], ["week"]),
            "in one of the two samples only",
        ),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says):
    with pytest.raises(RecbalError, match=says):
        call()


def test_more_workers_than_files_are_refused(shard_folder):
    with pytest.raises(RecbalError, match="6 files for 7 workers: write more shards"):
        shards.share(shard_folder, 0, 7)


# ---- Java and Spark ------------------------------------------------------------------------


def java_that(tmp_path, script):
    path = tmp_path / "bin" / "java"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path.parent)


@pytest.mark.parametrize(
    ("said", "version"),
    [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_401"', 8)],
)
def test_the_version_of_java_is_read(tmp_path, monkeypatch, said, version):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", java_that(tmp_path, f"echo '{said}' >&2"))
    assert engines.java_version() == version


def scale_test(path):
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("JAVA_HOME", None)
    command = [sys.executable, "tools/scale_test.py"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_missing_or_old_java_is_told_in_one_line(tmp_path):
    result = scale_test(str(tmp_path))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("scale-test: There is no Java on the path, and Spark needs 17: ")
    assert "default-jre-headless" in line
    old = scale_test(java_that(tmp_path, "echo 'java version \"1.8.0\"' >&2"))
    assert old.stderr.startswith("scale-test: This Java is version 8, Spark needs 17: ")


def test_spark_is_pinned_and_stays_out_of_the_environment_of_the_book():
    pins = (ROOT / "requirements-spark.txt").read_text(encoding="utf-8")
    packages = [line for line in pins.splitlines() if line and not line.startswith("#")]
    assert [line.split("==")[0] for line in packages] == ["pyspark", "py4j"]
    assert all("==" in line for line in packages)
    assert "pyspark" not in (ROOT / "requirements.txt").read_text(encoding="utf-8")


BOTH_ENGINES = """
import sys
sys.path.append(sys.argv[1])
import ibis
from recbal_utils import diagnose, engines, partitioned, scale
KEYS = list(scale.KEYS)
duck, spark = ibis.duckdb.connect(), engines.spark(memory="1g")
found = []
for connection in (duck, spark):
    log = partitioned.read(connection, sys.argv[2])
    found.append((scale.thinned(log, 0.2, 7).execute(), diagnose.imbalance(log, "conversion")))
engines.stop(spark)
(left, one), (right, two) = found
print(engines.compare_rows(left, right, KEYS), one == two)
assert engines.fingerprint(left, KEYS) == engines.fingerprint(right, KEYS)
"""


def test_both_engines_keep_the_same_rows(tmp_path):
    must((SPARK / ".installed").exists(), "Spark is not installed; run 'make scale-test' first")
    frame = small_log()
    partitioned.write(ibis.memtable(frame), tmp_path, "week", (1, 2, 3))
    command = [sys.executable, "-c", BOTH_ENGINES, str(SPARK), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    n = len(
        sampling.sample_negatives(ibis.memtable(frame), "conversion", scale.KEYS, 0.2, 7).execute()
    )
    counts = {name: n for name in ("left", "right", "both", "equal")}
    assert done.stdout.splitlines()[-1] == f"{counts} True"
