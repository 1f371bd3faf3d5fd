"""Measure the bands of chapter 16. Run: .venv/bin/python tools/bands/16_search.py

Claims on untrained scores: bootstrap draws of queries. Claims on rankers: means over as many
seeds as the study has, from twenty seeds. Position bias: twenty click logs.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of

from recbal_utils import claims, clicks, studies

SEEDS = range(20)
STUDY_SEEDS, DRAWS = 5, 1000


def main():
    study = studies.script("16_search")
    lab = study.Lab()
    statistics = {**from_queries(lab), **from_rankers(study, lab)}
    logs = [lab.log("words", 30_000, study.RANDOM_SHARE, seed) for seed in SEEDS]
    bias = [clicks.measured_bias(log) for log in logs]
    statistics["random-pages-measure-position-bias"] = bias
    for id, values in statistics.items():
        try:
            print(f'"{id}": {list(claims.band(values, null=0))},', flush=True)
        except claims.RecbalError as error:
            print(f'"{id}": {error}', flush=True)


def from_queries(lab):
    """Bootstrap draws of the gain in NDCG@10 of meaning over words."""
    ndcg = {name: lab.judge(lab.scores[name]).ndcg.to_numpy() for name in ("words", "meaning")}
    gain = ndcg["meaning"] - ndcg["words"]
    chosen = lab.queries.kind.isin(["brand", "misspelling"]).to_numpy()
    rng = np.random.default_rng(0)

    def draws(values):
        n = len(values)
        return [values[rng.integers(n, size=n)].mean() for _ in range(DRAWS)]

    return {
        "meaning-beats-words": draws(gain),
        "words-miss-brands-and-misspellings": draws(gain[chosen]),
    }


def from_rankers(study, lab):
    """Means over the study's number of seeds of the differences that claims state."""
    jobs = {(part, name): train for part, name, train in study.settings()}
    clicked = [study.label("words", how, False, study.SESSIONS[1]) for how in (False, True)]
    pairs = {
        "mixed-beats-random-negatives": [("negatives", "random"), ("negatives", "mixed")],
        "equal-queries-beat-traffic": [("balance", "by traffic"), ("balance", "by query")],
        "corrected-clicks-beat-naive": [("clicks", name) for name in clicked],
        "unseen-negatives-cost": [
            ("unseen", "words, shown only"),
            ("unseen", "words, and unseen"),
        ],
    }
    found = {id: [] for id in pairs}
    for seed in SEEDS:
        for id, (without, with_) in pairs.items():
            ndcg = [lab.judge(jobs[job](lab, seed)[0]).ndcg.mean() for job in (without, with_)]
            found[id].append(ndcg[1] - ndcg[0])
        print(seed, {id: round(values[-1], 4) for id, values in found.items()}, flush=True)
    return {id: mean_of(values, STUDY_SEEDS) for id, values in found.items()}


if __name__ == "__main__":
    main()
