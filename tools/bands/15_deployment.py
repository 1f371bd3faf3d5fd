"""Bands of chapter 15: its own cells, run with ten other seeds, and its study with sixteen.

Run: .venv/bin/python tools/bands/15_deployment.py [folder to resume the study from]

A claim from the study is a mean over its seeds, so its band is that of such a mean. The seed of
the chapter trains the network anew, draws other windows, and lets other purchases vanish; the
server's part is left out, for the claim on it has a bound, not a band.
"""

import functools
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run

from recbal_utils import claims, datasets, drift, studies
from recbal_utils.compare import WHOLE

CHAPTER = "15_deployment"
SEEDS = range(10, 20)
STUDY_SEEDS = range(4, 20)  # 10 to 19 alone vary less than seeds at large
CELLS = (
    *("a-train", "a-save", "c-test", "f-custom", "f-visits", "f-visits-claim"),
    *("g-scores", "g-scores-claim", "g-evidence", "g-naive-claim", "h-incident", "h-weeks"),
)
# Values under no effect: alarms as promised, the observed rate, no correction.
NULLS = {
    "visit-windows-cry-wolf": 0.05,
    "scores-misjudge-the-rate": 1,
    "baskets-break-the-bound": 0.05,
    "correction-while-serving": 1,
}
SHARES = ("visit-windows-cry-wolf", "baskets-break-the-bound")
# The server is left out, and what no claim needs.
UP_TO = {
    "c-test": "\nanswer =",
    "f-custom": "\ncounts =",
    "g-evidence": "\nMarkdown(",
    "h-incident": "\nlabels_needed =",
}
CHANGES = {
    "f-visits": (
        "np.array([drift.stability(reference, reference.count(X_test[at])) for at in rows_of])",
        "window_indexes(reference, windows)",
    ),
    "g-evidence": ("calm = [", "calm = [True]\n_ = lambda: ["),
    "h-weeks": (
        "served = ",
        "shift = calibrate.calibration_intercept(bought[first], p[first])\n"
        "corrected = calibrate.shift_log_odds(p, shift)\nserved = ",
    ),
}


class Recorder:
    """A ledger in which every claim holds."""

    def __init__(self):
        self.values = {}

    def claim(self, id, value, *_):
        self.values[id] = float(value)


def main(checkpoint):
    matplotlib.use("Agg")
    for name in ("training_table", "visit_table"):
        setattr(datasets, name, functools.cache(getattr(datasets, name)))
    runs = [chapter(seed) for seed in SEEDS]
    for id, null in NULLS.items():
        share = {"possible": (0, 1)} if id in SHARES else {}
        print_band(id, [run[id] for run in runs], null, **share)
    for id, values in study(checkpoint).items():
        print_band(id, values, 0)


def print_band(id, values, null, **limits):
    try:
        print(f'"{id}": {list(claims.band(values, null=null, **limits))},', flush=True)
    except claims.RecbalError as error:
        print(f"{id}: {error}", file=sys.stderr)


def chapter(seed):
    """Claims of the notebook's own cells with one seed."""
    cells, names = read_cells(CHAPTER), {}
    run(names, cells, ["imports", "parameters"])
    names |= {"SEED": seed, "ledger": Recorder(), "window_indexes": window_indexes}
    for id, end in UP_TO.items():
        cells[id] = cells[id].partition(end)[0]
    for id, (old, new) in CHANGES.items():
        if old not in cells[id]:
            raise SystemExit(f"cell {id} has changed: mend this script")
        cells[id] = cells[id].replace(old, new)
    run(names, cells, CELLS)
    names["work"].cleanup()
    print(seed, names["ledger"].values, flush=True)
    return names["ledger"].values


VISITS = {}


def window_indexes(reference, windows):
    """What the cell computes from rows: counts of a window are sums of those of its visits."""
    if not VISITS:  # the same for every seed, since features do not depend on it
        test = datasets.visit_table()
        X = datasets.matrix(test)
        VISITS.update(
            (v, reference.count(X[at])) for v, at in test.groupby("visit").indices.items()
        )
    sums = ([sum(bins) for bins in zip(*(VISITS[v] for v in w), strict=True)] for w in windows)
    return np.array([drift.stability(reference, counts) for counts in sums])


def study(checkpoint):
    """Values of the claims that are means over the study's seeds."""
    script = studies.script(CHAPTER)
    oldest, *_, youngest = script.BLOCKS
    script.BLOCKS = {block: script.BLOCKS[block] for block in (oldest, youngest)}
    script.N_REPLICATES = 2  # a band needs the values alone
    runs = script.models(STUDY_SEEDS, Path(checkpoint)).xs(WHOLE, level="replicate")
    corrected = oldest + script.CORRECTED
    differences = {
        "fresh-model-ranks-better": values(runs, youngest, "roc_auc")
        - values(runs, oldest, "roc_auc"),
        "correction-repairs-an-old-model": values(runs, corrected, "normalised_entropy")
        - values(runs, oldest, "normalised_entropy"),
    }
    return {id: mean_of(found, script.N_SEEDS) for id, found in differences.items()}


def values(runs, method, metric):
    """One value for each seed."""
    return np.asarray(runs.loc[method].sort_index()[metric])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else folder)
