"""Measure the bands of chapter 8. Run: .venv/bin/python tools/bands/08_losses_thresholds.py

The cells of the chapter run with ten seeds that its study does not use, so a band cannot drift
from its claim. The data stay the same: bands are about training, not about other households.
"""

import os
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run
from common import notebook_environment

SEEDS = range(10, 20)
STUDY_SEEDS = 5
SETUP = ("imports", "parameters", "ledger", "ask", "data", "theory")
STUDIED = ("claim-focal-ratio", "claim-focal-map", "claim-weights", "claim-start")
LIVE = (
    *("gaussians", "gaussian-fits", "claim-gaussians"),
    *("curves", "bill", "bill-table", "claim-half", "claim-uncorrected"),
    *("calibrators", "platt", "claim-platt"),
)
NO_EFFECT = {
    "focal-exaggerates": 1,
    "focal-inverse-restores": 1,
    "balanced-weights-stay-bold": 0,
    "gain-of-the-start": 0,
    "adjusted-reaches-bayes": 0.18,
    "one-half-costs-more": 1,
    "costs-need-calibration": 1,
    "platt-mends-weights": 0,
}


def means(names, study, seed):
    """What the chapter's `means` holds, for one seed: two trainings more, the others live."""
    from recbal_utils import evaluate

    methods = study.methods(names["y"])
    test, y = names["X_of"]["test"], names["y_of"]["test"]
    predicted = {
        name: methods[name].model(seed).fit(names["X"], names["y"]).predict_proba(test)[:, 1]
        for name in ("cross-entropy", "focal", "focal, corrected")
    }
    predicted["logit-adjusted"] = names["raw"]["logit-adjusted"]["test"]
    for name, predictions in names["corrected"].items():
        predicted[f"{name}, corrected"] = predictions["test"]
    metrics = {m: getattr(evaluate, m) for m in ("roc_auc", "normalised_entropy", "ratio")}
    return pd.DataFrame(
        {n: {m: f(y, p) for m, f in metrics.items()} for n, p in predicted.items()}
    ).T


def measure(names, cells, study, seed):
    """Return the claims of one seed."""
    names["SEED"] = seed
    names["measured"].clear()
    run(names, cells, ["networks"])
    names["means"] = means(names, study, seed)
    run(names, cells, STUDIED + LIVE)
    return dict(names["measured"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(notebook_environment(Path(folder), Path(folder)))
        from recbal_utils import claims, studies

        measured = {}
        claims.Ledger.claim = lambda self, id, value, *_, **__: measured.update({id: float(value)})
        cells = read_cells("08_losses_thresholds")
        study = studies.script("08_losses_thresholds")
        names = {"measured": measured}
        run(names, cells, SETUP)
        runs = []
        for seed in SEEDS:
            runs.append(measure(names, cells, study, seed))
            print(seed, {id: round(value, 5) for id, value in runs[-1].items()}, flush=True)
        print_bands(pd.DataFrame(runs), cells, claims)


def print_bands(runs, cells, claims):
    """A claim on the study's mean of five seeds varies by less than one seed does."""
    studied = "".join(cells[id] for id in STUDIED)
    for id, null in NO_EFFECT.items():
        values = runs[id].to_numpy()
        if f'"{id}"' in studied:
            values = mean_of(values, STUDY_SEEDS)
        try:
            print(f"{id}: {claims.band(values, null=null)}")
        except claims.RecbalError as error:
            print(f"{id}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
