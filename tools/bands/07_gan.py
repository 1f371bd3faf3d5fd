"""Measure the bands of chapter 7. Run: .venv/bin/python tools/bands/07_gan.py

The cells of the chapter that the claims need run with ten seeds: other negatives, other fresh
purchases, other networks. The log and its purchases stay the same. About half a minute a seed.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells, run
from common import notebook_environment

SEEDS = range(10, 20)
ONCE = ("imports", "parameters", "ledger")
MAKE = ("d-data", "d-frame", "d-train", "d-given")
LOOK = ("e-judges", "e-table", "e-claim-detector", "e-claim-copies")
LEARN = ("f-predict", "f-run", "f-table", "f-only", "f-claim-fresh", "g-claim")
NEEDED = ("GAN", "fresh real")
NO_EFFECT = {
    "detector-tells-gan": 0.5,
    "gan-does-not-copy": 0,
    "gan-rows-are-worth-less-than-real": 0,
    "real-rows-add-more-than-gan": 0,
}


def measure(names, cells, seed):
    """Return the claims of one seed, with no more methods than they need."""
    names["SEED"] = seed
    run(names, cells, MAKE)
    names["made_freely"] = names["made_given"]
    run(names, cells, ("e-inputs", "e-rivals"))
    names["made"] = {name: names["made"][name] for name in NEEDED}
    run(names, cells, LOOK)
    if "test" not in names:
        run(names, cells, ["f-test"])
    names["LEARNERS"] = {"trees": names["LEARNERS"]["trees"]}
    run(names, cells, LEARN)
    return dict(names["measured"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(notebook_environment(Path(folder), Path(folder)))
        from recbal_utils import claims

        measured = {}
        claims.Ledger.claim = lambda self, id, value, *_, **__: measured.update({id: float(value)})
        cells = read_cells("07_gan")
        names = {"measured": measured}
        run(names, cells, ONCE)
        runs = []
        for seed in SEEDS:
            runs.append(measure(names, cells, seed))
            print(seed, {id: round(value, 4) for id, value in runs[-1].items()}, flush=True)
        for id, null in NO_EFFECT.items():
            try:
                print(f"{id}: {claims.band([run[id] for run in runs], null=null)}")
            except claims.RecbalError as error:
                print(f"{id}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
