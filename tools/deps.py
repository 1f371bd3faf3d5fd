"""Find what notebooks and studies stand on, and write that as Make rules.

That is the modules of recbal_utils they import, the studies that a notebook reads, and the
benchmarks that a study runs.
"""

import ast
import json
import re
from pathlib import Path

from common import BUILD, ROOT, notebooks, write_atomically

PACKAGE = "recbal_utils"
# `studies.read("NN_topic")`, or `read("NN_topic")` where only the function was imported.
READS = re.compile(r"""\bread\(\s*["'](\d\d_\w+)["']""")


def notebook_code(path: Path) -> str:
    """All code of a notebook as one text; lines of IPython's own are left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = []
    for cell in cells:
        if cell["cell_type"] == "code":
            lines += "".join(cell["source"]).split("\n")
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def imported_names(code: str, package: str) -> set[str]:
    """Dotted names that the code imports; relative ones are read as of `package`."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module or ""]))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def direct_modules(code: str, folder: Path) -> set[Path]:
    """Files of the package that the code imports itself."""
    names = {name for name in imported_names(code, PACKAGE) if name.split(".")[0] == PACKAGE}
    files = {folder / "__init__.py"} if names else set()
    for name in names:
        parts = name.split(".")[1:2]
        files |= {folder / f"{part}.py" for part in parts if (folder / f"{part}.py").is_file()}
    return files


def modules(code: str, folder: Path) -> set[Path]:
    """Files of the package that the code needs, also by way of other modules."""
    found: set[Path] = set()
    waiting = direct_modules(code, folder)
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= direct_modules(path.read_text(encoding="utf-8"), folder) - found
    return found


def studies_read(code: str) -> list[str]:
    """Targets of the studies whose results the code reads."""
    return [f"_build/studies/{name}.parquet" for name in sorted(set(READS.findall(code)))]


def answers_of(path: Path, folder: Path) -> set[Path]:
    """The file of right answers that the notebook's exercises are checked against."""
    answers = folder / "answers" / f"{path.stem[:2]}.json"
    return {answers} if answers.is_file() else set()


def benchmarks_run(code: str, root: Path) -> set[Path]:
    """Files of the folder `benchmarks` that the code names."""
    return {path for path in (root / "benchmarks").glob("*.py") if path.name in code}


def rules(root: Path) -> str:
    """The Make fragment: a line for each notebook and study, and the modules behind the data."""
    folder = root / PACKAGE

    def listed(files: set[Path]) -> str:
        return " ".join(sorted(str(path.relative_to(root)) for path in files))

    lines = []
    for path in notebooks(root):
        try:
            code = notebook_code(path)
            files = modules(code, folder) | answers_of(path, folder)
            needed = " ".join([listed(files), *studies_read(code)])
        except (SyntaxError, ValueError, KeyError):
            needed = listed(set(folder.glob("*.py")))  # running it will name the fault
        lines.append(f"_build/executed/{path.name}: {needed}")
    for path in sorted((root / "studies").glob("[0-9]*.py")):
        code = path.read_text(encoding="utf-8")
        needed = listed(modules(code, folder) | benchmarks_run(code, root))
        lines.append(f"_build/studies/{path.stem}.parquet: {needed}")
    data = folder / "datasets.py"
    found = modules(data.read_text(encoding="utf-8"), folder) | {data} if data.exists() else set()
    lines.append(f"DATA_MODULES := {listed(found)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_atomically(BUILD / "deps.mk", rules(ROOT))
