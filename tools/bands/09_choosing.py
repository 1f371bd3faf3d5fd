"""Measure the bands of chapter 9. Run: .venv/bin/python tools/bands/09_choosing.py [part ...]

Parts of its study run with ten seeds that the study does not use.
A mean over n seeds varies as such means do. The log's samples stay fixed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of

from recbal_utils import benchmark, claims, studies

SEEDS = range(10, 20)


def main(parts):
    study = studies.script("09_choosing")
    for part in parts or PARTS:
        for id, values in PARTS[part](study).items():
            try:
                print(f'"{id}": {list(claims.band(values, null=0))},', flush=True)
            except claims.RecbalError as error:
                print(f"{id}: {error}", flush=True)


def tables(study):
    wanted = ("nothing", "under-sampling", "SMOTE")
    methods = {name: benchmark.METHODS[name] for name in wanted}
    runs = study.small(SEEDS, methods=methods).loc["tables"]
    mean = runs.groupby(["seed", "method"]).mean()
    half, chosen = mean["balanced_accuracy[half]"], mean["balanced_accuracy[chosen]"]
    found = {
        "smote-gain-at-half": at(half, "SMOTE") - at(half, "nothing"),
        "threshold-instead": at(chosen, "nothing") - at(half, "nothing"),
        "under-sampling-costs-ap": at(mean["average_precision"], "under-sampling")
        - at(mean["average_precision"], "nothing"),
    }
    return {id: mean_of(values, study.N_SPLITS) for id, values in found.items()}


def at(column, method):
    return column.xs(method, level="method").to_numpy()


def sizes(study):
    study.SIZES = (50, 1250)
    auc = (
        study.sizes(SEEDS, study.Log()).loc["sizes"]["roc_auc"].droplevel("replicate").sort_index()
    )
    many = auc.loc["1,250 positives", "shallow tree", "nothing"]
    few = auc.loc["50 positives", "shallow tree", "SMOTE"]
    return {"positives-beat-balancing": mean_of(many - few, 5)}


def log(study):
    data = study.Log()

    def precision(method, seed):
        runs = study.whole_log([seed], data, only=[("boosting", method)])
        return runs.xs(method, level="method")["average_precision"].iloc[0]

    nothing = precision("nothing", SEEDS[0])  # the same with every seed
    return {"smote-costs-boosting-ap": [precision("SMOTE 1:10", s) - nothing for s in SEEDS]}


PARTS = {"tables": tables, "sizes": sizes, "log": log}

if __name__ == "__main__":
    main(sys.argv[1:])
