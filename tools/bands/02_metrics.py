"""Measure the bands of chapter 2: its claims over ten seeds, read from the notebook's own ledger.

Run `.venv/bin/python tools/bands/02_metrics.py` and paste what it prints into the cells of the
claims. The notebook runs as it stands, except that each claim is recorded without its band.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import ROOT, notebook_environment

from recbal_utils.claims import band

CHAPTER = "02_metrics"
SEEDS = range(10)
NO_EFFECT = {
    "silence-is-more-accurate": 0,
    "balanced-test-inflates-ap": 1,
    "uncorrected-entropy": 1,
    "truth-has-calibration-error": 0,
    "rows-are-too-narrow": 1,
    "keras-auc-gain-by-shift": 0,
}
RECORD_ONLY = """
_claim = Ledger.claim
Ledger.claim = lambda self, id, value, low, high, *rest, **named: _claim(
    self, id, value, value, value, *rest, **named
)
"""


def without_bands(folder: Path) -> Path:
    """Write a copy of the notebook in which every claim holds."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    notebook.cells.insert(code[0] + 1, nbformat.v4.new_code_cell(RECORD_ONLY))
    copy = folder / "source.ipynb"
    nbformat.write(notebook, copy)
    return copy


def measure(notebook: Path, folder: Path, seed: int) -> dict[str, float]:
    """Run the notebook with one seed and return its claims."""
    os.environ.update(notebook_environment(folder, folder))
    papermill.execute_notebook(
        str(notebook),
        str(folder / "executed.ipynb"),
        parameters={"SEED": seed},
        kernel_name="python3",
        cwd=str(ROOT / "notebooks"),
        progress_bar=False,
    )
    claims = json.loads((folder / f"{CHAPTER}.json").read_text(encoding="utf-8"))
    return {claim["id"]: claim["value"] for claim in claims}


def main() -> None:
    """Print a band for each claim."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook, runs = without_bands(folder), []
        for seed in SEEDS:
            runs.append(measure(notebook, folder, seed))
            print(seed, {id: round(value, 4) for id, value in runs[-1].items()}, flush=True)
    for id, null in NO_EFFECT.items():
        low, high = band([run[id] for run in runs], null=null)
        print(f"{id}: {low:g}, {high:g}")


if __name__ == "__main__":
    main()
