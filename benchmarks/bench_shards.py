"""Memory of reading a training sample: streamed from its shards, and loaded as a whole.

Run: .venv/bin/python benchmarks/bench_shards.py <folder of shards> [numbers of files ...]
Prints a JSON list with a row for each way and number of files, each read in its own process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pandas as pd

from recbal_utils import datasets, partitioned, shards
from recbal_utils.compare import _Price as Price

FILES = (2, 16)
BATCH = 4096


def streamed(folder: Path) -> int:
    """Read every batch once; returns the rows seen."""
    batches = shards.dataset(folder, datasets.FEATURES, datasets.LABEL, "weight", batch_size=BATCH)
    return sum(len(w) for _, _, w in batches)


def loaded(folder: Path) -> int:
    """Read all files into one table and one matrix, as a notebook would."""
    parts = [pd.read_parquet(path) for path in partitioned.files(folder)]
    table = pd.concat(parts, ignore_index=True)
    return len(datasets.matrix(table))


WAYS = {"streamed": streamed, "loaded": loaded}


def link(folder: Path, n: int, target: Path) -> Path:
    """Fill a folder with links to the first `n` files."""
    for path in partitioned.files(folder)[:n]:
        place = target / path.parent.name / path.name
        place.parent.mkdir(parents=True)
        place.symlink_to(path.resolve())
    return target


def measure(how: str, folder: Path, n: int) -> dict:
    """Rows, memory on top of what the process had, and processor time, after a first small read."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        WAYS[how](link(folder, 1, Path(one)))
        files, spent = link(folder, n, Path(many)), time.process_time()
        with Price() as price:
            rows = WAYS[how](files)
        seconds = time.process_time() - spent
    return {
        "how": how,
        "files": n,
        "rows": rows,
        "memory_mb": price.memory_mb,
        "core_seconds": seconds,
    }


def in_own_process(how: str, folder: Path, n: int) -> dict:
    """`measure`, in a process that has read nothing before."""
    command = [sys.executable, __file__, "--measure", how, str(folder), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{how}, {n} files: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every way and size."""
    if sys.argv[1] == "--measure":
        how, folder, n = sys.argv[2:]
        print(json.dumps(measure(how, Path(folder), int(n))))
        return
    sizes = [int(n) for n in sys.argv[2:]] or FILES
    found = [in_own_process(how, Path(sys.argv[1]), n) for how in WAYS for n in sizes]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
