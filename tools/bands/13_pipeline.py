"""Bands of chapter 13: its last training with ten other seeds, judged on both test periods.

Run: .venv/bin/python tools/bands/13_pipeline.py [folder to resume from]

The search is the study's own; what moves is the seed of the last training. A claim is a mean over
the study's three seeds minus LightGBM, which is not random, so its band is that of such a mean.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of

from recbal_utils import _rich_tables, claims, evaluate, export, pipeline, studies

SEEDS = range(10, 20)
STUDY_SEEDS = 3
METRICS = ["roc_auc", "average_precision", "normalised_entropy", "recall_at_50", "ratio"]
CLAIMS = {  # id: period, metric, value under no effect
    "pipeline-gains-auc": ("test", "roc_auc", 0),
    "pipeline-gains-precision": ("test", "average_precision", 0),
    "pipeline-gains-entropy": ("test", "normalised_entropy", 0),
    "pipeline-gains-recall": ("test", "recall_at_50", 0),
    "closed-weeks-precision": ("closed", "average_precision", 0),
    "closed-weeks-entropy": ("closed", "normalised_entropy", 0),
    "closed-weeks-auc": ("closed", "roc_auc", 0),
    "pipeline-ratio": ("test", "ratio", 1 / np.exp(-5.31)),
}


def main(folder):
    study = studies.script("13_pipeline")
    found = json.loads((pipeline.folder() / "search.json").read_text())
    models = trained(study, found, folder)
    values = {}
    for period in study.PERIODS:
        scores = judged(study, models, period, folder)
        rival = study_value(period, "LightGBM")
        for id, (of, metric, null) in CLAIMS.items():
            if of == period:
                against = 0 if metric == "ratio" else rival[metric]
                values[id] = mean_of(scores[metric], STUDY_SEEDS) - against, null
    for id, (draws, null) in values.items():
        try:
            print(f'"{id}": {list(claims.band(draws, null=null))},', flush=True)
        except claims.RecbalError as error:
            print(f'"{id}": {error}', flush=True)


def trained(study, found, folder):
    """Files of the models of ten seeds, with the settings of the study's last round."""
    best = found["rounds"][-1]
    settings = pipeline.Settings(**{**study.SETTINGS.__dict__, "seeds": tuple(SEEDS)})
    run = pipeline.Pipeline(settings, folder)
    names = settings.attempts[best["attempt"]]
    paths = [run.folder / f"model-{seed}.npz" for seed in SEEDS]
    if all(path.exists() for path in paths):
        return paths
    return list(run._train(names, best, pipeline.training_rows(), found["diagnosis"]).values())


def judged(study, models, period, folder):
    """Metrics of each seed on a period: a row for each."""
    kept = folder / f"scores-{period}.json"
    if not kept.exists():
        rows = study.visits(period)
        y, visits = rows["conversion"].to_numpy(), rows["visit"].to_numpy()
        X = _rich_tables.matrix(_rich_tables.visit_file(study.PERIODS[period]))
        found = []
        for path in models:
            p = pipeline.score(export.load_model(path), X)
            report = evaluate.report(y, p, visits=visits, metrics=METRICS, n_replicates=0)
            found.append(report["value"].to_dict())
            print(period, {name: round(value, 4) for name, value in found[-1].items()}, flush=True)
        kept.write_text(json.dumps(found))
    return pd.DataFrame(json.loads(kept.read_text()))


def study_value(period, name):
    """Metrics of a model of the study on a period."""
    runs = studies.read("13_pipeline").loc[period, name]
    return runs.xs(-1, level="replicate").mean()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
