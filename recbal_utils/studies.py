"""Experiments too long for a notebook: run once, kept beside the book, read by its chapters.

A study is a script `studies/<name>.py` with `run(seeds, checkpoint)`, which returns a frame. The
build runs it before the notebook that reads it; `read` runs it itself where its result is missing.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd

from recbal_utils._atomic import replacing
from recbal_utils._record import project_folder
from recbal_utils.errors import RecbalError


def read(name: str, *, recompute: bool = False) -> pd.DataFrame:
    """Return the result of a study; run the study first if there is none yet.

    Parameters
    ----------
    name : str
        The script's name in the folder `studies`, without its suffix.
    recompute : bool, default False
        Run the study even if its result is there. It prints its progress; after an interrupt it
        goes on where it stopped.

    Raises
    ------
    RecbalError
        If there is no such study, or it fails.
    """
    path = _script(name)
    result = _folder() / f"{name}.parquet"
    if recompute or not result.exists():
        _run(path, result)
    return pd.read_parquet(result)


def script(name: str) -> ModuleType:
    """Return a study's script as a module, so that a notebook can use the very same functions.

    Raises
    ------
    RecbalError
        If there is no such study.
    """
    spec = importlib.util.spec_from_file_location(f"study_{name}", _script(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(run: Callable[..., pd.DataFrame]) -> None:
    """Run a study from the command line: where to write, and which seeds.

    Results so far are kept beside the output until all are there; they are used again only by the
    same code and seeds.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    arguments = parser.parse_args()
    parts = arguments.output.with_name(f".{arguments.output.stem}.parts")
    checkpoint = parts / _code_digest()
    checkpoint.mkdir(parents=True, exist_ok=True)
    try:
        frame = run(seeds=arguments.seeds, checkpoint=checkpoint)
    except RecbalError as error:
        print(f"{arguments.output.stem}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(f"{arguments.output.stem}: stopped; run it again to go on.", file=sys.stderr)
        raise SystemExit(130) from None
    with replacing(arguments.output) as part:
        frame.to_parquet(part)
    shutil.rmtree(parts)


def kept(checkpoint: Path | None, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return what `make` returns, read back if an interrupted run has left it.

    Parameters
    ----------
    checkpoint : Path or None
        The folder that `run` of a study was given; None keeps nothing.
    name : str
        Of the step; no two steps of a study share one.
    make : callable
        Makes the step's frame.
    """
    if checkpoint is None:
        return make()
    path = Path(checkpoint) / f"{name.replace(' ', '-').replace(',', '')}.parquet"
    if not path.exists():
        frame = make()
        with replacing(path) as unfinished:
            frame.to_parquet(unfinished)
    return pd.read_parquet(path)


def _script(name: str) -> Path:
    path = project_folder() / "studies" / f"{name}.py"
    if not path.is_file():
        raise RecbalError(f"There is no study {name!r}: the project has no {path.name}.")
    return path


def _run(script: Path, result: Path) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-u", str(script), str(result)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
        errors = process.stderr.read().strip().splitlines()
    if process.returncode:
        reason = errors[-1] if errors else f"it ended with code {process.returncode}"
        raise RecbalError(f"The study {script.stem} failed: {reason}")


def _folder() -> Path:
    return Path(os.environ.get("RECBAL_STUDIES") or project_folder() / "_build" / "studies")


def _code_digest() -> str:
    """Of the script and the library's modules it loaded, so that other code's results stay out."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("recbal_utils")]
    sources = sorted(Path(m.__file__) for m in [sys.modules["__main__"], *loaded])
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources))
    return digest.hexdigest()[:16]
