"""Write the notebooks without the solutions of their exercises."""

import re
import sys
from pathlib import Path

import nbformat

BLOCK = re.compile(r"^(?P<fence>`{3,}|:{3,})\{solution\}.*?^(?P=fence)\s*?$", re.M | re.S)
START, END = "{solution-start}", "{solution-end}"
FENCE_START = re.compile(r"^(?:`{3,}|:{3,})\{solution-start\}", re.M)
AFTER_END = re.compile(r"^(?:`{3,}|:{3,})\{solution-end\}\s*^(?:`{3,}|:{3,})\s*$", re.M)


def without_solutions(notebook):
    """Drop solution blocks, and all from a solution's start to its end."""
    kept, inside = [], False
    for cell in notebook.cells:
        starts, ends = START in cell.source, END in cell.source
        if starts or (inside and ends):
            before = "" if inside else FENCE_START.split(cell.source, maxsplit=1)[0]
            after = AFTER_END.split(cell.source, maxsplit=1)[1] if ends else ""
            cell.source = f"{before.strip()}\n\n{after.strip()}".strip()
            if cell.source:
                kept.append(cell)
        elif not inside:
            had_text = bool(cell.source.strip())
            if cell.cell_type == "markdown":
                cell.source = BLOCK.sub("", cell.source).strip()
            if cell.source or not had_text:
                kept.append(cell)
        inside = (inside or starts) and not ends
    notebook.cells = kept
    return notebook


def main(source: Path, target: Path) -> None:
    """Write a student's copy of every notebook in `source`."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("[0-9]*.ipynb")):
        notebook = without_solutions(nbformat.read(path, as_version=4))
        nbformat.write(notebook, target / path.name)
        print(f"student: {target / path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
