"""Bands of chapter 13: its last training with ten other seeds, judged on both test periods.

Run: .venv/bin/python tools/bands/13_pipeline.py [folder to resume from]

What moves is the seed of the last training. A claim is a mean over the study's seeds minus
LightGBM, which is not random, so its band is that of such a mean. The search is the study's own;
but another processor may prefer another of two trials that are close. So the band holds that of
the best trial and that of the second best, whose mean comes from fewer seeds and whose spread is
taken to be alike.
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
FEWER_SEEDS = range(10, 13)  # of the second best trial
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
    last = [t for t in found["trials"] if t["round"] == found["rounds"][-1]["round"]]
    closest = sorted(last, key=lambda trial: trial["normalised_entropy"])[:2]
    models = []
    for trial, seeds in zip(closest, (SEEDS, FEWER_SEEDS), strict=True):
        models += trained(study, trial, found["diagnosis"], folder, seeds)
    for period in study.PERIODS:
        scores = judged(study, models, period, folder)
        rival = study_value(period, "LightGBM")
        for id, (of, metric, null) in CLAIMS.items():
            if of == period:
                against = 0 if metric == "ratio" else rival[metric]
                best, second = scores[metric][: len(SEEDS)], scores[metric][len(SEEDS) :]
                draws = mean_of(best, study.N_SEEDS) - against
                show(id, (draws, draws + second.mean() - best.mean()), null)


def show(id, by_trial, null):
    """Print the band around those of both trials, or why there is none."""
    try:
        bands = [claims.band(draws, null=null) for draws in by_trial]
    except claims.RecbalError as error:
        print(f'"{id}": {error}', flush=True)
        return
    low, high = min(low for low, _ in bands), max(high for _, high in bands)
    if low <= null <= high:
        print(f'"{id}": {low:g} to {high:g} holds {null:g}, the value under no effect', flush=True)
        return
    apart = "; ".join(f"{low:g} to {high:g}" for low, high in bands)
    print(f'"{id}": [{low:g}, {high:g}],  # {apart}', flush=True)


def trained(study, trial, diagnosis, folder, seeds):
    """Files of the models of some seeds, with the settings of a trial."""
    settings = pipeline.Settings(**{**study.SETTINGS.__dict__, "seeds": tuple(seeds)})
    run = pipeline.Pipeline(settings, folder / f"trial-{trial['trial']}")
    names = settings.attempts[trial["attempt"]]
    paths = [run.folder / f"model-{seed}.npz" for seed in seeds]
    if all(path.exists() for path in paths):
        return paths
    return list(run._train(names, trial, pipeline.training_rows(), diagnosis).values())


def judged(study, models, period, folder):
    """Metrics of each model on a period: a row for each."""
    kept = folder / f"scores-{period}.json"
    if not kept.exists():
        impressions = _rich_tables.Impressions(_rich_tables.visit_file(study.PERIODS[period]))
        loaded = [export.load_model(path) for path in models]
        p = np.empty((len(models), len(impressions)), dtype=np.float32)
        for part, X in impressions.pieces(study.PIECE_ROWS):
            for row, model in zip(p, loaded, strict=True):
                row[part] = model.probabilities(X)
        rows, found = study.visits(period), []
        y, visits = rows["conversion"].to_numpy(), rows["visit"].to_numpy()
        for row in p:
            options = {"visits": visits, "metrics": METRICS, "n_replicates": 0}
            report = evaluate.report(y, row.astype(np.float64), **options)
            found.append(report["value"].to_dict())
            print(period, {name: round(value, 4) for name, value in found[-1].items()}, flush=True)
        kept.write_text(json.dumps(found))
    return pd.DataFrame(json.loads(kept.read_text()))


def study_value(period, name):
    """Metrics of a model of the study on a period."""
    runs = studies.read("13_pipeline").sort_index().loc[period, name]
    return runs.xs(-1, level="replicate").mean()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
