"""Make a folder from which a room without network installs and builds the book.

It holds the sources, every package as a wheel for this Python and platform, and what is prepared
already: the data cache, results of the studies, and the pages if they are built. `tools/setup.sh`
finds the folder `wheels` beside the sources and then asks no package index.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import BUILD, ROOT, data_cache, stop, write_atomically
from packaging.requirements import Requirement

KIT = BUILD / "offline-kit"
WHEELS = "wheels"
REQUIREMENTS = ("requirements.txt", "requirements-data.txt")
NOT_CARRIED = (".git", ".venv", "_build", WHEELS, "__pycache__", ".ipynb_checkpoints")
MADE = ("studies", "html", "slides")

READ_ME = """# The book without a network

For {python} on {platform}. Copy this folder to each machine and, inside it:

    make lab     # the notebooks; the first run makes .venv from the folder wheels
    make book    # run every notebook and build the pages

Nothing is downloaded. Read without installing anything: open `_build/html/index.html`, if the
folder `_build/html` is here. Not in the kit: Python itself with its venv module, make, Chromium
(only the browser tests use it) and Apache Spark (chapter 21 shows a recorded run).

The kit is for your own room: some packages carry data that may not be passed on
(`book/data.md` names the terms of each).
"""


def label() -> dict:
    """The Python and platform that the wheels are made for."""
    version = ".".join(map(str, sys.version_info[:2]))
    return {"python": version, "system": platform.system(), "machine": platform.machine()}


def sources(root: Path = ROOT) -> list[Path]:
    """Files of the project to carry: what git knows, or, without git, all but what is made."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and (root / ".git").exists():
        names = [Path(name) for name in listed.stdout.split("\0") if name]
    else:
        names = [path.relative_to(root) for path in root.rglob("*")]
    inside = [name for name in names if not set(name.parts) & set(NOT_CARRIED)]
    return sorted(name for name in inside if (root / name).is_file())


def copy(names, source: Path, target: Path) -> None:
    """Copy files, keeping their folders and times."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)


def pins_at(text: str, full_version: str) -> set[str]:
    """The pins of a requirements file that hold on a Python of this full version."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    pins = [Requirement(line) for line in lines if line]
    environment = {"python_full_version": full_version}
    kept = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    return {f"{pin.name}{pin.specifier}" for pin in kept}


def pins_of_other_patches(text: str) -> dict[str, list[str]]:
    """Pins that another patch release of this Python needs: the room's may be older or newer."""
    minor = label()["python"]
    here = pins_at(text, platform.python_version())
    ends = {version: pins_at(text, version) for version in (f"{minor}.0", f"{minor}.99")}
    return {version: sorted(pins - here) for version, pins in ends.items() if pins - here}


def pip(*arguments: str) -> None:
    """Run pip; a failure ends in one line."""
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--progress-bar", "off"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        stop(
            f"offline-kit: a wheel could not be made ({(errors or ['pip failed'])[0]}); "
            "check the network (or PIP_INDEX_URL) and run the command again"
        )


def make_wheels(target: Path) -> None:
    """Fetch every pinned package, and build those that come as sources only."""
    for requirements in REQUIREMENTS:
        print(f"offline-kit: wheels of {requirements}", flush=True)
        pip("wheel", "--wheel-dir", str(target), "-r", requirements)
        text = (ROOT / requirements).read_text(encoding="utf-8")
        for version, pins in pins_of_other_patches(text).items():
            only = ["--only-binary", ":all:", "--python-version", version]
            pip("download", "--dest", str(target), *only, *pins)
    write_atomically(target / "made-for.json", json.dumps(label()))


def prepare_data(cache: Path) -> None:
    """Make the tables that all chapters share, where they are not there yet."""
    command = [sys.executable, "-m", "recbal_utils.datasets"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "RECBAL_CACHE": str(cache)}, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def sealed(cache: Path) -> list[Path]:
    """Tables of the cache that are whole, each with its seal."""
    seals = [path for path in sorted(cache.glob("*.json")) if path.with_suffix(".parquet").exists()]
    return [Path(path.with_suffix(end).name) for path in seals for end in (".json", ".parquet")]


def gigabytes(folder: Path) -> float:
    """Size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def build(kit: Path) -> None:
    """Fill a new folder with everything."""
    cache = Path(data_cache())
    copy(sources(), ROOT, kit)
    make_wheels(kit / WHEELS)
    prepare_data(cache)
    copy(sealed(cache), cache, kit / "_build" / "cache")
    for name in MADE:
        if (BUILD / name).is_dir():
            shutil.copytree(BUILD / name, kit / "_build" / name)
    made_for = label()
    where = f"{made_for['system']} {made_for['machine']}"
    text = READ_ME.format(python=f"Python {made_for['python']}", platform=where)
    write_atomically(kit / "OFFLINE.md", text)


def main() -> None:
    """Build the kit beside the old one, then put it in its place."""
    started = time.monotonic()
    part = KIT.with_name(f".{KIT.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        build(part)
        shutil.rmtree(KIT, ignore_errors=True)
        os.replace(part, KIT)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    minutes = (time.monotonic() - started) / 60
    print(f"offline-kit: {KIT.relative_to(ROOT)}, {gigabytes(KIT):.1f} GB in {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
