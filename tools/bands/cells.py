"""What the scripts of this folder share: a chapter's cells, run again, and how means vary."""

import matplotlib.pyplot as plt
import nbformat
import numpy as np
from common import ROOT


def read_cells(chapter: str) -> dict[str, str]:
    """Source of each code cell of a notebook, by its id."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}


def run(names: dict, cells: dict[str, str], ids) -> None:
    """Run cells in the namespace `names`; figures are thrown away."""
    for id in ids:
        exec(compile(cells[id], id, "exec"), names)
        plt.close("all")


def mean_of(values, n: int) -> np.ndarray:
    """Values that vary as means of n such values do."""
    values = np.asarray(values)
    return values.mean() + (values - values.mean()) / np.sqrt(n)
