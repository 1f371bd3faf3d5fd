"""Bands of chapter 18: its study and its own cells, run with ten other seeds.

Run: .venv/bin/python tools/bands/18_adaptive.py [study] [cells] [folder to resume the study from]

A claim from the study is a mean over its seeds, so its band is that of such a mean. A seed of the
chapter draws other shops, other visits and other labels; of the policies only those are played
that a claim compares.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run

from recbal_utils import claims, studies
from recbal_utils.compare import WHOLE

CHAPTER = "18_adaptive"
SEEDS = range(10, 20)
CELLS = ["d-world", "d-serve", "d-run", "d-claim", "e-policies", "e-table"]
CELLS += ["e-claim", "e-claim-items", "e-belief-claim"]
NULLS = {"tracking-repairs-a-shock": 1, "exploring-ends-nearer-the-best": 1}
NULLS |= {"exploring-spreads-the-log": 0, "bandits-underrate-the-tail": 1}
COMPARED = "for name, (choice, settings) in POLICIES.items()"


class Recorder:
    """A ledger in which every claim holds."""

    def __init__(self):
        self.values = {}

    def claim(self, id, value, *_):
        self.values[id] = float(value)


def print_band(id, values, null):
    try:
        print(f'"{id}": {list(claims.band(values, null=null))},', flush=True)
    except claims.RecbalError as error:
        print(f"{id}: {error}", file=sys.stderr)


def from_study(checkpoint):
    """Claims that are means over the study's seeds, from the methods that they compare."""
    script = studies.script(CHAPTER)
    plain, late, apart, hard = script.SCHEDULES
    trains, choose, test, _ = script.data()
    whole = script.trainings
    script.trainings = lambda weeks: {name: whole(weeks)[name] for name in script.SCHEDULES}
    runs = script.schedules(trains, choose, test, SEEDS, Path(checkpoint), n_replicates=2)
    runs = runs.xs(WHOLE, level="replicate")

    def of(method, metric):
        return runs.loc[method].sort_index()[metric].to_numpy()

    entropy = of(late, "normalised_entropy") - of(plain, "normalised_entropy")
    missed = of(apart, "formula_ratio") / of(plain, "formula_ratio")
    turned = of(hard, "roc_auc") - of(plain, "roc_auc")
    n = script.N_SEEDS
    print_band("deferred-weights-cost-entropy", mean_of(entropy, n), 0)
    print_band("decoupling-misses-its-formula", mean_of(missed, n), 1)
    print_band("hard-negatives-turn-the-model", mean_of(turned, n), 0)


def from_cells():
    """Claims that the notebook measures itself."""
    cells, runs = read_cells(CHAPTER), []
    if COMPARED not in cells["e-policies"]:
        raise SystemExit("cell e-policies has changed: mend this script")
    few = COMPARED + '\n    if name in ("greedy", "Thompson sampling")'
    cells["e-policies"] = cells["e-policies"].replace(COMPARED, few)
    for seed in SEEDS:
        names = {}
        run(names, cells, ["imports", "parameters"])
        names |= {"SEED": seed, "ledger": Recorder()}
        run(names, cells, CELLS)
        runs.append(names["ledger"].values)
        print(seed, {id: round(value, 4) for id, value in runs[-1].items()}, flush=True)
    for id, null in NULLS.items():
        print_band(id, [values[id] for values in runs], null)


def main(words, checkpoint):
    matplotlib.use("Agg")
    if "cells" in words or "study" not in words:
        from_cells()
    if "study" in words or "cells" not in words:
        from_study(checkpoint)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    folders = [word for word in arguments if word not in ("study", "cells")]
    with tempfile.TemporaryDirectory() as folder:
        main(arguments, folders[0] if folders else folder)
