"""Optional packages beside, not in, the environment of the book, and records of their tests."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from common import ROOT, stop, write_atomically


def install(target: Path, requirements: Path, test: str, name: str, size: str) -> None:
    """Install pins into a folder, without dependencies; once for each list of pins.

    A failure ends in one line. The stamp is written last, so that a half is never taken for whole.
    """
    stamp = target / ".installed"
    wanted = requirements.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"{test}: installing {name} into {target.name} ({size})", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--target", str(target), "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        stop(
            f"{test}: {name} could not be installed ({(errors or ['pip failed'])[0]}); "
            "check the network (or PIP_INDEX_URL) and run the command again"
        )
    stamp.write_text(wanted, encoding="utf-8")


def machine() -> str:
    """The kind of machine: no name, no path."""
    gigabytes = round(psutil.virtual_memory().total / 2**30)
    return f"{os.cpu_count()} cores, {gigabytes} GB, {platform.system()} {platform.machine()}"


def write_record(found: dict, test: str, fresh: Path, carried: Path | None = None) -> None:
    """Write what a test found; in place of the record that the project carries, too, if named."""
    text = json.dumps(found, indent=1) + "\n"
    for place in filter(None, (fresh, carried)):
        write_atomically(ROOT / place, text)
    print(f"{test}: wrote {fresh}")
