"""Bands of chapter 19: its study and its SMOTE rows, with ten other seeds.

Run: .venv/bin/python tools/bands/19_federated_private.py [folder to resume the study from]

A claim from the study is a mean over its three seeds, so its band is that of such a mean. The claim
on Flower needs no seeds: two sums of the same float32 numbers in another order.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import mean_of

from recbal_utils import claims, private, studies
from recbal_utils.compare import WHOLE

SEEDS = range(10, 20)
STUDY_SEEDS = 3


def main(checkpoint):
    """Print a band for each claim, to paste into its cell."""
    study = studies.script("19_federated_private")
    lab = study.Lab()
    found = study.models(SEEDS, checkpoint, lab).sort_index()
    statistics = {**from_study(found), "smote-gives-members-away": (lines(study, lab), 0.5)}
    for id, (values, null) in statistics.items():
        try:
            band = list(claims.band(values, null=null))
        except claims.RecbalError as error:
            band = str(error)
        print(f'"{id}": {band},  # {np.min(values):.4g} to {np.max(values):.4g}', flush=True)


def from_study(found):
    """Values and null of each claim that is a mean over the study's seeds."""

    def of(method, metric, segment="all"):
        rows = found.loc[(segment, method)].xs(WHOLE, level="replicate")
        return rows[metric].sort_index().to_numpy()

    auc = lambda method, segment="all": of(method, "roc_auc", segment)
    loss = lambda tier: auc("household: ε = ∞", tier) - auc("household: ε = 1", tier)
    entropy = lambda method: of(method, "normalised_entropy")
    bent = of("row: clipping at 1", "ratio") / of("row: no clipping", "ratio")
    smote = np.minimum(*(entropy(f"SMOTE at each store, {way}") for way in SHIFTS))
    values = {
        "federated-beats-alone": (auc("federated") - auc("alone"), 0),
        "pooled-beats-federated": (auc("pooled") - auc("federated"), 0),
        "smote-at-each-store-entropy": (smote - entropy("federated"), 0),
        "clipping-bends-probabilities": (bent, 1),
        "noise-costs-the-tail-more": (loss("tier: tail") - loss("tier: head"), 0),
    }
    return {id: (mean_of(x, STUDY_SEEDS), null) for id, (x, null) in values.items()}


SHIFTS = ("one shift", "own shifts")


def lines(study, lab):
    """Areas of the test of lines, for SMOTE rows of ten draws."""
    found = []
    for seed in SEEDS:
        inside, outside = map(lab.scaled, study.members(lab.train, seed))
        rows = study.smote_rows(lab, inside, seed)
        found.append(
            private.membership_auc(private.on_lines(inside, rows), private.on_lines(outside, rows))
        )
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
