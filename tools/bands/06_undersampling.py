"""Bands of chapter 6: its study and its own cells, run with ten other seeds.

Run: .venv/bin/python tools/bands/06_undersampling.py [folder to resume the study from]

A claim from the study is a mean over five seeds, so its band is that of such a mean: the values
of single seeds, drawn together by the square root of five. The hash-kept samples of rows stay
fixed, as in the chapter; the slice of the first section is drawn anew.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run

from recbal_utils import claims, studies
from recbal_utils.compare import WHOLE, differences

SEEDS = range(10, 20)
SETUP = (
    "imports",
    "parameters",
    "ledger",
    "a-data",
    "a-slice",
    "a-test",
    "b-sample",
    "b-check",
    "d-thin",
    "d-learn",
)


def main(checkpoint=None):
    matplotlib.use("Agg")
    runs = studies.script("06_undersampling").models(SEEDS, checkpoint).sort_index()
    statistics = {**from_study(runs), **from_cells(runs)}
    for id, (values, null) in statistics.items():
        print(f'"{id}": {list(claims.band(values, null=null))},', flush=True)


def by_seed(runs, method, metric):
    """Values on the test itself, one for each seed."""
    return runs.xs(WHOLE, level="replicate").sort_index().loc[method, metric].to_numpy()


def from_study(runs):
    """Values and null of each claim that is a mean over the study's five seeds."""
    best, nature = "all positives, corrected", "natural"
    auc = by_seed(runs, best, "roc_auc") - by_seed(runs, nature, "roc_auc")
    names = (best, nature)
    entropy, natural_entropy = (by_seed(runs, name, "normalised_entropy") for name in names)
    after = by_seed(runs, best, "ratio")
    before = by_seed(runs, "all positives", "ratio")
    one = by_seed(runs, "natural, 1:1, corrected", "ratio")
    return {
        "all-positives-rank-better": (mean_of(auc, 5), 0),
        "all-positives-corrected-entropy": (mean_of(entropy - natural_entropy, 5), 0),
        "uncorrected-ratio": (mean_of(before / after, 5), 1),
        "one-to-one-stays-off": (mean_of(one, 5), 1),
    }


def from_cells(runs):
    """Values and null of each claim that the notebook measures itself."""
    cells, names = read_cells("06_undersampling"), {}
    run(names, cells, SETUP)
    tomek = [tomek_share(cells, names, seed) for seed in SEEDS]
    tenth = mean_of([tenth_auc(names, seed) for seed in SEEDS], 2)
    tenth -= mean_of(by_seed(runs, "natural", "roc_auc"), 5)
    names["SEED"] = SEEDS[0]
    run(names, cells, ["f-run"])
    front = [front_page_gain(names, seed) for seed in SEEDS]
    return {
        "tomek-removes-few": (tomek, 1 - names["y"].sum() / names["SLICE"]),
        "tenth-of-the-rows": (tenth, 0),
        "front-page-auc": (front, 0),
    }


def tomek_share(cells, names, seed):
    names["SEED"] = seed
    run(names, cells, ["a-slice"])
    kept = names["TomekLinks"]().fit_resample(names["X"], names["y"])[1]
    return 1 - (kept == 0).sum() / names["SLICE"]


def tenth_auc(names, seed):
    names["draws"][seed] = names["uniform"](seed + 101)
    auc = names["learnt"](0.1, 10, seed)["roc_auc"]
    del names["draws"][seed]
    return auc


def front_page_gain(names, seed):
    names["SEED"] = seed
    found = names["both_ways"](lambda table: table.mailer == "D")
    return differences(found, "natural").loc[("all positives, corrected", "roc_auc"), "value"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else folder)
