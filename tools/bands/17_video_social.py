"""Measure the bands of chapter 17. Run: .venv/bin/python tools/bands/17_video_social.py [towers]

The chapter's own cells are run. Bands of claims on films are taken over bootstrap draws of members,
which move these values more than seeds do; those of claims on the simulated feed over ten seeds,
each of which is eight worlds of its own. With `towers`, the two-tower models are trained with ten
seeds, and their claim's values printed, to see how far they move.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run

from recbal_utils import catalogue, claims, evaluate

CHAPTER = "17_video_social"
SEEDS = range(10)
FILMS = ["a-load", "a-split", "a-judge", "b-train", "b-table", "b-claim"]
FILMS += ["c-sweep", "c-choose", "d-rerank", "d-choose", "d-claim", "e-fit", "e-table"]
FEED = ["f-run", "f-table", "f-differences", "f-claim-small", "f-claim-welfare", "f-claim-rate"]
NO_EFFECT = {"stars-balanced-overstate": 1.0}


class Recorder:
    """A ledger that takes every value."""

    def __init__(self, chapter=None):
        self.values = {}

    def claim(self, id, value, *rest, **named):
        self.values[id] = float(value)


def means(frame, metric):
    return catalogue._means(frame[[metric]], None, 1000, 0)[1][metric]


def film_draws(names):
    """Claim -> its value on bootstrap draws of members."""

    def apart(a, b, metric="recall_at_20"):
        return means(b, metric) - means(a, metric)

    results, turned, balanced = names["results"], names["turned"], names["chances"]["balanced"]
    low = balanced[:, :2].sum(axis=1)
    ratio = evaluate.replicates(
        names["true"] <= 2, low, groups=names["members"], metrics=["ratio"], n_replicates=1000
    )
    return {
        "films-logq": apart(results["in-batch"][0], results["in-batch, logQ"][0]),
        "films-tail-costs-recall": apart(turned["test", 0.0][0], turned["test", names["power"]][0]),
        "genre-mix-comes-closer": apart(names["plain"], names["tuned"], "miscalibration"),
        "stars-balanced-overstate": ratio["ratio"],
    }


def print_band(id, values, value):
    try:
        band = claims.band(values, null=NO_EFFECT.get(id, 0))
        print(f'"{id}": {list(band)},  # {value:.4f}', flush=True)
    except claims.RecbalError as error:
        print(f"{id}: {error}", flush=True)


def started(cells, seed):
    names = {}
    run(names, cells, ["imports"])
    names |= {"SEED": seed, "Ledger": Recorder, "ledger": Recorder()}
    return names


def feed_values(cells, seed):
    names = started(cells, seed)
    run(names, cells, FEED)
    print(seed, {id: round(v, 4) for id, v in names["ledger"].values.items()}, flush=True)
    return names["ledger"].values


def print_towers(names):
    """The claim on logQ, with ten seeds of training."""
    for seed in SEEDS:
        pair = [
            names["judged"](names["towers"](names["test"], kind, seed))[0]["recall_at_20"].mean()
            for kind in ("in-batch", "in-batch, logQ")
        ]
        print(seed, [round(value, 4) for value in pair], round(pair[1] - pair[0], 4), flush=True)


def main(with_towers):
    cells = read_cells(CHAPTER)
    runs = [feed_values(cells, seed) for seed in SEEDS]
    for id, value in runs[0].items():
        print_band(id, [values[id] for values in runs], value)
    names = started(cells, 0)
    run(names, cells, FILMS)
    for id, values in film_draws(names).items():
        print_band(id, values, values.mean())
    if with_towers:
        print_towers(names)


if __name__ == "__main__":
    main("towers" in sys.argv[1:])
