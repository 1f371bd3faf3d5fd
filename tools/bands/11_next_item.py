"""Measure the bands of chapter 11. Run: .venv/bin/python tools/bands/11_next_item.py [seeds]

The chapter's cells are run on its study, and each claim's band is taken over bootstrap draws of
households, which move these values more than the seed of a training does. With `seeds`, the models
that the claims rest on are trained with ten seeds that the study does not use (a quarter of an
hour), and their values are printed beside, to see that this is so.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run

from recbal_utils import catalogue, claims, next_item

SEEDS = range(10, 20)
CHAPTER = "11_next_item"
LOSSES = ("full softmax", "in-batch", "in-batch, logQ")
BEFORE = ["imports", "parameters", "a-data", "b-models", "b-judge"]
FUNCTIONS = ["c-study", "c-tiers", "f-sweep"]


def pairs(names):
    """Claim -> frames a and b of baskets; its value is the recall@20 of b minus that of a."""
    of_study, turned = names["of_study"], names["turned"]

    def rival(name, asked="all"):
        return names["frames"][name].loc[asked]

    new = of_study("average", "first-time")
    return {
        "neural-beats-counting": (rival("personal frequency"), of_study("average")),
        "neural-beats-fading-count": (rival("personal, fading"), of_study("average")),
        "first-time-beats-popularity": (rival("most popular", "first-time"), new),
        "first-time-beats-item-to-item": (rival("item-to-item", "first-time"), new),
        "logq-repairs-in-batch": (of_study("in-batch"), of_study("in-batch, logQ")),
        "no-memory-loses-to-counting": (rival("personal frequency"), of_study("full softmax")),
        "new-tail-costs-recall": (turned(0, "first-time")[0], turned(0.5, "first-time")[0]),
    }


def difference(a, b):
    return b["recall_at_20"].mean() - a["recall_at_20"].mean()


def draws(a, b, groups):
    """The difference on bootstrap draws of households, the same for both."""
    means = [
        catalogue._means(frame[["recall_at_20"]], groups, 1000, 0)[1]["recall_at_20"]
        for frame in (a, b)
    ]
    return means[1] - means[0]


def print_bands(names):
    groups = names["test"].household
    for id, (a, b) in pairs(names).items():
        try:
            found = claims.band(draws(a, b, groups), null=0)
            print(f'"{id}": {list(found)},  # {difference(a, b):.4f}', flush=True)
        except claims.RecbalError as error:
            print(f"{id}: {error}", flush=True)


def train(names, seed):
    """Put one seed's models in the place of the study and of the live model."""
    study, data = names["study"], names["data"]
    model = study.trained(data, seed)
    score = next_item.scores(model, data.test.arrays, data.n_items)
    names["logits"] = score(0, len(data.test.rows))
    frames = {("average", seed): study.judged(data, model)}
    for name in LOSSES:
        draw, corrected = study.LOSSES[name]
        other = study.trained(data, seed, draw=draw, corrected=corrected, repeat=False)
        frames[name, seed] = study.judged(data, other, ("all",))
    names["result"] = pd.concat(frames, names=["model", "seed"]).sort_index()


def print_seeds(names):
    found = []
    for seed in SEEDS:
        train(names, seed)
        found.append({id: difference(a, b) for id, (a, b) in pairs(names).items()})
        print(seed, {id: round(float(value), 4) for id, value in found[-1].items()}, flush=True)
    spread = pd.DataFrame(found)
    print(pd.DataFrame({"mean": spread.mean(), "4 sd": 4 * spread.std()}).round(4).to_string())


def main(with_seeds):
    cells = read_cells(CHAPTER)
    names = {"np": np}
    run(names, cells, [*BEFORE, "c-train", "c-read", *FUNCTIONS])
    print_bands(names)
    if with_seeds:
        print_seeds(names)


if __name__ == "__main__":
    main("seeds" in sys.argv[1:])
