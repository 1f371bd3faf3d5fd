"""Run the notebook 'Your own log' on a file: one HTML report, or one line that says why not.

Called by `make report LOG=clicks.csv LABEL=clicked`; options come in by the environment.
"""

import logging
import math
import os
import re
import tempfile
from difflib import get_close_matches
from pathlib import Path

import nbformat
from common import BUILD, ROOT, stop
from execute import first_line, native_stderr_to, papered
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from progress import Watch

from recbal_utils._output import checked_output
from recbal_utils.errors import RecbalError

PREFIX = "RECBAL_REPORT_"
TEXTS = ("LOG", "LABEL", "POSITIVE", "TIME", "GROUP", "USER", "ITEM", "OUTPUT")
COSTS = ("COST_FP", "COST_FN")
COUNTS = {"MAX_ROWS": 100, "SEEDS": 1}  # and the least of each
KNOWN = (*TEXTS, *COSTS, *COUNTS)
OF_MAKE = ("PYTHON", "JOBS")
EXAMPLE = "make report LOG=clicks.csv LABEL=clicked TIME=day USER=user_id ITEM=item_id"
NO_MEMORY = "error: not enough memory; try MAX_ROWS=50000"


def given() -> dict:
    """The options of the command line, as the notebook's parameters."""
    options = {k.removeprefix(PREFIX): v for k, v in os.environ.items() if k.startswith(PREFIX)}
    options = {k: v for k, v in options.items() if v and k not in OF_MAKE}
    for name in set(options) - set(KNOWN):
        near = get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(KNOWN)}"
        raise RecbalError(f"make report has no option {name}: {hint}")
    for name in ("LOG", "LABEL"):
        if name not in options:
            raise RecbalError(f"make report needs {name}=, as in: {EXAMPLE}")
    if len(set(COSTS) & set(options)) == 1:
        raise RecbalError("Give both COST_FP= and COST_FN=, or neither.")
    return {name: value(name, text) for name, text in options.items()}


def value(name: str, text: str):
    """An option as the text or the number it must be."""
    if name in TEXTS:
        return text
    try:
        number = float(text) if name in COSTS else int(text)
    except ValueError:
        number = -1
    if not COUNTS.get(name, math.ulp(0)) <= number < math.inf:
        kind = f"whole number from {COUNTS[name]} on" if name in COUNTS else "positive, finite cost"
        raise RecbalError(f"{name}={text} is not a {kind}.")
    return number


def placed(options: dict) -> dict:
    """The same with paths as of the folder that make was called in; the output can be written."""
    caller = os.environ.get("RECBAL_CALLER") or os.getcwd()
    options["LOG"] = os.path.join(caller, options["LOG"])
    output = os.path.join(caller, options.get("OUTPUT", "report.html"))
    return options | {"OUTPUT": str(checked_output(output, options["LOG"]))}


def executed(options: dict):
    """The notebook, run on the log, with a word now and then."""
    watch = Watch("report")
    watch.start()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="recbal-") as folder,
            native_stderr_to(BUILD / "log" / "report.txt"),
        ):
            output = Path(folder) / "report.ipynb"
            papered(ROOT / "notebooks" / "report.ipynb", output, parameters=options)
            return nbformat.read(output, as_version=4)
    finally:
        watch.done.set()


def verdict(notebook) -> str:
    """What the last code cell printed."""
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    return "".join(output.get("text", "") for output in last.outputs).strip()


def of_cell(error: PapermillExecutionError) -> str:
    """One line on what went wrong in a cell."""
    if error.ename == "RecbalError":
        return f"error: {error.evalue}"
    if error.ename == "MemoryError":
        return NO_MEMORY
    return of_program(error.ename, error.evalue)


def of_program(kind: str, said) -> str:
    return f"fault: {kind}: {first_line(said)}; this is a fault of recbal_utils, not of the file"


def one_line(text: str) -> str:
    """Printable, and with options as they are called here: --max-rows is MAX_ROWS=."""
    for name in KNOWN:
        text = re.sub(rf"--{name.lower().replace('_', '-')}\b", f"{name}=", text)
    return "".join(c if c.isprintable() else "?" for c in text)


def main() -> None:
    """Check the options, run the notebook, say the verdict and where the report is."""
    logging.getLogger("asyncio").disabled = True  # it would tell of a kernel that was interrupted
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin
    try:
        options = placed(given())
        print(f"report: reading {one_line(Path(options['LOG']).name)}", flush=True)
        answer = verdict(executed(options))
    except KeyboardInterrupt:
        stop("interrupted: no report was written")
    except RecbalError as error:
        stop(one_line(f"error: {error}"))
    except PapermillExecutionError as error:
        stop(one_line(of_cell(error)))
    except DeadKernelError:
        stop(NO_MEMORY)
    except Exception as error:
        stop(one_line(of_program(type(error).__name__, error)))
    print(one_line(answer))
    print(f"report: {one_line(options['OUTPUT'])}")


if __name__ == "__main__":
    main()
