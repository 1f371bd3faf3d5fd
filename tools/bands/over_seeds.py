"""Bands of a chapter whose claims move with the seed: its notebook, run with ten of them.

The values are those of the notebook's own ledger, so a band cannot drift from its claim.
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

from recbal_utils.claims import RecbalError, band

SEEDS = range(10)
RECORD_ONLY = """
_claim = Ledger.claim
Ledger.claim = lambda self, id, value, low, high, *rest, **named: _claim(
    self, id, value, value, value, *rest, **named
)
"""


def without_bands(chapter: str, folder: Path) -> Path:
    """Write a copy of the notebook in which every claim holds."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    notebook.cells.insert(code[0] + 1, nbformat.v4.new_code_cell(RECORD_ONLY))
    copy = folder / "source.ipynb"
    nbformat.write(notebook, copy)
    return copy


def measure(chapter: str, notebook: Path, folder: Path, seed: int) -> dict[str, float]:
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
    claims = json.loads((folder / f"{chapter}.json").read_text(encoding="utf-8"))
    return {claim["id"]: claim["value"] for claim in claims}


def print_bands(chapter: str, no_effect: dict[str, float], seeds=SEEDS) -> None:
    """Run the chapter with every seed; print a band for each claim, to paste into its cell.

    Parameters
    ----------
    chapter : str
        Name of the notebook.
    no_effect : dict
        For each claim its value under no effect, which the band must exclude.
    """
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook = without_bands(chapter, folder)
        for seed in seeds:
            runs.append(measure(chapter, notebook, folder, seed))
            print(seed, {id: round(value, 4) for id, value in runs[-1].items()}, flush=True)
    for id, null in no_effect.items():
        try:
            print(f"{id}: {band([run[id] for run in runs], null=null)}")
        except RecbalError as error:
            print(f"{id}: {error}", file=sys.stderr)
