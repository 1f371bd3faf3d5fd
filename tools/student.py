"""Write the notebooks with an answer cell in the place of each exercise's solution."""

import ast
import json
import re
import sys
from hashlib import blake2s
from pathlib import Path

import nbformat
from common import write_atomically

BLOCK = re.compile(r"^(?P<fence>`{3,}|:{3,})\{solution\}.*?^(?P=fence)\s*?$", re.M | re.S)
START, END = "{solution-start}", "{solution-end}"
FENCE_START = re.compile(r"^(?:`{3,}|:{3,})\{solution-start\}", re.M)
LABEL = re.compile(r"\{solution-start\}\s+(\S+)")
AFTER_END = re.compile(r"^(?:`{3,}|:{3,})\{solution-end\}\s*^(?:`{3,}|:{3,})\s*$", re.M)
MADE = ".made.json"


def check_calls(code: str) -> list[ast.Call]:
    """The calls of `check` that stand as statements of their own."""
    found = [node.value for node in ast.parse(code).body if isinstance(node, ast.Expr)]
    return [
        call
        for call in found
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "check"
    ]


def emptied(call: ast.Call) -> str:
    """A call of `check` whose answers are still to be given."""
    for word in call.keywords:
        if word.arg != "within":
            word.value = ast.Constant(...)
    return ast.unparse(call).replace("'", '"')


def questions(code: str) -> list[str]:
    """The calls of `check` in a solution, emptied, with the comments right above them."""
    lines, found = code.split("\n"), []
    for call in check_calls(code):
        above = call.lineno - 1
        while above > 0 and lines[above - 1].startswith("#"):
            above -= 1
        found += [*lines[above : call.lineno - 1], emptied(call)]
    return found


def answer_cell(label: str, codes: list[str]):
    """The cell in which a learner answers an exercise."""
    calls = [line for code in codes for line in questions(code)]
    asked = "put your values in the place of the dots" if calls else "write it here"
    lines = [f"# Your answer to {label}: {asked}.", "", *calls]
    return nbformat.v4.new_code_cell("\n".join(lines).rstrip() + "\n", id=f"{label}-answer")


def text_cells(text: str, identifier: str) -> list:
    """A Markdown cell, or none if there is no text."""
    text = text.strip()
    return [nbformat.v4.new_markdown_cell(text, id=identifier)] if text else []


def without_blocks(cell) -> list:
    """The cell without solutions that begin and end within it; none if nothing is left."""
    if cell.cell_type != "markdown" or not cell.source.strip():
        return [cell]
    cell.source = BLOCK.sub("", cell.source).strip()
    return [cell] if cell.source else []


def without_solutions(notebook):
    """Drop solutions; where one had code, a cell for the learner's answer takes its place."""
    kept, inside, label, codes = [], False, "", []
    for cell in notebook.cells:
        starts, ends = START in cell.source, END in cell.source
        if starts:
            label, codes = LABEL.search(cell.source)[1], []
            kept += text_cells(FENCE_START.split(cell.source, maxsplit=1)[0], cell.id)
        if ends and (starts or inside):
            kept.append(answer_cell(label, codes))
            kept += text_cells(AFTER_END.split(cell.source, maxsplit=1)[1], f"{cell.id}-after")
        elif inside and cell.cell_type == "code":
            codes.append(cell.source)
        elif not (starts or inside):
            kept += without_blocks(cell)
        inside = (inside or starts) and not ends
    notebook.cells = kept
    return notebook


def edition(path: Path, depth: int = 1) -> str:
    """A student's copy of a notebook as text, for a folder `depth` deeper than its own."""
    notebook = without_solutions(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../book/", f"]({'../' * (depth + 1)}book/")
    return nbformat.writes(notebook) + "\n"


def digest(text: str) -> str:
    """A short name for a text, to see whether a learner has changed it."""
    return blake2s(text.encode(), digest_size=8).hexdigest()


def main(source: Path, target: Path) -> None:
    """Write a student's copy of every notebook in `source`, but never over a learner's work."""
    target.mkdir(parents=True, exist_ok=True)
    record = target / MADE
    made = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for path in sorted(source.glob("[0-9]*.ipynb")):
        copy, text = target / path.name, edition(path)
        if copy.exists() and digest(copy.read_text(encoding="utf-8")) != made.get(path.name):
            print(f"student: {copy} holds your work and is kept; delete it to start afresh")
            continue
        write_atomically(copy, text)
        made[path.name] = digest(text)
        print(f"student: {copy}")
    write_atomically(record, json.dumps(made, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
