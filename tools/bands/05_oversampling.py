"""Measure the bands of chapter 5.

Run: .venv/bin/python tools/bands/05_oversampling.py [folder to resume the study from]

Claims that rest on the study: its script with ten other seeds, whose spread is divided by the root
of five, as the chapter prints a mean of five seeds. The others: the chapter's own cells with ten
other seeds. The natural sample and the test weeks stay the same; the negatives
under the cap are drawn anew with each seed, in the study and in the cells.
"""

import os
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run
from common import ROOT, notebook_environment

SEEDS = range(10, 20)
METHODS = ("nothing", "SMOTE", "SMOTE-NC")  # those that a claim names
TREE = "tree of depth 4"
SETUP = ("imports", "parameters", "ledger", "data", "choose", "learners", "dyed")
LIVE = (
    *("smote", "plain", "parents", "three", "torn", "claim-torn", "variance-run", "claim-variance"),
    *(
        "weak-run",
        "gain",
        "claim-half",
        "claim-threshold",
        "noise-run",
        "noise-more",
        "claim-noise",
    ),
)
STUDIED = ("paired", "claim-auc", "claim-nc", "probability", "claim-ratio")
NO_EFFECT = {
    "smote-rows-in-two-places": 0,
    "smote-variance-100": 1,
    "smote-ranks-no-better": 0,
    "smote-nc-ranks-worse": 0,
    "smote-ratio-after-correction": 1,
    "smote-gain-at-one-half": 0,
    "threshold-instead-of-smote": 0,
    "adasyn-multiplies-wrong-labels": 0,
}


def with_seed(names, cells, seed):
    """Everything of the chapter's set-up that depends on its seed."""
    names["SEED"] = seed
    run(names, cells, ["data"])


def main(checkpoint=None):
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(notebook_environment(Path(folder), Path(folder)))
        from recbal_utils import claims

        measured = {}
        claims.Ledger.claim = lambda self, id, value, *_, **__: measured.update({id: float(value)})
        cells = read_cells("05_oversampling")
        # The claims are about the tree; the regression would double the time.
        cells["weak-run"] = cells["weak-run"].replace("in LEARNERS for", f"in [{TREE!r}] for")
        os.chdir(ROOT / "notebooks")
        names = {}
        run(names, cells, SETUP)
        all_runs = names["study"].run(SEEDS, checkpoint, only=METHODS, n_replicates=0)
        found = []
        for seed in SEEDS:
            with_seed(names, cells, seed)
            run(names, cells, LIVE)
            names["runs"] = all_runs[all_runs.index.get_level_values("seed") == seed]
            names["fitted"] = list(METHODS)
            names["repaired"] = [f"{name}, corrected" for name in METHODS]
            run(names, cells, STUDIED)
            found.append(dict(measured))
            print(seed, {id: round(value, 4) for id, value in measured.items()}, flush=True)
        print_bands(pd.DataFrame(found), cells, claims)


def print_bands(found, cells, claims):
    """A claim on the study's mean of five seeds varies by less than one seed does."""
    studied = "".join(cells[id] for id in STUDIED)
    for id, null in NO_EFFECT.items():
        values = found[id].to_numpy()
        if f'"{id}"' in studied:
            values = mean_of(values, 5)
        try:
            print(f"{id}: {claims.band(values, null=null)}")
        except claims.RecbalError as error:
            print(f"{id}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:2])
