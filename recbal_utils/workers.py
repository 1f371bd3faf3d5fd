"""One model trained by several processes that add up their gradients after each step.

TensorFlow's `MultiWorkerMirroredStrategy` connects the processes. `keras.Model.fit` of Keras 3 does
not run under it, so the step is written out here. What makes several workers equal one is small:
each divides its weighted loss by the size of the whole batch, never by its own sum of weights.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recbal_utils import shards
from recbal_utils._atomic import replacing
from recbal_utils.errors import RecbalError

DIVIDE_BY = ("whole batch", "own weights")
PATIENCE = 300  # seconds for each job


@dataclass(frozen=True)
class Job:
    """What to train, and how the work is shared out.

    Attributes
    ----------
    folder : str
        Partitioned Parquet with the sample.
    features : tuple of str
    label, weight : str
    mean, variance : tuple of float
        Of log(1 + feature), as `shards.moments` gives them.
    mean_weight : float
        Mean weight of the sample's rows; the loss is divided by it.
    rate : float
        Weighted rate of positives, from which the network starts.
    batch_size : int
        Rows of all workers together in a step.
    steps : int
    divide_by : {"whole batch", "own weights"}
        What each worker divides its sum of weighted losses by. Only the first is right.
    hidden : int
    learning_rate : float
        At the start; falls to 0 along a cosine.
    seed : int
    """

    folder: str
    features: tuple
    label: str
    weight: str
    mean: tuple
    variance: tuple
    mean_weight: float
    rate: float
    batch_size: int = 4096
    steps: int = 360
    divide_by: str = "whole batch"
    hidden: int = 64
    learning_rate: float = 0.012
    seed: int = 0


def build(job: Job):
    """Return the network of a job: log-odds from raw features; its weights follow from the seed."""
    import keras

    keras.utils.set_random_seed(job.seed)
    start = keras.initializers.Constant(float(np.log(job.rate) - np.log1p(-job.rate)))
    inputs = keras.Input((len(job.features),))
    x = keras.layers.Lambda(keras.ops.log1p)(inputs)
    x = keras.layers.Normalization(mean=list(job.mean), variance=list(job.variance))(x)
    x = keras.layers.Dense(job.hidden, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1, bias_initializer=start)(x))


def log_odds(job: Job, weights: Sequence[np.ndarray], X: np.ndarray) -> np.ndarray:
    """Log-odds of rows by a trained network, in plain NumPy.

    Parameters
    ----------
    job : Job
    weights : sequence of arrays
        Of one worker, as `train` returns them.
    X : ndarray of shape (n, n_features)
        Raw features.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    first, first_bias, last, last_bias = weights
    x = (np.log1p(X) - np.asarray(job.mean, np.float32)) / np.sqrt(job.variance).astype(np.float32)
    return (np.maximum(x @ first + first_bias, 0) @ last + last_bias)[:, 0]


def train(jobs: Sequence[Job], workers: int = 2) -> list[dict]:
    """Train each job with several processes on this machine, one job after another.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int, default 2
        Processes. With 1, a single process takes the very batches that two would take together.

    Returns
    -------
    list of dict
        For each job `weights` (list of arrays of each worker's model, so `weights[0]` is the first
        worker's), `loss` (of the last step, all workers), and `core_seconds` (processor time of the
        steps, all workers).

    Raises
    ------
    RecbalError
        A job is malformed, or a worker failed; the message holds its last line.
    """
    for job in jobs:
        if job.divide_by not in DIVIDE_BY:
            raise RecbalError(f"divide_by is {job.divide_by!r}; choose one of {DIVIDE_BY}.")
        if job.batch_size % 2:
            raise RecbalError(f"batch_size is {job.batch_size}; give an even number.")
        _check_files(job)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.json").write_text(json.dumps([asdict(job) for job in jobs]))
        _run_all(folder, workers, PATIENCE * len(jobs))
        return [_collect(folder, number, workers) for number in range(len(jobs))]


def _check_files(job):
    """Two files at least, with the columns asked for."""
    first, *_ = shards.share(Path(job.folder), 0, 2)
    have = pq.read_schema(first).names
    missing = [c for c in (*job.features, job.label, job.weight) if c not in have]
    if missing:
        raise RecbalError(f"{first.parent.name} lacks the column {missing[0]!r}.")


