"""Build the pages; replace the last good book only by a book without a warning."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import BUILD, HTML, ROOT, STAGE, stop
from stage import stage

WORK = BUILD / "sphinx"
LOG = BUILD / "html.log"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def build() -> int:
    """Run jupyter-book with warnings as errors; its words go to the log."""
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(STAGE)]
    command += ["--path-output", str(WORK), "--config", str(ROOT / "_config.yml")]
    command += ["-W", "-n", "--keep-going"]
    with LOG.open("w", encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode


def complaints() -> list[str]:
    """The log's warnings and errors, with paths as in the repository."""
    lines = COLOURS.sub("", LOG.read_text(encoding="utf-8")).splitlines()
    wanted = [line for line in lines if re.search(r"\b(WARNING|ERROR|SEVERE|CRITICAL)\b", line)]
    return [line.replace(f"{STAGE}/", "") for line in wanted] or lines[-5:]


def publish() -> None:
    """Put the new pages in the place of the old ones."""
    fresh, old = BUILD / "html.new", BUILD / "html.old"
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WORK / "_build" / "html", fresh)
    if HTML.exists():
        os.replace(HTML, old)
    os.replace(fresh, HTML)
    shutil.rmtree(old, ignore_errors=True)


def main(stamp: Path) -> None:
    """Stage, build, publish, and note when this began."""
    started = time.time()
    print("book: building pages", flush=True)
    stage()
    if build() != 0:
        found = complaints()
        print("\n".join(found), file=sys.stderr)
        # Sphinx remembers pages it has read, and would be silent about them next time.
        shutil.rmtree(WORK, ignore_errors=True)
        stop(f"book: {len(found)} warnings or errors; the last good pages are kept ({LOG.name})")
    publish()
    stamp.touch()
    os.utime(stamp, (started, started))
    print(f"book: ready in {time.time() - started:.0f} s: _build/html/index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
