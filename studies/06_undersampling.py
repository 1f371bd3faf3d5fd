"""Where the row budget goes: three ways to spend 1.4 million training rows, and the log's size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils import datasets, studies
from recbal_utils.balance import NegativeDownsampler
from recbal_utils.compare import WHOLE, Method, Test, compare
from recbal_utils.models import NetworkClassifier, preprocessing

KEEP_RATE = 0.01
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_negatives.py"
LOG_SIZES = (10e6, 50e6, 100e6, 400e6)  # the last one is more than there is


class BoughtBefore:
    """Counting instead of learning: what the household bought most, then what sells now."""

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        """Return scores in [0, 1) in two columns; good for ranking, they are no probabilities."""
        names = list(datasets.FEATURES)
        own, popular = (X[:, names.index(name)] for name in ("hp_purchases", "p_purchases_4w"))
        level = np.unique(own, return_inverse=True)[1]
        score = level + (popular - popular.min()) / (1.001 * np.ptp(popular))
        score = score.astype(np.float64) / (level.max() + 1)
        return np.column_stack([1 - score, score])


def network(**settings):
    """Make a network for a seed. Settings were chosen on weeks 41 to 44, for each set anew."""
    return lambda seed: NetworkClassifier(random_state=seed, **settings)


def methods():
    """The ways to spend the rows; "natural" and "all positives" name training sets."""
    slow = {"batch_size": 2048, "learning_rate": 0.008}
    fast = {"batch_size": 4096, "learning_rate": 0.012}
    weighted = {"batch_size": 4096, "learning_rate": 0.004, "class_weight": "balanced"}
    small = {"batch_size": 64, "learning_rate": 0.001}
    return {
        "bought before, then popular": Method(lambda _: BoughtBefore(), None, "natural", 0, False),
        "natural": Method(network(epochs=10, **slow), train="natural"),
        "natural, class weights": Method(network(epochs=3, **weighted), train="natural"),
        "natural, 1:1": Method(
            network(epochs=20, **small),
            lambda seed: NegativeDownsampler(random_state=seed),
            train="natural",
            shift="prior",
        ),
        "all positives": Method(
            network(epochs=6, **fast), train="all positives", shift=float(np.log(KEEP_RATE))
        ),
    }


def data():
    """Training sets by name, and the test."""
    tables = {
        "natural": datasets.training_table(keep_rate=KEEP_RATE, keep_positives=False),
        "all positives": datasets.training_table(keep_rate=KEEP_RATE),
    }
    scale = preprocessing().fit(datasets.matrix(tables["natural"]))
    trains = {
        name: (scale.transform(datasets.matrix(table)), table.conversion.to_numpy())
        for name, table in tables.items()
    }
    rows = datasets.visit_table()
    test = Test.of_log(rows, scale.transform(datasets.matrix(rows)))
    return trains, test


def models(seeds, checkpoint=None):
    """Compare the methods with these seeds."""
    trains, test = data()
    return compare(methods(), trains, test, seeds=seeds, checkpoint=checkpoint)


def log_sizes():
    """Seconds, peak memory and rows of thinning growing parts of the log."""
    found = {}
    for size in LOG_SIZES:
        command = [sys.executable, str(BENCHMARK), "--measure", "downsample", "--rows", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        run = json.loads(done.stdout.splitlines()[-1])
        print(f"{run['rows']:,} impressions thinned in {run['seconds']:.0f} s", flush=True)
        price = {"seconds": run["seconds"], "memory_mb": 1000 * run["peak_gb"], "rows": run["rows"]}
        found[f"log of {run['rows']:,}", 0, WHOLE] = price
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(
        ["method", "seed", "replicate"]
    )


def run(seeds=range(5), checkpoint=None):
    return pd.concat([log_sizes(), models(seeds, checkpoint)])


if __name__ == "__main__":
    studies.main(run)
