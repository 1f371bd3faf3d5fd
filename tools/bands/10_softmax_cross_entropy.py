"""Measure the bands of chapter 10. Run: .venv/bin/python tools/bands/10_softmax_cross_entropy.py

The cells of the chapter run with ten seeds, so a band cannot drift from its claim. The number of
accidental hits has no seed: its band is over households drawn anew.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run
from common import notebook_environment

CHAPTER = "10_softmax_cross_entropy"
SEEDS = range(10, 20)
N_REPLICATES = 200
SETUP = ("imports", "parameters", "ledger", "baskets", "truth", "departments", "distance")
LIVE = (
    *("descend", "descents", "claim-mse"),
    *("unbiased", "distances", "distances-figure", "claim-removed", "claim-negatives"),
    *("learn", "losses", "train", "judge", "claim-slope", "claim-recovered"),
    *("traps", "claim-trap"),
)
HITS = "accidental-hits-per-row"
NO_EFFECT = {
    "squared-error-stays-wrong": 1,
    "removed-hits-never-arrive": 0,
    "negatives-only-needs-many": 0,
    "uncorrected-in-batch-learns-pmi": 0,
    "popularity-comes-back": 0,
    "trap-of-removed-hits": 0,
}


def hits_of_replicates(names):
    """Accidental hits per row, as the chapter counts them, over households drawn anew."""
    counts = names["bought"].pivot_table(
        index="household_id",
        columns="product_type",
        values="baskets",
        aggfunc="sum",
        fill_value=0,
    )
    households = counts.to_numpy(dtype=float)
    rng = np.random.default_rng(SEEDS[0])
    for _ in range(N_REPLICATES):
        totals = rng.multinomial(len(households), np.full(len(households), 1 / len(households)))
        popularity = totals @ households
        yield 4095 * np.sum((popularity / popularity.sum()) ** 2)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(notebook_environment(Path(folder), Path(folder)))
        from recbal_utils import claims

        measured = {}
        claims.Ledger.claim = lambda self, id, value, *_, **__: measured.update({id: float(value)})
        cells, names, runs = read_cells(CHAPTER), {}, []
        run(names, cells, SETUP)
        uniform = 4095 / len(names["popularity"])
        print(f"{HITS}: {claims.band(list(hits_of_replicates(names)), null=uniform)}", flush=True)
        for seed in SEEDS:
            names["SEED"] = seed
            run(names, cells, LIVE)
            runs.append(dict(measured))
            print(seed, {id: round(value, 4) for id, value in runs[-1].items()}, flush=True)
        print_bands(pd.DataFrame(runs), claims)


def print_bands(runs, claims):
    for id, null in NO_EFFECT.items():
        try:
            print(f"{id}: {claims.band(runs[id], null=null)}")
        except claims.RecbalError as error:
            print(f"{id}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
