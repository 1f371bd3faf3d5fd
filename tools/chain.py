"""Run the chain of tools/book.mk: all pages, or one chapter; end with one line a failure."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import deps
from common import BUILD, FAILED, ROOT, STARTED, chapters, data_cache, stop, write_atomically


def target(wanted: str) -> str:
    """The Make target for 'html' or for a chapter named by the start of its name."""
    if wanted == "html":
        return wanted
    start = Path(wanted).name.removesuffix(".ipynb")
    matches = [name for name in chapters() if name.startswith(start)]
    if len(matches) != 1:
        known = ", ".join(matches or chapters()) or "none"
        stop(f"'{wanted}' names {len(matches)} notebooks, not one; choose from: {known}")
    return f"_build/executed/{matches[0]}.ipynb"


def make(goal: str, *options: str, **keywords) -> subprocess.CompletedProcess:
    """Call make on tools/book.mk, whatever make this script was started by."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment |= {"RECBAL_CACHE": data_cache(), **keywords.pop("env", {})}
    command = ["make", "--no-print-directory", "-f", "tools/book.mk", f"PY={sys.executable}"]
    return subprocess.run([*command, *options, goal], cwd=ROOT, env=environment, **keywords)


def due(goal: str) -> int:
    """How many notebooks and studies this run will execute."""
    plan = make(goal, "-n", capture_output=True, text=True)
    return plan.stdout.count("tools/execute.py") + plan.stdout.count("tools/study.py")


def failures() -> list[str]:
    """The one line that each failed notebook left."""
    return [path.read_text(encoding="utf-8").strip() for path in sorted(FAILED.glob("*.txt"))]


def main() -> None:
    """Scan imports, run make, list what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("wanted")
    arguments = parser.parse_args()

    goal = target(arguments.wanted)
    for folder in (FAILED, STARTED):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    write_atomically(BUILD / "deps.mk", deps.rules(ROOT))
    progress = {"RECBAL_DUE": str(due(goal)), "RECBAL_JOBS": str(arguments.jobs)}
    result = make(goal, f"-j{arguments.jobs}", "--keep-going", "--silent", env=progress)
    for line in failures():
        print(f"FAILED {line}", file=sys.stderr)
    raise SystemExit(1 if result.returncode else 0)


if __name__ == "__main__":
    main()
