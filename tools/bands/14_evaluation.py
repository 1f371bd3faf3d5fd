"""Measure the bands of chapter 14. Run: .venv/bin/python tools/bands/14_evaluation.py

The chapter's cells are run. What rests on the test's households is drawn anew over households;
what a simulation decides is run again with ten other seeds.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run

from recbal_utils import abtest, claims, compare, contest, evaluate, lists

SEEDS = range(10, 20)
CHAPTER = "14_evaluation"
BEFORE = ["imports", "parameters", "ledger", "a-load", "a-runs", "b-parts", "b-draws", "c-visits"]
DRAWS = 1000


def show(id, values, null):
    """Print the band, or why there is none."""
    try:
        print(f'"{id}": {list(claims.band(values, null=null))},', flush=True)
    except claims.RecbalError as error:
        print(f"{id}: {error}", flush=True)


def rules_apart(names, some):
    """Best-sellers minus own purchases, recall@10, on draws of households."""
    y, visits, households = (names[name][some] for name in ("y", "visits", "households"))
    options = {"groups": households, "visits": visits, "metrics": ["recall_at_10"]}
    found = [
        evaluate.replicates(y, names["ranked"][rule][some], n_replicates=DRAWS, **options)
        for rule in ("best-sellers", "own purchases")
    ]
    return (found[0] - found[1])["recall_at_10"].to_numpy()


def from_households(names):
    """Values and null of each claim that rests on the test's households."""
    everything = np.ones(len(names["y"]), dtype=bool)
    gap = names["draws"]["pipeline"].loc["tier"]["recall_at_50"]
    sampled = [
        rules_apart(names, lists.with_negatives(names["y"], names["visits"], 99, seed=seed))
        for seed in SEEDS
    ]
    tail = (gap.loc["tail"] - gap.loc["head"]).drop(contest.WHOLE)
    gain = compare._paired(names["runs"].loc["pipeline"], names["runs"].loc["LightGBM"])["roc_auc"]
    gain = gain[gain.index.get_level_values("replicate") != contest.WHOLE]
    return {
        "challenger-ranks-better": (gain.to_numpy(), 0),
        "best-sellers-lose-among-all": (rules_apart(names, everything), 0),
        "best-sellers-win-among-99": (np.concatenate(sampled), 0),
        "tail-is-found-less": (tail.to_numpy(), 0),
        "design-effect-of-four-weeks": (design_effects(names["month"]), 1),
    }


def design_effects(month):
    """Design effects of draws of households."""
    rng, counts = np.random.default_rng(0), month.to_numpy(np.float64)
    drawn = (counts[rng.integers(len(counts), size=len(counts))] for _ in range(DRAWS))
    return [abtest.design_effect(some[:, 0], some[:, 1]) for some in drawn]


def from_seeds(names, cells):
    """Values and null of each claim that a simulation decides."""
    errors, alarms = [], []
    for seed in SEEDS:
        names["SEED"] = seed
        run(names, cells, ["e-size", "f-replay"])
        errors.append((names["by_size"][10_000]["SNIPS"] ** 2).mean() ** 0.5)
        alarms.append(names["found"].loc[0, "by_row"])
        print(seed, round(errors[-1], 4), round(alarms[-1], 4), flush=True)
    biased = (names["by_size"][10_000]["log as it is"] ** 2).mean() ** 0.5
    return {
        "weights-mend-the-log": (errors, biased),
        "rows-as-independent-cry-wolf": (alarms, 0.05),
    }


def main():
    cells, names = read_cells(CHAPTER), {"display": lambda *_: None}
    run(names, cells, [*BEFORE, "f-panel", "f-table", "f-replay"])
    for id, (values, null) in from_households(names).items():
        show(id, values, null)
    run(names, cells, ["e-world", "e-estimate"])
    for id, (values, null) in from_seeds(names, cells).items():
        show(id, values, null)


if __name__ == "__main__":
    main()
