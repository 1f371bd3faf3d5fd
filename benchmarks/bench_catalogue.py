"""Time full-catalogue recall@20 and NDCG@20, against ranx on the same scores.

Run: python benchmarks/bench_catalogue.py [--users 100000 --items 10000 --memory-gb 4]

Scores are products of factor matrices (32 factors, float32), made block by block. ranx is no
requirement of this project, and is compared where it can be imported. It takes each user's scores
as a dictionary, so the whole catalogue is compared on the first users, as many as are expected to
fit in the memory given; `catalogue.per_user` gets the same users and scores, the two in turn. In a
last run ranx gets the lists of `catalogue.top_k` alone, for all users. Each run is a process of its
own; time is without imports and without ranx's compilation.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from scipy.sparse import csr_array

from recbal_utils import catalogue

K = 20
FACTORS, N_RELEVANT = 32, 5
BASE_BYTES, BYTES_A_SCORE = 0.5e9, 160  # of ranx, measured on small slices
METRICS = [f"recall@{K}", f"ndcg@{K}"]
HOW_TO_ADD_RANX = (
    "ranx is not installed, so nothing is compared. To compare: python -m venv ranxenv && "
    "ranxenv/bin/pip install ranx==0.3.21 && PYTHONPATH=. ranxenv/bin/python "
    "benchmarks/bench_catalogue.py"
)


def make_shop(users, items, seed=0):
    """Factors of users and items, and relevant items that users lean towards."""
    rng = np.random.default_rng(seed)
    item = rng.normal(size=(items, FACTORS)).astype(np.float32)
    chosen = rng.integers(items, size=(users, N_RELEVANT))
    user = rng.normal(size=(users, FACTORS)).astype(np.float32)
    for column in chosen.T:
        user += np.float32(0.4) * item[column]
    data = np.ones(chosen.size, dtype=bool)
    starts = np.arange(0, chosen.size + 1, N_RELEVANT)
    return user, item, csr_array((data, chosen.ravel(), starts), shape=(users, items))


def whole_catalogue(user, item, relevant, n_threads):
    """Scores and metrics, block by block."""
    frame = catalogue.per_user(
        lambda start, stop: user[start:stop] @ item.T, relevant, k=K, n_threads=n_threads
    )
    return frame.iloc[:, :2].to_numpy(), 0.0


def ranx_whole_catalogue(user, item, relevant):
    """Every score of every user goes to ranx, which sorts them."""
    values = user @ item.T
    names = [str(number) for number in range(len(item))]
    run = {
        str(row): dict(zip(names, scores.tolist(), strict=True))
        for row, scores in enumerate(values)
    }
    return ranx_metrics(run, relevant)


def ranx_lists(user, item, relevant):
    """The lists of top_k, with their scores, go to ranx."""
    top = catalogue.top_k(lambda start, stop: user[start:stop] @ item.T, len(user), K)
    places = [float(K - place) for place in range(K)]
    run = {
        str(row): dict(zip(map(str, listed), places, strict=True))
        for row, listed in enumerate(top.tolist())
    }
    return ranx_metrics(run, relevant)


def ranx_metrics(run, relevant):
    """Return metrics by user, and the seconds of ranx.evaluate alone, its input being ready."""
    import ranx

    wanted = relevant.tolil().rows[: len(run)]
    qrels = {str(row): dict.fromkeys(map(str, items), 1) for row, items in enumerate(wanted)}
    run, qrels = ranx.Run.from_dict(run), ranx.Qrels.from_dict(qrels)
    started = time.perf_counter()
    each = ranx.evaluate(qrels, run, METRICS, return_mean=False)
    seconds = time.perf_counter() - started
    order = np.argsort([int(name) for name in run.get_query_ids()])
    return np.column_stack([each[metric] for metric in METRICS])[order], seconds


WORK = {
    "per_user": lambda *shop: whole_catalogue(*shop, None),
    "per_user, n_threads=1": lambda *shop: whole_catalogue(*shop, 1),
    "ranx": ranx_whole_catalogue,
    "top_k, then ranx": ranx_lists,
}


def peak_gb():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def measure(how, users, total, items):
    """Run one way on the first users, and print what it took and what it found."""
    user, item, relevant = make_shop(total, items)
    if "ranx" in how:
        WORK[how](user[:20], item, relevant[:20])  # compiles for names of this length
    user, relevant = user[:users], relevant[:users]
    before, started = peak_gb(), time.perf_counter()
    found, evaluating = WORK[how](user, item, relevant)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "seconds": seconds,
                "evaluating": evaluating,
                "before_gb": before,
                "peak_gb": peak_gb(),
                "means": found.mean(axis=0).tolist(),
                "sums": found.sum(axis=1).round(6).tolist() if users <= 20_000 else [],
            }
        )
    )


def in_own_process(how, users, arguments):
    command = [sys.executable, __file__, "--measure", how, "--slice", str(users)]
    command += ["--users", str(arguments.users), "--items", str(arguments.items)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{how} on {users:,} users failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(how, users, run):
    recall, ndcg = run["means"]
    part = f" ({run['evaluating']:.2f} s in ranx.evaluate)" if run["evaluating"] else ""
    print(
        f"{how:<22} {users:>9,} users {run['seconds']:8.2f} s   peak {run['peak_gb']:5.2f} GB, "
        f"{run['before_gb']:.2f} before   recall@{K} {recall:.6f}  ndcg@{K} {ndcg:.6f}{part}",
        flush=True,
    )


def compare(users, arguments):
    """per_user and ranx in turn on the same users."""
    for _ in range(arguments.repeats):
        runs = {how: in_own_process(how, users, arguments) for how in ("per_user", "ranx")}
        for how, run in runs.items():
            show(how, users, run)
        both = np.array([run["sums"] for run in runs.values()])
        times = runs["ranx"]["seconds"] / runs["per_user"]["seconds"]
        print(
            f"ranx took {times:,.0f} times as long; users on whom the two differ: "
            f"{(np.ptp(both, axis=0) > 1e-5).sum()}"
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--memory-gb", type=float, default=4, help="for ranx")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--measure", choices=WORK)
    parser.add_argument("--slice", type=int)
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.measure:
        return measure(arguments.measure, arguments.slice, arguments.users, arguments.items)
    print(f"{os.cpu_count()} cores; {arguments.users:,} users x {arguments.items:,} items")
    for how in ("per_user, n_threads=1", "per_user"):
        show(how, arguments.users, in_own_process(how, arguments.users, arguments))
    if not importlib.util.find_spec("ranx"):
        return print(HOW_TO_ADD_RANX)
    fitting = (arguments.memory_gb * 1e9 - BASE_BYTES) / (BYTES_A_SCORE * arguments.items)
    compare(min(int(fitting), arguments.users), arguments)
    how = "top_k, then ranx"
    show(how, arguments.users, in_own_process(how, arguments.users, arguments))


if __name__ == "__main__":
    main()
