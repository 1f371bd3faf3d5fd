"""Measure the bands of chapter 20: .venv/bin/python tools/bands/20_multimodal_explain.py [seeds]

The chapter's own cells are run. Claims on the study are measured over bootstrap draws of
households, which move these values more than the seed of a training does; those on synthetic
texts, on base values and on the simulator over ten seeds. With `seeds`, the models that the first
claims rest on are trained with four more pairs of seeds, to see that this is so (ten minutes).
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run

from recbal_utils import claims

CHAPTER = "20_multimodal_explain"
SEEDS = range(10)
PAIRS = [(2, 3), (4, 5), (6, 7), (8, 9)]
READ = ["imports", "parameters", "a-inputs", "a-read", "a-differences", "b-made"]
TEXT, BASE = ["b-nearest", "b-claim-third"], ["c-models", "c-base", "c-claim-base"]
STEADY = ["d-world", "d-run", "d-series", "d-claim-rows", "d-claim-even"]
NO_EFFECT = {"text-smote-overstates-mid": 1.0, "synthetic-text-is-a-parent-again": 1.0}
MODELS = ("purchases", "early", "gated", "early, SMOTE")


class Recorder:
    """A ledger that takes every value."""

    def __init__(self):
        self.values = {}

    def claim(self, id, value, *rest, **named):
        self.values[id] = float(value)


def of_study(of):
    """Claim -> its values on the test (-1) and on each draw of households."""
    tail, whole = "roc_auc", "normalised_entropy"
    return {
        "fusion-lowers-entropy": of("early")[whole] - of("purchases")[whole],
        "gate-lifts-tail": of("gated", "tail")[tail] - of("purchases", "tail")[tail],
        "text-smote-overstates-mid": of("early, SMOTE", "mid")["ratio"]
        / of("early", "mid")["ratio"],
    }


def print_band(id, values, value):
    try:
        found = claims.band(values, null=NO_EFFECT.get(id, 0))
        print(f'"{id}": {list(found)},  # {value:.4f}', flush=True)
    except claims.RecbalError as error:
        print(f"{id} ({value:.4f}): {error}", flush=True)


def over_seeds(names, cells):
    """Values of the claims that cells make with ten seeds."""
    rows = []
    for seed in SEEDS:
        names["SEED"], names["ledger"] = seed, Recorder()
        run(names, cells, [*TEXT, *BASE, *STEADY])
        rows.append(names["ledger"].values)
        print(seed, {id: round(value, 4) for id, value in rows[-1].items()}, flush=True)
    return pd.DataFrame(rows)


def print_trainings(names):
    """Values of the study's claims with other pairs of seeds."""
    study, cells = names["study"], read_cells(CHAPTER)
    lab = study.Lab(names["inputs"])
    for pair in PAIRS:
        frames = {
            (name, seed): lab.judge(study.predicted(lab, seed=seed, **study.MODELS[name])[0])
            for name in MODELS
            for seed in pair
        }
        names["result"] = pd.concat(frames, names=["model", "seed"])
        found = of_study(names["of"])
        print(pair, {id: round(float(v.loc[-1]), 4) for id, v in found.items()}, flush=True)
    return cells


def main(with_seeds):
    cells, names = read_cells(CHAPTER), {"np": np}
    run(names, cells, READ)
    for id, values in of_study(names["of"]).items():
        print_band(id, values.loc[0:], values.loc[-1])
    if with_seeds:
        print_trainings(names)
        return
    spread = over_seeds(names, cells)
    for id, values in spread.items():
        print_band(id, values, values.iloc[0])


if __name__ == "__main__":
    main("seeds" in sys.argv[1:])
