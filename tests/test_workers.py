"""Several processes, one model."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pytest

from recbal_utils import partitioned, shards, workers
from recbal_utils.errors import RecbalError

FEATURES = ["a", "b"]


def rows(n=8000, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.lognormal(size=(2, n))
    positive = rng.random(n) < 1 / (1 + np.exp(4 - np.log1p(a)))
    weight = np.where(positive, 1.0, 20.0)
    return pd.DataFrame(
        {"key": np.arange(n), "a": a, "b": b, "hit": positive.astype("int32"), "weight": weight}
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    frame = rows()
    table = ibis.memtable(frame)
    partitioned.write(shards.sharded(table, ["key"], 4), folder / "hash", "shard", range(4))
    partitioned.write(table.mutate(label=table.hit), folder / "label", "label", (0, 1))
    mean, variance = shards.moments(table, FEATURES)
    total = frame["weight"].sum()
    return workers.Job(
        folder=str(folder / "hash"),
        features=tuple(FEATURES),
        label="hit",
        weight="weight",
        mean=tuple(map(float, mean)),
        variance=tuple(map(float, variance)),
        mean_weight=float(total / len(frame)),
        rate=float(frame["hit"].sum() / total),
        batch_size=512,
        steps=40,
        hidden=8,
        learning_rate=0.2,
    )


@pytest.fixture(scope="module")
def trained(job):
    by_class = replace(job, folder=job.folder.replace("hash", "label"), divide_by="own weights")
    two, wrong = workers.train([job, by_class], workers=2)
    (one,) = workers.train([job], workers=1)
    return {"one": one, "two": two, "wrong": wrong}


def largest_difference(left, right):
    return max(np.abs(a - b).max() for a, b in zip(left, right, strict=True))


def test_two_workers_end_with_the_weights_of_one(job, trained):
    one, two = trained["one"]["weights"][0], trained["two"]["weights"]
    assert largest_difference(two[0], two[1]) == 0
    assert largest_difference(two[0], one) < 1e-4
    assert (
        largest_difference(one, [v.numpy() for v in workers.build(job).trainable_variables]) > 0.1
    )


def test_a_file_a_class_predicts_one_half(job, trained):
    X = rows(seed=1)[FEATURES].to_numpy(np.float32)
    mean = {
        name: (1 / (1 + np.exp(-workers.log_odds(job, model["weights"][0], X)))).mean()
        for name, model in trained.items()
    }
    assert mean["two"] < 3 * job.rate
    assert mean["wrong"] > 0.3


def test_log_odds_are_those_of_the_network(job):
    model = workers.build(job)
    X = rows(50)[FEATURES].to_numpy(np.float32)
    weights = [v.numpy() for v in model.trainable_variables]
    np.testing.assert_allclose(
        workers.log_odds(job, weights, X), np.asarray(model(X))[:, 0], rtol=1e-4, atol=1e-5
    )


def test_the_cluster_is_told_to_each_worker():
    told = json.loads(workers.cluster(2, 1, [5001, 5002]))
    assert told == {
        "cluster": {"worker": ["127.0.0.1:5001", "127.0.0.1:5002"]},
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"divide_by": "nothing"}, "divide_by is 'nothing'"),
        ({"batch_size": 511}, "batch_size is 511; give an even number"),
        ({"label": "nocolumn"}, "lacks the column 'nocolumn'"),
        ({"folder": "nowhere"}, "nowhere holds no partition"),
    ],
)
def test_a_bad_job_starts_no_process(job, change, says):
    with pytest.raises(RecbalError, match=says):
        workers.train([replace(job, **change)])


def test_a_worker_that_fails_is_told_in_one_sentence(job):
    with pytest.raises(RecbalError, match=r"^Worker 0 ended with code 1: [^\n]*units[^\n]*$"):
        workers.train([replace(job, hidden=-1)], workers=1)


FIT = """
import numpy as np, tensorflow as tf, keras
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
data = tf.data.Dataset.from_tensors((np.ones((8, 3), "f4"), np.ones((8, 1), "f4"))).repeat()
model.fit(data, steps_per_epoch=2, verbose=0)
"""


def test_keras_fit_does_not_run_between_processes():
    """Chapter 21 says so; the day this test goes red, `model.fit` can take the loop's place."""
    ports = workers._free_ports(2)
    processes = []
    for index in range(2):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        environment["TF_CONFIG"] = workers.cluster(2, index, ports)
        command = [sys.executable, "-c", FIT]
        processes.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert all("PerReplica" in text for text in said)
