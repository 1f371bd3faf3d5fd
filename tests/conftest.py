"""What the tests of the built book share."""

import atexit
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

BUILD = ROOT / "_build"


def mute_native_stderr() -> None:
    """DuckDB lists "leaked" types when Python exits, which would hide pytest's last line."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


atexit.register(mute_native_stderr)  # registered early, so that it runs last
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
CHAPTERS = [path.stem for path in NOTEBOOKS]
REPORT = ROOT / "notebooks" / "report.ipynb"  # on a reader's own log: no chapter, yet a page


def must(condition, reason: str) -> None:
    """Skip with a reason where something is missing; under CI that is a failure."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def read_notebook(path: Path) -> dict:
    """A notebook as plain data, with each cell's source as one text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built pages."""
    must((BUILD / "html.stamp").exists(), "the book is not built; run 'make book' first")
    return BUILD / "html"


@pytest.fixture
def executed(chapter) -> dict:
    """The executed notebook of a chapter."""
    path = BUILD / "executed" / f"{chapter}.ipynb"
    must(path.exists(), f"{chapter} is not executed; run 'make book' first")
    return read_notebook(path)
