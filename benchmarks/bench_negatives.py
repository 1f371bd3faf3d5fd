"""From the full promotion log to a balanced sample: rows a second and peak memory.

Run: python benchmarks/bench_negatives.py [--memory-gb 6]

`NegativeDownsampler` reads the first weeks of the log, until they hold about 10, 50 and 100
million impressions, and then all 319 million. It keeps every positive and 1 % of the negatives
and writes them to a parquet file. imbalanced-learn's `RandomUnderSampler` gets, in memory, the
largest slice of whole weeks whose run is expected to fit in the memory given, with the columns
that tell rows apart and the label, and keeps as many rows. Each run is a process of its own; time
is without imports.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEEP_RATE = 0.01
SIZES = (10e6, 50e6, 100e6, 400e6)
BASE_BYTES, BYTES_A_ROW = 0.4e9, 100  # of RandomUnderSampler, measured on small slices


def impressions_by_week():
    """Impressions of the log in each week, without making them."""
    from recbal_utils import datasets

    shown = datasets.promotions().group_by("week", "store_id").agg(shown=lambda t: t.count())
    met = datasets.visits().inner_join(shown, ["week", "store_id"])
    return met.group_by("week").agg(rows=met.shown.sum()).order_by("week").execute()


def first_weeks(rows: float) -> list[int]:
    """The first weeks that together hold about this many impressions."""
    weekly = impressions_by_week()
    nearest = (weekly["rows"].cumsum() - rows).abs().argmin()
    return weekly["week"].iloc[: nearest + 1].tolist()


def downsample(rows: float) -> dict:
    """Lazy: hash-kept negatives, straight to a file."""
    from recbal_utils import datasets, sampling
    from recbal_utils.balance import NegativeDownsampler

    weeks = first_weeks(rows)
    started = time.perf_counter()
    visits = datasets.visits().filter(lambda t: t.week.isin(weeks))
    visits = sampling.hash_state(visits, datasets.VISIT_KEYS, 0, name="visit_state")
    log = datasets.impressions(visits)
    sampler = NegativeDownsampler(keep_rate=KEEP_RATE, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        kept = sampler.sample(log, datasets.LABEL, ["product_id"], start="visit_state")
        kept.to_parquet(path)
        seconds = time.perf_counter() - started
        n_kept = int(datasets.connect().read_parquet(path).count().execute())
    return {"rows": sum(sampler.counts_.values()), "kept": n_kept, "seconds": seconds}


def undersample(rows: float) -> dict:
    """In memory: imbalanced-learn on a frame of keys and label."""
    from imblearn.under_sampling import RandomUnderSampler

    from recbal_utils import datasets

    started = time.perf_counter()
    log = datasets.promotion_log(first_weeks(rows))
    frame = log.select(*datasets.IMPRESSION_KEYS, datasets.LABEL).to_pandas()
    y = frame.pop(datasets.LABEL)
    read = time.perf_counter() - started
    wanted = round(KEEP_RATE * int((y == 0).sum()))
    sampler = RandomUnderSampler(sampling_strategy={0: wanted}, random_state=0)
    kept, _ = sampler.fit_resample(frame, y)
    seconds = time.perf_counter() - started
    return {"rows": len(y), "kept": len(kept), "seconds": seconds, "reading": read}


def peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def in_own_process(how: str, rows: float) -> dict:
    command = [sys.executable, __file__, "--measure", how, "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{how} on {rows:,.0f} rows failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, run: dict) -> None:
    print(
        f"{name:<20} {run['rows']:>12,} rows -> {run['kept']:>9,} kept  {run['seconds']:6.1f} s  "
        f"{run['rows'] / run['seconds'] / 1e6:5.1f} million rows/s  peak {run['peak_gb']:.2f} GB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory-gb", type=float, default=6, help="for RandomUnderSampler")
    parser.add_argument("--measure", choices=["downsample", "undersample"])
    parser.add_argument("--rows", type=float)
    arguments = parser.parse_args()
    if arguments.measure:
        work = {"downsample": downsample, "undersample": undersample}[arguments.measure]
        print(json.dumps({**work(arguments.rows), "peak_gb": peak_gb()}))
        return
    print(f"{os.cpu_count()} cores; keep rate of negatives {KEEP_RATE:.0%}")
    for rows in SIZES:
        show("NegativeDownsampler", in_own_process("downsample", rows))
    slice_rows = (arguments.memory_gb * 1e9 - BASE_BYTES) / BYTES_A_ROW
    print(f"RandomUnderSampler on the whole weeks expected to fit in {arguments.memory_gb:g} GB:")
    show("RandomUnderSampler", in_own_process("undersample", slice_rows))


if __name__ == "__main__":
    main()
