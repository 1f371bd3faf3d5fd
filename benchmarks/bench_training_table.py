"""From the full promotion log to a training table: seconds and peak memory, from an empty cache.

Run: python benchmarks/bench_training_table.py [repeats]

Each repeat is a process of its own with an empty cache, so that it pays for everything: cleaning
the promotions, choosing rows from the training weeks, and computing their features. The time
includes the imports.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time


def measure() -> None:
    """Build the table in this process and print what it took."""
    started = time.perf_counter()
    from recbal_utils import datasets

    table = datasets.training_table()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gb = peak / (1e9 if sys.platform == "darwin" else 1e6)
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb, "rows": len(table)}))


def one_run() -> dict:
    """Measure in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "RECBAL_CACHE": cache}
        command = [sys.executable, __file__, "--measure"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(repeats: int) -> None:
    runs = [one_run() for _ in range(repeats)]
    for run in runs:
        print(f"{run['rows']:,} rows in {run['seconds']:.1f} s, peak {run['peak_gb']:.2f} GB")
    seconds = sorted(run["seconds"] for run in runs)
    print(f"median {seconds[len(runs) // 2]:.1f} s of {repeats} on {os.cpu_count()} cores")


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        measure()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
