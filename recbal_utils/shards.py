"""A training sample as shards on disk, read as `tf.data` with weights, a part of it by each worker.

A shard is a partition by a hash of the keys, so that every shard is a small copy of the sample:
the same rate, the same mix of weeks. Nothing here holds more than a few thousand rows in memory.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow.parquet as pq

from recbal_utils import partitioned, sampling
from recbal_utils.errors import RecbalError

SHARD = "shard"
READ_ROWS = 4096
POOL_ROWS = 65_536
FILES_AT_ONCE = 4


def sharded(table: ir.Table, keys: Sequence[str], n: int, seed: int = 1) -> ir.Table:
    """Add the column `shard`, from 0 to n - 1, by a hash of the keys.

    Parameters
    ----------
    table : ibis Table
    keys : sequence of str
        Integer columns; rows that share them share a shard.
    n : int
        Number of shards; several for each worker that may ever read them.
    seed : int, default 1
        Use another one than thinned the rows: what was kept has a small hash of that seed.

    Returns
    -------
    ibis Table

    Raises
    ------
    RecbalError
        `n` is no whole number above 0, or as in `sampling.hash_state`.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise RecbalError(f"n is {n!r}; give a whole number of shards, 1 or more.")
    mixed = sampling.hash_state(table, keys, seed, name=SHARD)
    return mixed.mutate(**{SHARD: (mixed[SHARD] % n).cast("int32")})


def moments(table: ir.Table, features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of log(1 + feature), counted by the engine in one pass.

    Returns
    -------
    mean, variance : ndarray of float32, shape (n_features,)
        A variance of 0 is given as 1.
    """
    logs = {name: (table[name].cast("float64") + 1).ln() for name in features}
    sums = {f"{name} mean": column.mean() for name, column in logs.items()}
    sums |= {f"{name} variance": column.var(how="pop") for name, column in logs.items()}
    row = table.aggregate(**sums).execute().iloc[0]
    mean, variance = (
        row[[f"{name} {what}" for name in features]].to_numpy(np.float32)
        for what in ("mean", "variance")
    )
    return mean, np.where(variance > 0, variance, np.float32(1))


def share(folder: Path, worker: int = 0, workers: int = 1) -> list[Path]:
    """The files that one worker reads: every `workers`-th one.

    Raises
    ------
    RecbalError
        There are fewer files than workers, or no such worker.
    """
    found = partitioned.files(folder)
    if not 0 <= worker < workers:
        raise RecbalError(f"worker is {worker}; with {workers} workers they are numbered from 0.")
    if len(found) < workers:
        raise RecbalError(
            f"{folder} holds {len(found)} files for {workers} workers: write more shards."
        )
    return found[worker::workers]


def rows(path: Path, columns: Sequence[str]):
    """Rows of one Parquet file as float32 arrays of shape (n, n_columns), n at most 4,096."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=list(columns)):
            arrays = [batch.column(name).to_numpy(zero_copy_only=False) for name in columns]
            yield np.stack(arrays, axis=1).astype(np.float32)


def dataset(
    folder: Path,
    features: Sequence[str],
    label: str,
    weight: str,
    *,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
    seed: int = 0,
    repeat: bool = False,
):
    """Batches of one worker's shards: features, labels and weights.

    Parameters
    ----------
    folder : path
        Partitioned Parquet, as `partitioned.write` leaves it.
    features : sequence of str
    label, weight : str
    batch_size : int
        Rows a batch; a remainder is dropped.
    worker, workers : int
        Which part to read. Different workers read different files.
    seed : int
        Of the order of files and rows; each pass has another order.
    repeat : bool, default False
        Begin again for ever: workers with unequal shares then never wait for one another.

    Returns
    -------
    tf.data.Dataset
        Of (x, y, w): float32 of shapes (batch, n_features), (batch, 1) and (batch,).
    """
    import tensorflow as tf

    columns = [*features, label, weight]
    paths = [str(path) for path in share(folder, worker, workers)]
    signature = tf.TensorSpec((None, len(columns)), tf.float32)

    def read(path):
        return tf.data.Dataset.from_generator(
            lambda name: rows(name.decode(), columns), output_signature=signature, args=(path,)
        )

    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=seed)
    pool = files.interleave(read, cycle_length=FILES_AT_ONCE, num_parallel_calls=None).unbatch()
    batches = pool.shuffle(POOL_ROWS, seed=seed)
    if repeat:
        batches = batches.repeat()
    width = len(features)
    return (
        batches.batch(batch_size, drop_remainder=True)
        .map(lambda b: (b[:, :width], b[:, width : width + 1], b[:, width + 1]))
        .prefetch(2)
    )
