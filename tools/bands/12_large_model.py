"""Bands of chapter 12: its study's trainings with ten other seeds, and its own cells.

Run: .venv/bin/python tools/bands/12_large_model.py [folder to resume from]

A claim from the study is a mean over three seeds, so its band is that of such a mean. Counting and
popularity are not random: their band is of bootstrap draws over households.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of, read_cells, run

from recbal_utils import claims, studies

SEEDS = range(10, 20)
STUDY_SEEDS, DRAWS = 3, 1000
SETUP = ("imports", "parameters", "ledger", "a-study", "a-shop", "n-stream")


def main(folder):
    matplotlib.use("Agg")
    study = studies.script("12_large_model")
    lab = study.Lab()
    trained = trainings(study, lab, Path(folder))
    fixed = {name: judged(study, lab, name) for name in ("counting", "popularity")}
    statistics = {**from_trainings(study, trained, fixed), **from_households(fixed)}
    statistics["stream-has-a-ceiling"] = (ceilings(), 1)
    for id, (values, null) in statistics.items():
        try:
            print(f'"{id}": {list(claims.band(values, null=null))},', flush=True)
        except claims.RecbalError as error:
            print(f'"{id}": {error}', flush=True)


def trainings(study, lab, folder):
    """Mean recall by model, seed and question, of the three trainings that claims rest on."""
    wanted = {
        "MiniLM": {"what": "MiniLM"},
        "ids": {"what": "ids"},
        study.IN_BATCH: {"what": "ids", "negatives": study.IN_BATCH},
    }
    parts = []
    for name, settings in wanted.items():
        for seed in SEEDS:
            kept = folder / f"{name}-{seed}.parquet"
            if not kept.exists():
                study.one_training(lab, "bands", name, seed, settings).to_parquet(kept)
            parts.append(pd.read_parquet(kept))
    found = pd.concat(parts)
    recall = f"recall_at_{study.LIST}"
    return found.groupby(["model", "question", "seed"])[recall].mean()


def judged(study, lab, name):
    """Recall of each household or product, by question."""
    scored = study.collect(lab, lambda asked: study.baseline_scores(lab, name, asked), "", name, 0)
    return scored.set_index(["question", "unit"])[f"recall_at_{study.LIST}"]


def from_trainings(study, trained, fixed):
    """Values and null of each claim that moves with the seed of training."""

    def of(model, question):
        return trained.loc[model, question].to_numpy()

    counted = fixed["counting"].groupby("question").mean()
    values = {
        "text-reaches-new-categories": of("MiniLM", "new category") - counted["new category"],
        "ids-for-known-products": of("ids", "new household") - of("MiniLM", "new household"),
        "logq-for-known-products": of("ids", "known household")
        - of(study.IN_BATCH, "known household"),
        "counting-finds-buyers": counted["who buys"] - of("MiniLM", "who buys"),
    }
    return {id: (mean_of(found, STUDY_SEEDS), 0) for id, found in values.items()}


def from_households(fixed):
    gain = (fixed["counting"] - fixed["popularity"]).loc["new product"].to_numpy()
    rng = np.random.default_rng(0)
    draws = [gain[rng.integers(len(gain), size=len(gain))].mean() for _ in range(DRAWS)]
    return {"counting-beats-popularity": (draws, 0)}


def ceilings():
    """What the chapter's cell finds for large batches, with ten orders of the stream."""
    cells, names, found = read_cells("12_large_model"), {}, []
    run(names, cells, SETUP[:-1])
    for seed in SEEDS:
        names["SEED"] = seed
        run(names, cells, SETUP[-1:])
        found.append(names["heads"][4096])
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else folder)
