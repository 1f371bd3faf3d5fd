"""Bands of chapter 21: its study with ten seeds, and ten measurements of memory.

Run: .venv/bin/python tools/bands/21_scale_out.py [folder to resume the study from]

The claims on rows and weights need no seeds: equality is exact, and the spread of the weights' sum
and of two independent samples is binomial.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils import claims, scale, studies

SEEDS = range(10)
KEEP_RATE = 0.01


def main(checkpoint=None):
    """Print a band for each claim, to paste into its cell."""
    study = studies.script("21_scale_out")
    models = study.run(SEEDS, checkpoint).loc["training"]
    print_band("two-workers-one-model", models.loc["two workers", "apart"], floor=0)
    wrong = models.loc["two workers, own weights", "apart"]
    print(f"apart with the wrong divisor: {wrong.min():.3g} to {wrong.max():.3g}")
    print_band("a-file-a-class-rebalances", models.loc["a file a class, own weights", "ratio"], 1)
    print_band("streaming-memory-is-flat", growth(study, checkpoint), 1)
    print(f'"own-hash-is-another-sample": {independent_overlap()},')


def print_band(id, values, null=None, floor=-np.inf):
    low, high = claims.band(values, null=null)
    print(f'"{id}": {[max(low, floor), high]},  # {values.min():.4g} to {values.max():.4g}')


def growth(study, checkpoint):
    """Growth of memory when streamed over that when loaded, ten times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study.write_shards(folder)
        runs = [study.kept(checkpoint, f"memory-{i}", lambda: study.memory(folder)) for i in SEEDS]
    tables = [run.pivot_table(index="files", columns="name", values="memory_mb") for run in runs]
    grown = [table.loc[16] - table.loc[2] for table in tables]
    return pd.Series([more["streamed"] / more["loaded"] for more in grown])


def independent_overlap():
    """Four deviations around what two independent samples of the last week share."""
    n = next(row for row in scale.record()["overlaps"] if row["pair"].startswith("own hash"))
    rows = (n["left"] + n["right"]) / 2 / KEEP_RATE
    both = rows * KEEP_RATE**2
    ends = (both - 4 * np.sqrt(both), both + 4 * np.sqrt(both))
    return [round(float(end / (2 * rows * KEEP_RATE - end)), 4) for end in ends]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else folder)