def cluster(workers: int, index: int, ports: Sequence[int]) -> str:
    """The value of TF_CONFIG: every worker's address, and which of them this one is."""
    addresses = [f"127.0.0.1:{port}" for port in ports[:workers]]
    return json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )


def step_function(strategy, model, optimizer, job: Job, workers: int):
    """Return the step that all workers take together: its argument is a batch of each worker."""
    import keras
    import tensorflow as tf

    def of_one_worker(x, y, w):
        with tf.GradientTape() as tape:
            each = keras.ops.binary_crossentropy(y, model(x, training=True), from_logits=True)
            total = tf.reduce_sum(w * each[:, 0])
            if job.divide_by == "whole batch":
                loss = total / (job.batch_size * job.mean_weight)
            else:
                loss = total / tf.reduce_sum(w) / workers
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function
    def step(batch):
        return strategy.reduce("SUM", strategy.run(of_one_worker, args=batch), axis=None)

    return step


def work(folder: Path, index: int, workers: int) -> None:
    """What one process does: every job in turn, then its weights to a file."""
    import tensorflow as tf

    several = workers > 1
    strategy = (
        tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    )
    for number, values in enumerate(json.loads((folder / "jobs.json").read_text())):
        weights, loss, spent = _train_one(strategy, Job(**values), index, workers)
        with replacing(folder / f"{number}-{index}.npz") as part, part.open("wb") as stream:
            np.savez(stream, *weights, loss=loss, core_seconds=spent)


def _train_one(strategy, job, index, workers):
    import keras

    with strategy.scope():
        model = build(job)
        falling = keras.optimizers.schedules.CosineDecay(job.learning_rate, job.steps)
        optimizer = keras.optimizers.Adam(falling)
        optimizer.build(model.trainable_variables)
    step = step_function(strategy, model, optimizer, job, workers)
    batches = iter(_batches(strategy, job, index, workers))
    loss = step(next(batches))
    started = time.process_time()
    for _ in range(job.steps - 1):
        loss = step(next(batches))
    return (
        [v.numpy() for v in model.trainable_variables],
        float(loss),
        time.process_time() - started,
    )


def _batches(strategy, job, index, workers):
    """Batches for one of two workers; one worker alone gets both, put together."""
    import tensorflow as tf

    def part(worker):
        return shards.dataset(
            Path(job.folder),
            job.features,
            job.label,
            job.weight,
            batch_size=job.batch_size // 2,
            worker=worker,
            workers=2,
            seed=job.seed,
            repeat=True,
        )

    if workers > 1:
        return strategy.distribute_datasets_from_function(lambda _: part(index))
    both = tf.data.Dataset.zip(part(0), part(1))
    return both.map(lambda a, b: tuple(tf.concat(pair, 0) for pair in zip(a, b, strict=True)))


def _run_all(folder, workers, patience):
    ports = _free_ports(workers)
    processes = []
    for index in range(workers):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_CONFIG", None)
        if workers > 1:
            environment["TF_CONFIG"] = cluster(workers, index, ports)
        command = [sys.executable, "-m", "recbal_utils.workers", str(folder), str(index)]
        with (folder / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen([*command, str(workers)], env=environment, stdout=log, stderr=log)
            )
    try:
        _wait(processes, folder, patience)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(processes, folder, patience):
    """Until all have ended well; one that fails would leave the others waiting for it."""
    deadline = time.monotonic() + patience
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            raise RecbalError(f"The workers did not end within {patience:,} seconds.")
        if any(process.poll() for process in processes):
            break
        time.sleep(0.1)
    for index, process in enumerate(processes):
        if process.poll():
            log = (folder / f"{index}.log").read_text(errors="replace")
            lines = re.findall(r"^\S*(?:Error|Exception): .*", log, re.M) or log.splitlines()
            said = lines[-1][:200] if lines else "without a word"
            raise RecbalError(f"Worker {index} ended with code {process.poll()}: {said}")


def _free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _collect(folder, number, workers):
    found = [np.load(folder / f"{number}-{index}.npz") for index in range(workers)]
    names = [name for name in found[0].files if name.startswith("arr_")]
    names.sort(key=lambda name: int(name.removeprefix("arr_")))
    return {
        "weights": [[one[name] for name in names] for one in found],
        "loss": float(found[0]["loss"]),
        "core_seconds": float(sum(one["core_seconds"] for one in found)),
    }


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
