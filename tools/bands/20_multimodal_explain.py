"""Measure the bands of chapter 20: .venv/bin/python tools/bands/20_multimodal_explain.py [seeds]

The chapter's own cells are run. What fusion gains is measured over bootstrap draws of households,
which move it more than the seed of a training does; the claims on synthetic texts, on base values
and on the simulator over ten seeds. With `seeds`, the models of the study are trained with ten
seeds (ten minutes): this is the band of the SMOTE claim, which the seed moves most, and the other
bands of the study are printed to compare.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run

from recbal_utils import claims

CHAPTER = "20_multimodal_explain"
SEEDS = range(10)
READ = ["imports", "parameters", "a-inputs", "a-read", "a-differences", "b-made"]
TEXT, BASE = ["b-nearest", "b-claim-third"], ["c-models", "c-base", "c-claim-base"]
STEADY = ["d-world", "d-run", "d-series", "d-claim-rows", "d-claim-even"]
FIRST_SEED = {"text-smote-overstates-mid"}  # the study trains SMOTE once
NO_EFFECT = {"text-smote-overstates-mid": 1.0, "synthetic-text-is-a-parent-again": 1.0}


class Recorder:
    """A ledger that takes every value."""

    def __init__(self):
        self.values = {}

    def claim(self, id, value, *rest, **named):
        self.values[id] = float(value)


def of_study(of):
    """Claim -> its values on the test (-1) and on each draw of households."""
    tail, whole = "roc_auc", "normalised_entropy"
    ways = {
        "fusion-lowers-entropy": lambda: of("early")[whole] - of("purchases")[whole],
        "gate-lifts-tail": lambda: of("gated", "tail")[tail] - of("purchases", "tail")[tail],
        "text-smote-overstates-mid": lambda: (
            of("early, SMOTE", "mid")["ratio"] / of("early", "mid")["ratio"]
        ),
    }
    found = {}
    for id, way in ways.items():
        with contextlib.suppress(KeyError):  # a model that is not trained
            found[id] = way()
    return found


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


def trained(names, lab, name, seed):
    """A model's metrics by segment and draw; of the study where it has them."""
    study, there = names["study"], names["result"].index.droplevel(["segment", "replicate"])
    if (name, seed) in there:
        return names["result"].sort_index().loc[(name, seed)]
    p, _ = study.predicted(lab, seed=seed, **study.MODELS[name])
    print(f"{name}, seed {seed}", flush=True)
    return lab.judge(p)


def print_trainings(names):
    """Values of the study's claims with ten seeds; bands of means of as many as the study has."""
    lab = names["study"].Lab(names["inputs"])
    early, found = {}, {id: [] for id in of_study(names["of"])}
    for models in (("early, SMOTE",), ("purchases", "gated")):
        for seed in SEEDS:
            frames = {name: trained(names, lab, name, seed) for name in models}
            frames["early"] = early.get(seed)
            if frames["early"] is None:
                frames["early"] = early[seed] = trained(names, lab, "early", seed)
            for id, value in of_study(one_seed(frames)).items():
                found[id].append(float(value.loc[-1]))
        for id, values in found.items():
            if len(values) == len(SEEDS):
                print(id, np.round(values, 4))
                n = 1 if id in FIRST_SEED else names["study"].MOST_SEEDS
                print_band(id, mean_of(values, n), np.mean(values[:n]))
                found[id] = []


def one_seed(frames):
    """The notebook's function `of`, on frames of one seed."""

    def of(name, segment="all"):
        return frames[name].xs(segment, level="segment")

    return of


def main(with_seeds):
    cells, names = read_cells(CHAPTER), {"np": np}
    with tempfile.TemporaryDirectory() as folder:  # the cells open a ledger; not the book's
        os.environ["RECBAL_CLAIMS_DIR"] = folder
        run(names, cells, READ)
    first = names["result"].xs(0, level="seed")
    first = of_study(one_seed({name: first.loc[name] for name in first.index.unique("model")}))
    for id, values in (of_study(names["of"]) | {id: first[id] for id in FIRST_SEED}).items():
        print_band(id, values.loc[0:], values.loc[-1])
    if with_seeds:
        print_trainings(names)
        return
    spread = over_seeds(names, cells)
    for id, values in spread.items():
        print_band(id, values, values.iloc[0])


if __name__ == "__main__":
    main("seeds" in sys.argv[1:])
