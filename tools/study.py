"""Run one study of the book, and keep its result only if it ends well."""

import os
import subprocess
import sys

from common import BUILD, KERNEL_ENVIRONMENT, ROOT, STUDIES, data_cache
from progress import Step, say


def main(name: str) -> int:
    """Run `studies/<name>.py`; 0 if it is good, else 1 and a line in `_build/failed`."""
    result = STUDIES / f"{name}.parquet"
    log = BUILD / "log" / f"study-{name}.txt"
    for folder in (result.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **KERNEL_ENVIRONMENT, "RECBAL_CACHE": data_cache()}
    command = [sys.executable, "-u", str(ROOT / "studies" / f"{name}.py"), str(result)]
    with Step(f"study-{name}") as step, log.open("w", encoding="utf-8") as errors:
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            for line in process.stdout:
                say(f"      {name}: {line.rstrip()}")
        if process.returncode:
            lines = log.read_text(encoding="utf-8").strip().splitlines()
            step.failed(lines[-1] if lines else f"ended with code {process.returncode}")
            return 1
        step.done()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
