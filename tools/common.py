"""Paths and small helpers that the build scripts share."""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
CLAIMS = BUILD / "claims"
FIGURES = BUILD / "figures"
STUDIES = BUILD / "studies"
TIMINGS = BUILD / "timings"
FAILED = BUILD / "failed"
STARTED = BUILD / "started"
STAGE = BUILD / "src"
HTML = BUILD / "html"

KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # Two notebooks run at a time: threads of one take from the other, and one thread for each
    # gives the same sums on every machine. Threads that wait must not spin.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def stop(message: str) -> NoReturn:
    """End the script with one line on stderr."""
    print(message, file=sys.stderr)
    raise SystemExit(1)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks of the book: the chapters in order, then the report on a log of one's own."""
    folder = root / "notebooks"
    return [*sorted(folder.glob("[0-9]*.ipynb")), *folder.glob("report.ipynb")]


def chapters() -> list[str]:
    """Names of the notebooks of the book, in order, without the suffix."""
    return [path.stem for path in notebooks()]


def read_json(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def data_cache() -> str:
    """Where the prepared tables are kept: in the build, unless the caller says otherwise."""
    return str(Path(os.environ.get("RECBAL_CACHE") or BUILD / "cache").resolve())


def notebook_environment(claims: Path, figures: Path) -> dict[str, str]:
    """The environment a notebook's kernel runs in."""
    return {
        **os.environ,
        **KERNEL_ENVIRONMENT,
        "RECBAL_CACHE": data_cache(),
        "RECBAL_STUDIES": str(STUDIES),
        "RECBAL_CLAIMS_DIR": str(claims),
        "RECBAL_FIGURES_DIR": str(figures),
    }
