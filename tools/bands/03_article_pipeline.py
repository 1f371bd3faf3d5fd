"""Bands of chapter 3: run the notebook's own cells over ten seeds, and print what to paste.

Usage: .venv/bin/python tools/bands/03_article_pipeline.py
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from recbal_utils import claims

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "03_article_pipeline.ipynb"
SEEDS = range(10)
# What each claim would be with its effect taken away; 0.9 is what the network really scores.
NULLS = {
    "shape-fault-prints-half": 0.9,
    "forest-leak-alone": 0.0,
    "forest-synthetic-rows-alone": 0.0,
    "noise-leak-forest": 0.0,
    "article-network-ratio": 1.0,
    "fall-of-ap-by-prevalence": 0.0,
    "corrected-minus-article-auc": 0.0,
}


class Recorder:
    """Stands in for the ledger: keeps every value and checks none."""

    def __init__(self, chapter):
        self.values = {}

    def claim(self, id, value, low, high, source, statement=""):
        self.values[id] = float(value)
        return value


def cells() -> list[dict]:
    """Code cells up to the last claim, without those that only draw."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    found = [cell for cell in found if cell["cell_type"] == "code"]
    last = max(i for i, cell in enumerate(found) if "ledger.claim(" in "".join(cell["source"]))
    return [cell for cell in found[: last + 1] if "plt.show()" not in "".join(cell["source"])]


def run(seed: int) -> dict[str, float]:
    """Values of all claims for one seed."""
    names = {"__name__": "__main__", "display": lambda *_: None}
    for cell in cells():
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            source += f"\nSEED = {seed}"
        exec(compile(source, cell["id"], "exec"), names)
        names["Ledger"] = Recorder
    plt.close("all")
    return names["ledger"].values


def main() -> None:
    draws = []
    for seed in SEEDS:
        with contextlib.redirect_stdout(io.StringIO()):
            draws.append(run(seed))
        print(seed, json.dumps(draws[-1]), flush=True)
    for name in draws[0]:
        values = [draw[name] for draw in draws]
        try:
            print(name, *claims.band(values, null=NULLS[name]))
        except claims.RecbalError as error:
            print(name, error, file=sys.stderr)


if __name__ == "__main__":
    main()
