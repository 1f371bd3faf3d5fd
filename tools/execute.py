"""Execute one chapter with papermill; keep its results only if every cell is good."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from common import (
    BUILD,
    CLAIMS,
    EXECUTED,
    FAILED,
    FIGURES,
    ROOT,
    notebook_environment,
    write_atomically,
)
from papermill.exceptions import PapermillExecutionError
from progress import Step

CELL_SECONDS = 600


class CellFailure(Exception):
    """A cell that did not do well, told in one line."""


def first_line(text: str, limit: int = 300) -> str:
    """The first line of an error message, cut where it would flood the screen."""
    line = (str(text).strip().splitlines() or [""])[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unfinished_cell(path: Path) -> str:
    """The cell that was running when the kernel stopped, as told by the saved notebook."""
    if not path.exists():
        return ""
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, start=1):
        if cell.metadata.get("papermill", {}).get("status") in ("running", "failed"):
            return f"cell {number}: "
    return ""


def refuse_stderr(notebook) -> None:
    """A warning is a fault of the chapter: it must not reach a reader."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise CellFailure(f"cell {number}: wrote to stderr: {first_line(output.text)}")


def without_records(notebook):
    """The notebook without paths and clock times, which differ on each machine."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


@contextlib.contextmanager
def native_stderr_to(path: Path):
    """Send what is written to file descriptor 2, also by child processes, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("wb") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def papered(source: Path, output: Path, **options) -> None:
    """Execute `source` with papermill in a fresh kernel, in its own folder; write to `output`."""
    papermill.execute_notebook(
        str(source),
        str(output),
        kernel_name="python3",
        language="python",
        cwd=str(source.parent),
        progress_bar=False,
        # What the kernel and C++ libraries write past Python is no result: TensorFlow
        # greets on every import. What Python writes to stderr still reaches the notebook.
        extra_arguments=[
            "--IPKernelApp.log_level=CRITICAL",
            "--IPKernelApp.capture_fd_output=False",
        ],
        **options,
    )


def run(source: Path, output: Path):
    """Execute `source` in a fresh kernel; return the notebook or raise `CellFailure`.

    The partly executed notebook stays at `output` when a cell fails.
    """
    try:
        papered(source, output, execution_timeout=CELL_SECONDS)
    except PapermillExecutionError as error:
        where = f"cell {error.cell_index + 1} [{error.exec_count}]"
        raise CellFailure(f"{where}: {error.ename}: {first_line(error.evalue)}") from None
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise CellFailure(unfinished_cell(output) + what) from None
    notebook = nbformat.read(output, as_version=4)
    refuse_stderr(notebook)
    return without_records(notebook)


def replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`."""
    shutil.rmtree(old, ignore_errors=True)
    if new.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, old)


def keep(chapter: str, notebook, work: Path, started: float) -> None:
    """Move the results of a good run into place, the notebook last."""
    claims = work / "claims" / f"{chapter}.json"
    if claims.exists():
        write_atomically(CLAIMS / claims.name, claims.read_text(encoding="utf-8"))
    replace_folder(work / "figures", FIGURES / chapter)
    executed = EXECUTED / f"{chapter}.ipynb"
    write_atomically(executed, nbformat.writes(notebook))
    # Make compares times: a source saved while its notebook ran must count as newer.
    os.utime(executed, (started, started))


def main(chapter: str) -> int:
    """Run a chapter of the book; 0 if it is good, else 1 and a line in `_build/failed`."""
    started = time.time()
    step = Step(chapter)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"run-{chapter}-", dir=BUILD) as folder, step:
        work = Path(folder).resolve()
        os.environ.update(notebook_environment(work / "claims", work / "figures"))
        os.environ["RECBAL_CHECKS"] = "strict"  # a solution must pass the check of its exercise
        output = work / f"{chapter}.ipynb"
        source = ROOT / "notebooks" / f"{chapter}.ipynb"
        try:
            with native_stderr_to(BUILD / "log" / f"{chapter}.txt"):
                notebook = run(source, output)
        except CellFailure as failure:
            if output.exists():
                FAILED.mkdir(exist_ok=True)
                shutil.copy(output, FAILED)
            step.failed(failure)
            return 1
        keep(chapter, notebook, work, started)
        step.done()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
