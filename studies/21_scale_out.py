"""Study of chapter 21: one model by two processes, right and wrong, and the memory of its input.

Trained on a sample of weeks 20 to 40, judged on whole visits of weeks 45 to 48 of every fourth
household. The shards are written anew each time; what was trained is kept through an interrupt.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from recbal_utils import datasets, evaluate, partitioned, shards, studies, workers
from recbal_utils.errors import RecbalError

N_SHARDS = 16
STEPS = 180
WEIGHT = "weight"
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_shards.py"
ONE = "one worker"
# name -> (files by, what each worker divides its loss by)
WAYS = {
    "two workers": ("hash", "whole batch"),
    "two workers, own weights": ("hash", "own weights"),
    "a file a class": ("label", "whole batch"),
    "a file a class, own weights": ("label", "own weights"),
}


def write_shards(folder):
    """Write the training sample twice: shards by a hash of the visit, and a file a class."""
    keys, names = list(datasets.IMPRESSION_KEYS), list(datasets.FEATURES)
    columns = [*keys, datasets.LABEL, WEIGHT, *names]
    table = ibis.memtable(datasets.training_table()[columns])
    by_hash = shards.sharded(table, datasets.VISIT_KEYS, N_SHARDS)
    partitioned.write(by_hash, folder / "hash", shards.SHARD, range(N_SHARDS))
    labels = table.mutate(label=table[datasets.LABEL].cast("int16"))
    partitioned.write(labels, folder / "label", "label", (0, 1))
    return first_job(table, folder / "hash")


def first_job(table, folder):
    """The job of the first way; the others differ from it in folder and divisor."""
    names = list(datasets.FEATURES)
    mean, variance = shards.moments(table, names)
    counts = table.aggregate(
        n=table.count(), w=table[WEIGHT].sum(), positives=table[datasets.LABEL].sum()
    ).execute()
    n, weight, positives = counts.iloc[0]
    return workers.Job(
        folder=str(folder),
        features=tuple(names),
        label=datasets.LABEL,
        weight=WEIGHT,
        mean=tuple(map(float, mean)),
        variance=tuple(map(float, variance)),
        mean_weight=float(weight / n),
        rate=float(positives / weight),
        steps=STEPS,
    )


def trained(job, folder, seeds):
    """Models of all seeds, by seed and name; two starts of processes serve them all."""
    alone = [replace(job, seed=seed) for seed in seeds]
    together = [
        replace(one, folder=str(folder / files), divide_by=divisor)
        for one in alone
        for files, divisor in WAYS.values()
    ]
    found = dict(zip(seeds, ({ONE: model} for model in workers.train(alone, 1)), strict=True))
    print(f"trained by one worker: {len(alone)}", flush=True)
    names = [(one, name) for one in seeds for name in WAYS]
    for (seed, name), model in zip(names, workers.train(together, 2), strict=True):
        found[seed][name] = model
    print(f"trained by two workers: {len(together)}", flush=True)
    return found


class Judge:
    """Test rows, and what a model makes of them."""

    def __init__(self):
        test = datasets.visit_table()
        test = test[test["household_id"] % 4 == 0]
        self.X, self.y = datasets.matrix(test), test[datasets.LABEL].to_numpy()

    def log_odds(self, job, weights):
        """Of every test row, by the first worker's model."""
        return workers.log_odds(job, weights[0], self.X)

    def metrics(self, log_odds):
        """Ranking, entropy and mean predicted over observed rate."""
        p = 1 / (1 + np.exp(-log_odds.astype(np.float64)))
        names = ("roc_auc", "average_precision", "normalised_entropy", "ratio")
        return {name: getattr(evaluate, name)(self.y, p) for name in names}


def judged(job, found):
    """A row for each seed and model: metrics, and how far it is from the model of one worker."""
    judge, rows = Judge(), []
    for seed, models in found.items():
        odds = {name: judge.log_odds(job, model["weights"]) for name, model in models.items()}
        for name, model in models.items():
            apart = float(np.abs(odds[name] - odds[ONE]).max())
            spent = {"rows": job.steps * job.batch_size, "core_seconds": model["core_seconds"]}
            rows.append(
                {"seed": seed, "name": name, **judge.metrics(odds[name]), "apart": apart, **spent}
            )
    return pd.DataFrame(rows).assign(part="training")


def memory(folder):
    """Peak memory of reading the shards in a process of its own."""
    command = [sys.executable, str(BENCHMARK), str(folder / "hash")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RecbalError(f"bench_shards.py failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print("memory of streaming and of loading: measured", flush=True)
    return pd.DataFrame(found).rename(columns={"how": "name"})


def run(seeds=(0,), checkpoint=None):
    """Return models by name and seed (part "training"), and sizes in memory (part "memory")."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = write_shards(folder)
        print("shards written", flush=True)
        train = lambda: judged(job, trained(job, folder, list(seeds)))
        frames = [studies.kept(checkpoint, "training", train)]
        frames.append(
            studies.kept(checkpoint, "memory", lambda: memory(folder).assign(part="memory"))
        )
    return pd.concat(frames, ignore_index=True).set_index(["part", "name"])


if __name__ == "__main__":
    studies.main(lambda seeds, checkpoint: run(seeds[:1], checkpoint))
