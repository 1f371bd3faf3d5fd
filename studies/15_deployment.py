"""A model ages, and a server under load: stale, corrected and fresh models; four ways to serve."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from recbal_utils import calibrate, datasets, evaluate, studies
from recbal_utils._atomic import replacing
from recbal_utils.compare import WHOLE
from recbal_utils.models import NetworkClassifier, preprocessing

KEEP_RATE = 0.01
BLOCKS = {f"weeks {first} to {first + 4}": range(first, first + 5) for first in (20, 28, 36)}
CORRECTED = ", corrected"
METRICS = ["roc_auc", "average_precision", "normalised_entropy", "ratio"]
N_REPLICATES = 200
N_SEEDS = 2  # of those given
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_serve.py"
ENGINES = ("numpy", "onnx", "compiled", "predict")
ROUNDS, SECONDS = 2, 0.5  # of closed load; the open load takes twice as long


def network(seed):
    """A network that learns from five weeks of the log in seconds."""
    return NetworkClassifier(
        (64,), epochs=4, batch_size=2048, learning_rate=0.008, random_state=seed
    )


class Log:
    """The rows of the experiment: five weeks to train on, labels that came in, and the test."""

    def __init__(self):
        self.train = datasets.training_table(keep_rate=KEEP_RATE)
        # Weeks 20 to 40 are there for all blocks alike, so their scale favours none.
        self.scale = preprocessing().fit(datasets.matrix(self.train))
        recent = datasets.visit_table(datasets.CHOOSE_WEEKS, share=datasets.CHOOSE_SHARE)
        test = datasets.visit_table()
        self.recent = self._scaled(recent), recent.conversion.to_numpy()
        self.test = self._scaled(test), test.conversion.to_numpy()
        self.households = test.household_id.to_numpy()

    def _scaled(self, table):
        return self.scale.transform(datasets.matrix(table))

    def block(self, weeks):
        """Training rows of some weeks."""
        table = self.train[self.train.week.isin(weeks)]
        return self._scaled(table), table.conversion.to_numpy()

    def judged(self, p, metrics=METRICS):
        """Metrics on the test, replicate -1, and on replicates of its households."""
        options = {"groups": self.households, "metrics": list(metrics)}
        draws = evaluate.replicates(self.test[1], p, n_replicates=N_REPLICATES, **options)
        draws.loc[WHOLE] = [getattr(evaluate, name)(self.test[1], p) for name in metrics]
        return draws.sort_index()


def aged(log, block, seed):
    """A model of one block as it stands, and with the shift that weeks 41 to 44 ask for."""
    model = network(seed).fit(*log.block(BLOCKS[block]))

    def score(X):
        return calibrate.prior_correction(model.predict_proba(X)[:, 1], KEEP_RATE)

    recent, labels = log.recent
    shift = calibrate.calibration_intercept(labels, score(recent))
    p = score(log.test[0])
    plain = log.judged(p)
    # A shift changes no rank, so the ranking metrics stay.
    moved = log.judged(calibrate.shift_log_odds(p, shift), METRICS[2:])
    found = {block: plain, block + CORRECTED: plain[METRICS[:2]].join(moved)}
    return pd.concat(found, names=["method"])


def models(seeds, checkpoint=None):
    """Every block with every seed, in the form of `compare.compare`."""
    log, found = None, {}
    for block in BLOCKS:
        for seed in seeds:
            path = Path(checkpoint or ".") / f"{block.replace(' ', '-')}-{seed}.parquet"
            if checkpoint is None or not path.exists():
                log = log or Log()
                frame = aged(log, block, seed)
                print(f"{block}, seed {seed}", flush=True)
                if checkpoint is None:
                    found[seed, block] = frame
                    continue
                with replacing(path) as part:
                    frame.to_parquet(part)
            found[seed, block] = pd.read_parquet(path)
    runs = pd.concat({key: frame for key, frame in found.items()}, names=["seed", "block"])
    return runs.droplevel("block").reorder_levels(["method", "seed", "replicate"]).sort_index()


def load(checkpoint):
    """Rounds of the benchmark over HTTP, indexed as methods "load"; timings, never claims."""
    path = checkpoint / "load.json"
    if not path.exists():
        command = [sys.executable, str(BENCHMARK), "--engines", ",".join(ENGINES)]
        command += ["--seconds", str(SECONDS), "--rounds", str(ROUNDS)]
        command += ["--folder", str(checkpoint / "forms"), "--output", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"{len(ENGINES)} servers, {ROUNDS} rounds of load", flush=True)
    return pd.DataFrame(json.loads(path.read_text()))


def run(seeds=range(N_SEEDS), checkpoint=None):
    """Everything in one frame; `part` tells the two experiments apart."""
    timings = load(checkpoint).assign(part="load")
    quality = models(list(seeds)[:N_SEEDS], checkpoint).reset_index().assign(part="age")
    return pd.concat([quality, timings], ignore_index=True)


if __name__ == "__main__":
    studies.main(run)
