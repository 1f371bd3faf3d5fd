"""Measure the bands of chapter 4. Run: .venv/bin/python tools/bands/04_resampling.py

Claims on the simulator: the notebook's own cells, run with ten seeds. Claims on the log where
nothing is random: bootstrap draws over the test's households. The claim that is a mean over the
five seeds of the study: ten other seeds, their standard deviation divided by the root of five.
"""

import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import read_cells

from recbal_utils import _bootstrap, compare, studies
from recbal_utils.claims import band

SEEDS = range(10, 20)
DRAWS = 1000
STUDY_SEEDS = 5
FIRST_ON_THE_LOG = "log-data"


def simulator_cells() -> list:
    """Source of the notebook's code cells before the log, without figures."""
    code = read_cells("04_resampling")
    before = list(code)[: list(code).index(FIRST_ON_THE_LOG)]
    return [code[id] for id in before if id != "ledger" and not id.endswith("-figure")]


def simulated(seed: int) -> dict[str, float]:
    """The claims of the notebook's simulated part with this seed."""
    found = {}
    ledger = types.SimpleNamespace(claim=lambda id, value, *_, **__: found.update({id: value}))
    space = {"ledger": ledger, "display": lambda *_: None}
    for source in simulator_cells():
        exec(source, space)
        space["SEED"] = seed
    return found


def bootstrapped(study, train, test) -> dict[str, np.ndarray]:
    """Draws of the claims that rest on two fits of the natural sample."""
    chosen = {k: v for k, v in study.methods(train[1]).items() if not v.seeded}
    runs = compare.compare(chosen, train, test, n_replicates=DRAWS)
    runs = runs.drop(index=compare.WHOLE, level="replicate").droplevel("seed")
    natural, plain = runs.loc["natural"], runs.loc["class weights 1:1"]
    corrected = runs.loc["class weights 1:1, corrected"]
    return {
        "weights-auc-on-the-log": plain["roc_auc"] - natural["roc_auc"],
        "weights-ratio-uncorrected": plain["ratio"],
        "weights-ratio-corrected": corrected["ratio"],
        "shift-spread-on-the-log": spreads(study, train, test),
    }


def spreads(study, train, test) -> np.ndarray:
    """Standard deviation of the shift over the rows of drawn households."""
    weight = (train[1] == 0).sum() / train[1].sum()
    plain, balanced = (
        study.regression(class_weight={0: 1, 1: w}).fit(*train).decision_function(test.X)
        for w in (1, weight)
    )
    codes, homes = pd.factorize(test.groups)
    powers = np.ones_like(plain), balanced - plain, (balanced - plain) ** 2
    sums = np.stack([np.bincount(codes, power) for power in powers], axis=1)
    drawn = np.concatenate(list(_bootstrap.draw_weights(len(homes), DRAWS, 0, DRAWS))) @ sums
    return np.sqrt(drawn[:, 2] / drawn[:, 0] - (drawn[:, 1] / drawn[:, 0]) ** 2)


def weighting_minus_shifting(study, train, test) -> np.ndarray:
    """Difference in normalised entropy at 1:10, for each seed."""
    names = [f"down-sampled 1:{study.WEIGHTED}", f"down-sampled 1:{study.WEIGHTED}, weighted"]
    chosen = {name: study.methods(train[1])[name] for name in names}
    runs = compare.compare(chosen, train, test, seeds=SEEDS, n_replicates=0)
    entropy = runs["normalised_entropy"].droplevel("replicate")
    return (entropy[names[1]] - entropy[f"{names[0]}, corrected"]).to_numpy()


def show(id: str, values, null: float, sds: float = 4) -> None:
    low, high = band(values, null=null, sds=sds)
    print(f"{id}: {low}, {high} (mean {np.mean(values):.4g}, SD {np.std(values, ddof=1):.2g})")


if __name__ == "__main__":
    claims = pd.DataFrame([simulated(seed) for seed in SEEDS])
    no_effect = {"balanced-intercept": 0, "balanced-inflation": 1, "bent-truth-correction": 1}
    for id, null in no_effect.items():
        show(id, claims[id], null)
    study = studies.script("04_resampling")
    train, test = study.data()
    draws = bootstrapped(study, train, test)
    for id, null in zip(draws, (0, 1, 1, 0), strict=True):
        show(id, draws[id], null)
    differences = weighting_minus_shifting(study, train, test)
    show("weighting-beats-shifting", differences, 0, sds=4 / np.sqrt(STUDY_SEEDS))
